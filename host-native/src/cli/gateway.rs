//! `kachet gateway`: records over HTTP, through the cache.

use core::fmt;
use core::time::Duration;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use kachet::cache::Cache;
use kachet::core::storage::Storage;
use kachet::core::time::MaxStaleness;
use kachet::gateway::{
    BearerTokens, BearerTokensError, CorsOrigins, CorsOriginsError, Gateway, GatewayError, GatewayLimits,
    GatewaySettings,
};
use kachet::proxy::Admin;
use kachet::transport::{BrokerAddress, TcpSettings, TcpTransport};
use tracing::{error, info, warn};

use super::cache::{StorageArguments, parse_max_staleness};
use super::failure::Failure;
use super::proxy::resolve;
use super::security::{SecurityArguments, TlsListenArguments, reload_certificates};
use super::signals::{Signals, Wanted};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GatewayArguments {
    /// Brokers to begin with; several with commas between them
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "KACHET_BOOTSTRAP",
        value_delimiter = ',',
        required = true
    )]
    bootstrap: Vec<BrokerAddress>,
    /// Where HTTP/1.1 and HTTP/2 (by prior knowledge, or ALPN with TLS) are spoken
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "HOST:PORT")]
    listen: String,
    #[command(flatten)]
    storage: StorageArguments,
    /// The most that the cache may take, in memory or in its folder; 0 caches nothing
    #[arg(long, default_value = "1GiB", value_name = "SIZE")]
    size_limit: ByteSize,
    /// How old what is known of a partition may be when it is read from the cache: a time such as 30s or 1h, or
    /// 'forever'. Browsers and CDNs are told to keep a record no longer
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = parse_max_staleness)]
    max_staleness: MaxStaleness,
    /// The same for what the cleaner may have rewritten in compacted topics
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = parse_max_staleness)]
    compacted_max_staleness: MaxStaleness,
    /// The rack that the gateway runs in, as `client.rack` of Kafka's consumers: where brokers have a selector of replicas,
    /// what is not cached is read from a replica in that rack. Without it, leaders are read
    #[arg(long, value_name = "RACK", env = "KACHET_RACK", value_parser = NonEmptyStringValueParser::new())]
    rack: Option<String>,
    #[command(flatten)]
    tls_listen: TlsListenArguments,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    limits: LimitArguments,
    /// Where /metrics (for Prometheus), /health and /ready are served by HTTP; an address that only those who watch reach
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<SocketAddr>,
    /// How long to wait for a broker's connection, for its answer, and for a leader
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    security: SecurityArguments,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
struct AccessArguments {
    /// A file with a bearer token a line, one of which each request has to bring
    #[arg(long, value_name = "FILE")]
    bearer_token_file: Option<PathBuf>,
    /// Let everybody read who reaches the address, and use any name for it
    #[arg(long, conflicts_with = "bearer_token_file")]
    allow_anonymous: bool,
    #[arg(long, value_name = "ORIGIN", help = CORS_HELP)]
    cors_origin: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitArguments {
    /// Records that one request may ask for
    #[arg(long, default_value_t = GatewayLimits::default().records, value_name = "N")]
    max_records: u64,
    /// Bytes of one answer, beyond its first record or batch
    #[arg(long, default_value = "16MiB", value_name = "SIZE")]
    max_response_bytes: ByteSize,
    /// Bytes of the body of one request
    #[arg(long, default_value = "1MiB", value_name = "SIZE")]
    max_request_bytes: ByteSize,
    /// What a batch may hold after decompression
    #[arg(long, default_value = "64MiB", value_name = "SIZE")]
    max_batch_bytes: ByteSize,
    /// Requests that are answered at a time; further ones are told to come again
    #[arg(long, default_value_t = GatewayLimits::default().concurrent_requests, value_name = "N")]
    max_concurrent_requests: usize,
    /// Connections at a time; further ones are closed
    #[arg(long, default_value_t = GatewayLimits::default().connections, value_name = "N")]
    max_connections: usize,
    /// Within what time the head of a request has to come, and after it the body
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    request_timeout: Duration,
    /// Within what time an answer has to begin
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = humantime::parse_duration)]
    answer_timeout: Duration,
    /// For how long a client may take nothing of its answer
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = humantime::parse_duration)]
    send_timeout: Duration,
    /// Close connections that bring no request for so long
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = humantime::parse_duration)]
    idle_timeout: Duration,
}

const CORS_HELP: &str = "Let pages of this origin read in browsers, such as https://app.example.org; '*' for all; may be repeated";

const EXAMPLES: &str = "Examples:
  kachet gateway --bootstrap broker:9092 --max-staleness 1m
  curl 'http://localhost:8080/v1/topics/orders/0/records/42'
  curl 'http://localhost:8080/v1/topics/orders/0/records?offset=latest-10&count=10'
  (umask 077; openssl rand -hex 32 > token.txt)
  kachet gateway --bootstrap broker:9092 --listen 0.0.0.0:8080 --bearer-token-file token.txt \\
    --tls-listen-cert cache.pem --tls-listen-key cache.key.pem \\
    --cors-origin https://app.example.org --mount /var/cache/kachet --size-limit 64GiB
  curl -H \"Authorization: Bearer $(cat token.txt)\" https://cache.example.org:8080/v1/topics

It only reads. docs/gateway.md describes the API. The login given here is the cache's own: who may ask the gateway may read
what that login may.
SIGTERM and SIGINT end the gateway once what is under way is answered and the cache is written out. SIGHUP reads the files of
--bearer-token-file, --tls-listen-cert, --tls-listen-key and --tls-listen-client-ca anew.";

/// Why the gateway did not start.
#[derive(Debug)]
pub(crate) enum GatewayFailure {
    /// `--listen` cannot be used.
    Listen { given: String, reason: String },
    /// `--listen` is open to others, and nothing says who may read.
    Anonymous { address: SocketAddr },
    /// `--bearer-token-file` cannot be used.
    Tokens(BearerTokensError),
    /// `--cors-origin` cannot be used.
    Cors(CorsOriginsError),
    /// `--admin` cannot be listened on.
    Admin { address: SocketAddr, error: io::Error },
    /// The library's.
    Gateway(GatewayError),
}

impl GatewayFailure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Admin { .. } | Self::Gateway(_) => 1,
            _ => 2,
        }
    }
}

impl fmt::Display for GatewayFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { given, reason } => {
                write!(
                    f,
                    "--listen {given}: {reason}; write HOST:PORT, such as 127.0.0.1:8080"
                )
            }
            Self::Anonymous { address } => write!(
                f,
                "--listen {address} can be reached from other machines: give a --bearer-token-file or a --tls-listen-client-ca, \
                 or --allow-anonymous if everybody may read"
            ),
            Self::Tokens(error) => write!(f, "--bearer-token-file: {error}"),
            Self::Cors(error) => write!(f, "--cors-origin: {error}"),
            Self::Admin { address, error } => write!(f, "--admin: cannot listen on {address}: {error}"),
            Self::Gateway(error) => error.fmt(f),
        }
    }
}

impl From<GatewayFailure> for Failure {
    fn from(failure: GatewayFailure) -> Self {
        Self::Gateway(failure)
    }
}

pub(crate) async fn run(arguments: GatewayArguments) -> Result<(), Failure> {
    let settings = arguments.settings()?;
    // Before anything listens, so that none is missed.
    let signals = Signals::listen()?;
    let transport = TcpTransport::new(TcpSettings {
        connect_timeout: arguments.timeout,
        request_timeout: arguments.timeout,
        security: arguments.security.read()?,
        ..TcpSettings::default()
    });
    let cache = Cache::builder(transport)
        .size_limit_bytes(arguments.size_limit.as_u64())
        .max_staleness(arguments.max_staleness)
        .compacted_max_staleness(arguments.compacted_max_staleness)
        .rack(arguments.rack.as_deref().unwrap_or_default());
    match arguments.storage.mount.clone() {
        Some(folder) => {
            let restored = arguments.storage.restore(folder, cache, arguments.size_limit);
            serve(settings, restored.await?, arguments.admin, signals).await
        }
        None => serve(settings, cache.build(), arguments.admin, signals).await,
    }
}

async fn serve<S: Storage + 'static>(
    settings: GatewaySettings,
    cache: Cache<TcpTransport, S>,
    admin: Option<SocketAddr>,
    mut signals: Signals,
) -> Result<(), Failure> {
    let (tls, tokens) = (settings.tls.clone(), settings.bearer_tokens.clone());
    let scheme = if tls.is_some() { "https" } else { "http" };
    let started = Gateway::start(settings, cache.clone()).await;
    let gateway = started.map_err(|error| match error {
        GatewayError::Anonymous { address } => GatewayFailure::Anonymous { address },
        error => GatewayFailure::Gateway(error),
    })?;
    let _admin = match admin {
        Some(address) => {
            let admin = Admin::start(address, gateway.monitor()).await;
            let admin = admin.map_err(|error| GatewayFailure::Admin { address, error })?;
            info!(address = %admin.address(), "metrics, health and readiness");
            Some(admin)
        }
        None => None,
    };
    // One line, for people and for scripts that wait for it. Whether anybody reads it does not matter.
    let _unread = writeln!(
        io::stdout(),
        "topics are at {scheme}://{}/v1/topics",
        gateway.address()
    );
    while let Wanted::Reload = signals.next().await {
        if tls.is_none() && tokens.is_none() {
            info!("there is nothing to be read anew: neither certificates nor tokens");
        }
        if let Some(tls) = tls.clone() {
            reload_certificates(tls).await;
        }
        if let Some(tokens) = tokens.clone() {
            reload_tokens(tokens).await;
        }
    }
    info!("ending");
    gateway.stop().await;
    let left_bytes = cache.write_out().await;
    if left_bytes > 0 {
        warn!(left_bytes, "not all of the cache could be written out");
    }
    Ok(())
}

/// Reads tokens anew. What is wrong with them is told, and those from before go on.
async fn reload_tokens(tokens: BearerTokens) {
    // Files may be slow.
    let failure = match tokio::task::spawn_blocking(move || tokens.reload()).await {
        Ok(Ok(())) => return info!("requests take the bearer tokens that were read anew"),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    error!(error = %failure, "the bearer tokens were not read anew; those from before go on");
}

impl GatewayArguments {
    fn settings(&self) -> Result<GatewaySettings, Failure> {
        let (listen, _) = resolve(&self.listen).map_err(|reason| GatewayFailure::Listen {
            given: self.listen.clone(),
            reason,
        })?;
        let tokens = self.access.bearer_token_file.as_ref();
        let tokens = tokens
            .map(BearerTokens::read)
            .transpose()
            .map_err(GatewayFailure::Tokens)?;
        let cors_origins = CorsOrigins::new(&self.access.cors_origin).map_err(GatewayFailure::Cors)?;
        Ok(GatewaySettings {
            tls: self.tls_listen.read()?,
            bearer_tokens: tokens,
            allows_anonymous: self.access.allow_anonymous,
            cors_origins,
            retry_timeout: self.timeout,
            limits: self.limits.limits(),
            ..GatewaySettings::new(listen, self.bootstrap.clone())
        })
    }
}

impl LimitArguments {
    fn limits(&self) -> GatewayLimits {
        let size_bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        GatewayLimits {
            connections: self.max_connections,
            concurrent_requests: self.max_concurrent_requests,
            records: self.max_records.max(1),
            response_size_bytes: size_bytes(self.max_response_bytes),
            request_size_bytes: size_bytes(self.max_request_bytes),
            decompressed_batch_bytes: size_bytes(self.max_batch_bytes),
            request_timeout: self.request_timeout,
            answer_timeout: self.answer_timeout,
            send_timeout: self.send_timeout,
            idle_timeout: self.idle_timeout,
            ..GatewayLimits::default()
        }
    }
}
