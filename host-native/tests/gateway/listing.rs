//! Many records.

use core::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use kachet::client::Client as Direct;
use kachet::demo::broker::EmbeddedBroker;
use kachet::demo::records::FIRST_TIMESTAMP_MS;
use kachet::gateway::GatewayLimits;
use kachet::proxy::Watched;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::client::Client;
use crate::{TOPIC, broker_with, gateway_before, limited};

/// What `kachet fetch` prints.
async fn lines(broker: &EmbeddedBroker, offset: i64, count: usize) -> Result<String> {
    let direct = Direct::builder()
        .bootstrap(&broker.address().to_string())
        .build()?;
    let mut lines = Vec::new();
    for record in direct.records(TOPIC, 0, offset, count).await? {
        record.write_json(&mut lines, TOPIC, 0)?;
    }
    Ok(String::from_utf8(lines)?)
}

#[tokio::test]
async fn lines_are_those_of_fetch_in_one_part_and_in_many_by_both_protocols() -> Result<()> {
    let (broker, events) = broker_with(60).await?;
    let gateway = gateway_before(&broker).await?;
    for mut client in [
        Client::to(gateway.address()).await?,
        Client::by_http2(gateway.address()).await?,
    ] {
        for (offset, count) in [(0, 1), (5, 10), (0, 600), (123, 400), (595, 100)] {
            let path = format!("/v1/topics/orders/0/records?offset={offset}&count={count}");
            let answer = client.get(&path).await?;
            assert_eq!(
                (answer.status, answer.header("content-type")),
                (200, "application/x-ndjson")
            );
            assert_eq!(answer.text(), lines(&broker, offset, count).await?, "{path}");
            // What fits into one part is known as a whole.
            assert_eq!(
                answer.headers.contains_key("content-length"),
                answer.body.len() < 64 << 10
            );
        }
        let hundred = client.get("/v1/topics/orders/0/records?offset=0").await?;
        assert_eq!(hundred.text().lines().count(), 100);
        let late = events[333].timestamp_ms;
        let since = client
            .get(&format!("/v1/topics/orders/0/records?timestamp={late}&count=3"))
            .await?;
        let first: serde_json::Value = serde_json::from_str(since.text().lines().next().unwrap())?;
        assert_eq!(
            (since.text().lines().count(), first["ts"].as_i64()),
            (3, Some(late))
        );
        let last = client.get("/v1/topics/orders/0/records?offset=latest-2").await?;
        assert_eq!(last.text(), lines(&broker, 598, 2).await?);
        let first = client
            .get("/v1/topics/orders/0/records?offset=earliest&count=1")
            .await?;
        assert_eq!(first.text(), lines(&broker, 0, 1).await?);
        // The end is where the next one will be, and nothing is there yet.
        let end = client.get("/v1/topics/orders/0/records?offset=600").await?;
        assert_eq!((end.status, end.body.len()), (200, 0));
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_listed_says_why() -> Result<()> {
    let (broker, _) = broker_with(1).await?;
    let gateway = gateway_before(&broker).await?;
    let mut client = Client::to(gateway.address()).await?;
    let beyond = format!("timestamp={}", FIRST_TIMESTAMP_MS + 1_000_000_000);
    for (query, status, code, parameter) in [
        ("", 400, "bad-parameter", "offset"),
        ("offset=x", 400, "bad-parameter", "offset"),
        ("offset=@5", 400, "bad-parameter", "offset"),
        ("offset=1&offset=2", 400, "bad-parameter", "offset"),
        ("offset=1&timestamp=2", 400, "bad-parameter", "timestamp"),
        ("timestamp=-1", 400, "bad-parameter", "timestamp"),
        ("offset=1&count=0", 400, "bad-parameter", "count"),
        ("offset=1&count=10001", 400, "bad-parameter", "count"),
        ("offset=1&limit=1", 400, "bad-parameter", "limit"),
        ("offset=11", 404, "beyond-end", ""),
        (beyond.as_str(), 404, "no-record-at-timestamp", ""),
    ] {
        let answer = client
            .get(&format!("/v1/topics/orders/0/records?{query}"))
            .await?;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{query}");
        if !parameter.is_empty() {
            assert_eq!(answer.json()["parameter"], parameter, "{query}");
        }
    }
    let octets = [("accept", "application/octet-stream")];
    let refused = client
        .get_with("/v1/topics/orders/0/records?offset=0", &octets)
        .await?;
    assert_eq!(refused.code(), "not-acceptable");
    Ok(())
}

#[tokio::test]
async fn an_answer_stays_within_its_bounds_but_for_the_first_record() -> Result<()> {
    let (broker, _) = broker_with(20).await?;
    let all = lines(&broker, 0, 200).await?;
    for limit in [1, 2_000, 100_000] {
        let limits = GatewayLimits {
            response_size_bytes: limit,
            ..GatewayLimits::default()
        };
        let gateway = limited(&broker, limits).await?;
        let mut client = Client::to(gateway.address()).await?;
        let answer = client
            .get("/v1/topics/orders/0/records?offset=0&count=200")
            .await?;
        let count = answer.text().lines().count();
        assert!(all.starts_with(answer.text()) && answer.text().ends_with('\n'));
        assert!(
            count == 1 || answer.body.len() <= limit,
            "{limit}: {}",
            answer.body.len()
        );
        // And as much as fits.
        let with_next: usize = all.split_inclusive('\n').take(count + 1).map(str::len).sum();
        assert!(count >= 1 && with_next > limit, "{limit}: {count}");
    }
    Ok(())
}

#[tokio::test]
async fn who_takes_nothing_by_http_1_is_left() -> Result<()> {
    let (broker, _) = broker_with(1_000).await?;
    let limits = GatewayLimits {
        send_timeout: Duration::from_secs(1),
        ..GatewayLimits::default()
    };
    let gateway = limited(&broker, limits).await?;
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4 << 10)?;
    let mut stream = socket.connect(gateway.address()).await?;
    let request = "GET /v1/topics/orders/0/records?offset=0&count=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let monitor = gateway.monitor();
    let mut figures = String::new();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        figures = monitor.metrics();
        let has = |line: &str| figures.lines().any(|said| said == line);
        let was_begun = has("kachet_gateway_requests_total{status=\"200\"} 1");
        if was_begun && has("kachet_gateway_connections 0") && has("kachet_gateway_requests_under_way 0") {
            return Ok(());
        }
    }
    anyhow::bail!("it is not left: {figures}")
}

#[tokio::test]
async fn nothing_is_read_ahead_for_a_client_that_takes_nothing() -> Result<()> {
    let (broker, _) = broker_with(1_000).await?;
    let limits = GatewayLimits {
        send_timeout: Duration::from_secs(1),
        ..GatewayLimits::default()
    };
    let gateway = limited(&broker, limits).await?;
    let mut client = Client::by_http2(gateway.address()).await?;
    let response = client
        .begin(
            Method::GET,
            "/v1/topics/orders/0/records?offset=0&count=10000",
            &[],
            Bytes::new(),
        )
        .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let fetched = broker.requests().fetch;
    assert!(fetched <= 3, "{fetched} fetches for one that takes nothing");
    // It is left then, and its place is another's.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let taken = response.into_body().collect().await;
    assert!(taken.is_err());
    assert_eq!(broker.requests().fetch, fetched);
    Ok(())
}
