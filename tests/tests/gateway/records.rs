//! Records, one and many.

use anyhow::Result;
use kachet::transport::TlsListenerSettings;
use kachet_core::time::MaxStaleness;
use kachet_tests::certificates::{Authority, Validity};
use kachet_tests::java::{self, Isolation};
use kachet_tests::kafka::{KafkaSettings, own_kafka, shared_kafka, writer_for};
use kachet_tests::{curl, kcat};
use serde_json::Value;

use crate::{PROTOCOLS, gateway_before, gateway_with, get};

const FRESH: MaxStaleness = MaxStaleness::Within(core::time::Duration::from_secs(1));

fn lines(body: &[u8]) -> Vec<Value> {
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_codec_reads_as_by_the_java_client_one_by_one_and_as_lines() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    if !curl::is_there() {
        return Ok(());
    }
    let topic = "gateway.codecs_1-a";
    writer.command(&format!("create {topic} 1"))?;
    for (seed, codec) in ["none", "gzip", "snappy", "lz4", "zstd"].iter().enumerate() {
        writer.command(&format!("produce {topic} 0 {codec} 60 20 {seed} headers"))?;
    }
    writer.command(&format!("produce {topic} 0 zstd 5 5 9 nullkeys nullvalues"))?;
    let own = java::read_records(&broker.bootstrap(), topic, 0, 0, Isolation::ReadUncommitted)?;
    assert_eq!(own.len(), 305);
    let gateway = gateway_before(&broker.bootstrap(), FRESH).await?;
    for protocol in PROTOCOLS {
        let all = format!("/v1/topics/{topic}/0/records?offset=earliest&count=1000");
        for _ in 0..2 {
            assert_eq!(lines(&get(&gateway, &all, &[protocol])?.body), own);
        }
        for offset in [0, 19, 20, 61, 122, 199, 250, 299, 304] {
            let path = format!("/v1/topics/{topic}/0/records/{offset}");
            let answer = get(&gateway, &path, &[protocol])?;
            assert_eq!((answer.status, answer.json()?), (200, own[offset].clone()));
            let octets = get(
                &gateway,
                &path,
                &[protocol, "--header", "Accept: application/octet-stream"],
            )?;
            match own[offset]["payload"].as_str() {
                Some(value) => assert_eq!((octets.status, &octets.body[..]), (200, value.as_bytes())),
                None => assert_eq!((octets.status, octets.body.len()), (204, 0)),
            }
            assert_eq!(octets.header("kachet-offset"), offset.to_string());
            let tag = format!("If-None-Match: {}", answer.header("etag"));
            assert_eq!(get(&gateway, &path, &[protocol, "--header", &tag])?.status, 304);
        }
        let ts = &own[130]["ts"];
        let since = format!("/v1/topics/{topic}/0/records?timestamp={ts}&count=1");
        let first = &lines(&get(&gateway, &since, &[protocol])?.body)[0];
        assert!(first["ts"].as_i64() >= ts.as_i64(), "{first}");
    }
    let topics = get(&gateway, &format!("/v1/topics?prefix={topic}"), &[])?.json()?;
    assert_eq!(topics["topics"][0]["name"], topic);
    reads_over_tls(&broker.bootstrap(), topic, &own).await
}

/// curl verifies the certificate, and has a protocol chosen for it.
async fn reads_over_tls(bootstrap: &str, topic: &str, own: &[Value]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new(folder.path(), "authority")?;
    let identity = authority.sign("gateway", &["localhost"], Validity::Current)?;
    let tls = TlsListenerSettings::read(&identity.certificate, &identity.key, None)?;
    let gateway = gateway_with(bootstrap, FRESH, Some(tls)).await?;
    let port = gateway.address().port();
    let url = format!("https://localhost:{port}/v1/topics/{topic}/0/records?offset=earliest&count=1000");
    let ca = authority.file.display().to_string();
    for (protocol, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let answer = curl::ask(&["--cacert", &ca, "--ipv4", protocol, &url], b"")?;
        assert_eq!(lines(&answer.body), own, "HTTP/{version}");
        assert_eq!(answer.version, version);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn markers_aborted_records_and_deleted_ones_are_told_apart() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    if !curl::is_there() {
        return Ok(());
    }
    let topic = "gateway-transactions";
    writer.command(&format!("create {topic} 1"))?;
    // 0 to 9, their marker, 11 to 20 aborted, their marker, 22 to 26, 27 to 29 open.
    writer.command(&format!("transaction commit {topic} 0 10 gateway-a"))?;
    writer.command(&format!("transaction abort {topic} 0 10 gateway-b"))?;
    writer.command(&format!("produce {topic} 0 lz4 5 5 1"))?;
    writer.command(&format!("transaction open {topic} 0 3 gateway-c"))?;
    let gateway = gateway_before(&broker.bootstrap(), FRESH).await?;
    let said = |offset: i64, isolation: &str| -> Result<(u16, Value, Value)> {
        let path = format!("/v1/topics/{topic}/0/records/{offset}?isolation={isolation}");
        let answer = get(&gateway, &path, &[])?;
        let json = answer.json()?;
        Ok((answer.status, json["code"].clone(), json["next_offset"].clone()))
    };
    for (offset, isolation, status, code, next_offset) in [
        (9, "committed", 200, None, None),
        (10, "committed", 404, Some("no-record-at-offset"), Some(11)),
        (10, "uncommitted", 404, Some("no-record-at-offset"), Some(11)),
        (15, "uncommitted", 200, None, None),
        (15, "committed", 404, Some("no-record-at-offset"), Some(21)),
        (24, "committed", 200, None, None),
        (27, "committed", 404, Some("beyond-end"), None),
        (27, "uncommitted", 200, None, None),
    ] {
        for _ in 0..2 {
            let expected = (status, code.into(), next_offset.into());
            assert_eq!(said(offset, isolation)?, expected, "{offset} {isolation}");
        }
    }
    for isolation in [Isolation::ReadCommitted, Isolation::ReadUncommitted] {
        let name = isolation.as_str().trim_start_matches("read_");
        let path = format!("/v1/topics/{topic}/0/records?offset=0&isolation={name}");
        let own = java::read_records(&broker.bootstrap(), topic, 0, 0, isolation)?;
        assert_eq!(lines(&get(&gateway, &path, &[])?.body), own, "{name}");
    }
    writer.command("end-transaction abort gateway-c")?;
    writer.command(&format!("delete-records {topic} 0 5"))?;
    tokio::time::sleep(core::time::Duration::from_millis(1_500)).await;
    let gone = get(&gateway, &format!("/v1/topics/{topic}/0/records/4"), &[])?;
    assert_eq!((gone.status, &gone.json()?["log_start_offset"]), (410, &5.into()));
    assert_eq!(said(27, "committed")?.0, 404);
    writer.command(&format!("delete {topic}"))?;
    tokio::time::sleep(core::time::Duration::from_millis(1_500)).await;
    assert_eq!(
        get(&gateway, &format!("/v1/topics/{topic}/0/records/7"), &[])?.status,
        404
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cached_is_served_without_any_broker_where_the_bound_is_forever() -> Result<()> {
    let Some(mut broker) = own_kafka(&KafkaSettings::default()) else {
        return Ok(());
    };
    if !kcat::is_there() || !curl::is_there() {
        return Ok(());
    }
    let topic = "gateway-offline";
    let values: Vec<String> = (0..50).map(|index| format!("value {index}")).collect();
    kcat::produce(&broker.bootstrap(), topic, 0, "zstd", &values)?;
    let gateway = gateway_before(&broker.bootstrap(), MaxStaleness::Forever).await?;
    let path = format!("/v1/topics/{topic}/0/records/17");
    let warm = get(&gateway, &path, &[])?;
    assert_eq!((warm.status, &warm.json()?["payload"]), (200, &"value 17".into()));
    assert_eq!(warm.header("cache-control"), "public, max-age=86400");
    let page = format!("/v1/topics/{topic}/0/records?offset=0&count=50");
    // Producers batch by time, so that what one record lies in need not hold all of them.
    let all = get(&gateway, &page, &[])?;
    assert_eq!(lines(&all.body).len(), 50);
    broker.stop();
    assert_eq!(get(&gateway, &path, &[])?.body, warm.body);
    assert_eq!(get(&gateway, &page, &[])?.body, all.body);
    Ok(())
}
