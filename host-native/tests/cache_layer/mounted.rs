//! The cache over a mount point, in a runtime of many threads: what was fetched before a restart is served after it.

use core::time::Duration;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings};
use kachet::demo::broker::EmbeddedBroker;
use kachet::mount::{MountError, MountOptions, MountPoint, ReadMode};
use kachet::transport::{TcpSettings, TcpTransport};

use super::{RECORDS_PER_BATCH, TOPIC, broker_with, direct_client_of};

type Mounted = Cache<TcpTransport, MountPoint>;

const BATCHES: u64 = 60;
const ROUNDS: usize = 3;
const SEGMENT_BYTES: u32 = 4_000;

/// What jobs are left of the cache before may still hold it for a moment.
async fn mount(folder: &Path, read_mode: ReadMode) -> Result<MountPoint> {
    for _ in 0..1_000 {
        match MountOptions::new().read_mode(read_mode).open(folder) {
            Err(MountError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            opened => return Ok(opened?),
        }
    }
    anyhow::bail!("it is held for ever")
}

async fn cache(folder: &Path, read_mode: ReadMode) -> Result<(Mounted, u64)> {
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default()))
        .size_limit_bytes(1 << 20)
        .segment_size_bytes(SEGMENT_BYTES)
        .mount(mount(folder, read_mode).await?);
    let (cache, restored) = cache.restore().await?;
    Ok((cache, restored.batches))
}

/// Reads every record through a cache, and compares it with the broker's.
async fn read_all(broker: &EmbeddedBroker, cache: Mounted) -> Result<()> {
    let direct = direct_client_of(broker)?;
    let brokers = vec![broker.address().clone()];
    let client = Client::new(cache, brokers, ClientSettings::default())?;
    for offset in 0..i64::try_from(BATCHES)? * i64::try_from(RECORDS_PER_BATCH)? {
        let read = client.record(TOPIC, 0, offset).await?.context("it is there")?;
        let expected = direct.record(TOPIC, 0, offset).await?.context("it is there")?;
        ensure!(read.value == expected.value, "offset {offset}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_fetched_before_a_restart_is_served_after_it() -> Result<()> {
    for read_mode in [ReadMode::Mapped, ReadMode::Positional] {
        let broker = broker_with(BATCHES).await?;
        let folder = tempfile::tempdir()?;
        for round in 0..ROUNDS {
            let (cache, restored) = cache(folder.path(), read_mode).await?;
            ensure!(
                (round == 0) == (restored == 0),
                "round {round}: {restored} restored"
            );
            read_all(&broker, cache.clone()).await?;
            let statistics = cache.statistics();
            ensure!(
                statistics.misses <= BATCHES - restored,
                "round {round}, {restored} restored: {statistics:?}"
            );
            ensure!(statistics.storage_errors == 0, "{statistics:?}");
        }
    }
    Ok(())
}
