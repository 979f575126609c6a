//! What is not Fetch: untouched but for addresses, in order, on a connection of the client's own.

use core::time::Duration;
use std::time::Instant;

use anyhow::Result;
use bytes::{BufMut, Bytes, BytesMut};
use kachet::demo::broker::NODE_ID as EMBEDDED_ID;
use kachet::proxy::Limits;
use kafka_protocol::messages::{ApiKey, BrokerId, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use crate::client::{Client, fetch_of, sizes};
use crate::scripted::{Does, NODE_ID, Scripted, encoded};
use crate::{broker_port, broker_with, ends, proxy_before};

const OFFSET_COMMIT: i16 = 8;
const FIND_COORDINATOR: i16 = 10;

/// Bytes that are no message of any API.
fn noise(seed: u64, size_bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..size_bytes).map(|_| random.u8(..)).collect()
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_requests_and_a_long_poll_holds_up_its_own_connection_only()
-> Result<()> {
    let broker = broker_with(1, 3).await?;
    let proxy = proxy_before(broker.address(), 1 << 20, Limits::default()).await?;
    let address = broker_port(&proxy, EMBEDDED_ID);
    let mut client = Client::to(address).await;
    let mut tail = fetch_of(&[(0, 30)]);
    tail.max_wait_ms = 600;
    let started = Instant::now();
    let mut sent = Vec::new();
    for _ in 0..2 {
        sent.push(client.send_fetch(11, &tail).await);
        sent.push(client.send(18, 0, b"").await);
        sent.push(client.send_fetch(11, &fetch_of(&[(0, 0)])).await);
    }
    let mut other = Client::to(address).await;
    let read = other.fetch(11, &fetch_of(&[(0, 0)])).await;
    assert!(sizes(&read)[0].1 > 0);
    other.metadata(5).await;
    assert!(
        started.elapsed() < Duration::from_millis(500),
        "{:?}",
        started.elapsed()
    );
    for correlation_id in sent {
        let answer = client.receive().await.unwrap();
        assert_eq!(answer[..4], correlation_id.to_be_bytes());
    }
    assert!(
        started.elapsed() >= Duration::from_millis(1_100),
        "{:?}",
        started.elapsed()
    );
    Ok(())
}

#[tokio::test]
async fn what_names_no_broker_passes_to_the_byte_whatever_its_size() -> Result<()> {
    let broker = Scripted::start(|asked| Does::Answer(asked.frame.slice(8..))).await;
    let proxy = proxy_before(&broker.address, 0, Limits::default()).await?;
    let mut client = Client::to(broker_port(&proxy, NODE_ID)).await;
    let bodies = [0, 1, 1_000, 40_000, 70_000, 3_000_000].map(|size_bytes| noise(7, size_bytes));
    let mut frames = Vec::new();
    for body in &bodies[..4] {
        frames.push(client.frame(OFFSET_COMMIT, 7, body));
    }
    // Pipelined, in one write.
    let all: Vec<u8> = frames.iter().flat_map(|frame| frame.to_vec()).collect();
    tokio::io::AsyncWriteExt::write_all(&mut client.stream, &all).await?;
    for frame in &frames {
        let answer = client.receive().await.unwrap();
        assert_eq!(answer[..4], frame[8..12]);
        assert_eq!(answer[4..], frame[12..]);
    }
    for body in &bodies[4..] {
        client.send(OFFSET_COMMIT, 7, body).await;
        let answer = client.receive().await.unwrap();
        assert!(answer.ends_with(body) && answer.len() < body.len() + 20);
    }
    let asked = broker.asked.lock().unwrap();
    assert_eq!(asked.len(), 6);
    for (asked, frame) in asked.iter().zip(&frames) {
        assert_eq!(asked.frame[..], frame[4..]);
    }
    Ok(())
}

#[tokio::test]
async fn each_client_has_a_connection_of_its_own_to_the_broker() -> Result<()> {
    let broker = Scripted::start(|_| Does::Answer(Bytes::new())).await;
    let proxy = proxy_before(&broker.address, 0, Limits::default()).await?;
    let address = broker_port(&proxy, NODE_ID);
    for _ in 0..2 {
        let mut client = Client::to(address).await;
        for _ in 0..3 {
            client.send(OFFSET_COMMIT, 7, b"").await;
            client.receive().await.unwrap();
        }
    }
    let asked = broker.asked.lock().unwrap();
    let connections: Vec<usize> = asked.iter().map(|asked| asked.connection).collect();
    assert!(connections[0] == connections[2] && connections[3] == connections[5]);
    assert_ne!(connections[0], connections[3]);
    Ok(())
}

/// A Produce of version 9 with these acknowledgements, and some data.
fn produce(acks: i16) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_i16(acks);
    body.put_slice(&noise(3, 50_000));
    body.to_vec()
}

#[tokio::test]
async fn nobody_waits_for_the_answer_to_a_produce_that_wants_none() -> Result<()> {
    let broker = Scripted::start(|asked| match asked.api_key {
        // The acknowledgements stand behind header, its tags and the transactional id.
        0 if asked.frame[16..18] == [0, 0] => Does::Nothing,
        _ => Does::Answer(Bytes::from_static(b"done")),
    })
    .await;
    let proxy = proxy_before(&broker.address, 0, Limits::default()).await?;
    let mut client = Client::to(broker_port(&proxy, NODE_ID)).await;
    for acks in [0, 0, 1] {
        client.send(0, 9, &produce(acks)).await;
    }
    let answer = client.receive().await.unwrap();
    assert_eq!(
        (&answer[..4], &answer[4..]),
        (&3_i32.to_be_bytes()[..], &b"done"[..])
    );
    assert_eq!(broker.clients_of(0).len(), 3);
    Ok(())
}

#[tokio::test]
async fn brokers_are_told_at_the_proxy_and_reached_there() -> Result<()> {
    let broker = broker_with(1, 1).await?;
    let proxy = proxy_before(broker.address(), 0, Limits::default()).await?;
    for version in [0, 1, 8, 9, 12, 13] {
        let metadata = Client::to(proxy.address()).await.metadata(version).await;
        let told = &metadata.brokers[0];
        assert_eq!(told.node_id.0, EMBEDDED_ID);
        assert_eq!(
            (told.host.as_str(), told.port),
            ("127.0.0.1", i32::from(proxy.ports()[&EMBEDDED_ID]))
        );
        let mut there = Client::to(broker_port(&proxy, EMBEDDED_ID)).await;
        assert_eq!(there.metadata(version).await, metadata);
    }
    Ok(())
}

#[tokio::test]
async fn a_broker_that_shows_later_gets_a_port_when_it_is_first_told() -> Result<()> {
    let broker = Scripted::start(|asked| match asked.api_key {
        FIND_COORDINATOR => {
            let (node_id, host) = if asked.version == 1 {
                (9, "127.0.0.1")
            } else {
                (-1, "")
            };
            let found = FindCoordinatorResponse::default()
                .with_node_id(BrokerId(node_id))
                .with_host(StrBytes::from_static_str(host))
                .with_port(if node_id < 0 { -1 } else { 1 });
            Does::Answer(encoded(&found, asked.version))
        }
        _ => Does::Close,
    })
    .await;
    let proxy = proxy_before(&broker.address, 0, Limits::default()).await?;
    let mut client = Client::to(proxy.address()).await;
    let mut find = async |version| {
        let correlation_id = client.send(FIND_COORDINATOR, version, b"\0\x01g\0").await;
        let mut body = client
            .answer(ApiKey::FindCoordinator, version, correlation_id)
            .await;
        kafka_protocol::protocol::Decodable::decode(&mut body, version).unwrap()
    };
    let none: FindCoordinatorResponse = find(2).await;
    assert_eq!((none.node_id.0, none.host.as_str(), none.port), (-1, "", -1));
    assert_eq!(proxy.ports().len(), 1);
    let found: FindCoordinatorResponse = find(1).await;
    assert_eq!((found.node_id.0, found.port), (9, i32::from(proxy.ports()[&9])));
    // Nothing listens behind it, and whoever asks is let go.
    let mut lost = Client::to(broker_port(&proxy, 9)).await;
    lost.send(OFFSET_COMMIT, 7, b"").await;
    assert!(lost.receive().await.is_none());
    assert_eq!(ends(&proxy, "unreachable"), 1);
    Ok(())
}

#[tokio::test]
async fn a_connection_that_the_broker_closed_while_idle_has_a_successor_unless_it_logged_in() -> Result<()> {
    let broker = Scripted::start(|asked| match asked.api_key {
        OFFSET_COMMIT => Does::AnswerAndClose(Bytes::new()),
        _ => Does::Answer(Bytes::from_static(&[0, 0, 0, 0, 0, 0])),
    })
    .await;
    let proxy = proxy_before(&broker.address, 0, Limits::default()).await?;
    let address = broker_port(&proxy, NODE_ID);
    let mut client = Client::to(address).await;
    for _ in 0..3 {
        client.send(OFFSET_COMMIT, 7, b"").await;
        assert!(client.receive().await.is_some());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut client = Client::to(address).await;
    client.send(17, 1, b"\0\x05PLAIN").await;
    assert!(client.receive().await.is_some());
    client.send(OFFSET_COMMIT, 7, b"").await;
    assert!(client.receive().await.is_some());
    assert!(
        client.receive().await.is_none(),
        "the login is gone, so the client has to know"
    );
    Ok(())
}

#[tokio::test]
async fn a_broker_that_answers_something_else_or_unasked_is_not_believed() -> Result<()> {
    for raw in [
        // To another request.
        &[0, 0, 0, 4, 0, 0, 0, 99][..],
        // Of a size that is none.
        &[0, 0, 0, 3, 0, 0, 0, 1],
        &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1],
        // The answer, and one more.
        &[0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 2],
    ] {
        let broker = Scripted::start(move |_| Does::Raw(Bytes::from_static(raw))).await;
        let proxy = proxy_before(&broker.address, 0, Limits::default()).await?;
        let mut client = Client::to(broker_port(&proxy, NODE_ID)).await;
        client.send(OFFSET_COMMIT, 7, b"").await;
        if raw.len() > 8 {
            assert_eq!(client.receive().await.unwrap()[..], raw[4..8]);
        }
        assert!(client.receive().await.is_none(), "{raw:?}");
        assert_eq!(ends(&proxy, "disorder"), 1, "{raw:?}");
    }
    Ok(())
}

#[tokio::test]
async fn versions_are_those_that_both_sides_speak_and_others_are_answered_or_closed() -> Result<()> {
    let broker = Scripted::start(|_| Does::Answer(Bytes::new())).await;
    let proxy = proxy_before(&broker.address, 0, Limits::default()).await?;
    let address = broker_port(&proxy, NODE_ID);
    let told = Client::to(address).await.api_versions(0).await.unwrap();
    assert_eq!(told[..6], [0, 0, 0, 0, 0, 9]);
    let range = |key: i16| {
        told[6..]
            .chunks(6)
            .find(|range| range[..2] == key.to_be_bytes())
            .unwrap()
            .to_vec()
    };
    assert_eq!(range(17), [0, 17, 0, 0, 0, 1]);
    assert_eq!(range(1), [0, 1, 0, 4, 0, 11]);
    // H18: error 35 and our range in version 0.
    let unsupported = Client::to(address).await.api_versions(77).await.unwrap();
    assert_eq!(unsupported[..], [0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 5]);
    for (api_key, version) in [(1, 3), (1, 19), (3, 14), (17, 0), (99, 0)] {
        let mut client = Client::to(address).await;
        client.send(api_key, version, b"").await;
        assert!(client.receive().await.is_none(), "{api_key} v{version}");
    }
    assert_eq!(ends(&proxy, "not_spoken"), 5);
    assert!(broker.asked.lock().unwrap().is_empty());
    Ok(())
}
