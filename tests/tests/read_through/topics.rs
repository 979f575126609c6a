//! Topics of every codec, by the Java client and by librdkafka, with headers, nulls and transactions.

use anyhow::{Result, ensure};
use kachet::client::{ClientError, Fetched, Isolation};
use kachet_core::time::MaxStaleness;
use kachet_core::wire::AbortedTransaction;
use kachet_tests::kafka::{shared_kafka, writer_for};
use kachet_tests::kcat;

use super::{all_batches, cached, direct, spans};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// The aborted transactions that `one` names and that begin in the range that both hold. A broker's answer ends
/// with the log segment where a hit goes on, and may name transactions that begin behind what it holds.
fn aborted_in_both(one: &Fetched, other: &Fetched) -> Option<Vec<AbortedTransaction>> {
    let end = one.next_offset().min(other.next_offset())?;
    let in_both = |each: &&AbortedTransaction| each.first_offset < end;
    one.aborted_transactions()
        .map(|listed| listed.iter().filter(in_both).cloned().collect())
}

/// Reads a partition twice through the cache and compares with the broker's own answer, from the start and from
/// every single offset.
async fn check(bootstrap: &str, topic: &str, isolation: Isolation) -> Result<()> {
    let broker = direct(bootstrap, isolation)?;
    let cache = cached(bootstrap, isolation, MaxStaleness::default())?;
    let expected = all_batches(&broker, topic, 0, 0).await?;
    ensure!(!expected.is_empty(), "{topic} is empty");

    let first = all_batches(&cache, topic, 0, 0).await?;
    assert_eq!(first, expected, "{topic} {isolation:?}, the first time");
    let before = cache.transport().statistics();
    assert_eq!((before.errors, before.rejected), (0, 0), "{topic}: {before:?}");

    // The second time, from every offset; the last fetch of a pass, at the end of the log, does go upstream.
    for (first_offset, last_offset) in spans(&expected) {
        for offset in first_offset..=last_offset {
            let fetched = cache.fetch(topic, 0, offset).await?;
            let from = expected
                .iter()
                .zip(spans(&expected))
                .filter(|(_, (_, last))| *last >= offset);
            let from: Vec<_> = from.map(|(batch, _)| batch.clone()).collect();
            assert_eq!(
                fetched.batches()?,
                from[..fetched.batches()?.len()],
                "{topic}@{offset}"
            );
            assert_eq!(
                spans(&fetched.batches()?)[0],
                (first_offset, last_offset),
                "{topic}@{offset}"
            );
            let told = broker.fetch(topic, 0, offset).await?;
            assert_eq!(
                aborted_in_both(&fetched, &told),
                aborted_in_both(&told, &fetched),
                "{topic}@{offset}"
            );
            assert_eq!(
                fetched.high_watermark(),
                told.high_watermark(),
                "{topic}@{offset}"
            );
            assert_eq!(
                fetched.log_start_offset(),
                told.log_start_offset(),
                "{topic}@{offset}"
            );
        }
    }
    let after = cache.transport().statistics();
    assert_eq!(
        after.upstream_fetches, before.upstream_fetches,
        "{topic}: the second time asks for nothing"
    );
    assert!(
        after.hits > before.hits && after.size_bytes <= after.limit_bytes,
        "{topic}: {after:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_codec_by_the_java_client_equals_the_brokers_answer_twice() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    for codec in CODECS {
        let topic = format!("through-java-{codec}");
        writer.command(&format!("create {topic} 1"))?;
        writer.command(&format!(
            "produce {topic} 0 {codec} 120 40 1 headers nullkeys nullvalues"
        ))?;
        check(&broker.bootstrap(), &topic, Isolation::ReadUncommitted).await?;
        check(&broker.bootstrap(), &topic, Isolation::ReadCommitted).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_codec_by_librdkafka_equals_the_brokers_answer_twice() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    if !kcat::is_there() {
        return Ok(());
    }
    for codec in CODECS {
        let topic = format!("through-kcat-{codec}");
        writer.command(&format!("create {topic} 1"))?;
        let values: Vec<String> = (0..150)
            .map(|index| format!("reading {index} of the sensor in the hall"))
            .collect();
        kcat::produce(&broker.bootstrap(), &topic, 0, codec, &values)?;
        check(&broker.bootstrap(), &topic, Isolation::ReadUncommitted).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_equal_the_brokers_answer_in_both_isolations() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "through-transactions";
    writer.command(&format!("create {topic} 1"))?;
    for command in [
        "transaction commit through-transactions 0 3 tx-1 1",
        "transaction abort through-transactions 0 4 tx-2 2",
        "produce through-transactions 0 lz4 5 5 3",
        // Two that interleave: one aborted, one committed.
        "transaction open through-transactions 0 2 tx-3 4",
        "transaction open through-transactions 0 2 tx-4 5",
        "produce through-transactions 0 none 3 3 6",
        "end-transaction abort tx-3",
        "end-transaction commit tx-4",
        "transaction abort through-transactions 0 1 tx-2 7",
        "transaction commit through-transactions 0 2 tx-2 8",
    ] {
        writer.command(command)?;
    }
    check(&broker.bootstrap(), topic, Isolation::ReadUncommitted).await?;
    check(&broker.bootstrap(), topic, Isolation::ReadCommitted).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_holds_committed_readers_back_and_not_the_others() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "through-open-transaction";
    writer.command(&format!("create {topic} 1"))?;
    writer.command(&format!("produce {topic} 0 none 4 4 1"))?;
    writer.command(&format!("transaction open {topic} 0 2 tx-open-1 2"))?;
    let cache = cached(
        &broker.bootstrap(),
        Isolation::ReadUncommitted,
        MaxStaleness::default(),
    )?;
    assert_eq!(spans(&all_batches(&cache, topic, 0, 0).await?), [(0, 3), (4, 5)]);
    // The same cache, for a reader of committed data.
    let committed = kachet::client::Client::new(
        cache.transport().clone(),
        vec![broker.bootstrap().parse()?],
        super::settings(Isolation::ReadCommitted),
    )?;
    assert_eq!(spans(&all_batches(&committed, topic, 0, 0).await?), [(0, 3)]);
    assert_eq!(spans(&all_batches(&committed, topic, 0, 0).await?), [(0, 3)]);
    writer.command("end-transaction abort tx-open-1")?;
    let records = committed.records(topic, 0, 0, 100).await?;
    assert_eq!(
        records.iter().map(|record| record.offset).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    let uncommitted = cache.records(topic, 0, 0, 100).await?;
    assert_eq!(
        uncommitted.iter().map(|record| record.offset).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_topic_gives_nothing_and_keeps_nothing() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    writer.command("create through-empty 3")?;
    let cache = cached(
        &broker.bootstrap(),
        Isolation::ReadUncommitted,
        MaxStaleness::default(),
    )?;
    for partition in 0..3 {
        assert!(cache.fetch("through-empty", partition, 0).await?.is_empty());
    }
    let beyond = cache.record("through-empty", 0, 0).await;
    assert!(
        matches!(
            beyond,
            Err(ClientError::OffsetOutOfRange {
                high_watermark: 0,
                ..
            })
        ),
        "{beyond:?}"
    );
    assert_eq!(cache.transport().statistics().batches, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_concurrent_misses_make_one_upstream_fetch() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "through-concurrent";
    writer.command(&format!("create {topic} 1"))?;
    writer.command(&format!("produce {topic} 0 zstd 100 10 1"))?;
    let client = cached(
        &broker.bootstrap(),
        Isolation::ReadUncommitted,
        MaxStaleness::default(),
    )?;
    let client = std::sync::Arc::new(client);
    let expected = direct(&broker.bootstrap(), Isolation::ReadUncommitted)?
        .fetch(topic, 0, 37)
        .await?;
    let readers: Vec<_> = (0..50)
        .map(|_| {
            let client = std::sync::Arc::clone(&client);
            tokio::spawn(async move { client.fetch(topic, 0, 37).await })
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.await??.batches()?, expected.batches()?);
    }
    assert_eq!(client.transport().statistics().upstream_fetches, 1);
    Ok(())
}
