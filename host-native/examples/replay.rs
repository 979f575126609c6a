//! Replays a partition from its beginning to its end with read-ahead, twice, and its last records backwards.
//!
//! ```sh
//! cargo run --example replay
//! cargo run --example replay -- --bootstrap localhost:9092 --topic numbers
//! ```

mod cluster;

use std::error::Error;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt};
use kachet::client::{Client, Position};

use cluster::Cluster;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = Cluster::of_arguments().await?;
    let client = Client::builder()
        .bootstrap(&cluster.bootstrap)
        .size_limit_bytes(256 << 20)
        .build()?;
    let start = client.offset_of(&cluster.topic, 0, Position::Earliest).await?;
    for pass in ["from the broker", "from the cache"] {
        let before = client.transport().statistics();
        let started = Instant::now();
        let (mut count, mut bytes) = (0_u64, 0);
        let mut records = client
            .records_from(&cluster.topic, 0, start)
            .read_ahead_bytes(1 << 20);
        while let Some(record) = records.try_next().await? {
            count += 1;
            bytes += record.value.map_or(0, |value| value.len());
        }
        let fetches = client.transport().statistics().upstream_fetches - before.upstream_fetches;
        println!(
            "{pass}: {count} records, {bytes} bytes of values, {fetches} fetches, {:?}",
            started.elapsed()
        );
    }

    println!("the last three, newest first:");
    let mut newest = client.records_back(&cluster.topic, 0, i64::MAX).take(3);
    while let Some(record) = newest.try_next().await? {
        println!("  offset {}, time {}", record.offset, record.timestamp_ms);
    }
    Ok(())
}
