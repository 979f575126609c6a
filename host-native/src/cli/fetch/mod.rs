//! `kachet fetch`: records at positions, through the cache.

use core::num::NonZeroU64;
use core::time::Duration;
use std::io::{self, BufWriter, Write};

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings, Isolation};
use kachet::core::time::MaxStaleness;
use kachet::transport::{TcpSettings, TcpTransport};
use serde_json::{Map, Value};

use super::failure::Failure;
use super::output::Format;
use super::security::SecurityArguments;
use super::target::Target;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FetchArguments {
    /// Brokers to begin with; several with commas between them
    #[arg(long, value_name = "HOST:PORT", env = "KACHET_BOOTSTRAP")]
    bootstrap: String,
    /// Where to read. OFFSET is a number, 'earliest', 'latest-N' or '@T' (first record at or after T, in
    /// milliseconds since 1970)
    #[arg(required = true, value_name = "TOPIC/PARTITION@OFFSET")]
    targets: Vec<Target>,
    /// How many records to read from each position on
    #[arg(long, default_value_t = NonZeroU64::MIN, value_name = "N")]
    count: NonZeroU64,
    /// The most memory that the cache may take; 0 caches nothing
    #[arg(long, default_value = "256MiB", value_name = "SIZE")]
    size_limit: ByteSize,
    /// How old what is known of a partition may be when it is read from the cache: a time such as 30s or 1h, or
    /// 'forever'
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = parse_max_staleness)]
    max_staleness: MaxStaleness,
    /// Read everything so many times in the same process
    #[arg(long, default_value_t = NonZeroU64::MIN, value_name = "N")]
    repeat: NonZeroU64,
    /// How records are printed
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// Which records are seen; kcat's default is 'committed', the Java consumer's is 'uncommitted'
    #[arg(long, value_enum, default_value_t = IsolationArgument::Uncommitted)]
    isolation: IsolationArgument,
    /// How long to wait for a broker's connection, for its answer, and for a leader
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print the cache's statistics to stderr at the end, as one JSON object
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    security: SecurityArguments,
}

const EXAMPLES: &str = "Examples:
  kachet fetch --bootstrap localhost:9092 orders/0@42
  kachet fetch --bootstrap localhost:9092 orders/0@latest-10 --count 10 --format text
  kachet fetch --bootstrap localhost:9092 orders/0@earliest orders/1@@1700000000000 --repeat 2 --stats
  kachet fetch --bootstrap broker:9093 --tls --tls-ca ca.pem --sasl-mechanism SCRAM-SHA-512 \
    --sasl-username alice --sasl-password-file password.txt orders/0@42";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum IsolationArgument {
    /// All records, those of open and aborted transactions included
    Uncommitted,
    /// Records of committed transactions and those outside of any
    Committed,
}

fn parse_max_staleness(given: &str) -> Result<MaxStaleness, humantime::DurationError> {
    match given {
        "forever" => Ok(MaxStaleness::Forever),
        time => humantime::parse_duration(time).map(MaxStaleness::Within),
    }
}

type CachedClient = Client<Cache<TcpTransport>>;

pub(crate) async fn run(arguments: FetchArguments) -> Result<(), Failure> {
    let client = connect(&arguments)?;
    let outcome = read_all(&client, &arguments).await;
    if arguments.stats {
        print_statistics(&client);
    }
    outcome
}

fn connect(arguments: &FetchArguments) -> Result<CachedClient, Failure> {
    let settings = ClientSettings {
        isolation: match arguments.isolation {
            IsolationArgument::Uncommitted => Isolation::ReadUncommitted,
            IsolationArgument::Committed => Isolation::ReadCommitted,
        },
        retry_timeout: arguments.timeout,
        ..ClientSettings::default()
    };
    let tcp = TcpSettings {
        connect_timeout: arguments.timeout,
        request_timeout: arguments.timeout,
        ..TcpSettings::default()
    };
    let client = Client::builder()
        .bootstrap(&arguments.bootstrap)
        .security(arguments.security.read()?)
        .size_limit_bytes(arguments.size_limit.as_u64())
        .max_staleness(arguments.max_staleness)
        .settings(settings)
        .tcp(tcp)
        .build()?;
    Ok(client)
}

async fn read_all(client: &CachedClient, arguments: &FetchArguments) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    for _ in 0..arguments.repeat.get() {
        for target in &arguments.targets {
            read(client, arguments, target, &mut out).await?;
        }
    }
    out.flush().map_err(Failure::Output)
}

/// Records are read and printed in pages, so that a large count takes no more memory than a small one.
const PAGE_RECORDS: u64 = 10_000;

async fn read(
    client: &CachedClient,
    arguments: &FetchArguments,
    target: &Target,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (topic, partition) = (target.topic.as_str(), target.partition);
    let mut next = client.offset_of(topic, partition, target.position).await?;
    let mut left = arguments.count.get();
    while left > 0 {
        let page = left.min(PAGE_RECORDS);
        let count = usize::try_from(page).unwrap_or(usize::MAX);
        let first_page = left == arguments.count.get();
        let records = match client.records(topic, partition, next, count).await {
            Ok(records) => records,
            // The end of the log, reached on the way, is no error.
            Err(kachet::client::ClientError::OffsetOutOfRange { .. }) if !first_page => break,
            Err(error) => return Err(error.into()),
        };
        for record in &records {
            arguments
                .format
                .write(out, topic, partition, record)
                .map_err(Failure::Output)?;
        }
        out.flush().map_err(Failure::Output)?;
        let Some(last) = records.last().filter(|_| records.len() == count) else {
            break;
        };
        next = last.offset.saturating_add(1);
        left -= page;
    }
    Ok(())
}

fn print_statistics(client: &CachedClient) {
    let named = client.transport().statistics().named();
    let object: Map<String, Value> = named
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    eprintln!("{}", Value::Object(object));
}
