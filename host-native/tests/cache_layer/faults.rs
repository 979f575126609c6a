//! A fault upstream costs what it must and nothing more: no wrong bytes, no error that lasts, no fetch that fails
//! though the broker could serve it (H23).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use bytes::Bytes;
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings};
use kachet::core::wire::{FETCH_API_KEY, FetchResponse, PartitionData};
use kachet::transport::{
    ApiVersions, BrokerAddress, Request, Response, TcpSettings, TcpTransport, Transport, TransportError,
};

use super::{TOPIC, broker_with, direct_client_of, within};

/// What happens to the answers of a broker on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A bit of the first fetched batch is flipped.
    FlippedBit,
    /// Fetches are answered with this error.
    Error(i16),
    /// Nothing but fetches is answered after the client's own first Metadata.
    OnlyFetches,
}

struct Faulty {
    below: TcpTransport,
    fault: Fault,
    /// How many fetches the fault still hits.
    fetches_left: AtomicU64,
    others: AtomicU64,
}

impl Faulty {
    fn hits(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.fetches_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    fn damage(&self, data: &mut PartitionData) {
        match self.fault {
            Fault::FlippedBit => {
                let mut bytes = data
                    .records
                    .take()
                    .map(|records| records.to_bytes().to_vec())
                    .unwrap_or_default();
                if let Some(byte) = bytes.get_mut(80) {
                    *byte ^= 1;
                }
                data.records = Some(Bytes::from(bytes).into());
            }
            Fault::Error(code) => *data = PartitionData::error(data.partition_index, code),
            Fault::OnlyFetches => {}
        }
    }
}

impl Transport for Faulty {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        let is_fetch = request.api_key() == FETCH_API_KEY;
        if !is_fetch && self.others.fetch_add(1, Ordering::Relaxed) > 0 && self.fault == Fault::OnlyFetches {
            return Err(TransportError::Closed {
                broker: broker.clone(),
            });
        }
        let mut response = self.below.round_trip(broker, request).await?;
        if let Response::Fetch(FetchResponse { topics, .. }) = &mut response
            && self.hits()
        {
            topics
                .iter_mut()
                .flat_map(|topic| &mut topic.partitions)
                .for_each(|data| self.damage(data));
        }
        Ok(response)
    }

    async fn api_versions(&self, broker: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        self.below.api_versions(broker).await
    }
}

fn faulty(fault: Fault, fetches: u64) -> Cache<Faulty> {
    let below = TcpTransport::new(TcpSettings::default());
    let fetches_left = AtomicU64::new(fetches);
    Cache::builder(Faulty {
        below,
        fault,
        fetches_left,
        others: AtomicU64::new(0),
    })
    .size_limit_bytes(1 << 20)
    .max_staleness(within(20))
    .build()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_batch_is_not_kept_and_the_next_fetch_brings_it_whole() -> Result<()> {
    let broker = broker_with(1).await?;
    let cache = faulty(Fault::FlippedBit, 1);
    let client = Client::new(
        cache.clone(),
        vec![broker.address().clone()],
        ClientSettings::default(),
    )?;
    assert!(
        client.record(TOPIC, 0, 3).await.is_err(),
        "the client sees that it is corrupt"
    );
    assert_eq!((cache.statistics().errors, cache.statistics().batches), (1, 0));
    let expected = direct_client_of(&broker)?.record(TOPIC, 0, 3).await?;
    assert_eq!(client.record(TOPIC, 0, 3).await?, expected);
    assert_eq!((cache.statistics().errors, cache.statistics().batches), (1, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_that_pass_are_tried_again_and_kept_by_nobody() -> Result<()> {
    let broker = broker_with(1).await?;
    // Not the leader, fenced, unknown epoch, storage error, unknown topic id: after any of them the client looks
    // for the leader again.
    for code in [6, 74, 75, 56, 100, 103, 3] {
        let cache = faulty(Fault::Error(code), 2);
        let client = Client::new(
            cache.clone(),
            vec![broker.address().clone()],
            ClientSettings::default(),
        )?;
        assert!(client.record(TOPIC, 0, 3).await?.is_some(), "error {code}");
        assert_eq!(cache.statistics().upstream_fetches, 3, "error {code}");
        assert_eq!(cache.statistics().batches, 1, "error {code}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_does_not_pass_reaches_the_caller_at_once() -> Result<()> {
    let broker = broker_with(1).await?;
    let cache = faulty(Fault::Error(29), u64::MAX);
    let client = Client::new(
        cache.clone(),
        vec![broker.address().clone()],
        ClientSettings::default(),
    )?;
    let denied = client.record(TOPIC, 0, 3).await;
    let said = denied.map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(
        said,
        Err("orders/0: the broker answers TopicAuthorizationFailed (29)".into())
    );
    assert_eq!(cache.statistics().upstream_fetches, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_can_be_validated_every_fetch_still_gets_the_brokers_answer() -> Result<()> {
    let broker = broker_with(1).await?;
    let cache = faulty(Fault::OnlyFetches, 0);
    let client = Client::new(
        cache.clone(),
        vec![broker.address().clone()],
        ClientSettings::default(),
    )?;
    for round in 1..=4 {
        assert!(client.record(TOPIC, 0, 3).await?.is_some(), "round {round}");
        tokio::time::sleep(core::time::Duration::from_millis(30)).await;
        assert_eq!(cache.statistics().upstream_fetches, round);
    }
    Ok(())
}
