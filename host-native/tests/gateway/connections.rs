//! Connections: how many, for how long, and how they end.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Events, Packing, pack};
use kachet::gateway::GatewayLimits;
use kachet::proxy::Admin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::Client;
use crate::{LONG, TOPIC, broker_with, gateway_before, limited};

const PATH: &str = "/v1/topics/orders/0/records/1";

async fn slow_broker(delay: Duration) -> Result<EmbeddedBroker> {
    let broker = EmbeddedBroker::start(BrokerSettings {
        answer_delay: delay,
        ..BrokerSettings::default()
    })
    .await?;
    broker.create_topic(TOPIC, 1)?;
    let events: Vec<_> = Events::new(1).take(10).collect();
    broker.append(TOPIC, 0, pack(&events, Packing::Lz4)?)?;
    Ok(broker)
}

#[tokio::test]
async fn more_requests_than_may_be_are_told_to_come_again_and_late_answers_that_they_are() -> Result<()> {
    let broker = slow_broker(Duration::from_secs(2)).await?;
    let limits = GatewayLimits {
        concurrent_requests: 1,
        answer_timeout: Duration::from_secs(1),
        ..GatewayLimits::default()
    };
    let gateway = Arc::new(limited(&broker, limits).await?);
    let address = gateway.address();
    let slow = tokio::spawn(async move { Client::to(address).await?.get(PATH).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let busy = Client::by_http2(address).await?.get(PATH).await?;
    assert_eq!((busy.status, busy.code().as_str()), (503, "too-busy"));
    assert_eq!(busy.header("retry-after"), "1");
    let late = slow.await??;
    assert_eq!((late.status, late.code().as_str()), (504, "timed-out"));
    // Its place is free again.
    let again = Client::to(address).await?.get("/nothing").await?;
    assert_eq!(again.code(), "no-such-resource");
    Ok(())
}

/// Says something, and gives what is answered until the connection ends, and how long that took.
async fn say(address: core::net::SocketAddr, words: &[u8]) -> Result<(String, Duration)> {
    let mut stream = TcpStream::connect(address).await?;
    let begun = Instant::now();
    stream.write_all(words).await?;
    let mut said = Vec::new();
    let ended = timeout(LONG, stream.read_to_end(&mut said)).await;
    let _reset = ended.expect("the connection does not end");
    Ok((String::from_utf8_lossy(&said).into_owned(), begun.elapsed()))
}

#[tokio::test]
async fn who_says_too_little_too_slowly_or_too_much_is_left() -> Result<()> {
    let (broker, _) = broker_with(1).await?;
    let limits = GatewayLimits {
        request_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(1),
        ..GatewayLimits::default()
    };
    let gateway = limited(&broker, limits).await?;
    let whole = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let post = "POST /v1/fetch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nab";
    for (words, answer) in [
        ("", ""),
        ("GET / HT", ""),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n", ""),
        ("PRI * HTTP/2.0\r\n\r\nSM", ""),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        (whole.as_str(), "HTTP/1.1 200 OK"),
        (post, "HTTP/1.1 408"),
        ("nonsense\r\n\r\n", "HTTP/1.1 400"),
    ] {
        let (said, took) = say(gateway.address(), words.as_bytes()).await?;
        if answer.is_empty() {
            assert!(!said.contains("200 OK"), "{words}: {said}");
        } else {
            assert!(said.starts_with(answer), "{words}: {said}");
        }
        assert!(took < Duration::from_secs(8), "{words}: {took:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(40_000));
    let (said, _) = say(gateway.address(), long.as_bytes()).await?;
    assert!(said.starts_with("HTTP/1.1 4"), "{said}");
    assert_eq!(Client::to(gateway.address()).await?.get(PATH).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn there_are_no_more_connections_than_may_be() -> Result<()> {
    let (broker, _) = broker_with(1).await?;
    let limits = GatewayLimits {
        connections: 2,
        ..GatewayLimits::default()
    };
    let gateway = limited(&broker, limits).await?;
    let mut first = Client::to(gateway.address()).await?;
    let mut second = Client::by_http2(gateway.address()).await?;
    assert_eq!(first.get(PATH).await?.status, 200);
    assert_eq!(second.get(PATH).await?.status, 200);
    let (said, _) = say(gateway.address(), b"").await?;
    assert_eq!(said, "");
    drop(first);
    for attempt in 0..100 {
        match Client::to(gateway.address()).await?.get(PATH).await {
            Ok(answer) if answer.status == 200 => break,
            _ => assert!(attempt < 99, "no place becomes free"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test]
async fn the_end_waits_for_what_is_under_way_and_for_nothing_else() -> Result<()> {
    let broker = slow_broker(Duration::from_millis(400)).await?;
    let gateway = gateway_before(&broker).await?;
    let address = gateway.address();
    let under_way = tokio::spawn(async move { Client::to(address).await?.get(PATH).await });
    let mut idle = Client::by_http2(address).await?;
    assert_eq!(idle.get("/nothing").await?.status, 404);
    let _silent = TcpStream::connect(address).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    timeout(LONG, gateway.stop()).await?;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(under_way.await??.status, 200);
    assert!(TcpStream::connect(address).await.is_err());
    Ok(())
}

#[tokio::test]
async fn figures_are_told_to_those_who_watch() -> Result<()> {
    let (broker, _) = broker_with(1).await?;
    let gateway = gateway_before(&broker).await?;
    let admin = Admin::start(([127, 0, 0, 1], 0).into(), gateway.monitor()).await?;
    let mut client = Client::to(gateway.address()).await?;
    for _ in 0..3 {
        assert_eq!(client.get(PATH).await?.status, 200);
    }
    assert_eq!(client.get("/nothing").await?.status, 404);
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n");
    let (metrics, _) = say(admin.address(), ask("/metrics").as_bytes()).await?;
    for line in [
        "kachet_gateway_connections 1",
        "kachet_gateway_requests_under_way 0",
        "kachet_gateway_connections_refused_total 0",
        "kachet_gateway_requests_total{status=\"200\"} 3",
        "kachet_gateway_requests_total{status=\"404\"} 1",
        "kachet_cache_hits_total 2",
    ] {
        assert!(
            metrics.lines().any(|said| said == line),
            "no '{line}' in {metrics}"
        );
    }
    gateway.stop().await;
    let (ready, _) = say(admin.address(), ask("/ready").as_bytes()).await?;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    Ok(())
}
