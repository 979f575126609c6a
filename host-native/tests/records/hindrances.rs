//! Leaders that are not, brokers that throttle, and answers that contradict their requests.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use futures_util::{StreamExt, TryStreamExt};
use kachet::client::{Client, ClientError, ClientSettings, RecordPlace};
use kachet::core::wire::{FetchRequest, FetchResponse};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::transport::{
    ApiVersions, BrokerAddress, Request, Response, TcpSettings, TcpTransport, Transport, TransportError,
};
use tokio::time::{sleep, timeout};

use super::{TOPIC, append, broker_with, offsets};

const NOT_LEADER_OR_FOLLOWER: i16 = 6;

/// A transport that changes fetches and their answers.
struct Hindered {
    below: TcpTransport,
    fetches: AtomicU64,
    /// Fetches that are under way, and the most that ever were.
    under_way: AtomicU64,
    most: AtomicU64,
    ask: fn(&mut FetchRequest),
    /// With the number of the fetch, from 0.
    answer: fn(u64, &mut FetchResponse),
}

impl Transport for Hindered {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        let Request::Fetch { version, mut request } = request else {
            return self.below.round_trip(broker, request).await;
        };
        (self.ask)(&mut request);
        let under_way = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(under_way, Ordering::Relaxed);
        // Long enough for whoever asks at once to have asked.
        sleep(Duration::from_millis(5)).await;
        let response = self
            .below
            .round_trip(broker, Request::Fetch { version, request })
            .await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        let mut response = response?;
        if let Response::Fetch(response) = &mut response {
            (self.answer)(self.fetches.fetch_add(1, Ordering::Relaxed), response);
        }
        Ok(response)
    }

    async fn api_versions(&self, broker: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        self.below.api_versions(broker).await
    }
}

fn client(
    broker: &EmbeddedBroker,
    ask: fn(&mut FetchRequest),
    answer: fn(u64, &mut FetchResponse),
) -> Result<Client<Hindered>> {
    let hindered = Hindered {
        below: TcpTransport::new(TcpSettings::default()),
        fetches: AtomicU64::new(0),
        under_way: AtomicU64::new(0),
        most: AtomicU64::new(0),
        ask,
        answer,
    };
    let settings = ClientSettings {
        fetch_max_bytes: 1,
        max_wait: Duration::from_millis(20),
        retry_timeout: Duration::from_millis(600),
        ..ClientSettings::default()
    };
    Ok(Client::new(hindered, vec![broker.address().clone()], settings)?)
}

/// Reads a topic of two partitions of thirty records in every way.
async fn read_in_every_way(client: &Client<Hindered>) -> Result<()> {
    let forwards: Vec<_> = client.records_from(TOPIC, 0, 4).try_collect().await?;
    assert_eq!(offsets(&forwards), (4..30).collect::<Vec<_>>());
    let backwards: Vec<_> = client.records_back(TOPIC, 0, i64::MAX).try_collect().await?;
    assert_eq!(offsets(&backwards), (0..30).rev().collect::<Vec<_>>());
    assert_eq!(
        offsets(&client.last(TOPIC, 1, 12).await?),
        (18..30).collect::<Vec<_>>()
    );
    assert!(
        client
            .first_since(TOPIC, 1, 0)
            .await?
            .is_some_and(|record| record.offset == 0)
    );
    let places: Vec<_> = [(0, 25), (1, 3), (0, 14), (1, 22)]
        .map(|(partition, offset)| RecordPlace {
            topic: TOPIC.into(),
            partition,
            offset,
        })
        .into();
    for (place, found) in places.iter().zip(client.scattered_places(&places).await) {
        let found = found?;
        ensure!(
            found.as_ref().is_some_and(|record| record.offset == place.offset),
            "{place:?}: {found:?}"
        );
    }
    Ok(())
}

async fn two_partitions() -> Result<EmbeddedBroker> {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    broker.create_topic(TOPIC, 2)?;
    append(&broker, 0, 3)?;
    append(&broker, 1, 3)?;
    Ok(broker)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_read_follows_leaders_that_move() -> Result<()> {
    let broker = two_partitions().await?;
    let moved = |number: u64, response: &mut FetchResponse| {
        let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        for partition in partitions.filter(|_| number.is_multiple_of(2)) {
            partition.error_code = NOT_LEADER_OR_FOLLOWER;
            partition.records = None;
        }
    };
    read_in_every_way(&client(&broker, |_| {}, moved)?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_read_waits_for_a_broker_that_throttles() -> Result<()> {
    let broker = two_partitions().await?;
    let throttled = |number: u64, response: &mut FetchResponse| {
        let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        for partition in partitions.filter(|_| number % 3 < 2) {
            partition.records = None;
        }
    };
    read_in_every_way(&client(&broker, |_| {}, throttled)?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_gives_nothing_more_is_an_error_and_no_end() -> Result<()> {
    let broker = broker_with(1).await?;
    broker.skip_offsets(TOPIC, 0, 5)?;
    let client = client(&broker, |_| {}, |_, _| {})?;
    let all = async {
        let forwards = client.records_from(TOPIC, 0, 0).try_collect::<Vec<_>>().await;
        let backwards = client.records_back(TOPIC, 0, 12).next().await.transpose();
        let last = client.last(TOPIC, 0, 1).await;
        let scattered = client.scattered(TOPIC, 0, &[12, 3]).await;
        (forwards.err(), backwards.err(), last.err(), scattered)
    };
    let (forwards, backwards, last, scattered) = timeout(Duration::from_secs(20), all).await?;
    for error in [&forwards, &backwards, &last] {
        assert!(
            matches!(error, Some(ClientError::NoProgress { end_offset: 15, .. })),
            "{error:?}"
        );
    }
    assert!(
        matches!(
            scattered.as_slice(),
            [Err(ClientError::NoProgress { offset: 12, .. }), Ok(Some(_))]
        ),
        "{scattered:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_another_question_are_an_error_and_no_endless_loop() -> Result<()> {
    let broker = broker_with(4).await?;
    let from_start = |request: &mut FetchRequest| {
        let partitions = request.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        partitions.for_each(|partition| partition.fetch_offset = 0);
    };
    let client = client(&broker, from_start, |_, _| {})?;
    let all = async {
        let forwards = client.records_from(TOPIC, 0, 0).try_collect::<Vec<_>>().await;
        let backwards = client.records_back(TOPIC, 0, 35).try_collect::<Vec<_>>().await;
        let scattered = client.scattered(TOPIC, 0, &[35]).await.pop();
        (forwards, backwards, scattered)
    };
    let (forwards, backwards, scattered) = timeout(Duration::from_secs(20), all).await?;
    assert!(
        matches!(forwards, Err(ClientError::NoProgress { .. })),
        "{forwards:?}"
    );
    assert!(
        matches!(backwards, Err(ClientError::NoProgress { .. })),
        "{backwards:?}"
    );
    assert!(
        matches!(scattered, Some(Err(ClientError::NoProgress { .. }))),
        "{scattered:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scattered_offsets_are_fetched_beside_each_other_and_not_all_at_once() -> Result<()> {
    let broker = broker_with(80).await?;
    let client = client(&broker, |_| {}, |_, _| {})?;
    let asked: Vec<i64> = (0..40).map(|step| step * 20).collect();
    for (asked, found) in asked.iter().zip(client.scattered(TOPIC, 0, &asked).await) {
        assert!(found?.is_some_and(|record| record.offset == *asked));
    }
    assert_eq!(client.transport().fetches.load(Ordering::Relaxed), 40);
    assert_eq!(client.transport().most.load(Ordering::Relaxed), 8);
    Ok(())
}
