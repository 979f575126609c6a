//! `kachet proxy`: the cache between any Kafka clients and a cluster.

mod arguments;
mod check;
mod probe;
mod supervisor;

use core::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;

use kachet::cache::Cache;
use kachet::core::storage::Storage;
use kachet::proxy::{Admin, Proxy, ProxyError, ProxySettings};
use kachet::transport::TcpTransport;
use tracing::{info, warn};

pub(crate) use self::arguments::{ProxyArguments, resolve};
use super::failure::Failure;
use super::security::reload_certificates;
use super::signals::{Signals, Wanted};

/// Why the proxy did not start, or did not end well.
#[derive(Debug)]
pub(crate) enum ServeFailure {
    /// `--listen` cannot be used.
    Listen {
        given: String,
        origin: String,
        reason: String,
    },
    /// `--admin` cannot be listened on.
    Admin {
        address: SocketAddr,
        origin: String,
        error: io::Error,
    },
    /// A proxy that runs elsewhere is not ready, or not there.
    NotReady { address: SocketAddr, reason: String },
    /// The library's.
    Proxy(ProxyError),
}

impl ServeFailure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Listen { .. } => 2,
            Self::Proxy(ProxyError::Cluster(_)) => 4,
            _ => 1,
        }
    }
}

impl fmt::Display for ServeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen {
                given,
                origin,
                reason,
            } => write!(f, "cannot listen at {given} ({origin}): {reason}"),
            Self::Admin {
                address,
                origin,
                error,
            } => write!(
                f,
                "cannot listen at {address} for those who watch ({origin}): {error}"
            ),
            Self::NotReady { address, reason } => {
                write!(f, "the proxy watched at {address} is not ready: {reason}")
            }
            Self::Proxy(error) => error.fmt(f),
        }
    }
}

pub(crate) async fn run(arguments: ProxyArguments) -> Result<(), Failure> {
    if arguments.probe {
        return probe::probe(arguments.admin).await;
    }
    let settings = arguments.settings()?;
    arguments.storage.check(arguments.size_limit)?;
    if arguments.check {
        return check::print(&arguments, &settings);
    }
    // Before anything listens, so that none is missed.
    let signals = Signals::listen()?;
    let cache = Cache::builder(TcpTransport::new(settings.tcp.clone()))
        .size_limit_bytes(arguments.size_limit.as_u64())
        .max_staleness(arguments.max_staleness)
        .compacted_max_staleness(arguments.compacted_max_staleness)
        .rack(arguments.rack.as_deref().unwrap_or_default());
    let admin = arguments
        .admin
        .map(|address| (address, arguments.origins.of("admin")));
    match arguments.storage.mount.clone() {
        Some(folder) => {
            let restored = arguments.storage.restore(folder, cache, arguments.size_limit);
            serve(settings, restored.await?, admin, signals).await
        }
        None => serve(settings, cache.build(), admin, signals).await,
    }
}

async fn serve<S: Storage + 'static>(
    settings: ProxySettings,
    cache: Cache<TcpTransport, S>,
    admin: Option<(SocketAddr, String)>,
    mut signals: Signals,
) -> Result<(), Failure> {
    let tls = settings.tls.clone();
    let started = Proxy::start(settings, cache.clone()).await;
    let proxy = started.map_err(|error| Failure::Serve(ServeFailure::Proxy(error)))?;
    let _admin = match admin {
        Some((address, origin)) => Some(watch(&proxy, address, origin).await.map_err(Failure::Serve)?),
        None => None,
    };
    announce(&proxy);
    supervisor::ready();
    while let Wanted::Reload = signals.next().await {
        match tls.clone() {
            Some(tls) => reload_certificates(tls).await,
            None => info!("there are no certificates to be read anew: clients do not speak TLS"),
        }
    }
    supervisor::stopping();
    info!("ending");
    proxy.stop().await;
    let left_bytes = cache.write_out().await;
    if left_bytes > 0 {
        warn!(left_bytes, "not all of the cache could be written out");
    }
    Ok(())
}

async fn watch<S: Storage + 'static>(
    proxy: &Proxy<Cache<TcpTransport, S>>,
    address: SocketAddr,
    origin: String,
) -> Result<Admin, ServeFailure> {
    let admin = Admin::start_with_page(address, proxy.monitor()).await;
    let admin = admin.map_err(|error| ServeFailure::Admin {
        address,
        origin,
        error,
    })?;
    info!(address = %admin.address(), "status page, metrics, health and readiness");
    Ok(admin)
}

/// One line, for people and for scripts that wait for it. Whether anybody reads it does not matter.
fn announce<S: Storage + 'static>(proxy: &Proxy<Cache<TcpTransport, S>>) {
    let brokers: Vec<String> = proxy
        .ports()
        .iter()
        .map(|(node_id, port)| format!("broker {node_id} on port {port}"))
        .collect();
    let line = format!("clients begin at {}; {}", proxy.address(), brokers.join(", "));
    let _unread = writeln!(io::stdout(), "{line}");
}
