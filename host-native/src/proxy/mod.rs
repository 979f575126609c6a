//! A proxy between Kafka's clients and a cluster: what clients fetch comes through the cache, everything else passes
//! through as it is. Clients need no change but the address that they begin with.
//!
//! There is a listener that leads to any broker, on the port that is asked for, and one for each broker, on that port
//! plus 1 plus its node id. In every response that tells of brokers their addresses are replaced by the proxy's (H17);
//! node ids stay. A connection of a client has a connection of its own to its broker, on which everything but Fetch goes
//! back and forth in order and untouched: logins (SASL), transactions, groups, administration.
//!
//! ```no_run
//! use kachet::cache::Cache;
//! use kachet::proxy::{Proxy, ProxySettings};
//! use kachet::transport::{TcpSettings, TcpTransport};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = ProxySettings::new("0.0.0.0:19092".parse()?, vec!["broker:9092".parse()?]);
//! let cache = Cache::builder(TcpTransport::new(TcpSettings::default())).size_limit_bytes(1 << 30).build();
//! let proxy = Proxy::start(settings, cache).await?;
//! println!("clients begin at {}", proxy.address());
//! tokio::time::sleep(std::time::Duration::from_hours(1)).await;
//! proxy.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Who may read what is cached (H19)
//!
//! Where neither clients nor the proxy log in, every client is the same to the cluster, and gets hits at once. Where a
//! client logs in, or the proxy itself does, a connection gets hits of a topic only for
//! [`ProxySettings::authorization_ttl`] after a broker has answered a fetch of that topic on this very connection; the
//! first fetch, and one in each such time, goes there. What the broker denies is denied. Where the proxy shows
//! a certificate of its own to brokers, they see all clients as it, and who may connect to it may read what it may.

mod admin;
mod answers;
mod apis;
mod brokers;
mod conversation;
mod fetch;
mod fetch_session;
mod figures;
mod limits;
mod listener;
mod offline;
mod request;
mod requests;
mod rewrite;
mod splice;
mod trust;
mod wire;

use core::time::Duration;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

pub use self::admin::{Admin, Watched};
pub use self::brokers::BrokersError;
use self::brokers::{Brokers, Home, Opened, listen};
use self::figures::Figures;
pub use self::figures::Monitor;
use self::limits::Ends;
pub use self::limits::Limits;
#[cfg(feature = "gateway")]
pub(crate) use self::{
    fetch::encoded as encoded_fetch,
    fetch_session::FetchSessions,
    request::{Head, split_fetch},
};
use crate::cluster::describe;
use crate::transport::{BrokerAddress, TcpSettings, TlsListenerSettings, Transport, TransportError};

/// How a proxy behaves.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// Where clients begin. With port 0 every port is whichever is free, which is for tests.
    pub listen: SocketAddr,
    /// The host that clients are told, a name or an address; without it the address at which each has reached the proxy.
    pub advertise: Option<String>,
    /// Brokers to begin with.
    pub bootstrap: Vec<BrokerAddress>,
    /// The node id whose broker is on the port after that of [`Self::listen`]; 0 by default.
    pub lowest_node_id: i32,
    /// How clients' own connections to brokers are opened. Nobody logs in on them but clients; the login in it is the
    /// cache's, and says that there are several principals.
    pub tcp: TcpSettings,
    /// Has clients speak TLS, and show a certificate if the settings say so; in plaintext without it.
    pub tls: Option<TlsListenerSettings>,
    /// For how long a connection gets hits of a topic after a broker has let it read there; ten seconds by default.
    pub authorization_ttl: Duration,
    /// Gives hits to everybody, whatever the cluster would say. For clusters whose clients all may read the same.
    pub trusts_clients: bool,
    /// Bounds.
    pub limits: Limits,
}

impl ProxySettings {
    /// The defaults.
    pub fn new(listen: SocketAddr, bootstrap: Vec<BrokerAddress>) -> Self {
        Self {
            listen,
            advertise: None,
            bootstrap,
            lowest_node_id: 0,
            tcp: TcpSettings::default(),
            tls: None,
            authorization_ttl: Duration::from_secs(10),
            trusts_clients: false,
            limits: Limits::default(),
        }
    }
}

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The port for clients cannot be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where it was to be.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// A broker has no port here.
    #[error(transparent)]
    Brokers(#[from] BrokersError),
    /// The cluster does not say which brokers it has.
    #[error(transparent)]
    Cluster(#[from] TransportError),
    /// No broker was given to begin with.
    #[error("no broker to begin with")]
    NoBootstrap,
}

/// What all connections share.
struct Shared<T> {
    settings: ProxySettings,
    brokers: Brokers,
    cache: T,
    connections: Arc<Semaphore>,
    /// KiB of requests, of answers that come in and of answers that go out. Three, because one may wait for the other.
    requests_room: Arc<Semaphore>,
    answers_room: Arc<Semaphore>,
    sending_room: Arc<Semaphore>,
    /// Partitions in fetch sessions.
    sessions_room: Arc<Semaphore>,
    ends: Ends,
    figures: Figures,
    /// The last `ApiVersions` responses by version, without correlation ids.
    versions: Mutex<BTreeMap<i16, Bytes>>,
    stop: watch::Receiver<bool>,
}

impl<T> Shared<T> {
    /// Waits for the end of the proxy.
    async fn stopped(&self) {
        let mut stop = self.stop.clone();
        // Fails where the proxy has been dropped.
        let _dropped = stop.wait_for(|stops| *stops).await.is_err();
    }

    fn connections(&self) -> usize {
        let limit = self.settings.limits.connections.min(Semaphore::MAX_PERMITS);
        limit.saturating_sub(self.connections.available_permits())
    }

    /// Takes in a response to `ApiVersions` as clients are given it.
    fn learn_versions(&self, version: i16, response: &Bytes) {
        // Errors are not worth keeping; versions are few.
        if response.get(4..6) == Some(&[0, 0]) {
            lock(&self.versions).insert(
                version,
                Bytes::copy_from_slice(response.get(4..).unwrap_or_default()),
            );
        }
    }

    fn known_versions(&self, version: i16) -> Option<Bytes> {
        lock(&self.versions).get(&version).cloned()
    }
}

/// A running proxy. Dropping it ends it; [`Self::stop`] does so in order.
pub struct Proxy<T> {
    shared: Arc<Shared<T>>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    listeners: JoinHandle<()>,
}

impl<T: Transport> Proxy<T> {
    /// Starts to listen, for all brokers that the cluster tells of, too. Runs on the tokio runtime of the caller.
    pub async fn start(settings: ProxySettings, cache: T) -> Result<Self, ProxyError> {
        let failed = |source| ProxyError::Listen {
            address: settings.listen,
            source,
        };
        let listener = listen(settings.listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (brokers, openings) = Brokers::new(
            address,
            settings.listen,
            settings.lowest_node_id,
            settings.bootstrap.clone(),
        );
        brokers.learn(&settings.bootstrap, &cache).await?;
        brokers.open(Opened {
            home: Home::Any,
            listener,
        });
        let (stop, stopped) = watch::channel(false);
        let limits = settings.limits;
        let room = || {
            Arc::new(Semaphore::new(
                (limits.third_bytes()).div_ceil(1024).min(Semaphore::MAX_PERMITS),
            ))
        };
        let shared = Arc::new(Shared {
            brokers,
            cache,
            connections: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            requests_room: room(),
            answers_room: room(),
            sending_room: room(),
            sessions_room: Arc::new(Semaphore::new(
                limits.session_partitions.min(Semaphore::MAX_PERMITS),
            )),
            ends: Ends::default(),
            figures: Figures::default(),
            versions: Mutex::default(),
            stop: stopped,
            settings,
        });
        let listeners = tokio::spawn(listener::accept_on_all(Arc::clone(&shared), openings));
        Ok(Self {
            shared,
            address,
            stop,
            listeners,
        })
    }

    /// Where clients begin.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The ports of the brokers that have shown so far, by node id.
    pub fn ports(&self) -> BTreeMap<i32, u16> {
        self.shared.brokers.ports()
    }

    /// How many connections of clients there are.
    pub fn connections(&self) -> usize {
        let limit = self
            .shared
            .settings
            .limits
            .connections
            .min(Semaphore::MAX_PERMITS);
        limit.saturating_sub(self.shared.connections.available_permits())
    }

    /// How many connections ended other than by their clients, by the reason.
    pub fn ends(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.shared.ends.counts()
    }

    /// What answers the fetches.
    pub fn cache(&self) -> &T {
        &self.shared.cache
    }

    /// Accepts nobody any more, lets what is under way be answered as long as [`Limits::shutdown_grace`], and ends.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Err(error) = (&mut self.listeners).await {
            tracing::debug!(%error, "the proxy's task did not end by itself");
        }
    }
}

impl<T> Drop for Proxy<T> {
    fn drop(&mut self) {
        // It owns the tasks of all connections, which end with it.
        self.listeners.abort();
    }
}

impl Brokers {
    /// Asks the cluster which brokers there are, and opens a port for each.
    async fn learn<T: Transport>(&self, bootstrap: &[BrokerAddress], cache: &T) -> Result<(), ProxyError> {
        let mut failure = ProxyError::NoBootstrap;
        for broker in bootstrap {
            match describe(cache, broker, &[]).await {
                Ok(topology) => {
                    for (node_id, upstream) in topology.brokers {
                        self.port_of(node_id, upstream)?;
                    }
                    return Ok(());
                }
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

// Nothing panics while it holds one of these locks; if something did, what they guard would still be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
