//! `kachet fetch`: records at positions, through the cache.

mod mounted;

use core::num::NonZeroU64;
use core::time::Duration;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use bytesize::ByteSize;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use kachet::cache::Cache;
use kachet::client::{Client, ClientError, ClientSettings, Isolation, Position};
use kachet::core::storage::Storage;
use kachet::core::time::MaxStaleness;
use kachet::transport::{TcpSettings, TcpTransport};
use serde_json::{Map, Value};

use super::cache::{StorageArguments, parse_max_staleness};
use super::failure::Failure;
use super::output::Format;
use super::security::SecurityArguments;
use super::target::Target;

#[derive(Clone, Debug, Args)]
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
    #[command(flatten)]
    storage: StorageArguments,
    /// The most that the cache may take, in memory or in its folder; 0 caches nothing [default: 256MiB in memory, 1GiB
    /// in a folder]
    #[arg(long, value_name = "SIZE")]
    size_limit: Option<ByteSize>,
    /// How old what is known of a partition may be when it is read from the cache: a time such as 30s or 1h, or
    /// 'forever', which reads what is cached without asking brokers, whether they run or not
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
    /// The rack that this command runs in, as `client.rack` of Kafka's consumers: where brokers have a selector of replicas,
    /// records are read from a replica in that rack
    #[arg(long, value_name = "RACK", env = "KACHET_RACK", value_parser = NonEmptyStringValueParser::new())]
    rack: Option<String>,
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
  kachet fetch --bootstrap localhost:9092 --mount cache --max-staleness forever orders/0@42
  kachet fetch --bootstrap broker:9093 --tls --tls-ca ca.pem --sasl-mechanism SCRAM-SHA-512 \
    --sasl-username alice --sasl-password-file password.txt orders/0@42";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum IsolationArgument {
    /// All records, those of open and aborted transactions included
    Uncommitted,
    /// Records of committed transactions and those outside of any
    Committed,
}

/// In memory.
const MEMORY_LIMIT: ByteSize = ByteSize::mib(256);

/// A client over a cache, wherever that keeps its batches.
type CachedClient<S> = Client<Cache<TcpTransport, S>>;

pub(crate) async fn run(arguments: FetchArguments) -> Result<(), Failure> {
    if let Some(folder) = arguments.storage.mount.clone() {
        return mounted::run(arguments, folder).await;
    }
    let limit = arguments.size_limit.unwrap_or(MEMORY_LIMIT);
    let cache = Cache::builder(transport(&arguments)?)
        .size_limit_bytes(limit.as_u64())
        .max_staleness(arguments.max_staleness)
        .build();
    let client = Arc::new(client(&arguments, cache)?);
    let outcome = read_all(&client, &arguments).await;
    if arguments.stats {
        print_statistics(&client);
    }
    outcome
}

fn transport(arguments: &FetchArguments) -> Result<TcpTransport, Failure> {
    Ok(TcpTransport::new(TcpSettings {
        connect_timeout: arguments.timeout,
        request_timeout: arguments.timeout,
        security: arguments.security.read()?,
        ..TcpSettings::default()
    }))
}

fn client<S: Storage + 'static>(
    arguments: &FetchArguments,
    cache: Cache<TcpTransport, S>,
) -> Result<CachedClient<S>, Failure> {
    let brokers = arguments.bootstrap.split(',').map(|broker| broker.trim().parse());
    let brokers = brokers.collect::<Result<_, _>>().map_err(ClientError::from)?;
    Ok(Client::new(cache, brokers, settings(arguments))?)
}

fn settings(arguments: &FetchArguments) -> ClientSettings {
    ClientSettings {
        isolation: match arguments.isolation {
            IsolationArgument::Uncommitted => Isolation::ReadUncommitted,
            IsolationArgument::Committed => Isolation::ReadCommitted,
        },
        rack: arguments.rack.clone(),
        retry_timeout: arguments.timeout,
        ..ClientSettings::default()
    }
}

async fn read_all<S: Storage + 'static>(
    client: &CachedClient<S>,
    arguments: &FetchArguments,
) -> Result<(), Failure> {
    let mut out = BufWriter::new(Unhurried(io::stdout()));
    for _ in 0..arguments.repeat.get() {
        for target in &arguments.targets {
            read(client, arguments, target, &mut out).await?;
        }
    }
    out.flush().map_err(Failure::Output)
}

/// Standard output may be a pipe that nobody empties. Whoever waits for it must not have the runtime wait, which listens
/// for signals.
struct Unhurried(io::Stdout);

impl Write for Unhurried {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        tokio::task::block_in_place(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        tokio::task::block_in_place(|| self.0.flush())
    }
}

/// Records are read and printed in pages, so that a large count takes no more memory than a small one.
const PAGE_RECORDS: u64 = 10_000;

async fn read<S: Storage + 'static>(
    client: &CachedClient<S>,
    arguments: &FetchArguments,
    target: &Target,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (topic, partition) = (target.topic.as_str(), target.partition);
    let failed = |error| explained(arguments, target, error);
    let mut next = client
        .offset_of(topic, partition, target.position)
        .await
        .map_err(failed)?;
    let mut left = arguments.count.get();
    while left > 0 {
        let page = left.min(PAGE_RECORDS);
        let count = usize::try_from(page).unwrap_or(usize::MAX);
        let first_page = left == arguments.count.get();
        let records = match client.records(topic, partition, next, count).await {
            Ok(records) => records,
            // The end of the log, reached on the way, is no error.
            Err(ClientError::OffsetOutOfRange { .. }) if !first_page => break,
            Err(error) => return Err(failed(error)),
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

/// Where a folder holds batches and the broker cannot be asked, says why that is not enough.
fn explained(arguments: &FetchArguments, target: &Target, error: ClientError) -> Failure {
    let is_unanswered = matches!(&error, ClientError::Transport(error) if !error.is_refusal());
    if arguments.storage.mount.is_none() || !is_unanswered {
        return error.into();
    }
    let hint = match (target.position, arguments.max_staleness) {
        (Position::Offset(_), MaxStaleness::Forever) => {
            "what is asked for is not all in the mount point, see 'kachet mount list'"
        }
        (Position::Offset(_), MaxStaleness::Within(_)) => {
            "what is in the mount point is read without a broker by --max-staleness forever only"
        }
        _ => {
            "only a broker knows what 'earliest', 'latest-N' and '@T' stand for; give an offset, see 'kachet mount list'"
        }
    };
    Failure::Unanswered { error, hint }
}

fn print_statistics<S: Storage + 'static>(client: &CachedClient<S>) {
    let named = client.transport().statistics().named();
    let object: Map<String, Value> = named
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    eprintln!("{}", Value::Object(object));
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        arguments: FetchArguments,
    }

    fn rack_of(given: &[&str]) -> Result<Option<String>, clap::Error> {
        let all = [&["fetch", "--bootstrap", "localhost:9092", "orders/0@1"], given].concat();
        Command::try_parse_from(all).map(|command| settings(&command.arguments).rack)
    }

    #[test]
    fn the_rack_is_the_clients_and_is_not_empty() {
        assert_eq!(rack_of(&["--rack", "eu-1b"]).unwrap().as_deref(), Some("eu-1b"));
        assert_eq!(rack_of(&[]).unwrap(), None);
        assert!(rack_of(&["--rack", ""]).is_err());
    }
}
