//! A cache that keeps its batches in a folder: what one process has read, the next finds there.
//!
//! ```sh
//! cargo run --example mounted
//! cargo run --example mounted -- --bootstrap localhost:9092 --topic numbers
//! ```

mod cluster;

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings, Position};
use kachet::mount::{MountError, MountPoint};
use kachet::transport::{TcpSettings, TcpTransport};

use cluster::Cluster;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = Cluster::of_arguments().await?;
    // A service would name a folder of its own, which nobody else writes to.
    let folder = tempfile::tempdir()?;
    for life in ["first", "second"] {
        let (cache, restored) = Cache::builder(TcpTransport::new(TcpSettings::default()))
            .size_limit_bytes(1 << 30)
            .mount(open(&folder.path().join("cache")).await?)
            .restore()
            .await?;
        println!("{life} life: {} batches are there already", restored.batches);

        let bootstrap = vec![cluster.bootstrap.parse()?];
        let client = Client::new(cache.clone(), bootstrap, ClientSettings::default())?;
        let start = client.offset_of(&cluster.topic, 0, Position::Earliest).await?;
        let records: Vec<_> = client
            .records_from(&cluster.topic, 0, start)
            .try_collect()
            .await?;
        let figures = cache.statistics();
        println!(
            "{life} life: {} records, {} fetches from the broker",
            records.len(),
            figures.upstream_fetches
        );
        for key in cache.partitions() {
            for run in cache.covered(key) {
                println!(
                    "{life} life: {key} is cached from {} to {}",
                    run.base(),
                    run.last()
                );
            }
        }

        // Before the process ends, so that nothing is lost and the next start need not walk the segments.
        let lost_bytes = cache.write_out().await;
        println!("{life} life: {lost_bytes} bytes could not be written");
    }
    Ok(())
}

/// The folder is locked until the last task of the cache before has let go of it.
async fn open(path: &Path) -> Result<MountPoint, MountError> {
    for _ in 0..100 {
        match MountPoint::open(path) {
            Err(MountError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            opened => return opened,
        }
    }
    MountPoint::open(path)
}
