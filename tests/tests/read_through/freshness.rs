//! What the broker no longer serves stops being served within the bound (H4, H6).

use core::time::Duration;

use anyhow::Result;
use kachet::client::{Client, ClientError, Isolation, Record};
use kachet_core::time::MaxStaleness;
use kachet_tests::kafka::{shared_kafka, writer_for};
use kachet_tests::records;
use tokio::time::sleep;

use super::{CACHE_BYTES, all_batches, cached, direct};

const BOUND: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_records_are_gone_within_the_bound() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "fresh-deleted-records";
    writer.command(&format!("create {topic} 1"))?;
    writer.command(&format!("produce {topic} 0 zstd 100 10 1"))?;
    let client = cached(
        &broker.bootstrap(),
        Isolation::ReadUncommitted,
        MaxStaleness::Within(BOUND),
    )?;
    all_batches(&client, topic, 0, 0).await?;
    assert_eq!(client.transport().statistics().batches, 10);
    // Inside of the batch 30–39, which goes on being served.
    writer.command(&format!("delete-records {topic} 0 35"))?;
    sleep(BOUND).await;
    let gone = client.record(topic, 0, 20).await;
    assert!(
        matches!(
            gone,
            Err(ClientError::OffsetOutOfRange {
                log_start_offset: 35,
                ..
            })
        ),
        "{gone:?}"
    );
    let gone = client.record(topic, 0, 34).await;
    assert!(
        matches!(gone, Err(ClientError::OffsetOutOfRange { .. })),
        "{gone:?}"
    );
    assert_eq!(client.transport().statistics().batches, 7);
    let upstream = client.transport().statistics().upstream_fetches;
    let kept = client.fetch(topic, 0, 35).await?;
    assert_eq!(
        kept.batches()?,
        direct(&broker.bootstrap(), Isolation::ReadUncommitted)?
            .fetch(topic, 0, 35)
            .await?
            .batches()?
    );
    assert_eq!(kept.log_start_offset(), 35);
    assert_eq!(client.transport().statistics().upstream_fetches, upstream);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_created_again_under_its_name_is_read_anew_within_the_bound() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "fresh-created-again";
    let client = cached(
        &broker.bootstrap(),
        Isolation::ReadUncommitted,
        MaxStaleness::Within(BOUND),
    )?;
    for seed in [1, 2] {
        writer.command(&format!("create {topic} 1"))?;
        writer.command(&format!("produce {topic} 0 none 20 10 {seed}"))?;
        sleep(BOUND).await;
        for index in [0, 7, 19] {
            let record = client.record(topic, 0, index.into()).await?;
            let value = record.and_then(|record| record.value);
            assert_eq!(
                value.as_deref(),
                Some(records::value(seed, index).as_bytes()),
                "incarnation {seed}"
            );
        }
        writer.command(&format!("delete {topic}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_topic_is_an_error_within_the_bound() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "fresh-deleted";
    writer.command(&format!("create {topic} 1"))?;
    writer.command(&format!("produce {topic} 0 none 20 10 1"))?;
    let client = cached(
        &broker.bootstrap(),
        Isolation::ReadUncommitted,
        MaxStaleness::Within(BOUND),
    )?;
    assert!(client.record(topic, 0, 3).await?.is_some());
    writer.command(&format!("delete {topic}"))?;
    sleep(BOUND).await;
    let gone = client.record(topic, 0, 3).await;
    assert!(matches!(gone, Err(ClientError::UnknownTopic { .. })), "{gone:?}");
    assert_eq!(client.transport().statistics().batches, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_cleaner_removed_is_gone_within_the_bound_for_compacted_topics() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "fresh-compacted";
    let settings =
        "cleanup.policy=compact segment.ms=100 min.cleanable.dirty.ratio=0.01 delete.retention.ms=0";
    writer.command(&format!("create {topic} 1 {settings}"))?;
    writer.command(&format!("produce {topic} 0 lz4 200 10 1 keys=7"))?;
    let bootstrap = broker.bootstrap();
    let client = Client::builder()
        .bootstrap(&bootstrap)
        .size_limit_bytes(CACHE_BYTES)
        .max_staleness(MaxStaleness::Within(BOUND))
        .compacted_max_staleness(MaxStaleness::Within(2 * BOUND))
        .build()?;
    let direct = direct(&bootstrap, Isolation::ReadUncommitted)?;
    let offsets = |records: Vec<Record>| records.iter().map(|record| record.offset).collect::<Vec<_>>();
    let before = offsets(client.records(topic, 0, 0, 1_000).await?);

    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let at_first = offsets(direct.records(topic, 0, 0, 1_000).await?);
        sleep(2 * BOUND).await;
        let through = offsets(client.records(topic, 0, 0, 1_000).await?);
        let at_last = offsets(direct.records(topic, 0, 0, 1_000).await?);
        if at_first == at_last {
            assert_eq!(
                through, at_last,
                "the bound has passed since the log looked like this"
            );
            if at_last.len() < before.len() / 2 {
                return Ok(());
            }
        }
        anyhow::ensure!(
            tokio::time::Instant::now() < deadline,
            "the cleaner has not run: {at_last:?}"
        );
    }
}
