//! An HTTP gateway for what has no socket, such as browsers, Workers and curl: records and Fetch responses out of a
//! cluster, through the cache, read only. `docs/gateway.md` describes the API.
//!
//! HTTP/1.1 and HTTP/2 share a port, with TLS or without. An address that is not the machine's own is listened on only with a
//! bearer token, with certificates of clients, or where the settings say that everybody may read.
//!
//! ```no_run
//! use kachet::cache::Cache;
//! use kachet::gateway::{Gateway, GatewaySettings};
//! use kachet::transport::{TcpSettings, TcpTransport};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = GatewaySettings::new("127.0.0.1:8080".parse()?, vec!["broker:9092".parse()?]);
//! let cache = Cache::builder(TcpTransport::new(TcpSettings::default())).size_limit_bytes(1 << 30).build();
//! let gateway = Gateway::start(settings, cache).await?;
//! println!("http://{}/v1/topics", gateway.address());
//! tokio::time::sleep(std::time::Duration::from_hours(1)).await;
//! gateway.stop().await;
//! # Ok(())
//! # }
//! ```

mod accept;
mod access;
mod activity;
mod cors;
mod fetch;
mod figures;
mod leaders;
mod limits;
mod listener;
mod listing;
mod parameters;
mod problem;
mod record;
mod router;
mod slices;
mod topics;

use core::time::Duration;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use kachet_core::storage::Storage;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

pub use self::access::{BearerTokens, BearerTokensError};
pub use self::cors::{CorsOrigins, CorsOriginsError};
use self::figures::Figures;
pub use self::figures::GatewayMonitor;
use self::leaders::Leaders;
pub use self::limits::GatewayLimits;
use self::topics::Listing;
use crate::cache::Cache;
use crate::client::{Client, ClientError, ClientSettings, Isolation};
use crate::transport::{BrokerAddress, TlsListenerSettings, Transport};

/// How a gateway behaves.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Where it listens; port 0 is whichever is free.
    pub listen: SocketAddr,
    /// Brokers to begin with.
    pub bootstrap: Vec<BrokerAddress>,
    /// Has clients speak TLS, HTTP/2 by ALPN. Where it demands a certificate of them, whoever has one may read.
    pub tls: Option<TlsListenerSettings>,
    /// One of these has to come with each request; without them everybody may read.
    pub bearer_tokens: Option<BearerTokens>,
    /// Lets everybody read who reaches the address, where that is not a loopback one and there are no tokens; and any name
    /// be used for this host.
    pub allows_anonymous: bool,
    /// The web pages that may read in browsers; none by default.
    pub cors_origins: CorsOrigins,
    /// For how long leaders that move and brokers that restart are waited for.
    pub retry_timeout: Duration,
    /// Bounds.
    pub limits: GatewayLimits,
}

impl GatewaySettings {
    /// The defaults.
    pub fn new(listen: SocketAddr, bootstrap: Vec<BrokerAddress>) -> Self {
        Self {
            listen,
            bootstrap,
            tls: None,
            bearer_tokens: None,
            allows_anonymous: false,
            cors_origins: CorsOrigins::default(),
            retry_timeout: ClientSettings::default().retry_timeout,
            limits: GatewayLimits::default(),
        }
    }

    /// Whether something has to be known or owned to read here, so that other caches must not hand it on.
    fn knows_its_clients(&self) -> bool {
        let demands_certificate = self
            .tls
            .as_ref()
            .is_some_and(TlsListenerSettings::demands_certificate);
        self.bearer_tokens.is_some() || demands_certificate
    }
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// Others than this machine could read without a token.
    #[error(
        "{address} can be reached from other machines, and neither a bearer token nor a certificate is asked for: set one, or say \
         that everybody may read"
    )]
    Anonymous {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// No broker was given to begin with.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// What all requests share.
struct Shared<T, S: Storage> {
    settings: GatewaySettings,
    cache: Cache<T, S>,
    uncommitted: Client<Cache<T, S>>,
    committed: Client<Cache<T, S>>,
    /// Requests that may be answered at a time.
    places: Arc<Semaphore>,
    leaders: Leaders,
    listing: Listing,
    figures: Figures,
    stop: watch::Receiver<bool>,
}

impl<T: Transport, S: Storage + 'static> Shared<T, S> {
    fn client(&self, isolation: Isolation) -> &Client<Cache<T, S>> {
        match isolation {
            Isolation::ReadUncommitted => &self.uncommitted,
            Isolation::ReadCommitted => &self.committed,
        }
    }
}

/// A running gateway. Dropping it ends it; [`Self::stop`] does so in order.
pub struct Gateway<T: Transport, S: Storage + 'static> {
    shared: Arc<Shared<T, S>>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    listener: JoinHandle<()>,
}

impl<T: Transport, S: Storage + 'static> Gateway<T, S> {
    /// Starts to listen. Asks no broker yet. Runs on the tokio runtime of the caller.
    pub async fn start(settings: GatewaySettings, cache: Cache<T, S>) -> Result<Self, GatewayError> {
        let address = settings.listen;
        let is_open = !settings.knows_its_clients() && !settings.allows_anonymous;
        if is_open && !address.ip().is_loopback() {
            return Err(GatewayError::Anonymous { address });
        }
        let client = |isolation| {
            let client = ClientSettings {
                isolation,
                retry_timeout: settings.retry_timeout,
                decompressed_limit_bytes: settings.limits.decompressed_batch_bytes,
                ..ClientSettings::default()
            };
            Client::new(cache.clone(), settings.bootstrap.clone(), client)
        };
        let (uncommitted, committed) = (
            client(Isolation::ReadUncommitted)?,
            client(Isolation::ReadCommitted)?,
        );
        let failed = |source| GatewayError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (stop, stopped) = watch::channel(false);
        let places = settings.limits.concurrent_requests.min(Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            uncommitted,
            committed,
            places: Arc::new(Semaphore::new(places)),
            leaders: Leaders::new(settings.bootstrap.clone()),
            listing: Listing::default(),
            figures: Figures::default(),
            stop: stopped,
            settings,
            cache,
        });
        let listener = tokio::spawn(listener::accept(Arc::clone(&shared), listener));
        Ok(Self {
            shared,
            address,
            stop,
            listener,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it reads through.
    pub fn cache(&self) -> &Cache<T, S> {
        &self.shared.cache
    }

    /// For figures and questions after its health.
    pub fn monitor(&self) -> GatewayMonitor<T, S> {
        GatewayMonitor::new(&self.shared)
    }

    /// Accepts nobody any more, lets what is under way be answered as long as [`GatewayLimits::shutdown_grace`], and ends.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Err(error) = (&mut self.listener).await {
            tracing::debug!(%error, "the gateway's task did not end by itself");
        }
    }
}

impl<T: Transport, S: Storage + 'static> Drop for Gateway<T, S> {
    fn drop(&mut self) {
        // It owns the tasks of all connections, which end with it.
        self.listener.abort();
    }
}
