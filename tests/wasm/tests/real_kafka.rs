//! Plugins that read the records of a real Kafka through their caches.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use kachet::client::{Client, ClientSettings};
use kachet::transport::{BrokerAddress, Request, Response, TcpSettings, TcpTransport, Transport};
use kachet_tests::kafka::{shared_kafka, writer_for};
use kachet_tests::records;
use kachet_tests::setup::or_skip;
use kachet_wasm::frame::{RequestFrame, encode_response};
use kachet_wasm_tests::{Limits, Range, Runtime, Upstream, component_path, settings, topic_id};

/// Sends frames to a broker, and counts them.
fn upstream(broker: BrokerAddress, runtime: tokio::runtime::Handle, count: Arc<AtomicU64>) -> Upstream {
    let transport = TcpTransport::new(TcpSettings::default());
    Box::new(move |frame| {
        count.fetch_add(1, Ordering::Relaxed);
        let RequestFrame { header, request } =
            RequestFrame::decode(&Bytes::from(frame)).context("from a plugin")?;
        let version = header.version;
        let answer = runtime.block_on(transport.round_trip(&broker, Request::Fetch { version, request }))?;
        let Response::Fetch(response) = answer else {
            bail!("the broker answered with another message");
        };
        Ok(encode_response(&header, &response)?)
    })
}

#[test]
fn several_plugins_read_every_codec_of_a_real_kafka_and_ask_it_once() -> Result<()> {
    let Some(component) = or_skip(component_path()) else {
        return Ok(());
    };
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "records-for-plugins";
    writer.command(&format!("create {topic} 1"))?;
    for (seed, codec) in (1..).zip(["none", "gzip", "snappy", "lz4", "zstd"]) {
        writer.command(&format!("produce {topic} 0 {codec} 60 20 {seed}"))?;
    }
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let address: BrokerAddress = broker.bootstrap().parse()?;
    let id = tokio.block_on(async {
        let transport = TcpTransport::new(TcpSettings::default());
        let client = Client::new(transport, vec![address.clone()], ClientSettings::default())?;
        anyhow::Ok(client.fetch(topic, 0, 0).await?.topic_id())
    })?;

    let runtime = Runtime::new()?;
    let component = runtime.compile(fs::read(component)?)?;
    for _ in 0..2 {
        let count = Arc::new(AtomicU64::new(0));
        let ask = upstream(address.clone(), tokio.handle().clone(), Arc::clone(&count));
        let mut plugin = runtime.plugin(&component, Limits::default(), &settings(4 << 20), ask)?;
        let range = Range {
            topic: topic_id(id),
            partition: 0,
            offset: 0,
            count_limit: 1000,
            size_limit_bytes: 1 << 20,
            committed: false,
        };
        for pass in 0..2 {
            let read = plugin
                .records(range)?
                .map_err(|error| anyhow::anyhow!("{error:?}"))?;
            assert_eq!(read.records.len(), 300, "pass {pass}");
            assert_eq!(read.next, Some(300));
            for (at, record) in (0_u32..).zip(&read.records) {
                let (seed, index) = (i64::from(at / 60) + 1, at % 60);
                assert_eq!(record.offset, i64::from(at));
                assert_eq!(record.timestamp, records::timestamp_ms(index));
                assert_eq!(record.key.as_deref(), Some(records::key(seed, index).as_bytes()));
                assert_eq!(
                    record.value.as_deref(),
                    Some(records::value(seed, index).as_bytes())
                );
            }
        }
        for offset in [299, 0, 150] {
            let record = plugin
                .record(topic_id(id), 0, offset)?
                .map_err(|error| anyhow::anyhow!("{error:?}"))?;
            assert_eq!(record.map(|record| record.offset), Some(offset));
        }
        assert_eq!(
            count.load(Ordering::Relaxed),
            1,
            "everything else comes from the cache"
        );
        assert_eq!(plugin.figure("upstream_fetches")?, 1);

        // That there is no such partition says nothing of the one that there is.
        let error = plugin.record(topic_id(id), 99, 0)?.unwrap_err();
        assert_eq!(
            (error.code.as_str(), count.load(Ordering::Relaxed)),
            ("BROKER", 2)
        );
        assert!(error.message.ends_with("error 3"), "{}", error.message);
        assert_eq!(plugin.records(range)?.unwrap().records.len(), 300);
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
    Ok(())
}
