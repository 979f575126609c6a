//! What is there at a restart fits whatever limit and whatever size of segments are set then.

use anyhow::{Result, ensure};
use kachet_core::time::MaxStaleness;
use kachet_tests::kafka::{shared_kafka, writer_for};

use super::{client, read_all, size_bytes};

const TOPIC: &str = "limits-of-mounts";
const RECORDS: u32 = 4_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_another_size_of_segments_or_a_smaller_limit_keeps_what_fits() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    writer.command(&format!("create {TOPIC} 1"))?;
    writer.command(&format!("produce {TOPIC} 0 none {RECORDS} 16 1 size=1000"))?;
    let folder = tempfile::tempdir()?;
    let mut expected = 0;
    for segment_size_bytes in [300_000, 50_000, 1 << 20] {
        let set_up = |cache: kachet::cache::CacheBuilder<_, _>| {
            cache
                .size_limit_bytes(64 << 20)
                .segment_size_bytes(segment_size_bytes)
                .max_staleness(MaxStaleness::Forever)
        };
        let (client, restored) = client(&broker.bootstrap(), folder.path(), set_up).await?;
        let read = read_all(&client, TOPIC, 0, RECORDS.into()).await?;
        let statistics = client.transport().statistics();
        if expected == 0 {
            expected = read;
            assert_eq!((restored, statistics.batches), (0, 250), "{statistics:?}");
        }
        assert_eq!((read, statistics.batches), (expected, 250), "{statistics:?}");
        ensure!(
            restored == 0 || statistics.upstream_fetches == 0,
            "{statistics:?}"
        );
        client.transport().write_out().await;
    }
    let limit_bytes = expected / 3;
    let (client, _) = client(&broker.bootstrap(), folder.path(), |cache| {
        cache
            .size_limit_bytes(limit_bytes)
            .max_staleness(MaxStaleness::Forever)
    })
    .await?;
    client.transport().write_out().await;
    let left = size_bytes(folder.path(), "segment")?;
    ensure!(
        left <= limit_bytes,
        "{left} bytes are left, {limit_bytes} are allowed"
    );
    let statistics = client.transport().statistics();
    ensure!(
        statistics.batches > 0 && left > limit_bytes / 4,
        "{left} bytes are left, {limit_bytes} are allowed: {statistics:?}"
    );
    // What has gone is fetched again, and the limit holds all the time.
    assert_eq!(read_all(&client, TOPIC, 0, RECORDS.into()).await?, expected);
    client.transport().write_out().await;
    ensure!(size_bytes(folder.path(), "segment")? <= limit_bytes);
    Ok(())
}
