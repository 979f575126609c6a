//! curl at the gateway before real brokers: what it gets is what the brokers themselves give.

mod cluster;
mod fetch;
mod records;

use anyhow::Result;
use bytes::{BufMut, Bytes, BytesMut};
use kachet::cache::Cache;
use kachet::gateway::{Gateway, GatewaySettings};
use kachet::transport::{TcpSettings, TcpTransport, TlsListenerSettings};
use kachet_core::storage::MemoryStorage;
use kachet_core::time::MaxStaleness;
use kachet_core::wire::{
    Batches, Chunks, FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData, RecordBytes,
    TaggedFields, TopicId, TopicRef,
};
use kachet_tests::curl::{self, Answer};

type CachingGateway = Gateway<TcpTransport, MemoryStorage>;

const CACHE_BYTES: u64 = 64 << 20;
const PROTOCOLS: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];

async fn gateway_before(bootstrap: &str, max_staleness: MaxStaleness) -> Result<CachingGateway> {
    gateway_with(bootstrap, max_staleness, None).await
}

async fn gateway_with(
    bootstrap: &str,
    max_staleness: MaxStaleness,
    tls: Option<TlsListenerSettings>,
) -> Result<CachingGateway> {
    let brokers = bootstrap
        .split(',')
        .map(str::parse)
        .collect::<Result<Vec<_>, _>>()?;
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default()))
        .size_limit_bytes(CACHE_BYTES)
        .max_staleness(max_staleness);
    let settings = GatewaySettings {
        tls,
        ..GatewaySettings::new(([127, 0, 0, 1], 0).into(), brokers)
    };
    Ok(Gateway::start(settings, cache.build()).await?)
}

fn get(gateway: &CachingGateway, path: &str, arguments: &[&str]) -> Result<Answer> {
    let url = format!("http://{}{path}", gateway.address());
    curl::ask(&[arguments, &[url.as_str()]].concat(), b"")
}

/// By `POST /v1/fetch`; gives the body.
fn post(gateway: &CachingGateway, frame: &[u8], protocol: &str) -> Result<Bytes> {
    let url = format!("http://{}/v1/fetch", gateway.address());
    let arguments = [
        protocol,
        "--data-binary",
        "@-",
        "--header",
        "Content-Type: application/vnd.kafka.fetch",
        &url,
    ];
    let answer = curl::ask(&arguments, frame)?;
    anyhow::ensure!(answer.status == 200, "{answer:?}");
    Ok(answer.body.into())
}

/// The request without its size.
fn frame(version: i16, request: &FetchRequest) -> Bytes {
    let mut body = Chunks::new();
    request.encode(version, &mut body).unwrap();
    let mut frame = BytesMut::new();
    frame.put_i16(1);
    frame.put_i16(version);
    frame.put_i32(4_711);
    frame.put_i16(-1);
    frame.put_slice(if version >= 12 { &[0] } else { &[] });
    frame.put_slice(&body.into_bytes());
    frame.freeze()
}

fn fetch_of(topics: Vec<(TopicRef, Vec<(i32, i64)>)>) -> FetchRequest {
    let topics = topics.into_iter().map(|(topic, partitions)| FetchTopic {
        topic,
        partitions: partitions
            .into_iter()
            .map(|(index, offset)| FetchPartition::new(index, offset, 1 << 20))
            .collect(),
        unknown_tags: TaggedFields::default(),
    });
    FetchRequest {
        max_wait_ms: 100,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: topics.collect(),
        ..FetchRequest::default()
    }
}

fn decode(version: i16, answer: &Bytes) -> Result<FetchResponse> {
    assert_eq!(answer[..4], 4_711_i32.to_be_bytes());
    let header_bytes = if version >= 12 { 5 } else { 4 };
    Ok(FetchResponse::decode(answer.slice(header_bytes..), version)?)
}

/// What must be the same however the answer came: everything but the truncated tail and the addresses of brokers.
fn comparable(response: &FetchResponse) -> Vec<(TopicRef, PartitionData)> {
    let whole = |data: &PartitionData| {
        let bytes = data
            .records
            .as_ref()
            .map(RecordBytes::to_bytes)
            .unwrap_or_default();
        let mut batches = Batches::new(&bytes);
        while batches.next().is_some() {}
        PartitionData {
            records: Some(bytes.slice(..batches.at_byte()).into()),
            current_leader: None,
            ..data.clone()
        }
    };
    let partitions = response.partitions();
    partitions
        .map(|(topic, data)| (topic.clone(), whole(data)))
        .collect()
}

/// As it stands in `GET /v1/topics/TOPIC`.
fn id_of(gateway: &CachingGateway, topic: &str) -> Result<TopicId> {
    let told = get(gateway, &format!("/v1/topics/{topic}"), &[])?.json()?;
    let hex = told["id"].as_str().unwrap_or_default().replace('-', "");
    Ok(TopicId(u128::from_str_radix(&hex, 16)?.to_be_bytes()))
}
