//! `kachet fetch --mount` against a real Kafka, which is then stopped.

use core::time::Duration;
use std::path::Path;

use anyhow::{Result, ensure};
use kachet_tests::java::TopicWriter;
use kachet_tests::kafka::{KafkaSettings, own_kafka, writer_for};
use serde_json::Value;

use super::mounts::text;
use super::{fails, kachet};

const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "mounted";
/// Partitions of ordinary records; one more has transactions.
const PLAIN_PARTITIONS: u32 = 3;
const RECORDS: u32 = 400;
const ISOLATIONS: [&str; 2] = ["uncommitted", "committed"];

/// Ordinary records of every codec in the first partitions, transactions of both outcomes in the last.
fn fill(writer: &mut TopicWriter) -> Result<()> {
    writer.command(&format!("create {TOPIC} {}", PLAIN_PARTITIONS + 1))?;
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for partition in 0..PLAIN_PARTITIONS {
        for (seed, codec) in (1..).zip(codecs) {
            let count = RECORDS / 5;
            writer.command(&format!(
                "produce {TOPIC} {partition} {codec} {count} 20 {seed} headers nullkeys nullvalues"
            ))?;
        }
    }
    for (id, outcome) in (1..).zip(["abort", "commit", "abort", "commit"]) {
        writer.command(&format!(
            "transaction {outcome} {TOPIC} {PLAIN_PARTITIONS} 20 mounted-tx-{id} {id}"
        ))?;
    }
    Ok(())
}

struct Read {
    stdout: Vec<u8>,
    statistics: Value,
}

/// Reads every record. In the last partition 40 of 84 offsets are of committed transactions, 4 are markers.
fn read(bootstrap: &str, isolation: &str, more: &[&str]) -> Result<Read> {
    let fetch = |targets: &[String], count: u32| -> Result<Read> {
        let count = count.to_string();
        let mut arguments = vec![
            "fetch",
            "--bootstrap",
            bootstrap,
            "--stats",
            "--count",
            &count,
            "--isolation",
            isolation,
        ];
        arguments.extend(more);
        arguments.extend(targets.iter().map(String::as_str));
        let finished = kachet(&arguments, DEADLINE)?;
        ensure!(finished.status.success(), "{arguments:?}: {}", finished.stderr);
        Ok(Read {
            statistics: serde_json::from_str(finished.stderr.trim())?,
            stdout: finished.stdout,
        })
    };
    let plain: Vec<String> = (0..PLAIN_PARTITIONS)
        .map(|partition| format!("{TOPIC}/{partition}@0"))
        .collect();
    let mut all = fetch(&plain, RECORDS)?;
    let of_transactions = fetch(
        &[format!("{TOPIC}/{PLAIN_PARTITIONS}@0")],
        if isolation == "committed" { 40 } else { 80 },
    )?;
    all.stdout.extend(of_transactions.stdout);
    let upstream = |read: &Value| read["upstream_fetches"].as_u64().unwrap_or(u64::MAX);
    let total = upstream(&all.statistics).saturating_add(upstream(&of_transactions.statistics));
    all.statistics["upstream_fetches"] = total.into();
    Ok(all)
}

fn mounted(folder: &Path) -> Result<[&str; 2]> {
    Ok(["--mount", text(folder)?])
}

#[test]
fn every_record_is_read_at_both_isolation_levels_when_kafka_has_stopped() -> Result<()> {
    let Some(mut broker) = own_kafka(&KafkaSettings::default()) else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(&broker) else {
        return Ok(());
    };
    fill(&mut writer)?;
    drop(writer);
    let bootstrap = broker.bootstrap();
    let folder = tempfile::tempdir()?;
    let mount = mounted(folder.path())?;
    let mut expected = Vec::new();
    for isolation in ISOLATIONS {
        let direct = read(&bootstrap, isolation, &["--size-limit", "0"])?.stdout;
        let filled = read(&bootstrap, isolation, &mount)?;
        ensure!(filled.stdout == direct, "{isolation}");
        expected.push(direct);
    }
    broker.stop();

    let forever = [
        mount.as_slice(),
        &["--max-staleness", "forever", "--timeout", "3s"],
    ]
    .concat();
    for (isolation, expected) in ISOLATIONS.into_iter().zip(&expected) {
        let lines = expected.split(|byte| *byte == b'\n').count() - 1;
        assert_eq!(lines, if isolation == "committed" { 1_240 } else { 1_280 });
        for read_mode in ["positional", "mapped"] {
            let mode = [forever.as_slice(), &["--mount-read-mode", read_mode]].concat();
            let again = read(&bootstrap, isolation, &mode)?;
            ensure!(again.stdout == *expected, "{isolation}, {read_mode}");
            let statistics = &again.statistics;
            assert_eq!(statistics["upstream_fetches"], 0, "{isolation}: {statistics}");
            assert_eq!(statistics["errors"], 0, "{isolation}: {statistics}");
        }
    }
    let target = format!("{TOPIC}/0@0");
    let words = ["cannot connect to", &bootstrap, "--max-staleness forever"];
    fails(&bootstrap, &[&mount[..], &[&target]].concat(), 4, &words)?;

    // Back again: what is there is validated and read; nothing is fetched that is there.
    broker.restart()?;
    for (isolation, expected) in ISOLATIONS.into_iter().zip(&expected) {
        let again = read(&bootstrap, isolation, &mount)?;
        ensure!(again.stdout == *expected, "{isolation}");
    }
    Ok(())
}
