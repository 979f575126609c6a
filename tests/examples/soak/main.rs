//! Reads at random through one cache for as long as one likes, while the cluster behind it does all that clusters do:
//! `cargo xtask soak --minutes 10`.
//!
//! 64 tasks read single records and runs of them from three real brokers. Meanwhile topics are deleted and created anew under
//! their names, records are written and deleted, replicas and leaders move, brokers are stopped and killed, and the size limit
//! changes. Each read is held against what was written; what is checked is that
//! - no read gives a wrong record, or one that was deleted longer ago than the staleness bound,
//! - no read fails but for what was being deleted or created at that time,
//! - what is held never exceeds the limit,
//! - the memory of the process comes to rest.
//!
//! The end is one JSON object; the exit status is 1 if one of these does not hold.

mod changes;
mod readers;
mod world;

use core::time::Duration;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings};
use kachet::transport::{TcpSettings, TcpTransport};
use kachet_core::time::MaxStaleness;
use kachet_tests::cluster::KafkaCluster;
use serde_json::json;
use tokio::time::sleep;

use self::world::World;

/// The staleness bound.
pub(crate) const BOUND: Duration = Duration::from_millis(500);
const TASKS: u32 = 64;
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// By how much the process may grow between the first third of the time and the last, in KiB: what allocators keep.
const GROWTH_LIMIT_KIB: u64 = 24 << 10;

#[derive(Debug, Parser)]
struct Options {
    /// For how many minutes to read.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// What the changes of the cluster follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) type Reader = Client<Cache<TcpTransport>>;

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    if !(options.minutes > 0.0 && options.minutes < 1e5) {
        bail!(
            "--minutes is more than 0 and less than 100000, not {}",
            options.minutes
        );
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(soak(&options));
    // The changes run in a thread of their own, which ends with what it is doing.
    runtime.shutdown_timeout(Duration::from_secs(5));
    outcome.map(|is_well| {
        if is_well {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    })
}

async fn soak(options: &Options) -> Result<bool> {
    let cluster = KafkaCluster::start(3)?.context("there is no Kafka; run `cargo xtask setup`")?;
    let writer = cluster.writer().context("there is no Java")?;
    let client = Arc::new(reader(&cluster.bootstrap())?);
    let world = Arc::new(World::new());
    let mut changes = changes::Changes::new(
        cluster,
        writer,
        Arc::clone(&client),
        Arc::clone(&world),
        options.seed,
    );
    let ends_at = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
    let changing = tokio::task::spawn_blocking(move || {
        changes.begin()?;
        changes.run_until(ends_at)
    });
    let reading: Vec<_> = (0..TASKS)
        .map(|task| {
            tokio::spawn(readers::run(
                Arc::clone(&client),
                Arc::clone(&world),
                task,
                ends_at,
            ))
        })
        .collect();
    let mut memory_kib = Vec::new();
    while Instant::now() < ends_at {
        if changing.is_finished() {
            // With what could not be changed goes the cluster, and every read would fail from then on.
            changing
                .await?
                .context("the cluster could not be changed any more")?;
            bail!("the changes have ended before their time");
        }
        sleep(SAMPLE_EVERY.min(ends_at.saturating_duration_since(Instant::now()))).await;
        memory_kib.push(resident_kib()?);
        eprintln!(
            "{} {}",
            world.tally(),
            client.transport().statistics().size_bytes >> 10
        );
    }
    for reader in reading {
        reader.await?;
    }
    let changes = changing.await??;
    Ok(report(&client, &world, &memory_kib, &changes))
}

fn reader(bootstrap: &str) -> Result<Reader> {
    let settings = ClientSettings {
        retry_timeout: Duration::from_secs(60),
        ..ClientSettings::default()
    };
    let tcp = TcpSettings {
        request_timeout: Duration::from_secs(10),
        ..TcpSettings::default()
    };
    Ok(Client::builder()
        .bootstrap(bootstrap)
        .size_limit_bytes(2 << 20)
        .max_staleness(MaxStaleness::Within(BOUND))
        .settings(settings)
        .tcp(tcp)
        .build()?)
}

/// What the process holds in memory.
fn resident_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let size = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    size.context("no VmRSS in /proc/self/status")
}

fn report(client: &Reader, world: &World, memory_kib: &[u64], changes: &changes::Count) -> bool {
    let third = memory_kib.len() / 3;
    let most = |samples: &[u64]| samples.iter().copied().max().unwrap_or(0);
    let (first, last) = (
        most(&memory_kib[..memory_kib.len() - 2 * third]),
        most(&memory_kib[memory_kib.len() - third..]),
    );
    let (held, counted) = client.transport().audit();
    let tally = world.tally();
    let is_flat = last <= first + GROWTH_LIMIT_KIB;
    let statistics: serde_json::Map<_, _> = client
        .transport()
        .statistics()
        .named()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .into_iter()
        .collect();
    let is_well = tally.is_well() && is_flat && held == counted;
    let report = json!({
        "is_well": is_well,
        "reads": tally.to_json(),
        "changes": changes.to_json(),
        "memory_kib": { "first_third": first, "last_third": last, "is_flat": is_flat },
        "statistics": statistics,
        "faults": world.faults(),
    });
    println!("{report:#}");
    is_well
}
