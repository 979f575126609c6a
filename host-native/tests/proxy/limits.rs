//! Clients that are broken, slow or many.

use core::time::Duration;
use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use kachet::demo::broker::NODE_ID as EMBEDDED_ID;
use kachet::proxy::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, fetch_of, sizes};
use crate::scripted::{Does, NODE_ID, Scripted};
use crate::{broker_port, broker_with, ends, proxy_before};

const OFFSET_COMMIT: i16 = 8;
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn garbage_and_sizes_that_are_none_end_the_connection() -> Result<()> {
    let broker = broker_with(1, 1).await?;
    let proxy = proxy_before(broker.address(), 1 << 20, Limits::default()).await?;
    let sizes = [-1, 0, 7, (100 << 20) + 1, i32::MAX, i32::MIN];
    for size in sizes {
        let mut client = Client::to(proxy.address()).await;
        client.stream.write_all(&size.to_be_bytes()).await?;
        assert!(client.receive().await.is_none(), "{size}");
    }
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
    ] {
        let mut client = Client::to(proxy.address()).await;
        client.stream.write_all(garbage).await?;
        assert!(client.receive().await.is_none());
    }
    assert_eq!(ends(&proxy, "request_size"), 8);
    // A Fetch whose header or body is none.
    for body in [&b""[..], &[0xff; 40], &[0; 20]] {
        let mut client = Client::to(proxy.address()).await;
        let mut frame = vec![0, 1, 0, 11, 0, 0, 0, 1];
        frame.extend_from_slice(body);
        client
            .stream
            .write_all(&u32::try_from(frame.len())?.to_be_bytes())
            .await?;
        client.stream.write_all(&frame).await?;
        assert!(client.receive().await.is_none(), "{body:?}");
    }
    assert_eq!(ends(&proxy, "request"), 3);
    Ok(())
}

#[tokio::test]
async fn who_does_not_finish_a_request_is_let_go() -> Result<()> {
    let broker = broker_with(1, 1).await?;
    let limits = Limits {
        request_timeout: SHORT,
        ..Limits::default()
    };
    let proxy = proxy_before(broker.address(), 1 << 20, limits).await?;
    // Nothing, half a size, half a head, half a body of a Fetch, half a body of anything else.
    for start in [
        &b""[..],
        &[0, 0],
        &[0, 0, 0, 20, 0, 1, 0, 11],
        &[0, 0, 0, 90, 0, 1, 0, 11, 0, 0, 0, 1, 0, 0],
        &[0, 0, 0, 90, 0, 2, 0, 1, 0, 0, 0, 1, 0, 0],
    ] {
        let started = Instant::now();
        let mut client = Client::to(proxy.address()).await;
        client.stream.write_all(start).await?;
        assert!(client.receive().await.is_none());
        assert!(
            started.elapsed() >= SHORT && started.elapsed() < 10 * SHORT,
            "{start:?}"
        );
    }
    assert_eq!(ends(&proxy, "slow"), 5);
    // Who has asked once may say nothing for longer.
    let mut client = Client::to(proxy.address()).await;
    client.metadata(5).await;
    tokio::time::sleep(2 * SHORT).await;
    client.metadata(5).await;
    Ok(())
}

#[tokio::test]
async fn who_says_nothing_or_takes_nothing_for_too_long_is_let_go() -> Result<()> {
    let broker = broker_with(1, 2_000).await?;
    let limits = Limits {
        idle_timeout: SHORT,
        ..Limits::default()
    };
    let proxy = proxy_before(broker.address(), 64 << 20, limits).await?;
    let mut idle = Client::to(proxy.address()).await;
    idle.metadata(5).await;
    assert!(idle.receive().await.is_none());
    assert_eq!(ends(&proxy, "idle"), 1);
    // While an answer is due, a client may be silent.
    let mut waiting = Client::to(broker_port(&proxy, EMBEDDED_ID)).await;
    let mut tail = fetch_of(&[(0, 20_000)]);
    tail.max_wait_ms = 900;
    assert_eq!(sizes(&waiting.fetch(11, &tail).await), [(0, 0)]);
    // Asks for far more than sockets hold, and reads none of it.
    let mut deaf = Client::to(broker_port(&proxy, EMBEDDED_ID)).await;
    let mut all = fetch_of(&[(0, 0)]);
    all.topics[0].partitions[0].partition_max_bytes = 50 << 20;
    for _ in 0..60 {
        deaf.send_fetch(11, &all).await;
    }
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if ends(&proxy, "idle") == 3 {
            return Ok(());
        }
    }
    panic!(
        "a client that reads nothing is still there: {}",
        ends(&proxy, "idle")
    );
}

#[tokio::test]
async fn answers_that_nobody_takes_are_held_only_as_long_as_there_is_room() -> Result<()> {
    let broker = broker_with(1, 2_000).await?;
    for (buffered_bytes, deadline) in [(1_000, 20 * SHORT), (1 << 30, 4 * SHORT)] {
        let limits = Limits {
            request_timeout: SHORT,
            buffered_bytes,
            ..Limits::default()
        };
        let proxy = proxy_before(broker.address(), 64 << 20, limits).await?;
        let mut deaf = Client::to(broker_port(&proxy, EMBEDDED_ID)).await;
        let mut all = fetch_of(&[(0, 0)]);
        all.topics[0].partitions[0].partition_max_bytes = 50 << 20;
        for _ in 0..20 {
            deaf.send_fetch(11, &all).await;
        }
        let started = Instant::now();
        while ends(&proxy, "idle") == 0 && started.elapsed() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let expected = u64::from(buffered_bytes == 1_000);
        assert_eq!(ends(&proxy, "idle"), expected, "{buffered_bytes}");
    }
    Ok(())
}

#[tokio::test]
async fn no_more_is_read_from_a_client_than_may_be_under_way() -> Result<()> {
    let broker = Scripted::start(|asked| match asked.api_key {
        OFFSET_COMMIT => Does::Nothing,
        _ => Does::Answer(Bytes::new()),
    })
    .await;
    let limits = Limits {
        in_flight: 4,
        ..Limits::default()
    };
    let proxy = proxy_before(&broker.address, 0, limits).await?;
    let mut client = Client::to(broker_port(&proxy, NODE_ID)).await;
    for _ in 0..40 {
        client.send(OFFSET_COMMIT, 7, b"").await;
    }
    tokio::time::sleep(SHORT).await;
    let under_way = broker.clients_of(OFFSET_COMMIT).len();
    // One more is being waited for.
    assert!((4..=5).contains(&under_way), "{under_way}");
    Ok(())
}

#[tokio::test]
async fn there_are_no_more_connections_than_there_may_be() -> Result<()> {
    let broker = broker_with(1, 1).await?;
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let proxy = proxy_before(broker.address(), 1 << 20, limits).await?;
    let mut first = Client::to(proxy.address()).await;
    first.metadata(5).await;
    let mut second = Client::to(broker_port(&proxy, EMBEDDED_ID)).await;
    second.metadata(5).await;
    assert_eq!(proxy.connections(), 2);
    let mut third = Client::to(proxy.address()).await;
    assert_eq!(third.stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(ends(&proxy, "too_many"), 1);
    drop(second);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if proxy.connections() == 1 {
            break;
        }
    }
    Client::to(proxy.address()).await.metadata(5).await;
    Ok(())
}

#[tokio::test]
async fn a_response_is_held_only_where_it_may_be() -> Result<()> {
    let broker = broker_with(1, 1).await?;
    let limits = Limits {
        response_size_bytes: 50,
        ..Limits::default()
    };
    let proxy = proxy_before(broker.address(), 1 << 20, limits).await?;
    let mut client = Client::to(proxy.address()).await;
    client.send(3, 5, &[0xff, 0xff, 0xff, 0xff, 0]).await;
    assert!(client.receive().await.is_none());
    assert_eq!(ends(&proxy, "disorder"), 1);
    Ok(())
}
