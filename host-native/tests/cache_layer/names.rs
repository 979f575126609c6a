//! Fetches by name: of which topic an answer is, the name alone does not tell (H6).

use core::time::Duration;
use std::sync::Arc;

use anyhow::Result;
use kachet::cache::Cache;
use kachet::core::time::MaxStaleness;
use kachet::core::wire::{FetchPartition, FetchRequest, FetchTopic, TaggedFields, TopicRef, WireStr};
use kachet::demo::broker::EmbeddedBroker;
use kachet::transport::{
    ApiVersions, BrokerAddress, Request, Response, TcpSettings, TcpTransport, Transport, TransportError,
};
use tokio::time::{sleep, timeout};

use super::{TOPIC, append, broker_with};

/// The topic is created anew while the answer to a fetch is on its way back.
struct Recreating {
    below: TcpTransport,
    broker: Arc<EmbeddedBroker>,
}

impl Transport for Recreating {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        let answer = self.below.round_trip(broker, request).await?;
        if matches!(answer, Response::Fetch(_)) {
            let recreated = self
                .broker
                .delete_topic(TOPIC)
                .and_then(|()| self.broker.create_topic(TOPIC, 1));
            assert!(recreated.is_ok(), "{recreated:?}");
        }
        Ok(answer)
    }

    async fn api_versions(&self, broker: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        self.below.api_versions(broker).await
    }
}

/// One broker that answers at several addresses, as if it were several.
struct Aliased {
    below: TcpTransport,
    broker: BrokerAddress,
}

impl Transport for Aliased {
    async fn round_trip(&self, _: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        self.below.round_trip(&self.broker, request).await
    }

    async fn api_versions(&self, _: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        self.below.api_versions(&self.broker).await
    }
}

fn cache_over<T: Transport>(transport: T) -> Cache<T> {
    Cache::builder(transport)
        .size_limit_bytes(1 << 20)
        .max_staleness(MaxStaleness::Within(Duration::from_secs(60)))
        .build()
}

/// Fetches one batch by name, and waits until the broker was asked so often for Metadata.
async fn fetch<T: Transport>(
    cache: &Cache<T>,
    broker: &EmbeddedBroker,
    address: &BrokerAddress,
    offset: i64,
    metadata: u64,
) -> Result<()> {
    let request = FetchRequest {
        topics: vec![FetchTopic {
            topic: TopicRef::Name(WireStr::from_static(TOPIC)),
            partitions: vec![FetchPartition::new(0, offset, 1)],
            unknown_tags: TaggedFields::default(),
        }],
        max_bytes: 1 << 20,
        ..FetchRequest::default()
    };
    let request = Request::Fetch { version: 11, request };
    cache.round_trip(address, request).await?;
    timeout(Duration::from_secs(5), async {
        while broker.requests().metadata < metadata {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await?;
    // What was asked last is answered, and kept if it is to be.
    sleep(Duration::from_millis(100)).await;
    assert_eq!(broker.requests().metadata, metadata);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_a_topic_that_was_created_anew_meanwhile_is_not_kept() -> Result<()> {
    let broker = Arc::new(broker_with(2).await?);
    let cache = cache_over(Recreating {
        below: TcpTransport::new(TcpSettings::default()),
        broker: Arc::clone(&broker),
    });
    fetch(&cache, &broker, broker.address(), 3, 2).await?;
    assert_eq!(cache.statistics().inserts, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_kept_only_if_the_broker_that_gave_it_had_said_what_the_name_stands_for() -> Result<()> {
    let broker = broker_with(2).await?;
    append(&broker, 2, 2)?;
    let cache = cache_over(Aliased {
        below: TcpTransport::new(TcpSettings::default()),
        broker: broker.address().clone(),
    });
    let (first, second): (BrokerAddress, BrokerAddress) = ("first:9092".parse()?, "second:9092".parse()?);
    fetch(&cache, &broker, &first, 3, 2).await?;
    assert_eq!(cache.statistics().inserts, 1, "asked before and after");
    fetch(&cache, &broker, &second, 13, 3).await?;
    assert_eq!(
        cache.statistics().inserts,
        1,
        "only the first broker was asked before"
    );
    fetch(&cache, &broker, &second, 23, 4).await?;
    assert_eq!(cache.statistics().inserts, 2);
    Ok(())
}
