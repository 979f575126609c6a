//! `kachet proxy`: the cache between any Kafka clients and a cluster.

use core::fmt;
use core::time::Duration;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;
use kachet::cache::Cache;
use kachet::core::storage::Storage;
use kachet::core::time::MaxStaleness;
use kachet::proxy::{Admin, Limits, Proxy, ProxyError, ProxySettings};
use kachet::transport::{BrokerAddress, TcpSettings, TcpTransport, TlsListenerSettings};
use tracing::{info, warn};

use super::cache::{StorageArguments, parse_max_staleness};
use super::failure::Failure;
use super::security::SecurityArguments;
use super::signals::Signals;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ProxyArguments {
    /// Brokers to begin with; several with commas between them
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "KACHET_BOOTSTRAP",
        value_delimiter = ',',
        required = true
    )]
    bootstrap: Vec<BrokerAddress>,
    /// Where clients begin. Broker N is on the port that is 1 + N higher
    #[arg(long, default_value = "127.0.0.1:19092", value_name = "HOST:PORT")]
    listen: String,
    /// The host that clients are told; by default that of --listen, or the address at which a client has come in
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// The broker that is on the port after that of --listen, for clusters whose node ids are large
    #[arg(long, default_value_t = 0, value_name = "ID")]
    lowest_node_id: i32,
    #[command(flatten)]
    storage: StorageArguments,
    /// The most that the cache may take, in memory or in its folder; 0 caches nothing
    #[arg(long, default_value = "1GiB", value_name = "SIZE")]
    size_limit: ByteSize,
    /// How old what is known of a partition may be when it is read from the cache: a time such as 30s or 1h, or
    /// 'forever'
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = parse_max_staleness)]
    max_staleness: MaxStaleness,
    /// The same for what the cleaner may have rewritten in compacted topics
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = parse_max_staleness)]
    compacted_max_staleness: MaxStaleness,
    /// For how long a connection that logs in gets cached data of a topic after the broker has let it read there
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    authorization_ttl: Duration,
    /// Give cached data to every client, whatever the cluster's ACLs say
    #[arg(long)]
    trust_clients: bool,
    /// Where /metrics (for Prometheus), /health and /ready are served by HTTP; an address that only those who watch reach
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<SocketAddr>,
    /// How many connections of clients there may be
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    max_connections: usize,
    /// Close connections on which nothing happens for so long
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = humantime::parse_duration)]
    idle_timeout: Duration,
    /// Have clients speak TLS: the certificate as PEM, followed by those that lead to its authority
    #[arg(long, value_name = "FILE", requires = "tls_listen_key")]
    tls_listen_cert: Option<PathBuf>,
    /// Its private key, as PEM and not encrypted
    #[arg(long, value_name = "FILE", requires = "tls_listen_cert")]
    tls_listen_key: Option<PathBuf>,
    /// Let in only clients with a certificate of the authorities in this PEM file
    #[arg(long, value_name = "FILE", requires = "tls_listen_cert")]
    tls_listen_client_ca: Option<PathBuf>,
    /// How long to wait for a broker's connection and for its answer
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    security: SecurityArguments,
}

const EXAMPLES: &str = "Examples:
  kachet proxy --bootstrap broker:9092 --listen 0.0.0.0:19092 --size-limit 4GiB
  kachet proxy --bootstrap broker:9092 --listen 0.0.0.0:19092 --advertise cache.example.org --mount /var/cache/kachet --size-limit 64GiB
  kcat -b localhost:19092 -L

Clients that log in (SASL) do so at the brokers, through the proxy. The login given here is the cache's own.
SIGTERM and SIGINT end the proxy once what is under way is answered and the cache is written out.";

/// Why the proxy did not start, or did not end well.
#[derive(Debug)]
pub(crate) enum ServeFailure {
    /// `--listen` cannot be used.
    Listen { given: String, reason: String },
    /// `--admin` cannot be listened on.
    Admin { address: SocketAddr, error: io::Error },
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
            Self::Listen { given, reason } => {
                write!(
                    f,
                    "--listen {given}: {reason}; write HOST:PORT, such as 0.0.0.0:19092"
                )
            }
            Self::Admin { address, error } => write!(f, "--admin: cannot listen on {address}: {error}"),
            Self::Proxy(error) => error.fmt(f),
        }
    }
}

pub(crate) async fn run(arguments: ProxyArguments) -> Result<(), Failure> {
    let settings = arguments.settings()?;
    // Before anything listens, so that none is missed.
    let signals = Signals::listen()?;
    let cache = Cache::builder(TcpTransport::new(settings.tcp.clone()))
        .size_limit_bytes(arguments.size_limit.as_u64())
        .max_staleness(arguments.max_staleness)
        .compacted_max_staleness(arguments.compacted_max_staleness);
    match arguments.storage.mount.clone() {
        Some(folder) => {
            let restored = arguments.storage.restore(folder, cache, arguments.size_limit);
            serve(settings, restored.await?, arguments.admin, signals).await
        }
        None => serve(settings, cache.build(), arguments.admin, signals).await,
    }
}

async fn serve<S: Storage + 'static>(
    settings: ProxySettings,
    cache: Cache<TcpTransport, S>,
    admin: Option<SocketAddr>,
    mut signals: Signals,
) -> Result<(), Failure> {
    let started = Proxy::start(settings, cache.clone()).await;
    let proxy = started.map_err(|error| Failure::Serve(ServeFailure::Proxy(error)))?;
    let _admin = match admin {
        Some(address) => Some(watch(&proxy, address).await.map_err(Failure::Serve)?),
        None => None,
    };
    announce(&proxy);
    signals.next().await;
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
) -> Result<Admin, ServeFailure> {
    let admin = Admin::start(address, proxy.monitor()).await;
    let admin = admin.map_err(|error| ServeFailure::Admin { address, error })?;
    info!(address = %admin.address(), "metrics, health and readiness");
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

impl ProxyArguments {
    fn settings(&self) -> Result<ProxySettings, Failure> {
        let (listen, host) = resolve(&self.listen).map_err(|reason| {
            Failure::Serve(ServeFailure::Listen {
                given: self.listen.clone(),
                reason,
            })
        })?;
        Ok(ProxySettings {
            advertise: self.advertise.clone().or(host),
            lowest_node_id: self.lowest_node_id,
            tcp: TcpSettings {
                connect_timeout: self.timeout,
                request_timeout: self.timeout,
                security: self.security.read()?,
                ..TcpSettings::default()
            },
            tls: self.tls_listener()?,
            authorization_ttl: self.authorization_ttl,
            trusts_clients: self.trust_clients,
            limits: Limits {
                connections: self.max_connections,
                idle_timeout: self.idle_timeout,
                ..Limits::default()
            },
            ..ProxySettings::new(listen, self.bootstrap.clone())
        })
    }

    fn tls_listener(&self) -> Result<Option<TlsListenerSettings>, Failure> {
        let (Some(certificate), Some(key)) = (&self.tls_listen_cert, &self.tls_listen_key) else {
            return Ok(None);
        };
        TlsListenerSettings::read(certificate, key, self.tls_listen_client_ca.as_deref())
            .map(Some)
            .map_err(Failure::Tls)
    }
}

/// The address, and the host that clients are told if it was given as a name.
fn resolve(given: &str) -> Result<(SocketAddr, Option<String>), String> {
    if let Ok(address) = given.parse() {
        return Ok((address, None));
    }
    let mut addresses = given.to_socket_addrs().map_err(|error| error.to_string())?;
    let address = addresses.next().ok_or("the name has no address")?;
    let host = given.rsplit_once(':').map(|(host, _)| host.to_owned());
    Ok((address, host))
}
