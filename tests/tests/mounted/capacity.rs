//! A topic that is cached whole takes what one of its replicas takes, and at most a hundredth more.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kachet_tests::cluster::KafkaCluster;

use super::{client, read_all, size_bytes};

const TOPIC: &str = "capacity";
const PARTITIONS: i32 = 3;
const REPLICAS: u64 = 3;
const RECORDS: u32 = 6_400;
/// With records of a thousand bytes close to 16 KiB, which is what producers send at most unless told otherwise.
const RECORDS_PER_BATCH: u32 = 16;

/// What the log segments of all replicas take, in bytes.
fn replicated_bytes(cluster: &mut KafkaCluster) -> Result<u64> {
    let mut total = 0;
    for node_id in 1..=3 {
        let data = cluster.node(node_id)?.dir().join("data");
        for partition in 0..PARTITIONS {
            total += size_bytes(&data.join(format!("{TOPIC}-{partition}")), "log")?;
        }
    }
    Ok(total)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_cached_whole_takes_one_replica_and_at_most_a_hundredth_more() -> Result<()> {
    let Some(mut cluster) = KafkaCluster::start(3)? else {
        return Ok(());
    };
    let Some(mut writer) = cluster.writer() else {
        return Ok(());
    };
    writer.command(&format!("create {TOPIC} {PARTITIONS}"))?;
    for partition in 0..PARTITIONS {
        writer.command(&format!(
            "produce {TOPIC} {partition} none {RECORDS} {RECORDS_PER_BATCH} {partition} size=1000"
        ))?;
    }
    let folder = tempfile::tempdir()?;
    let (reader, _) = client(&cluster.bootstrap(), folder.path(), |cache| {
        cache.size_limit_bytes(1 << 30)
    })
    .await?;
    let mut batch_bytes = 0;
    for partition in 0..PARTITIONS {
        batch_bytes += read_all(&reader, TOPIC, partition, RECORDS.into()).await?;
    }
    let unwritten = reader.transport().write_out().await;
    let statistics = reader.transport().statistics();
    assert_eq!((unwritten, statistics.rejected), (0, 0), "{statistics:?}");

    // Followers may be a moment behind.
    let deadline = Instant::now() + Duration::from_secs(30);
    while replicated_bytes(&mut cluster)? != REPLICAS * batch_bytes && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let replicated = replicated_bytes(&mut cluster)?;
    let mounted = size_bytes(folder.path(), "segment")? + size_bytes(folder.path(), "note")?;
    let share = replicated / REPLICAS;
    println!(
        "{} batches of {} bytes on average; all replicas: {replicated} bytes, a replica: {share}, the mount point: \
         {mounted}, {} thousandths of a replica",
        statistics.batches,
        batch_bytes / statistics.batches.max(1),
        mounted * 1000 / share.max(1)
    );
    ensure!(batch_bytes > 18_000_000, "{batch_bytes}");
    assert_eq!(replicated, REPLICAS * batch_bytes);
    ensure!(mounted * 100 <= share * 101, "{mounted} of {share}");
    ensure!(mounted >= share, "{mounted} of {share}: not all of it is there");
    Ok(())
}
