//! Questions about what is cached: callers who need different answers do not wait for each other's.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings};
use kachet::core::time::MaxStaleness;
use kachet::core::wire::FETCH_API_KEY;
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Events, Packing, pack};
use kachet::transport::{
    ApiVersions, BrokerAddress, Request, Response, TcpSettings, TcpTransport, Transport, TransportError,
};
use tokio::time::{Instant, sleep};

use super::{TOPIC, append};

/// How long each question takes on its way, beside all others.
const QUESTION_DELAY: Duration = Duration::from_millis(100);

/// A transport on which everything but fetches can be slow, or fail.
struct Questions {
    below: TcpTransport,
    are_slow: AtomicBool,
    fail: AtomicBool,
}

impl Transport for Questions {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        let is_question = request.api_key() != FETCH_API_KEY;
        if is_question && self.are_slow.load(Ordering::Relaxed) {
            sleep(QUESTION_DELAY).await;
        }
        if is_question && self.fail.load(Ordering::Relaxed) {
            let broker = broker.clone();
            return Err(TransportError::Closed { broker });
        }
        self.below.round_trip(broker, request).await
    }

    async fn api_versions(&self, broker: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        self.below.api_versions(broker).await
    }
}

/// A topic of two partitions, one cached batch in each, the second cached `apart` after the first.
async fn two_partitions(
    bound: Duration,
    apart: Duration,
) -> Result<(EmbeddedBroker, Arc<Client<Cache<Questions>>>)> {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    broker.create_topic(TOPIC, 2)?;
    append(&broker, 1, 2)?;
    let batch: Vec<_> = Events::new(2).take(10).collect();
    let batch = pack(&batch, Packing::Lz4)?;
    broker.append(TOPIC, 1, batch)?;
    let questions = Questions {
        below: TcpTransport::new(TcpSettings::default()),
        are_slow: AtomicBool::new(false),
        fail: AtomicBool::new(false),
    };
    let cache = Cache::builder(questions)
        .size_limit_bytes(1 << 20)
        .max_staleness(MaxStaleness::Within(bound))
        .build();
    let client = Client::new(cache, vec![broker.address().clone()], ClientSettings::default())?;
    assert!(client.record(TOPIC, 0, 3).await?.is_some());
    sleep(apart).await;
    assert!(client.record(TOPIC, 1, 3).await?.is_some());
    Ok((broker, Arc::new(client)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_different_readers_need_are_validated_beside_each_other() -> Result<()> {
    let (broker, client) = two_partitions(Duration::from_millis(600), Duration::ZERO).await?;
    sleep(Duration::from_millis(650)).await;
    let before = broker.requests();
    client
        .transport()
        .transport()
        .are_slow
        .store(true, Ordering::Relaxed);
    let started = Instant::now();
    let readers: Vec<_> = (0..20)
        .map(|reader| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.record(TOPIC, reader % 2, 3).await })
        })
        .collect();
    for reader in readers {
        assert!(reader.await??.is_some());
    }
    let after = broker.requests();
    // One after the other, each asks Metadata, the settings of the topic between two more, what its name stands for,
    // the leader, and the name again: a dozen questions in a row.
    assert!(started.elapsed() < QUESTION_DELAY * 8, "{:?}", started.elapsed());
    assert_eq!(after.fetch, before.fetch);
    assert_eq!(
        (
            after.metadata - before.metadata,
            after.list_offsets - before.list_offsets
        ),
        (6, 4),
        "each partition is asked about once"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_does_not_wait_for_the_pause_after_a_validation_that_failed() -> Result<()> {
    let (_broker, client) = two_partitions(Duration::from_secs(1), Duration::from_millis(600)).await?;
    sleep(Duration::from_millis(600)).await;
    let questions = client.transport().transport();
    // Partition 1 is served, and validated in the background, which fails.
    questions.fail.store(true, Ordering::Relaxed);
    assert!(client.record(TOPIC, 1, 3).await?.is_some());
    sleep(Duration::from_millis(20)).await;
    questions.fail.store(false, Ordering::Relaxed);
    // Partition 0 is too old to be served without an answer.
    let (started, before) = (Instant::now(), client.transport().statistics());
    assert!(client.record(TOPIC, 0, 3).await?.is_some());
    assert!(
        started.elapsed() < Duration::from_millis(75),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(
        client.transport().statistics().upstream_fetches,
        before.upstream_fetches
    );
    Ok(())
}
