//! Clients in other languages produce, transact, read in groups, seek and administer through the proxy as they do directly.

use core::time::Duration;

use anyhow::Result;
use kachet_core::time::MaxStaleness;
use kachet_tests::clients::Language;
use kachet_tests::kafka::shared_kafka;

use crate::{blocking, proxy_before};

async fn gets_the_same(language: Language, topic: &'static str, records_count: usize) -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    if !language.is_there() {
        return Ok(());
    }
    let proxy = proxy_before(&broker.bootstrap(), MaxStaleness::Within(Duration::from_secs(1))).await?;
    let (through, direct) = (proxy.address().to_string(), broker.bootstrap());
    let ports = proxy.ports();
    blocking(move || {
        let is_node = |line: &String| line.starts_with("node ");
        let (nodes, got): (Vec<_>, Vec<_>) = language.run(&through, topic)?.into_iter().partition(is_node);
        let told = ports.values().map(|port| format!("node 127.0.0.1 {port}"));
        assert_eq!(nodes, told.collect::<Vec<_>>(), "{language:?}");
        let own = language.run(&direct, &format!("{topic}-direct"))?;
        let own: Vec<_> = own.into_iter().filter(|line| !is_node(line)).collect();
        assert_eq!(got, own, "{language:?}");
        let records = got.iter().filter(|line| line.starts_with("record "));
        assert_eq!(records.count(), records_count, "{language:?}");
        Ok(())
    })
    .await?;
    let statistics = proxy.cache().statistics();
    assert!(statistics.hits > 0 && statistics.errors == 0, "{statistics:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confluent_kafka_gets_the_same_as_from_the_broker() -> Result<()> {
    gets_the_same(Language::Python, "proxy-confluent-kafka", 128).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafkajs_gets_the_same_as_from_the_broker() -> Result<()> {
    gets_the_same(Language::JavaScript, "proxy-kafkajs", 128).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_go_gets_the_same_as_from_the_broker() -> Result<()> {
    gets_the_same(Language::Go, "proxy-kafka-go", 120).await
}
