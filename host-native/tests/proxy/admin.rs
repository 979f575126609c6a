//! Those who watch over the proxy.

use core::net::SocketAddr;
use core::time::Duration;

use anyhow::Result;
use kachet::demo::broker::NODE_ID;
use kachet::proxy::{Admin, Limits};
use kachet_core::identity::PartitionKey;
use kachet_core::wire::{TopicId, TopicRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, fetch_of};
use crate::{broker_port, broker_with, proxy_before};

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = String::new();
    let _reset = stream.read_to_string(&mut said).await;
    said
}

async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n")).await
}

#[tokio::test]
async fn figures_health_and_readiness_are_told() -> Result<()> {
    let broker = broker_with(1, 1).await?;
    let proxy = proxy_before(broker.address(), 1 << 20, Limits::default()).await?;
    let admin = Admin::start_with_page(([127, 0, 0, 1], 0).into(), proxy.monitor()).await?;
    let address = admin.address();
    let mut client = Client::to(broker_port(&proxy, NODE_ID)).await;
    client.metadata(5).await;
    for _ in 0..2 {
        client.fetch(11, &fetch_of(&[(0, 0)])).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut wrong = Client::to(proxy.address()).await;
    wrong.send(1, 3, b"").await;
    assert!(wrong.receive().await.is_none());
    let metrics = get(address, "/metrics").await;
    for line in [
        "HTTP/1.1 200 OK",
        "# TYPE kachet_proxy_connections gauge",
        "kachet_proxy_connections 1",
        "kachet_proxy_connections_accepted_total 2",
        "kachet_proxy_connections_closed_total{reason=\"not_spoken\"} 1",
        "kachet_proxy_fetches_total{by=\"cache\"} 2",
        "kachet_proxy_requests_total{api=\"Fetch\"} 2",
        "kachet_proxy_requests_total{api=\"Metadata\"} 1",
        "kachet_cache_hits_total 1",
        "kachet_cache_batches 1",
    ] {
        assert!(
            metrics.lines().any(|said| said == line),
            "no '{line}' in {metrics}"
        );
    }
    assert!(get(address, "/health").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/ready").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/other").await.starts_with("HTTP/1.1 404"));
    assert!(
        ask(address, "POST /metrics HTTP/1.1\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 405")
    );
    assert!(ask(address, &"x".repeat(9_000)).await.starts_with("HTTP/1.1 400"));
    proxy.stop().await;
    assert!(get(address, "/ready").await.starts_with("HTTP/1.1 503"));
    assert!(get(address, "/health").await.starts_with("HTTP/1.1 200"));
    Ok(())
}

/// The status and the JSON of an answer.
async fn json(address: SocketAddr, path: &str) -> serde_json::Value {
    let said = get(address, path).await;
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
    assert!(head.contains("Content-Type: application/json"), "{head}");
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn what_is_cached_is_told_in_pages_and_parts() -> Result<()> {
    let broker = broker_with(5, 4).await?;
    let proxy = proxy_before(broker.address(), 1 << 20, Limits::default()).await?;
    let admin = Admin::start_with_page(([127, 0, 0, 1], 0).into(), proxy.monitor()).await?;
    let address = admin.address();
    let nothing = json(address, "/api/coverage").await;
    assert_eq!(
        (&nothing["total"], &nothing["partitions"]),
        (&0.into(), &serde_json::json!([]))
    );
    let mut client = Client::to(broker_port(&proxy, NODE_ID)).await;
    client.metadata(12).await;
    for (partition, offset) in [(0, 0), (1, 20), (3, 30), (4, 5)] {
        client.fetch(11, &fetch_of(&[(partition, offset)])).await;
    }
    // Under names batches are kept a little later, and a survey is used for two seconds.
    tokio::time::sleep(Duration::from_millis(2_300)).await;
    let all = json(address, "/api/coverage?buckets=4").await;
    assert_eq!((&all["total"], &all["matching"]), (&4.into(), &4.into()));
    let told = |all: &serde_json::Value, what: &str| -> Vec<serde_json::Value> {
        let partitions = all["partitions"].as_array().unwrap();
        partitions.iter().map(|each| each[what].clone()).collect()
    };
    assert_eq!(told(&all, "partition"), [0, 1, 3, 4]);
    assert_eq!(told(&all, "topic"), ["orders"; 4]);
    assert_eq!(told(&all, "cached_percent"), [100.0, 50.0, 25.0, 100.0]);
    assert_eq!(told(&all, "buckets")[1], serde_json::json!([0, 0, 100, 100]));
    assert_eq!(told(&all, "ranges")[2], serde_json::json!([[30, 39]]));
    assert_eq!(told(&all, "high_watermark"), [40; 4]);
    let sorted = json(address, "/api/coverage?sort=cached&order=up&from=1&limit=2").await;
    assert_eq!(told(&sorted, "partition"), [1, 0]);
    let filtered = json(address, "/api/coverage?topic=RDERS%2F3").await;
    assert_eq!(
        (told(&filtered, "partition"), &filtered["total"]),
        (vec![3.into()], &4.into())
    );
    assert_eq!(
        json(address, "/api/coverage?from=999").await["partitions"],
        serde_json::json!([])
    );
    for wrong in [
        "limit=0",
        "limit=201",
        "buckets=513",
        "from=-1",
        "sort=colour",
        "order=",
        "topics=x",
    ] {
        let said = get(address, &format!("/api/coverage?{wrong}")).await;
        let name = wrong.split('=').next().unwrap();
        assert!(
            said.starts_with("HTTP/1.1 400") && said.contains(name),
            "{wrong}: {said}"
        );
    }
    let status = json(address, "/api/status").await;
    assert_eq!(status["cache"]["lookups"], 4);
    assert_eq!(status["proxy"]["connections"], 1);
    assert!(
        status["cache"]["upstream_bytes"].as_u64() > Some(1_000),
        "{status}"
    );
    let recent = status["history"]["hit_ratio"].as_array().unwrap().len();
    assert!((1..10).contains(&recent), "{status}");
    assert_eq!(
        json(address, "/api/status?history=day").await["history"]["interval_seconds"],
        300
    );
    assert!(
        get(address, "/api/status?history=ever")
            .await
            .starts_with("HTTP/1.1 400")
    );
    let page = get(address, "/").await;
    assert!(page.contains("Content-Security-Policy: default-src 'none'") && page.contains("<!DOCTYPE html>"));
    let head = ask(address, "HEAD / HTTP/1.1\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    Ok(())
}

/// The index is looked at 4 096 batches at a time.
#[tokio::test]
async fn a_large_partition_is_told_of_as_a_whole() -> Result<()> {
    const BATCHES: u64 = 4_500;
    let broker = broker_with(1, BATCHES).await?;
    let proxy = proxy_before(broker.address(), 64 << 20, Limits::default()).await?;
    let admin = Admin::start_with_page(([127, 0, 0, 1], 0).into(), proxy.monitor()).await?;
    let mut client = Client::to(broker_port(&proxy, NODE_ID)).await;
    let topic_id = TopicId(*client.metadata(12).await.topics[0].topic_id.as_bytes());
    let mut request = fetch_of(&[(0, 0)]);
    request.topics[0].topic = TopicRef::Id(topic_id);
    for _ in 0..BATCHES {
        let held = proxy.cache().covered(PartitionKey {
            topic_id,
            partition: 0,
        });
        request.topics[0].partitions[0].fetch_offset = held.last().map_or(0, |run| run.last() + 1);
        if proxy.cache().statistics().batches == BATCHES {
            break;
        }
        client.fetch(13, &request).await;
    }
    let all = json(admin.address(), "/api/coverage?buckets=3").await;
    let told = &all["partitions"][0];
    assert_eq!(told["batches"], BATCHES);
    assert_eq!(told["ranges"], serde_json::json!([[0, 10 * BATCHES - 1]]));
    assert_eq!(told["buckets"], serde_json::json!([100, 100, 100]));
    Ok(())
}
