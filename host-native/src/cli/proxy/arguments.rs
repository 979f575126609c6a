//! What `kachet proxy` can be told.

use core::time::Duration;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};
use clap::{ArgAction, Args};
use kachet::core::time::MaxStaleness;
use kachet::proxy::{Limits, ProxySettings};
use kachet::transport::{BrokerAddress, TcpSettings};

use super::ServeFailure;
use crate::cli::cache::{StorageArguments, parse_max_staleness};
use crate::cli::configuration::Origins;
use crate::cli::failure::Failure;
use crate::cli::security::{SecurityArguments, TlsListenArguments};

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
#[command(after_help = EXAMPLES)]
pub(crate) struct ProxyArguments {
    /// Settings in TOML: a key for each option here, with _ in place of -. What is given here or by the environment counts
    /// before what is in the file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only check the settings and print them with where they come from; nothing is opened. Exit code 0 if the proxy could
    /// try to start
    #[arg(long)]
    pub(super) check: bool,
    /// Print them as one JSON object
    #[arg(long, requires = "check")]
    pub(super) json: bool,
    /// Ask a proxy that runs, at the address of --admin, whether it is ready. Exit code 0 if it is
    #[arg(long, conflicts_with = "check")]
    pub(super) probe: bool,
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
    #[arg(long, default_value = "127.0.0.1:19092", value_name = "HOST:PORT", value_parser = parse_listen)]
    pub(super) listen: String,
    /// The host that clients are told; by default that of --listen, or the address at which a client has come in
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// The broker that is on the port after that of --listen, for clusters whose node ids are large
    #[arg(long, default_value_t = 0, value_name = "ID")]
    lowest_node_id: i32,
    #[command(flatten)]
    pub(super) storage: StorageArguments,
    /// The most that the cache may take, in memory or in its folder; 0 caches nothing
    #[arg(long, default_value = "1GiB", value_name = "SIZE")]
    pub(super) size_limit: ByteSize,
    /// How old what is known of a partition may be when it is read from the cache: a time such as 30s or 1h, or
    /// 'forever'
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = parse_max_staleness)]
    pub(super) max_staleness: MaxStaleness,
    /// The same for what the cleaner may have rewritten in compacted topics
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = parse_max_staleness)]
    pub(super) compacted_max_staleness: MaxStaleness,
    /// For how long a connection that logs in gets cached data of a topic after the broker has let it read there
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    authorization_ttl: Duration,
    /// Give cached data to every client, whatever the cluster's ACLs say
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    trust_clients: bool,
    /// The rack that the proxy runs in, as `client.rack` of Kafka's consumers: where brokers have a selector of replicas, what
    /// is not cached is read from a replica in that rack. Without it, leaders are read
    #[arg(long, value_name = "RACK", value_parser = NonEmptyStringValueParser::new())]
    pub(super) rack: Option<String>,
    /// Where a status page, /metrics (for Prometheus), /health and /ready are served by HTTP; an address that only those
    /// who watch reach
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) admin: Option<SocketAddr>,
    /// How many connections of clients there may be
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    max_connections: usize,
    /// Close connections on which nothing happens for so long
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = humantime::parse_duration)]
    idle_timeout: Duration,
    /// The largest request that a client may send
    #[arg(long, default_value = "100MiB", value_name = "SIZE")]
    max_request_size: ByteSize,
    /// What all requests and answers that have to be held whole may take together, beside the cache
    #[arg(long, default_value = "512MiB", value_name = "SIZE")]
    buffer_limit: ByteSize,
    /// How long what is under way may take when the proxy is asked to end
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    shutdown_grace: Duration,
    #[command(flatten)]
    tls_listen: TlsListenArguments,
    /// How long to wait for a broker's connection and for its answer
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    security: SecurityArguments,
    #[arg(skip)]
    pub(crate) origins: Origins,
}

const EXAMPLES: &str = "Examples:
  kachet proxy --bootstrap broker:9092 --listen 0.0.0.0:19092 --size-limit 4GiB
  kachet proxy --bootstrap broker:9092 --listen 0.0.0.0:19092 --advertise cache.example.org --mount /var/cache/kachet --size-limit 64GiB
  kcat -b localhost:19092 -L

Clients that log in (SASL) do so at the brokers, through the proxy. The login given here is the cache's own.
SIGTERM and SIGINT end the proxy once what is under way is answered and the cache is written out. SIGHUP reads the files of
--tls-listen-cert, --tls-listen-key and --tls-listen-client-ca anew, for connections that begin from then on.";

impl ProxyArguments {
    pub(super) fn settings(&self) -> Result<ProxySettings, Failure> {
        let (listen, host) = resolve(&self.listen).map_err(|reason| {
            Failure::Serve(ServeFailure::Listen {
                given: self.listen.clone(),
                origin: self.origins.of("listen"),
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
            tls: self.tls_listen.read()?,
            authorization_ttl: self.authorization_ttl,
            trusts_clients: self.trust_clients,
            limits: Limits {
                connections: self.max_connections,
                idle_timeout: self.idle_timeout,
                request_size_bytes: bytes(self.max_request_size),
                buffered_bytes: bytes(self.buffer_limit),
                shutdown_grace: self.shutdown_grace,
                ..Limits::default()
            },
            ..ProxySettings::new(listen, self.bootstrap.clone())
        })
    }
}

/// The address, and the host that clients are told if it was given as a name.
pub(crate) fn resolve(given: &str) -> Result<(SocketAddr, Option<String>), String> {
    if let Ok(address) = given.parse() {
        return Ok((address, None));
    }
    let mut addresses = given.to_socket_addrs().map_err(|error| error.to_string())?;
    let address = addresses.next().ok_or("the name has no address")?;
    let host = given.rsplit_once(':').map(|(host, _)| host.to_owned());
    Ok((address, host))
}

/// What does not fit into memory is no bound.
fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// Whether it may be a place to listen at; names are looked up later.
fn parse_listen(given: &str) -> Result<String, &'static str> {
    let has_port = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok();
    let is_one = given.parse::<SocketAddr>().is_ok() || given.rsplit_once(':').is_some_and(has_port);
    let wrong = "write HOST:PORT, such as 0.0.0.0:19092";
    is_one.then(|| given.to_owned()).ok_or(wrong)
}
