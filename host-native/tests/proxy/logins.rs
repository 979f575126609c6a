//! Who may be given what is cached (H19).

use core::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use kachet::cache::Cache;
use kachet::proxy::{Limits, Proxy, ProxySettings};
use kachet::transport::{TcpSettings, TcpTransport};
use kachet_core::wire::{
    Chunks, FetchResponse, FetchableTopic, PartitionData, RecordBytes, TaggedFields, TopicRef, WireStr,
};

use crate::client::{Client, fetch_of, sizes};
use crate::scripted::{Asked, Does, NODE_ID, Scripted};
use crate::{CachingProxy, TOPIC, settings};

const FETCH: i16 = 1;
const TOPIC_AUTHORIZATION_FAILED: i16 = 29;

/// Lets everybody read but mallory.
fn answer(asked: &Asked) -> Does {
    if asked.api_key != FETCH {
        return Does::Answer(Bytes::from_static(&[0, 0, 0, 0, 0, 0]));
    }
    let data = if asked.client == "mallory" {
        PartitionData::error(0, TOPIC_AUTHORIZATION_FAILED)
    } else {
        PartitionData {
            high_watermark: 1,
            records: Some(RecordBytes::from(Bytes::from_static(b"not a batch"))),
            ..PartitionData::error(0, 0)
        }
    };
    let response = FetchResponse {
        topics: vec![FetchableTopic {
            topic: TopicRef::Name(WireStr::from_static(TOPIC)),
            partitions: vec![data],
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchResponse::default()
    };
    let mut body = Chunks::new();
    response.encode(asked.version, &mut body).unwrap();
    Does::Answer(body.into_bytes())
}

/// The cache holds nothing, so that the broker sees by the client's name which way each fetch goes.
async fn proxy_with(broker: &Scripted, change: impl FnOnce(&mut ProxySettings)) -> Result<CachingProxy> {
    let mut settings = settings(&broker.address, Limits::default());
    settings.authorization_ttl = Duration::from_millis(400);
    change(&mut settings);
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default())).build();
    Ok(Proxy::start(settings, cache).await?)
}

async fn logged_in(proxy: &CachingProxy, name: &'static str) -> Client {
    let mut client = Client::named(crate::broker_port(proxy, NODE_ID), name).await;
    for (api_key, body) in [(17, &b"\0\x05PLAIN"[..]), (36, b"\0\0\0\0")] {
        client.send(api_key, 1, body).await;
        assert!(client.receive().await.is_some());
    }
    client
}

async fn reads(client: &mut Client) -> (i16, usize) {
    let response = client.fetch(11, &fetch_of(&[(0, 0)])).await;
    let error_code = response.partitions().next().unwrap().1.error_code;
    (error_code, sizes(&response)[0].1)
}

#[tokio::test]
async fn a_client_that_logs_in_reads_by_its_own_connection_first_and_again_after_a_while() -> Result<()> {
    let broker = Scripted::start(answer).await;
    let proxy = proxy_with(&broker, |_| {}).await?;
    let mut alice = logged_in(&proxy, "alice").await;
    for _ in 0..3 {
        assert_eq!(reads(&mut alice).await, (0, 11));
    }
    assert_eq!(broker.clients_of(FETCH), ["alice", "kachet", "kachet"]);
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert_eq!(reads(&mut alice).await, (0, 11));
    // On another connection the same client has to show it again.
    assert_eq!(reads(&mut logged_in(&proxy, "alice").await).await, (0, 11));
    assert_eq!(broker.clients_of(FETCH)[3..], ["alice", "alice"]);
    Ok(())
}

#[tokio::test]
async fn whom_the_broker_denies_is_denied_each_time() -> Result<()> {
    let broker = Scripted::start(answer).await;
    let proxy = proxy_with(&broker, |_| {}).await?;
    let mut alice = logged_in(&proxy, "alice").await;
    reads(&mut alice).await;
    let mut mallory = logged_in(&proxy, "mallory").await;
    for _ in 0..2 {
        assert_eq!(reads(&mut mallory).await, (TOPIC_AUTHORIZATION_FAILED, 0));
    }
    assert_eq!(broker.clients_of(FETCH), ["alice", "mallory", "mallory"]);
    Ok(())
}

#[tokio::test]
async fn who_does_not_log_in_is_asked_after_where_the_proxy_itself_does() -> Result<()> {
    let broker = Scripted::start(answer).await;
    let login = |settings: &mut ProxySettings| {
        let login = kachet::transport::SaslCredentials::plain("kachet".to_owned(), "secret".to_owned());
        settings.tcp.security.sasl = Some(login);
    };
    let proxy = proxy_with(&broker, login).await?;
    let mut mallory = Client::named(crate::broker_port(&proxy, NODE_ID), "mallory").await;
    assert_eq!(reads(&mut mallory).await, (TOPIC_AUTHORIZATION_FAILED, 0));
    assert_eq!(broker.clients_of(FETCH), ["mallory"]);
    Ok(())
}

#[tokio::test]
async fn clients_that_are_trusted_or_have_no_names_read_at_once() -> Result<()> {
    let broker = Scripted::start(answer).await;
    let proxy = proxy_with(&broker, |settings| settings.trusts_clients = true).await?;
    reads(&mut logged_in(&proxy, "alice").await).await;
    let proxy = proxy_with(&broker, |_| {}).await?;
    reads(&mut Client::to(crate::broker_port(&proxy, NODE_ID)).await).await;
    assert_eq!(broker.clients_of(FETCH), ["kachet", "kachet"]);
    Ok(())
}
