//! `kachet demo`: random reads with and without the cache, against a broker inside this process.

use core::time::Duration;
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use bytesize::ByteSize;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Events, Packing, pack};
use kachet::transport::{TcpSettings, TcpTransport, Transport};
use serde_json::{Value, json};

use super::failure::Failure;

const TOPIC: &str = "shop-events";
const PARTITIONS: u16 = 4;
/// About 16 KiB before compression, as producers with default settings send.
const RECORDS_PER_BATCH: usize = 16;

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// How many records the demo's topic holds
    #[arg(long, default_value_t = 40_000, value_name = "N", value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
    records: u32,
    /// How many random reads each row of the table makes
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    reads: u32,
    /// The most memory that the cache may take
    #[arg(long, default_value = "64MiB", value_name = "SIZE")]
    size_limit: ByteSize,
    /// Hold every answer of the demo's broker back so long, in place of a network and a disk
    #[arg(long, default_value = "0ms", value_name = "TIME", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// Print the table as one JSON object
    #[arg(long)]
    json: bool,
}

/// What the demo's topic came to.
struct Filled {
    offsets_per_partition: i64,
    batches: u64,
    size_bytes: u64,
}

/// One row of the table.
struct Row {
    name: &'static str,
    p50: Duration,
    p99: Duration,
    reads_per_second: f64,
    upstream_requests: u64,
    upstream_bytes: u64,
    /// `None` without a cache.
    hit_ratio: Option<f64>,
}

/// Where a read goes, and what it gave the first time.
struct Read {
    partition: i32,
    offset: i64,
    value: bytes::Bytes,
}

pub(crate) async fn run(arguments: DemoArguments) -> Result<(), Failure> {
    let settings = BrokerSettings {
        answer_delay: arguments.delay,
        ..BrokerSettings::default()
    };
    let broker = EmbeddedBroker::start(settings)
        .await
        .map_err(Failure::EmbeddedBroker)?;
    let progress = progress_bar(u64::from(arguments.records) + 3 * u64::from(arguments.reads));
    progress.set_message("writing records");
    let filled = fill(&broker, &arguments, &progress)?;
    let mut reads = choose(&arguments, &filled);

    let without = direct_client(&broker)?;
    let cached = cached_client(&broker, &arguments)?;
    let mut rows = Vec::new();
    progress.set_message("reading without a cache");
    rows.push(measure("without a cache", &broker, &without, &mut reads, &progress, None).await?);
    for name in ["cache, first time", "cache, again"] {
        progress.set_message(format!("reading through the {name}"));
        let cache = cached.transport().clone();
        rows.push(measure(name, &broker, &cached, &mut reads, &progress, Some(&cache)).await?);
    }
    progress.finish_and_clear();
    broker.stop().await;
    let print = if arguments.json { print_json } else { print_table };
    print(&arguments, &filled, &rows, cached.transport()).map_err(Failure::Output)
}

fn progress_bar(steps: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {msg}");
    ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn fill(
    broker: &EmbeddedBroker,
    arguments: &DemoArguments,
    progress: &ProgressBar,
) -> Result<Filled, Failure> {
    let failed = |error: &dyn core::fmt::Display| Failure::DemoTopic(error.to_string());
    broker
        .create_topic(TOPIC, PARTITIONS)
        .map_err(|error| failed(&error))?;
    let per_partition = usize::try_from(arguments.records).unwrap_or(usize::MAX) / usize::from(PARTITIONS);
    let mut events = Events::new(1);
    let mut filled = Filled {
        offsets_per_partition: 0,
        batches: 0,
        size_bytes: 0,
    };
    for partition in 0..i32::from(PARTITIONS) {
        let mut left = per_partition;
        while left > 0 {
            let count = left.min(RECORDS_PER_BATCH);
            let batch: Vec<_> = events.by_ref().take(count).collect();
            let batch = pack(&batch, Packing::Lz4).map_err(|error| failed(&error))?;
            filled.batches += 1;
            filled.size_bytes += batch.len() as u64;
            let span = broker
                .append(TOPIC, partition, batch)
                .map_err(|error| failed(&error))?;
            filled.offsets_per_partition = span.last() + 1;
            left -= count;
            progress.inc(count as u64);
        }
    }
    Ok(filled)
}

/// The same offsets for every row: any of the topic, with a fifth of them asked for four times out of five.
fn choose(arguments: &DemoArguments, filled: &Filled) -> Vec<Read> {
    let mut random = fastrand::Rng::with_seed(2);
    let end = filled.offsets_per_partition;
    let read = |_| {
        let offset = random.i64(0..end);
        let offset = if random.u8(0..5) == 0 { offset } else { offset / 5 };
        Read {
            partition: random.i32(0..i32::from(PARTITIONS)),
            offset,
            value: bytes::Bytes::new(),
        }
    };
    (0..arguments.reads).map(read).collect()
}

fn direct_client(broker: &EmbeddedBroker) -> Result<Client<TcpTransport>, Failure> {
    let transport = TcpTransport::new(TcpSettings::default());
    Ok(Client::new(
        transport,
        vec![broker.address().clone()],
        ClientSettings::default(),
    )?)
}

fn cached_client(
    broker: &EmbeddedBroker,
    arguments: &DemoArguments,
) -> Result<Client<Cache<TcpTransport>>, Failure> {
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default()))
        .size_limit_bytes(arguments.size_limit.as_u64())
        .build();
    Ok(Client::new(
        cache,
        vec![broker.address().clone()],
        ClientSettings::default(),
    )?)
}

async fn measure<T: Transport>(
    name: &'static str,
    broker: &EmbeddedBroker,
    client: &Client<T>,
    reads: &mut [Read],
    progress: &ProgressBar,
    cache: Option<&Cache<TcpTransport>>,
) -> Result<Row, Failure> {
    let before = (broker.requests(), cache.map(Cache::statistics));
    let mut latencies = Vec::with_capacity(reads.len());
    let started = Instant::now();
    for read in reads.iter_mut() {
        let asked = Instant::now();
        let record = client.record(TOPIC, read.partition, read.offset).await?;
        latencies.push(asked.elapsed());
        let value = record.and_then(|record| record.value);
        match cache {
            None => read.value = value.unwrap_or_default(),
            Some(_) if value.as_ref() == Some(&read.value) => {}
            Some(_) => {
                return Err(Failure::DemoMismatch {
                    partition: read.partition,
                    offset: read.offset,
                });
            }
        }
        progress.inc(1);
    }
    let elapsed = started.elapsed();
    latencies.sort_unstable();
    let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    let after = broker.requests();
    let hit_ratio = cache.zip(before.1).map(|(cache, before)| {
        let after = cache.statistics();
        ratio(after.hits - before.hits, after.lookups - before.lookups)
    });
    Ok(Row {
        name,
        p50: percentile(50),
        p99: percentile(99),
        reads_per_second: f64::from(u32::try_from(reads.len()).unwrap_or(u32::MAX)) / elapsed.as_secs_f64(),
        upstream_requests: total(&after) - total(&before.0),
        upstream_bytes: after.bytes_sent - before.0.bytes_sent,
        hit_ratio,
    })
}

/// Both are counts of reads, which the command bounds far below the precision of a float.
#[allow(clippy::cast_precision_loss)]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn total(counts: &kachet::demo::broker::RequestCounts) -> u64 {
    counts.api_versions
        + counts.metadata
        + counts.list_offsets
        + counts.offset_for_leader_epoch
        + counts.fetch
}

fn print_table(
    arguments: &DemoArguments,
    filled: &Filled,
    rows: &[Row],
    cache: &Cache<TcpTransport>,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{} random reads, one after the other, of {} records in {} batches ({}) by TCP on loopback.\n",
        arguments.reads,
        filled.offsets_per_partition * i64::from(PARTITIONS),
        filled.batches,
        ByteSize(filled.size_bytes).display().iec()
    )?;
    writeln!(
        out,
        "{:<18} {:>9} {:>9} {:>10} {:>14} {:>14} {:>10}",
        "", "p50", "p99", "reads/s", "asked upstream", "from upstream", "hit ratio"
    )?;
    for row in rows {
        writeln!(
            out,
            "{:<18} {:>9} {:>9} {:>10.0} {:>14} {:>14} {:>10}",
            row.name,
            microseconds(row.p50),
            microseconds(row.p99),
            row.reads_per_second,
            row.upstream_requests,
            ByteSize(row.upstream_bytes).display().iec().to_string(),
            row.hit_ratio
                .map_or("–".into(), |ratio| format!("{:.1} %", 100.0 * ratio)),
        )?;
    }
    let statistics = cache.statistics();
    writeln!(
        out,
        "\nThe cache holds {} batches in {} of {}. Every record read through it was compared with the broker's own.",
        statistics.batches,
        ByteSize(statistics.size_bytes).display().iec(),
        ByteSize(statistics.limit_bytes).display().iec()
    )?;
    writeln!(
        out,
        "The broker is a stand-in inside this process, without a network or a disk: a real one is slower to ask \
         (try --delay 1ms --reads 2000)."
    )
}

fn microseconds(duration: Duration) -> String {
    format!("{:.1} µs", duration.as_secs_f64() * 1e6)
}

fn print_json(
    arguments: &DemoArguments,
    filled: &Filled,
    rows: &[Row],
    cache: &Cache<TcpTransport>,
) -> io::Result<()> {
    let row = |row: &Row| {
        json!({
            "name": row.name,
            "p50_us": row.p50.as_secs_f64() * 1e6,
            "p99_us": row.p99.as_secs_f64() * 1e6,
            "reads_per_second": row.reads_per_second,
            "upstream_requests": row.upstream_requests,
            "upstream_bytes": row.upstream_bytes,
            "hit_ratio": row.hit_ratio,
        })
    };
    let statistics = cache.statistics().named();
    let statistics: serde_json::Map<String, Value> = statistics
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let object = json!({
        "reads": arguments.reads,
        "records": filled.offsets_per_partition * i64::from(PARTITIONS),
        "batches": filled.batches,
        "size_bytes": filled.size_bytes,
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
        "statistics": statistics,
    });
    writeln!(io::stdout().lock(), "{object}")
}
