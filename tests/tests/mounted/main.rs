//! A cache over a mount point against real clusters: how much it takes, and for whom it answers.

mod capacity;
mod clusters;
mod limits;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use kachet::cache::{Cache, CacheBuilder};
use kachet::client::{Client, ClientSettings};
use kachet::mount::{MountError, MountPoint};
use kachet::transport::{BrokerAddress, TcpSettings, TcpTransport};

type Mounted = Client<Cache<TcpTransport, MountPoint>>;

/// Opens a mount point that a cache before it may hold for a moment still.
async fn open(folder: &Path) -> Result<MountPoint> {
    for _ in 0..1_000 {
        match MountPoint::open(folder) {
            Err(MountError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            opened => return Ok(opened?),
        }
    }
    bail!("it is held for ever")
}

/// A client over a mount point, set up by `set_up`, and how many batches it has found there.
async fn client(
    bootstrap: &str,
    folder: &Path,
    set_up: impl FnOnce(CacheBuilder<TcpTransport, MountPoint>) -> CacheBuilder<TcpTransport, MountPoint>,
) -> Result<(Mounted, u64)> {
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default())).mount(open(folder).await?);
    let (cache, restored) = set_up(cache).restore().await?;
    let brokers: Result<Vec<BrokerAddress>, _> = bootstrap.split(',').map(str::parse).collect();
    Ok((
        Client::new(cache, brokers?, ClientSettings::default())?,
        restored.batches,
    ))
}

/// Reads a partition from its beginning to its end; gives how many bytes its batches take.
async fn read_all(client: &Mounted, topic: &str, partition: i32, end: i64) -> Result<u64> {
    let (mut next, mut size_bytes) = (0, 0);
    while next < end {
        let fetched = client.fetch(topic, partition, next).await?;
        for batch in fetched.batches()? {
            size_bytes += batch.len() as u64;
        }
        let beyond = fetched.next_offset().unwrap_or_default();
        ensure!(beyond > next, "no progress at offset {next}");
        next = beyond;
    }
    Ok(size_bytes)
}

/// What the files of a folder take whose names end so, in bytes.
fn size_bytes(folder: &Path, extension: &str) -> Result<u64> {
    let mut size_bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_one = entry.path().extension().is_some_and(|found| found == extension);
        size_bytes += if is_one { entry.metadata()?.len() } else { 0 };
    }
    Ok(size_bytes)
}
