//! The harness itself: a real broker starts, the Java program and kcat fill it, both read it back, and all of it agrees.

use std::time::Duration;

use anyhow::{Context, Result};
use kachet_tests::java::{self, Isolation, TopicWriter, first_and_last};
use kachet_tests::kafka::{KafkaSettings, own_kafka, shared_kafka};
use kachet_tests::{kcat, records};
use serde_json::{Value, json};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const RECORDS: u32 = 230;

#[test]
fn every_codec_written_by_java_reads_back_the_same_by_kcat_and_by_java() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    if !kcat::is_there() {
        return Ok(());
    }
    let bootstrap = broker.bootstrap();
    let mut writer = TopicWriter::start(&bootstrap)?;
    for (codec, seed) in CODECS.into_iter().zip(100..) {
        let topic = format!("by-java-{codec}");
        writer.command(&format!("create {topic} 1"))?;
        assert_eq!(writer.produce(&topic, 0, codec, (RECORDS, 50), seed)?, (0, 229));
        assert_eq!(
            writer.command(&format!("end-offsets {topic}"))?,
            format!("end-offsets {topic} 0=230")
        );

        let by_kcat = kcat::read_records(&bootstrap, &topic, 0, 0)?;
        assert_eq!(by_kcat.len(), 230, "{codec}");
        for (index, record) in (0..).zip(&by_kcat) {
            assert_eq!(record["offset"], index, "{codec}");
            assert_eq!(record["key"], records::key(seed, index), "{codec}");
            assert_eq!(record["payload"], records::value(seed, index), "{codec}");
            assert_eq!(record["ts"], records::timestamp_ms(index), "{codec}");
        }
        let by_java = java::read_records(&bootstrap, &topic, 0, 0, Isolation::ReadUncommitted)?;
        assert_eq!(comparable(&by_java), comparable(&by_kcat), "{codec}");
    }
    Ok(())
}

#[test]
fn every_codec_written_by_kcat_reads_back_by_java_from_the_middle() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    if !kcat::is_there() {
        return Ok(());
    }
    let bootstrap = broker.bootstrap();
    let mut writer = TopicWriter::start(&bootstrap)?;
    for codec in CODECS {
        let topic = format!("by-kcat-{codec}");
        writer.command(&format!("create {topic} 2"))?;
        let values: Vec<String> = (0..200)
            .map(|index| format!("\"quoted\" \\ value {index} \u{1} ümlaut"))
            .collect();
        kcat::produce(&bootstrap, &topic, 1, codec, &values)?;

        let read = java::read_records(&bootstrap, &topic, 1, 120, Isolation::ReadCommitted)?;
        let payloads: Vec<&str> = read
            .iter()
            .filter_map(|record| record["payload"].as_str())
            .collect();
        assert_eq!(payloads, values[120..], "{codec}");
        assert_eq!(read[0]["headers"], json!(["origin", "kcat"]), "{codec}");
        assert_eq!(read[0]["key"], Value::Null, "{codec}");
        assert!(java::read_records(&bootstrap, &topic, 0, 0, Isolation::ReadCommitted)?.is_empty());
    }
    Ok(())
}

#[test]
fn nulls_and_headers_survive() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let mut writer = TopicWriter::start(&broker.bootstrap())?;
    writer.command("create odd-records 1")?;
    writer.command("produce odd-records 0 lz4 10 5 7 headers nullkeys nullvalues size=3")?;
    let read = java::read_records(&broker.bootstrap(), "odd-records", 0, 0, Isolation::ReadCommitted)?;
    assert_eq!(read.len(), 10);
    assert_eq!(read[1]["key"], Value::Null);
    assert_eq!(read[0]["key"], records::key(7, 0));
    assert_eq!(read[2]["payload"], Value::Null);
    assert_eq!(read[3]["payload"], records::value_of_size(7, 3, 3));
    assert_eq!(
        read[4]["headers"],
        json!(["index", "4", "empty", "", "none", null])
    );
    Ok(())
}

#[test]
fn isolation_levels_differ_by_aborted_and_open_transactions() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let mut writer = TopicWriter::start(&broker.bootstrap())?;
    writer.command("create ledger 1")?;
    let answer = writer.command("transaction abort ledger 0 5 tx-a 1")?;
    assert_eq!(first_and_last(&answer)?, (0, 4));
    // Offset 5 is the marker of the abort.
    assert_eq!(
        first_and_last(&writer.command("transaction commit ledger 0 5 tx-b 2")?)?,
        (6, 10)
    );
    assert_eq!(
        first_and_last(&writer.command("transaction open ledger 0 5 tx-c 3")?)?,
        (12, 16)
    );

    let offsets = |isolation| -> Result<Vec<i64>> {
        let read = java::read_records(&broker.bootstrap(), "ledger", 0, 0, isolation)?;
        Ok(read
            .iter()
            .filter_map(|record| record["offset"].as_i64())
            .collect())
    };
    assert_eq!(offsets(Isolation::ReadCommitted)?, (6..=10).collect::<Vec<_>>());
    assert_eq!(offsets(Isolation::ReadUncommitted)?.len(), 15);
    writer.command("end-transaction commit tx-c")?;
    assert_eq!(
        offsets(Isolation::ReadCommitted)?,
        (6..=10).chain(12..=16).collect::<Vec<_>>()
    );
    Ok(())
}

#[test]
fn records_and_topics_can_be_deleted_and_mistakes_are_told() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let mut writer = TopicWriter::start(&broker.bootstrap())?;
    writer.command("create shrinking 1 max.message.bytes=2000000")?;
    writer.produce("shrinking", 0, "none", (30, 10), 1)?;
    assert_eq!(
        writer.command("delete-records shrinking 0 12")?,
        "delete-records shrinking 0 12"
    );
    assert_eq!(
        writer.command("start-offsets shrinking")?,
        "start-offsets shrinking 0=12"
    );
    let read = java::read_records(&broker.bootstrap(), "shrinking", 0, 12, Isolation::ReadCommitted)?;
    assert_eq!(read.len(), 18);
    writer.command("delete shrinking")?;
    let error = writer.command("create").unwrap_err();
    assert!(error.to_string().contains("usage: create"), "{error}");
    let error = writer.command("transmogrify all").unwrap_err();
    assert!(error.to_string().contains("unknown command"), "{error}");
    Ok(())
}

#[test]
fn a_broker_keeps_its_topics_over_a_crash_and_a_restart_and_leaves_nothing_behind() -> Result<()> {
    let settings = KafkaSettings::default().with("auto.create.topics.enable", "false");
    let Some(mut broker) = own_kafka(&settings) else {
        return Ok(());
    };
    let folder = broker.dir().to_path_buf();
    let bootstrap = broker.bootstrap();
    let mut writer = TopicWriter::start(&bootstrap)?;
    writer.command("create lasting 1")?;
    writer.produce("lasting", 0, "gzip", (10, 10), 5)?;
    drop(writer);
    broker.kill();
    assert!(!broker.is_running());
    broker.restart().context("restart after a crash")?;
    assert_eq!(broker.bootstrap(), bootstrap);
    assert!(broker.is_running());
    let read = java::run(
        "RecordReader",
        &[
            &bootstrap,
            "lasting",
            "0",
            "0",
            "read_committed",
            "fetch.max.wait.ms=10",
        ],
        "",
        Duration::from_mins(1),
    )?;
    assert_eq!(read.lines().count(), 10);
    broker.stop();
    assert!(broker.log().contains("shut down completed"), "{}", broker.log());
    drop(broker);
    assert!(!folder.exists());
    Ok(())
}

/// The fields that kcat and the Java consumer both know.
fn comparable(records: &[Value]) -> Vec<[&Value; 5]> {
    records
        .iter()
        .map(|record| ["offset", "ts", "tstype", "key", "payload"].map(|field| &record[field]))
        .collect()
}
