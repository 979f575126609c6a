//! The cache is a transport: it composes, passes through what is not its business, and counts what it does.

use std::sync::Arc;

use anyhow::{Result, bail};
use bytes::Bytes;
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings};
use kachet::core::wire::{FetchPartition, FetchRequest, FetchTopic, TaggedFields, TopicRef, WireStr};
use kachet::transport::{
    ApiVersions, BrokerAddress, Request, Response, TcpSettings, TcpTransport, Transport, TransportError,
};

use super::{TOPIC, broker_with, client_of, value, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_over_a_cache_answers_from_the_upper_one() -> Result<()> {
    let broker = broker_with(4).await?;
    let lower = Cache::builder(TcpTransport::new(TcpSettings::default()))
        .size_limit_bytes(1 << 20)
        .build();
    let upper = Cache::builder(lower.clone()).size_limit_bytes(1 << 20).build();
    let client = Client::new(
        upper.clone(),
        vec![broker.address().clone()],
        ClientSettings::default(),
    )?;
    for _ in 0..3 {
        assert!(client.record(TOPIC, 0, 12).await?.is_some());
    }
    assert_eq!((upper.statistics().hits, upper.statistics().misses), (2, 1));
    assert_eq!((lower.statistics().hits, lower.statistics().misses), (0, 1));
    upper.clear();
    assert!(client.record(TOPIC, 0, 12).await?.is_some());
    assert_eq!((lower.statistics().hits, lower.statistics().misses), (1, 1));
    assert_eq!(broker.requests().fetch, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_size_limit_every_fetch_passes_through_and_is_counted() -> Result<()> {
    let broker = broker_with(2).await?;
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default())).build();
    let client = Client::new(
        cache.clone(),
        vec![broker.address().clone()],
        ClientSettings::default(),
    )?;
    for _ in 0..3 {
        assert!(client.record(TOPIC, 0, 12).await?.is_some());
    }
    let statistics = cache.statistics();
    assert_eq!(
        (
            statistics.upstream_fetches,
            statistics.size_bytes,
            statistics.lookups
        ),
        (3, 0, 0)
    );
    assert_eq!(broker.requests().fetch, 3);
    // Nothing was asked that the client itself did not ask.
    assert_eq!(
        (broker.requests().metadata, broker.requests().list_offsets),
        (1, 0)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_by_name_share_what_fetches_by_id_have_brought() -> Result<()> {
    let broker = broker_with(2).await?;
    let client = client_of(&broker, within(1_000))?;
    value(&client, 3).await?;
    let by_name = FetchRequest {
        max_wait_ms: 100,
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic: TopicRef::Name(WireStr::from_static(TOPIC)),
            partitions: vec![FetchPartition::new(0, 3, 1 << 20)],
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    };
    let request = Request::Fetch {
        version: 11,
        request: by_name,
    };
    let Response::Fetch(response) = client.transport().round_trip(broker.address(), request).await? else {
        bail!("not a Fetch response");
    };
    assert!(
        response
            .partitions()
            .all(|(_, data)| data.records_size_bytes() > 0)
    );
    assert_eq!(broker.requests().fetch, 1);
    Ok(())
}

/// A transport that hands a Metadata request on and remembers its bytes.
struct Recording {
    below: TcpTransport,
    seen: std::sync::Mutex<Vec<Request>>,
}

impl Transport for Recording {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        if let Ok(mut seen) = self.seen.lock() {
            seen.push(request.clone());
        }
        self.below.round_trip(broker, request).await
    }

    async fn api_versions(&self, broker: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        self.below.api_versions(broker).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_other_than_fetch_go_through_to_the_byte() -> Result<()> {
    let broker = broker_with(1).await?;
    let recording = Arc::new(Recording {
        below: TcpTransport::new(TcpSettings::default()),
        seen: std::sync::Mutex::default(),
    });
    let cache = Cache::builder(Arc::clone(&recording))
        .size_limit_bytes(1 << 20)
        .build();
    // Metadata v1 for all topics.
    let request = Request::Other {
        api_key: 3,
        version: 1,
        body: Bytes::from_static(&[0xff, 0xff, 0xff, 0xff]),
        broker_wait: core::time::Duration::ZERO,
    };
    let through = cache.round_trip(broker.address(), request.clone()).await?;
    assert_eq!(
        through,
        recording
            .below
            .round_trip(broker.address(), request.clone())
            .await?
    );
    assert_eq!(
        recording.seen.lock().map(|seen| seen.clone()).unwrap_or_default(),
        [request]
    );
    Ok(())
}
