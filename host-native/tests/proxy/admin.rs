//! Those who watch over the proxy.

use core::net::SocketAddr;
use core::time::Duration;

use anyhow::Result;
use kachet::demo::broker::NODE_ID;
use kachet::proxy::{Admin, Limits};
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
    let admin = Admin::start(([127, 0, 0, 1], 0).into(), proxy.monitor()).await?;
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
