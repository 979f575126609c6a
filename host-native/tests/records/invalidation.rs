//! Pictures of what is cached, and dropping parts of it.

use anyhow::Result;
use kachet::core::offset::OffsetSpan;

use super::{TOPIC, append, broker_with, cached_client};

fn runs(covered: &[OffsetSpan]) -> Vec<(i64, i64)> {
    covered.iter().map(|run| (run.base(), run.last())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_covered_is_what_was_read_and_is_dropped_by_partition_and_by_offset() -> Result<()> {
    let broker = broker_with(10).await?;
    let topic_id = {
        broker.create_topic("others", 2)?;
        append(&broker, 0, 0)?;
        cached_client(&broker)?.fetch(TOPIC, 0, 0).await?.topic_id()
    };
    let client = cached_client(&broker)?;
    let cache = client.transport();
    assert_eq!(cache.partitions(), []);
    for offset in [3, 15, 72] {
        assert!(client.record(TOPIC, 0, offset).await?.is_some());
    }
    let [key] = cache.partitions()[..] else {
        anyhow::bail!("one partition is cached: {:?}", cache.partitions());
    };
    assert_eq!((key.topic_id, key.partition), (topic_id, 0));
    assert_eq!(runs(&cache.covered(key)), [(0, 19), (70, 79)]);

    // Inside of a batch, which stays.
    cache.invalidate_below(topic_id, 0, 15);
    assert_eq!(runs(&cache.covered(key)), [(10, 19), (70, 79)]);
    cache.invalidate_below(topic_id, 1, 100);
    cache.invalidate_partition(topic_id, 1);
    assert_eq!(cache.statistics().batches, 2, "another partition's");

    let before = broker.requests().fetch;
    assert!(client.record(TOPIC, 0, 15).await?.is_some());
    assert_eq!(broker.requests().fetch, before);
    cache.invalidate_partition(topic_id, 0);
    assert_eq!(cache.partitions(), []);
    assert_eq!(runs(&cache.covered(key)), []);
    assert!(client.record(TOPIC, 0, 15).await?.is_some());
    assert_eq!(broker.requests().fetch, before + 1);
    Ok(())
}
