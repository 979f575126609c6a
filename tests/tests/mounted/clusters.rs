//! A mount point answers for the cluster that filled it, and for no other (H6).

use anyhow::Result;
use kachet_core::time::MaxStaleness;
use kachet_tests::kafka::{KafkaBroker, KafkaSettings, own_kafka, shared_kafka, writer_for};
use kachet_tests::records;

use super::{Mounted, client};

const TOPIC: &str = "of-two-clusters";

fn fill(broker: &KafkaBroker, seed: i64) -> Result<Option<()>> {
    let Some(mut writer) = writer_for(broker) else {
        return Ok(None);
    };
    writer.command(&format!("create {TOPIC} 1"))?;
    writer.produce(TOPIC, 0, "lz4", (100, 10), seed)?;
    Ok(Some(()))
}

async fn assert_reads(client: &Mounted, seed: i64) -> Result<()> {
    for index in 0..100 {
        let record = client.record(TOPIC, 0, index.into()).await?;
        let value = record.and_then(|record| record.value);
        assert_eq!(
            value.as_deref(),
            Some(records::value(seed, index).as_bytes()),
            "{index}"
        );
    }
    client.transport().write_out().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_one_cluster_is_served_for_another() -> Result<()> {
    let Some(first) = shared_kafka() else {
        return Ok(());
    };
    let Some(second) = own_kafka(&KafkaSettings::default()) else {
        return Ok(());
    };
    if fill(first, 1)?.is_none() || fill(&second, 2)?.is_none() {
        return Ok(());
    }
    for max_staleness in [MaxStaleness::default(), MaxStaleness::Forever] {
        let folder = tempfile::tempdir()?;
        for (broker, seed, found) in [(first, 1, 0), (&second, 2, 10), (first, 1, 10), (first, 1, 10)] {
            let set_up = |cache: kachet::cache::CacheBuilder<_, _>| {
                cache.size_limit_bytes(64 << 20).max_staleness(max_staleness)
            };
            let (client, restored) = client(&broker.bootstrap(), folder.path(), set_up).await?;
            assert_eq!(restored, found);
            assert_reads(&client, seed).await?;
            let statistics = client.transport().statistics();
            assert_eq!(
                (statistics.batches, statistics.errors),
                (10, 0),
                "{max_staleness:?}, {seed}: {statistics:?}"
            );
        }
    }
    Ok(())
}
