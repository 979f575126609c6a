//! `kachet fetch` against a real Kafka, beside kcat.

use core::time::Duration;

use anyhow::{Context, Result};
use kachet_tests::child::{self, command};
use kachet_tests::kafka::{KafkaSettings, Listener, free_ports, own_kafka, shared_kafka, writer_for};
use kachet_tests::{kcat, records};
use serde_json::Value;

use super::{fails, kachet};

const DEADLINE: Duration = Duration::from_secs(60);

fn lines(stdout: &[u8]) -> Result<Vec<Value>> {
    let lines = stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).context("not JSON"))
        .collect()
}

/// Without what only kcat prints: which broker it was.
fn comparable(mut records: Vec<Value>) -> Vec<Value> {
    for record in &mut records {
        record.as_object_mut().map(|record| record.remove("broker"));
    }
    records
}

#[test]
fn json_lines_equal_those_of_kcat_and_the_second_pass_comes_from_the_cache() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    if !kcat::is_there() {
        return Ok(());
    }
    let bootstrap = broker.bootstrap();
    writer.command("create command-line 1")?;
    writer.command("produce command-line 0 zstd 100 25 1 headers nullkeys nullvalues")?;
    let by_kcat = comparable(kcat::read_records(&bootstrap, "command-line", 0, 0)?);
    assert_eq!(by_kcat.len(), 100);

    let arguments = [
        "fetch",
        "--bootstrap",
        &bootstrap,
        "command-line/0@earliest",
        "--count",
        "100",
    ];
    let once = kachet(&arguments, DEADLINE)?;
    assert_eq!(once.status.code(), Some(0), "{}", once.stderr);
    assert_eq!(comparable(lines(&once.stdout)?), by_kcat);

    let twice = kachet(
        &[arguments.as_slice(), &["--repeat", "2", "--stats"]].concat(),
        DEADLINE,
    )?;
    assert_eq!(
        comparable(lines(&twice.stdout)?),
        [by_kcat.clone(), by_kcat].concat()
    );
    let statistics: Value = serde_json::from_str(twice.stderr.trim())?;
    assert_eq!(statistics["upstream_fetches"], 1, "{statistics}");
    assert_eq!(
        (&statistics["batches"], &statistics["errors"]),
        (&4.into(), &0.into()),
        "{statistics}"
    );
    Ok(())
}

#[test]
fn every_kind_of_position_and_format_gives_the_record_that_it_names() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    writer.command("create command-line-positions 2")?;
    writer.command("produce command-line-positions 0 lz4 50 10 5")?;
    writer.command("produce command-line-positions 1 none 50 10 6")?;
    let at = format!("command-line-positions/0@@{}", records::timestamp_ms(20));
    let targets = [
        "command-line-positions/1@49",
        "command-line-positions/0@earliest",
        "command-line-positions/0@latest-3",
        &at,
    ];
    let bootstrap = broker.bootstrap();
    let fetch = |more: &[&str]| {
        kachet(
            &[&["fetch", "--bootstrap", &bootstrap], targets.as_slice(), more].concat(),
            DEADLINE,
        )
    };
    let expected = [(6, 49), (5, 0), (5, 47), (5, 20)];
    let json = lines(&fetch(&[])?.stdout)?;
    let payloads: Vec<_> = json
        .iter()
        .filter_map(|record| record["payload"].as_str())
        .collect();
    assert_eq!(
        payloads,
        expected.map(|(seed, index)| records::value(seed, index))
    );
    let raw = fetch(&["--format", "raw"])?.stdout;
    assert_eq!(
        String::from_utf8(raw)?,
        expected.map(|(seed, index)| records::value(seed, index)).concat()
    );
    let text = String::from_utf8(fetch(&["--format", "text"])?.stdout)?;
    assert_eq!(text.lines().count(), 4);
    assert!(
        text.contains("command-line-positions/0@47  2023-11-14T22:13:20.470Z"),
        "{text}"
    );
    Ok(())
}

#[test]
fn what_a_real_broker_does_not_have_is_one_clear_line() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    writer.command("create command-line-errors 1")?;
    writer.command("produce command-line-errors 0 none 10 10 1")?;
    writer.command("delete-records command-line-errors 0 4")?;
    let bootstrap = broker.bootstrap();
    fails(&bootstrap, &["command-line-nothing/0@0"], 3, &["does not exist"])?;
    fails(
        &bootstrap,
        &["command-line-errors/1@0"],
        3,
        &["has no partition 1", "it has 1"],
    )?;
    fails(
        &bootstrap,
        &["command-line-errors/0@3"],
        3,
        &["offset 3", "from 4 up to, not including, 10"],
    )?;
    fails(
        &bootstrap,
        &["command-line-errors/0@10"],
        3,
        &["offset 10", "from 4 up to, not including, 10"],
    )?;
    fails(
        &bootstrap,
        &["command-line-errors/0@11"],
        3,
        &["offset 11", "from 4 up to, not including, 10"],
    )
}

#[test]
fn the_tls_port_of_a_real_broker_in_plaintext_is_one_clear_line() -> Result<()> {
    if !kachet_tests::setup::kafka_is_there() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("broker.p12");
    let store = store
        .to_str()
        .context("the temporary folder's path is not UTF-8")?;
    let mut keytool = command("keytool");
    keytool.args([
        "-genkeypair",
        "-alias",
        "broker",
        "-keyalg",
        "EC",
        "-dname",
        "CN=localhost",
        "-validity",
        "2",
    ]);
    keytool.args([
        "-storetype",
        "PKCS12",
        "-storepass",
        "of-the-test",
        "-keystore",
        store,
    ]);
    child::run_ok(keytool, b"", DEADLINE)?;
    let [tls_port] = free_ports()?;
    let settings = KafkaSettings {
        extra_listeners: vec![Listener {
            name: "SSL".to_owned(),
            protocol: "SSL",
            port: tls_port,
        }],
        ..KafkaSettings::default()
    }
    .with("ssl.keystore.location", store)
    .with("ssl.keystore.type", "PKCS12")
    .with("ssl.keystore.password", "of-the-test");
    let Some(_broker) = own_kafka(&settings) else {
        return Ok(());
    };
    let bootstrap = format!("127.0.0.1:{tls_port}");
    fails(&bootstrap, &["orders/0@0"], 4, &[&bootstrap, "TLS"])
}
