//! Leaders move: the client finds them again, and the cache keeps what still stands.

use core::time::Duration;

use anyhow::{Context, Result};
use kachet::client::{Client, ClientSettings};
use kachet::cluster::describe;
use kachet::transport::{BrokerAddress, TcpSettings, TcpTransport};
use kachet_core::wire::{TopicRef, WireStr};
use kachet_tests::cluster::KafkaCluster;
use kachet_tests::records;

const TOPIC: &str = "moving-leaders";
const PARTITIONS: i32 = 6;
/// For a dead broker to be noticed and others to take over, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The node id of each partition's leader.
async fn leaders(bootstrap: &str) -> Result<Vec<i32>> {
    let transport = TcpTransport::new(TcpSettings::default());
    let any: BrokerAddress = bootstrap.split(',').next().context("no address")?.parse()?;
    let topology = describe(&transport, &any, &[TopicRef::Name(WireStr::from_static(TOPIC))]).await?;
    let topic = topology.topics.first().context("no topic")?;
    Ok(topic
        .partitions
        .values()
        .map(|partition| partition.leader_id)
        .collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_when_a_leader_dies_and_what_is_cached_stays() -> Result<()> {
    let Some(mut cluster) = KafkaCluster::start(3)? else {
        return Ok(());
    };
    let Some(mut writer) = cluster.writer() else {
        return Ok(());
    };
    writer.command(&format!("create {TOPIC} {PARTITIONS}"))?;
    for partition in 0..PARTITIONS {
        writer.produce(TOPIC, partition, "lz4", (40, 10), i64::from(partition))?;
    }
    let settings = ClientSettings {
        retry_timeout: PATIENCE,
        ..ClientSettings::default()
    };
    let tcp = TcpSettings {
        request_timeout: Duration::from_secs(5),
        ..TcpSettings::default()
    };
    let client = Client::builder()
        .bootstrap(&cluster.bootstrap())
        .size_limit_bytes(16 << 20)
        .settings(settings)
        .tcp(tcp)
        .build()?;
    let read = async |partition: i32, index: u32| -> Result<()> {
        let record = client.record(TOPIC, partition, index.into()).await?;
        let value = record.and_then(|record| record.value);
        let expected = records::value(i64::from(partition), index);
        assert_eq!(value.as_deref(), Some(expected.as_bytes()), "{partition}@{index}");
        Ok(())
    };
    for partition in 0..PARTITIONS {
        read(partition, 5).await?;
    }
    let before = leaders(&cluster.bootstrap()).await?;
    // Node 1 is the controller, too.
    let dies = *before
        .iter()
        .find(|leader| **leader > 1)
        .context("node 1 leads everything")?;
    cluster.node(dies)?.kill();

    // What is not cached comes from the new leaders, though the client knows the old ones.
    for partition in 0..PARTITIONS {
        read(partition, 25).await?;
    }
    let after = leaders(&cluster.bootstrap()).await?;
    assert!(!after.contains(&dies), "{after:?}");
    assert!(before.contains(&dies) && before != after);

    // What is cached is validated by the new leaders and stays: nothing of it is fetched again.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let fetched = client.transport().statistics();
    for partition in 0..PARTITIONS {
        read(partition, 5).await?;
        read(partition, 25).await?;
    }
    let again = client.transport().statistics();
    assert_eq!(again.upstream_fetches, fetched.upstream_fetches, "{again:?}");
    assert_eq!((again.batches, again.errors), (12, 0), "{again:?}");

    // With the broker back, the rest is read as well.
    cluster.node(dies)?.restart()?;
    for partition in 0..PARTITIONS {
        read(partition, 35).await?;
    }
    Ok(())
}
