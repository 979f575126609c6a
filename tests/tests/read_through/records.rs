//! Single records through the cache equal what the Java consumer reads.

use anyhow::Result;
use kachet::client::{ClientError, Isolation, Position, Record};
use kachet_core::time::MaxStaleness;
use kachet_tests::kafka::{shared_kafka, writer_for};
use kachet_tests::{java, records};
use serde_json::{Value, json};

use super::cached;

/// A record in the fields of `kcat -J`, for text only.
pub(super) fn fields(record: &Record) -> Value {
    let text = |bytes: Option<&bytes::Bytes>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let headers = record
        .headers
        .iter()
        .flat_map(|(key, value)| [text(Some(key)), text(value.as_ref())]);
    json!({
        "offset": record.offset,
        "ts": record.timestamp_ms,
        "key": text(record.key.as_ref()),
        "payload": text(record.value.as_ref()),
        "headers": headers.collect::<Vec<_>>(),
    })
}

pub(super) fn expected(record: &Value) -> Value {
    json!({
        "offset": record["offset"],
        "ts": record["ts"],
        "key": record["key"],
        "payload": record["payload"],
        "headers": record.get("headers").cloned().unwrap_or_else(|| json!([])),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_of_every_codec_equals_the_java_consumers() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "records-of-every-codec";
    writer.command(&format!("create {topic} 1"))?;
    for (seed, codec) in (1..).zip(["none", "gzip", "snappy", "lz4", "zstd"]) {
        writer.command(&format!(
            "produce {topic} 0 {codec} 60 20 {seed} headers nullkeys nullvalues"
        ))?;
    }
    let read = java::read_records(&broker.bootstrap(), topic, 0, 0, java::Isolation::ReadCommitted)?;
    assert_eq!(read.len(), 300);
    let client = cached(
        &broker.bootstrap(),
        Isolation::ReadUncommitted,
        MaxStaleness::default(),
    )?;
    for pass in 0..2 {
        for record in &read {
            let offset = record["offset"].as_i64().unwrap_or(-1);
            let found = client.record(topic, 0, offset).await?;
            assert_eq!(found.as_ref().map(fields), Some(expected(record)), "pass {pass}");
        }
    }
    let all = client.records(topic, 0, 0, 1_000).await?;
    assert_eq!(
        all.iter().map(fields).collect::<Vec<_>>(),
        read.iter().map(expected).collect::<Vec<_>>()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn markers_and_aborted_records_are_absent_and_offsets_beyond_the_end_are_errors() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "records-of-transactions";
    writer.command(&format!("create {topic} 1"))?;
    // Offsets 0–1 and the marker 2 aborted, 3–4 and the marker 5 committed.
    writer.command(&format!("transaction abort {topic} 0 2 records-tx-1 1"))?;
    writer.command(&format!("transaction commit {topic} 0 2 records-tx-2 2"))?;
    for (isolation, java_isolation) in [
        (Isolation::ReadUncommitted, java::Isolation::ReadUncommitted),
        (Isolation::ReadCommitted, java::Isolation::ReadCommitted),
    ] {
        let read = java::read_records(&broker.bootstrap(), topic, 0, 0, java_isolation)?;
        let seen: Vec<i64> = read
            .iter()
            .filter_map(|record| record["offset"].as_i64())
            .collect();
        let client = cached(&broker.bootstrap(), isolation, MaxStaleness::default())?;
        for _ in 0..2 {
            for offset in 0..6 {
                let found = client.record(topic, 0, offset).await?.map(|record| record.offset);
                assert_eq!(
                    found,
                    seen.contains(&offset).then_some(offset),
                    "{isolation:?}@{offset}"
                );
            }
        }
        let beyond = client.record(topic, 0, 6).await;
        assert!(
            matches!(
                beyond,
                Err(ClientError::OffsetOutOfRange {
                    high_watermark: 6,
                    ..
                })
            ),
            "{beyond:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_stand_for_what_the_broker_says() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    writer.command("create records-positions 2")?;
    writer.command("produce records-positions 0 none 100 10 1")?;
    writer.command("delete-records records-positions 0 15")?;
    let client = cached(
        &broker.bootstrap(),
        Isolation::ReadUncommitted,
        MaxStaleness::default(),
    )?;
    for (position, offset) in [
        (Position::Offset(3), 3),
        (Position::Earliest, 15),
        (Position::BeforeEnd(0), 100),
        (Position::BeforeEnd(7), 93),
        (Position::BeforeEnd(1_000), 15),
        (Position::Timestamp(records::timestamp_ms(40)), 40),
        (Position::Timestamp(records::timestamp_ms(40) - 1), 40),
    ] {
        assert_eq!(
            client.offset_of("records-positions", 0, position).await?,
            offset,
            "{position:?}"
        );
    }
    let late = client
        .offset_of("records-positions", 0, Position::Timestamp(i64::MAX - 1))
        .await;
    assert!(
        matches!(late, Err(ClientError::NoSuchTimestamp { .. })),
        "{late:?}"
    );
    Ok(())
}
