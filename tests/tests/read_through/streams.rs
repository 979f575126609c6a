//! Streams forwards and backwards, the last records, the first of a time and scattered ones equal what the Java
//! consumer reads: over every codec, transactions that were committed, aborted, interleaved and left open, and the gaps
//! of a compacted topic.

use core::time::Duration;

use anyhow::{Result, ensure};
use futures_util::TryStreamExt;
use kachet::client::{Client, ClientError, ClientSettings, Isolation};
use kachet::transport::{TcpSettings, TcpTransport, Transport};
use kachet_core::time::MaxStaleness;
use kachet_tests::java;
use kachet_tests::kafka::{shared_kafka, writer_for};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::cached;
use super::records::{expected, fields};

const ISOLATIONS: [(Isolation, java::Isolation); 2] = [
    (Isolation::ReadUncommitted, java::Isolation::ReadUncommitted),
    (Isolation::ReadCommitted, java::Isolation::ReadCommitted),
];

/// Reads past the cache, page by page of so many bytes.
fn paged(bootstrap: &str, isolation: Isolation, fetch_max_bytes: usize) -> Result<Client<TcpTransport>> {
    let settings = ClientSettings {
        isolation,
        fetch_max_bytes,
        ..ClientSettings::default()
    };
    let transport = TcpTransport::new(TcpSettings::default());
    Ok(Client::new(transport, vec![bootstrap.parse()?], settings)?)
}

fn offset(record: &Value) -> i64 {
    record["offset"].as_i64().unwrap_or(-1)
}

/// Compares every way to read a partition with what the Java consumer has read of it from its start.
async fn compare<T: Transport>(client: &Client<T>, topic: &str, read: &[Value]) -> Result<()> {
    let (start, end) = (read.first().map_or(0, offset), read.last().map_or(0, offset) + 1);
    for from in [start, start + (end - start) / 3, end - 1] {
        let forwards = client.records_from(topic, 0, from).read_ahead_bytes(8 << 10);
        let forwards: Vec<_> = forwards.map_ok(|record| fields(&record)).try_collect().await?;
        let wanted = read.iter().filter(|record| offset(record) >= from);
        assert_eq!(forwards, wanted.map(expected).collect::<Vec<_>>(), "from {from}");

        let backwards = client.records_back(topic, 0, from);
        let backwards: Vec<_> = backwards.map_ok(|record| fields(&record)).try_collect().await?;
        let wanted = read.iter().rev().filter(|record| offset(record) <= from);
        assert_eq!(
            backwards,
            wanted.map(expected).collect::<Vec<_>>(),
            "back from {from}"
        );
    }
    let all: Vec<_> = client
        .records_back(topic, 0, i64::MAX)
        .map_ok(|record| fields(&record))
        .try_collect()
        .await?;
    assert_eq!(all, read.iter().rev().map(expected).collect::<Vec<_>>());

    for count in [1, 7, read.len() + 1] {
        let last = client.last(topic, 0, count).await?;
        let wanted = &read[read.len().saturating_sub(count)..];
        assert_eq!(
            last.iter().map(fields).collect::<Vec<_>>(),
            wanted.iter().map(expected).collect::<Vec<_>>(),
            "last {count}"
        );
    }
    compare_scattered(client, topic, read, start..end).await?;
    compare_times(client, topic, read).await
}

async fn compare_scattered<T: Transport>(
    client: &Client<T>,
    topic: &str,
    read: &[Value],
    offsets: core::ops::Range<i64>,
) -> Result<()> {
    // All of them, in an order that is neither up nor down.
    let mut asked: Vec<i64> = offsets.collect();
    asked.sort_by_key(|offset| (offset % 7, -offset));
    let found = client.scattered(topic, 0, &asked).await;
    for (asked, found) in asked.iter().zip(found) {
        let wanted = read.iter().find(|record| offset(record) == *asked);
        assert_eq!(found?.as_ref().map(fields), wanted.map(expected), "at {asked}");
    }
    Ok(())
}

async fn compare_times<T: Transport>(client: &Client<T>, topic: &str, read: &[Value]) -> Result<()> {
    let time = |record: &Value| record["ts"].as_i64().unwrap_or(-1);
    for record in read.iter().step_by(read.len() / 5 + 1) {
        for since in [time(record) - 1, time(record), time(record) + 1] {
            let found = client.first_since(topic, 0, since).await?;
            let wanted = read.iter().find(|record| time(record) >= since);
            assert_eq!(found.as_ref().map(fields), wanted.map(expected), "since {since}");
        }
    }
    assert_eq!(client.first_since(topic, 0, i64::MAX - 1).await?, None);
    Ok(())
}

/// With pages of one batch and of many, without a cache and twice through one, under both isolation levels.
async fn compare_all(bootstrap: &str, topic: &str, log_start: i64) -> Result<()> {
    for (isolation, java_isolation) in ISOLATIONS {
        let read = java::read_records(bootstrap, topic, 0, log_start, java_isolation)?;
        ensure!(!read.is_empty(), "{topic} holds nothing that {isolation:?} sees");
        for fetch_max_bytes in [1, 3_000, 1 << 20] {
            compare(&paged(bootstrap, isolation, fetch_max_bytes)?, topic, &read).await?;
        }
        let client = cached(bootstrap, isolation, MaxStaleness::default())?;
        for _ in 0..2 {
            compare(&client, topic, &read).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_read_every_codec_gives_the_java_consumers_records() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "streams-of-every-codec";
    writer.command(&format!("create {topic} 1"))?;
    for (seed, codec) in (1..).zip(["none", "gzip", "snappy", "lz4", "zstd"]) {
        writer.command(&format!(
            "produce {topic} 0 {codec} 40 10 {seed} headers nullkeys nullvalues"
        ))?;
    }
    // Inside of a batch.
    writer.command(&format!("delete-records {topic} 0 13"))?;
    compare_all(&broker.bootstrap(), topic, 13).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_of_every_outcome_read_the_same_forwards_and_backwards() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "streams-of-transactions";
    writer.command(&format!("create {topic} 1"))?;
    let mut transaction = |outcome: &str, count: u32, id: &str, seed: u32| {
        writer.command(&format!("transaction {outcome} {topic} 0 {count} {id} {seed}"))
    };
    transaction("commit", 5, "streams-tx-1", 1)?;
    transaction("abort", 4, "streams-tx-1", 2)?;
    // Two that are open beside each other, with finished ones between their records and their markers.
    transaction("open", 6, "streams-tx-2", 3)?;
    transaction("open", 3, "streams-tx-3", 4)?;
    transaction("commit", 2, "streams-tx-1", 5)?;
    transaction("abort", 7, "streams-tx-4", 6)?;
    for (outcome, id) in [("abort", "streams-tx-2"), ("commit", "streams-tx-3")] {
        writer.command(&format!("end-transaction {outcome} {id}"))?;
    }
    // The producer of an aborted one goes on, and what comes then is committed.
    writer.command(&format!("transaction commit {topic} 0 3 streams-tx-2 7"))?;
    writer.command(&format!("produce {topic} 0 zstd 12 4 8"))?;
    writer.command(&format!("transaction abort {topic} 0 2 streams-tx-1 9"))?;
    compare_all(&broker.bootstrap(), topic, 0).await?;

    // The last stable offset stands before what is open, though others have written behind it.
    writer.command(&format!("transaction open {topic} 0 4 streams-tx-5 10"))?;
    writer.command(&format!("produce {topic} 0 lz4 10 5 11"))?;
    compare_all(&broker.bootstrap(), topic, 0).await?;
    let committed = paged(&broker.bootstrap(), Isolation::ReadCommitted, 1 << 20)?;
    let uncommitted = paged(&broker.bootstrap(), Isolation::ReadUncommitted, 1 << 20)?;
    let end = uncommitted.last(topic, 0, 1).await?[0].offset;
    let beyond = &committed.scattered(topic, 0, &[end]).await[0];
    assert!(
        matches!(beyond, Err(ClientError::OffsetOutOfRange { .. })),
        "{beyond:?}"
    );
    writer.command("end-transaction commit streams-tx-5")?;
    compare_all(&broker.bootstrap(), topic, 0).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gaps_of_a_compacted_topic_are_stepped_over_in_both_directions() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "streams-compacted";
    let settings =
        "cleanup.policy=compact segment.ms=100 min.cleanable.dirty.ratio=0.01 delete.retention.ms=0";
    writer.command(&format!("create {topic} 1 {settings}"))?;
    writer.command(&format!("produce {topic} 0 lz4 300 10 1 keys=7"))?;
    writer.command(&format!("transaction abort {topic} 0 20 streams-compacted-tx 2"))?;
    let client = paged(&broker.bootstrap(), Isolation::ReadUncommitted, 1 << 20)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    // Each write rolls the segment before it, so that the cleaner may take that.
    for seed in 3.. {
        writer.command(&format!("produce {topic} 0 zstd 20 5 {seed} keys=7"))?;
        let held: Vec<_> = client.records_from(topic, 0, 0).try_collect().await?;
        if held.len() < 100 {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "the cleaner has not run: {} records",
            held.len()
        );
        sleep(Duration::from_secs(1)).await;
    }
    // What the cleaner does while this compares is met by comparing again.
    loop {
        let read_once = async || -> Result<usize> {
            let held: Vec<_> = client.records_from(topic, 0, 0).try_collect().await?;
            Ok(held.len())
        };
        let before = read_once().await?;
        sleep(Duration::from_secs(3)).await;
        if before == read_once().await? {
            return compare_all(&broker.bootstrap(), topic, 0).await;
        }
        ensure!(Instant::now() < deadline, "the cleaner does not come to rest");
    }
}
