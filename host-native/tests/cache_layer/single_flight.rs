//! Concurrent misses of the same data make one upstream fetch, whoever gives up or fails meanwhile (H21, H25).

use core::time::Duration;
use std::sync::Arc;

use anyhow::Result;
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings};
use kachet::core::wire::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, TaggedFields, TopicId, TopicRef, WireStr,
};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::transport::{Request, Response, TcpSettings, TcpTransport, Transport, TransportError};
use tokio::time::{sleep, timeout};

use super::{TOPIC, append};

const DELAY: Duration = Duration::from_millis(400);

struct World {
    broker: EmbeddedBroker,
    topic_id: TopicId,
    cache: Cache<TcpTransport>,
}

/// A broker that takes its time, and a cache in front of it.
async fn world() -> Result<World> {
    world_with(DELAY).await
}

async fn world_with(answer_delay: Duration) -> Result<World> {
    let settings = BrokerSettings {
        answer_delay,
        ..BrokerSettings::default()
    };
    let broker = EmbeddedBroker::start(settings).await?;
    let topic_id = broker.create_topic(TOPIC, 2)?;
    append(&broker, 1, 6)?;
    let tcp = TcpSettings {
        request_timeout: Duration::from_secs(20),
        ..TcpSettings::default()
    };
    let cache = Cache::builder(TcpTransport::new(tcp))
        .size_limit_bytes(1 << 20)
        .build();
    Ok(World {
        broker,
        topic_id,
        cache,
    })
}

impl World {
    fn request(&self, partitions: &[(i32, i64)]) -> FetchRequest {
        let asked = partitions
            .iter()
            .map(|(index, offset)| FetchPartition::new(*index, *offset, 1 << 20));
        FetchRequest {
            max_wait_ms: 50,
            min_bytes: 1,
            topics: vec![FetchTopic {
                topic: TopicRef::Id(self.topic_id),
                partitions: asked.collect(),
                unknown_tags: TaggedFields::default(),
            }],
            ..FetchRequest::default()
        }
    }

    /// Like a read of one record: the batch that holds the offset.
    fn one_batch(&self, offset: i64) -> FetchRequest {
        let mut request = FetchRequest {
            max_wait_ms: 0,
            max_bytes: 1,
            ..self.request(&[(0, offset)])
        };
        for asked in request.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            asked.partition_max_bytes = 1;
        }
        request
    }

    /// Begins a fetch; the task is aborted when the handle is.
    fn begin(&self, request: FetchRequest) -> tokio::task::JoinHandle<Result<FetchResponse, TransportError>> {
        self.begin_in(13, request)
    }

    fn begin_in(
        &self,
        version: i16,
        request: FetchRequest,
    ) -> tokio::task::JoinHandle<Result<FetchResponse, TransportError>> {
        let (cache, address) = (self.cache.clone(), self.broker.address().clone());
        tokio::spawn(async move {
            match cache
                .round_trip(&address, Request::Fetch { version, request })
                .await?
            {
                Response::Fetch(response) => Ok(response),
                Response::Other(_) => Ok(FetchResponse::default()),
            }
        })
    }
}

fn sizes(response: &FetchResponse) -> Vec<usize> {
    response
        .partitions()
        .map(|(_, data)| data.records_size_bytes())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_concurrent_misses_make_one_upstream_fetch_and_get_the_same_bytes() -> Result<()> {
    let world = world().await?;
    let fetches: Vec<_> = (0..50).map(|_| world.begin(world.request(&[(0, 10)]))).collect();
    let mut answers = Vec::new();
    for fetch in fetches {
        answers.push(fetch.await??);
    }
    assert!(sizes(&answers[0])[0] > 0);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(world.broker.requests().fetch, 1);
    assert_eq!(world.cache.statistics().upstream_fetches, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fill_is_finished_though_its_caller_has_gone_and_the_others_get_it() -> Result<()> {
    let world = world().await?;
    let first = world.begin(world.request(&[(0, 10)]));
    sleep(DELAY / 4).await;
    let second = world.begin(world.request(&[(0, 10)]));
    sleep(DELAY / 4).await;
    first.abort();
    assert!(sizes(&second.await??)[0] > 0);
    let alone = world.begin(world.request(&[(0, 0)]));
    sleep(DELAY / 4).await;
    alone.abort();
    sleep(DELAY * 2).await;
    assert_eq!(world.cache.statistics().batches, 6, "kept all the same");
    assert_eq!(world.broker.requests().fetch, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_reaches_everyone_who_waits_and_nobody_who_comes_later() -> Result<()> {
    let world = world().await?;
    // The connection must be there, so that it is the fetch that fails.
    world.begin(world.request(&[(0, 50)])).await??;
    let address = world.broker.address().clone();
    let again = world.request(&[(0, 10)]);
    let waiting: Vec<_> = (0..10).map(|_| world.begin(world.request(&[(0, 10)]))).collect();
    sleep(DELAY / 4).await;
    world.broker.stop().await;
    for fetch in waiting {
        let outcome = timeout(Duration::from_secs(5), fetch).await??;
        assert!(outcome.is_err(), "{outcome:?}");
    }
    let request = again;
    let later = world
        .cache
        .round_trip(&address, Request::Fetch { version: 13, request });
    assert!(timeout(Duration::from_secs(5), later).await?.is_err());
    assert_eq!(world.cache.statistics().batches, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_overlap_ask_for_each_partition_once() -> Result<()> {
    let world = world().await?;
    let both = world.begin(world.request(&[(0, 10), (1, 0)]));
    sleep(DELAY / 4).await;
    // Partition 0 at 10 is on its way; partition 0 at 40 is not.
    let same = world.begin(world.request(&[(0, 10)]));
    let other = world.begin(world.request(&[(0, 40)]));
    let (both, same, other) = (both.await??, same.await??, other.await??);
    assert_eq!(sizes(&both)[0], sizes(&same)[0]);
    assert!(sizes(&other)[0] > 0 && sizes(&other)[0] < sizes(&same)[0]);
    assert_eq!(world.broker.requests().fetch, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_with_other_limits_or_patience_do_not_share() -> Result<()> {
    let world = world().await?;
    let asked = world.request(&[(0, 10)]);
    let others = [
        FetchRequest {
            max_bytes: 1,
            ..asked.clone()
        },
        FetchRequest {
            max_wait_ms: 0,
            ..asked.clone()
        },
        FetchRequest {
            isolation_level: 1,
            ..asked.clone()
        },
        asked,
    ];
    let fetches: Vec<_> = others.map(|request| world.begin(request)).into_iter().collect();
    for fetch in fetches {
        fetch.await??;
    }
    assert_eq!(world.broker.requests().fetch, 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_many_offsets_at_once_all_get_their_record() -> Result<()> {
    let world = world_with(Duration::from_millis(5)).await?;
    let client = Client::new(
        world.cache.clone(),
        vec![world.broker.address().clone()],
        ClientSettings::default(),
    )?;
    let client = Arc::new(client);
    let readers: Vec<_> = (0..60)
        .map(|offset| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.record(TOPIC, 0, offset).await })
        })
        .collect();
    for (offset, reader) in (0..).zip(readers) {
        assert_eq!(reader.await??.map(|record| record.offset), Some(offset));
    }
    assert_eq!(
        world.broker.requests().metadata,
        1,
        "the readers share what one of them learned"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_joins_a_flight_that_began_longer_ago_than_the_staleness_bound() -> Result<()> {
    let world = world().await?;
    // The two fetches are given out with the same parameters by a cache that always asks.
    let always_asks = Cache::builder(world.cache.transport().clone())
        .size_limit_bytes(1 << 20)
        .max_staleness(super::within(0))
        .build();
    let world = World {
        cache: always_asks,
        ..world
    };
    let first = world.begin(world.request(&[(0, 10)]));
    sleep(DELAY / 4).await;
    let second = world.begin(world.request(&[(0, 10)]));
    assert_eq!(sizes(&first.await??), sizes(&second.await??));
    assert_eq!(world.broker.requests().fetch, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fetch_that_was_planned_just_before_a_flight_landed_does_not_ask_again() -> Result<()> {
    let world = world_with(Duration::ZERO).await?;
    for round in 1..=1_000 {
        let fetches: Vec<_> = (0..8).map(|_| world.begin(world.request(&[(0, 10)]))).collect();
        for fetch in fetches {
            assert!(sizes(&fetch.await??)[0] > 0);
        }
        assert_eq!(world.broker.requests().fetch, round, "round {round}");
        world.cache.clear();
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miss_waits_for_a_flight_nearby_that_is_likely_to_bring_it() -> Result<()> {
    let world = world().await?;
    // Shows that a fetch brings ten offsets.
    world.begin(world.one_batch(5)).await??;
    let flight = world.begin(world.one_batch(12));
    sleep(DELAY / 4).await;
    let near = [14, 15, 17].map(|offset| world.begin(world.one_batch(offset)));
    // In the same batch too, but that is unlikely from where the flight began.
    let far = world.begin(world.one_batch(19));
    let expected = sizes(&flight.await??);
    for fetch in near.into_iter().chain([far]) {
        assert_eq!(sizes(&fetch.await??), expected);
    }
    assert_eq!(world.broker.requests().fetch, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miss_that_a_flight_nearby_does_not_bring_is_asked_for_once() -> Result<()> {
    let world = world().await?;
    world.begin(world.one_batch(5)).await??;
    let flight = world.begin(world.one_batch(28));
    sleep(DELAY / 4).await;
    let behind = [31, 31, 33].map(|offset| world.begin(world.one_batch(offset)));
    flight.await??;
    for fetch in behind {
        assert!(sizes(&fetch.await??)[0] > 0);
    }
    // 33 has looked again once already, for what 28 brings, and does not wait for 31.
    assert_eq!(world.broker.requests().fetch, 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_flight_nearby_that_waits_at_the_end() -> Result<()> {
    const MAX_WAIT_MS: i32 = 1_600;
    let world = world_with(Duration::ZERO).await?;
    let patient = |offset| FetchRequest {
        max_wait_ms: MAX_WAIT_MS,
        ..world.one_batch(offset)
    };
    world.begin(patient(5)).await??;
    let at_the_end = world.begin(patient(60));
    sleep(Duration::from_millis(100)).await;
    let started = tokio::time::Instant::now();
    let beyond = world.begin(patient(62)).await??;
    assert_eq!(
        beyond.partitions().map(|(_, data)| data.error_code).next(),
        Some(1)
    );
    assert!(
        started.elapsed() < Duration::from_millis(800),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(sizes(&at_the_end.await??), [0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_by_name_at_once_share_one_fetch_and_one_question_before_and_after_it() -> Result<()> {
    let world = world().await?;
    let by_name = || {
        let mut request = world.request(&[(0, 10)]);
        request.topics[0].topic = TopicRef::Name(WireStr::from_static(TOPIC));
        request
    };
    let fetches: Vec<_> = (0..50).map(|_| world.begin_in(11, by_name())).collect();
    for fetch in fetches {
        assert!(sizes(&fetch.await??)[0] > 0);
    }
    // What the name stood for when the broker answered is asked beside the answer.
    timeout(Duration::from_secs(5), async {
        while world.cache.statistics().batches == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await?;
    let requests = world.broker.requests();
    assert_eq!((requests.metadata, requests.fetch), (2, 1));
    let again = world.begin_in(11, by_name()).await??;
    assert!(sizes(&again)[0] > 0);
    assert_eq!(world.broker.requests().fetch, 1, "a hit");
    Ok(())
}
