//! Reads from the replica in the client's own rack (KIP-392), and what a follower may not do to the cache.

use core::time::Duration;

use anyhow::{Context, Result, ensure};
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings};
use kachet::transport::{BrokerAddress, Transport};
use kachet_core::time::MaxStaleness;
use kachet_tests::cluster::KafkaCluster;
use kachet_tests::records;
use tokio::time::sleep;

use super::counting::Counting;
use super::{BOUND, CACHE_BYTES, PATIENCE, cluster};

/// Reads in rack 3 through a cache of so many bytes.
fn in_rack_3(bootstrap: &str, size_limit_bytes: u64) -> Result<(Client<Cache<Counting>>, Counting)> {
    let counting = Counting::new();
    let cache = Cache::builder(counting.clone())
        .size_limit_bytes(size_limit_bytes)
        .max_staleness(MaxStaleness::Within(BOUND))
        .build();
    let brokers: Result<Vec<_>, _> = bootstrap.split(',').map(str::parse).collect();
    let settings = ClientSettings {
        rack: Some("rack-3".to_owned()),
        retry_timeout: PATIENCE,
        ..ClientSettings::default()
    };
    Ok((Client::new(cache, brokers?, settings)?, counting))
}

fn port(cluster: &mut KafkaCluster, node_id: i32) -> Result<u16> {
    Ok(cluster.node(node_id)?.port())
}

async fn read<T: Transport>(client: &Client<T>, topic: &str, seed: i64, index: u32) -> Result<()> {
    let record = client.record(topic, 0, index.into()).await?;
    let value = record.and_then(|record| record.value).context("no value")?;
    ensure!(
        *value == *records::value(seed, index).as_bytes(),
        "{topic}@{index}"
    );
    Ok(())
}

/// H16: the leader redirects, the replica gives the records, and the cache serves them to the byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_from_the_replica_in_the_clients_rack() -> Result<()> {
    let Some(mut cluster) = cluster().await? else {
        return Ok(());
    };
    let Some(mut writer) = cluster.writer() else {
        return Ok(());
    };
    let topic = "nearest-replica";
    writer.command(&format!("create-on {topic} 2,3"))?;
    writer.produce(topic, 0, "lz4", (200, 10), 1)?;
    // A replica hears of the high watermark with its next fetch; until then the leader is asked for what lies behind it.
    sleep(Duration::from_secs(2)).await;
    let (leader, replica) = (port(&mut cluster, 2)?, port(&mut cluster, 3)?);
    let (client, counting) = in_rack_3(&cluster.bootstrap(), CACHE_BYTES)?;
    // Until the leader has seen that the replica has caught up, it gives the records itself.
    let mut first = (0..200).step_by(10);
    for index in first.by_ref() {
        read(&client, topic, 1, index).await?;
        if counting.by(replica).records_bytes > 0 {
            break;
        }
    }
    let redirected = (counting.by(leader), counting.by(replica));
    let rest: Vec<u32> = first.collect();
    assert!(rest.len() > 5, "the replica has not caught up");
    for index in &rest {
        read(&client, topic, 1, *index).await?;
    }
    let (by_leader, by_replica) = (counting.by(leader), counting.by(replica));
    assert_eq!(by_leader, redirected.0, "the leader is asked no more");
    assert_eq!(
        by_replica.fetches,
        redirected.1.fetches + rest.len(),
        "{by_replica:?}"
    );
    // What was read is cached, though a follower gave it.
    for index in 0..200 {
        read(&client, topic, 1, index).await?;
    }
    assert_eq!(counting.by(replica), by_replica);
    assert_eq!(counting.by(leader), by_leader);
    Ok(())
}

/// H16: a replica that dies is no error; the leader is read instead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_read_where_the_nearest_replica_fails() -> Result<()> {
    let Some(mut cluster) = cluster().await? else {
        return Ok(());
    };
    let Some(mut writer) = cluster.writer() else {
        return Ok(());
    };
    let topic = "nearest-replica-dies";
    writer.command(&format!("create-on {topic} 2,3"))?;
    writer.produce(topic, 0, "lz4", (100, 10), 1)?;
    let (leader, replica) = (port(&mut cluster, 2)?, port(&mut cluster, 3)?);
    // Without a cache: each read is a fetch.
    let (client, counting) = in_rack_3(&cluster.bootstrap(), 0)?;
    for index in 0..50 {
        read(&client, topic, 1, index).await?;
    }
    assert!(
        counting.by(replica).records_bytes > 0,
        "{:?}",
        counting.by(replica)
    );
    cluster.node(3)?.kill();
    let before = counting.by(leader);
    for index in 0..100 {
        read(&client, topic, 1, index).await?;
    }
    assert!(counting.by(leader).records_bytes > before.records_bytes);
    cluster.node(3)?.restart()?;
    Ok(())
}

/// H10, H13: what a follower does not have yet is not beyond the end: who has written a record can read it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_was_just_written_is_read_though_the_nearest_replica_is_behind() -> Result<()> {
    let Some(cluster) = cluster().await? else {
        return Ok(());
    };
    let Some(mut writer) = cluster.writer() else {
        return Ok(());
    };
    let topic = "nearest-replica-behind";
    writer.command(&format!("create-on {topic} 2,3"))?;
    let (client, _) = in_rack_3(&cluster.bootstrap(), CACHE_BYTES)?;
    for written in 0..40 {
        let (offset, _) = writer.produce(topic, 0, "none", (1, 1), written)?;
        let record = client.record(topic, 0, offset).await;
        let record = record.with_context(|| format!("the record at {offset}, just written"))?;
        let value = record.and_then(|record| record.value);
        assert_eq!(
            value.as_deref(),
            Some(records::value(written, 0).as_bytes()),
            "{offset}"
        );
    }
    Ok(())
}

/// H7: a follower's older high watermark is no truncation, so nothing that is cached goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_behind_drops_nothing() -> Result<()> {
    let Some(mut cluster) = cluster().await? else {
        return Ok(());
    };
    let Some(mut writer) = cluster.writer() else {
        return Ok(());
    };
    let topic = "follower-behind";
    writer.command(&format!("create-on {topic} 2,3"))?;
    writer.produce(topic, 0, "lz4", (50, 10), 1)?;
    let [leader, follower] = [2, 3].map(|node| port(&mut cluster, node));
    let address = |port| BrokerAddress {
        host: "127.0.0.1".to_owned(),
        port,
    };
    let (leader, follower) = (address(leader?), address(follower?));
    let (client, _) = in_rack_3(&cluster.bootstrap(), CACHE_BYTES)?;
    read(&client, topic, 1, 0).await?;
    let topic_id = client.fetch(topic, 0, 0).await?.topic_id();
    let cache = client.transport();
    let ask = async |broker: &BrokerAddress, offset: i64| {
        let request = super::request(&[(topic_id, 0, offset)], Duration::ZERO);
        super::fetch(cache, broker, request).await
    };
    let mut saw_older = false;
    for seed in 2..60 {
        let (first, last) = writer.produce(topic, 0, "lz4", (2, 1), seed)?;
        ask(&leader, first).await?;
        let key = cache.partitions()[0];
        let held = cache.covered(key);
        ensure!(held.iter().any(|run| run.last() >= last), "{held:?} lacks {last}");
        let given = ask(&follower, last + 1).await?;
        let high_watermark = given.partitions().map(|(_, data)| data.high_watermark).max();
        saw_older |= high_watermark.is_some_and(|high_watermark| (0..=last).contains(&high_watermark));
        ensure!(
            cache.covered(key) == held,
            "a follower at {high_watermark:?} dropped something of {held:?}"
        );
    }
    ensure!(
        saw_older,
        "the follower was never behind, so that this shows nothing"
    );
    Ok(())
}
