//! A flight that breaks off or is lost is taken over by one of those who wait for it, on a clock that the tests set.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use kachet::cache::Cache;
use kachet::core::time::MaxStaleness;
use kachet::core::wire::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopic, PartitionData, RecordBytes,
    TaggedFields, TopicId, TopicRef,
};
use kachet::demo::records::{Events, Packing, pack};
use kachet::transport::{ApiVersions, BrokerAddress, Request, Response, Transport, TransportError};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const TOPIC: TopicId = TopicId([7; 16]);
const DELAY: Duration = Duration::from_millis(100);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// When a flight counts as lost: one second past the transport's limit.
const LOST_AFTER: Duration = Duration::from_secs(6);

/// What becomes of a fetch.
#[derive(Clone, Copy)]
enum Fate {
    /// One batch of each partition.
    Answered,
    /// The first partition takes up the limit.
    OnlyFirst,
    Panics,
    Hangs,
}

/// A transport that treats its first fetches as it is told, and answers all others.
struct Scripted {
    fates: Vec<Fate>,
    fetches: AtomicUsize,
}

impl Transport for Scripted {
    async fn round_trip(&self, _: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        let Request::Fetch { request, .. } = request else {
            return Ok(Response::Other(bytes::Bytes::new()));
        };
        let number = self.fetches.fetch_add(1, Ordering::Relaxed);
        sleep(DELAY).await;
        let fate = self.fates.get(number).copied().unwrap_or(Fate::Answered);
        let given = match fate {
            Fate::Panics => panic!("as the test wants it"),
            Fate::Hangs => core::future::pending().await,
            Fate::OnlyFirst => 1,
            Fate::Answered => usize::MAX,
        };
        Ok(Response::Fetch(answer(&request, given)))
    }

    async fn api_versions(&self, _: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        Ok(Arc::default())
    }

    fn answer_timeout(&self) -> Duration {
        ANSWER_TIMEOUT
    }
}

fn answer(request: &FetchRequest, given: usize) -> FetchResponse {
    let events: Vec<_> = Events::new(1).take(10).collect();
    let batch = pack(&events, Packing::Lz4).unwrap_or_default();
    let partitions = request.partitions().enumerate();
    let partitions = partitions.map(|(place, (_, asked))| PartitionData {
        high_watermark: 10,
        last_stable_offset: 10,
        log_start_offset: 0,
        records: Some(if place < given {
            RecordBytes::from(batch.clone())
        } else {
            RecordBytes::empty()
        }),
        ..PartitionData::error(asked.partition, 0)
    });
    FetchResponse {
        topics: vec![FetchableTopic {
            topic: TopicRef::Id(TOPIC),
            partitions: partitions.collect(),
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchResponse::default()
    }
}

struct World {
    cache: Cache<Scripted>,
    started: Instant,
}

type Fetch = JoinHandle<Result<FetchResponse, TransportError>>;

fn world(fates: &[Fate]) -> World {
    let scripted = Scripted {
        fates: fates.to_vec(),
        fetches: AtomicUsize::new(0),
    };
    let cache = Cache::builder(scripted).size_limit_bytes(1 << 20);
    World {
        cache: cache.max_staleness(MaxStaleness::Forever).build(),
        started: Instant::now(),
    }
}

impl World {
    /// Begins to fetch each partition from its start.
    fn begin(&self, partitions: &[i32]) -> Fetch {
        tokio::spawn(fetch(self.cache.clone(), partitions.to_vec()))
    }

    fn fetches(&self) -> usize {
        self.cache.transport().fetches.load(Ordering::Relaxed)
    }
}

async fn fetch(cache: Cache<Scripted>, partitions: Vec<i32>) -> Result<FetchResponse, TransportError> {
    let asked = partitions
        .into_iter()
        .map(|index| FetchPartition::new(index, 0, 1 << 16));
    let request = FetchRequest {
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![FetchTopic {
            topic: TopicRef::Id(TOPIC),
            partitions: asked.collect(),
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    };
    let broker = BrokerAddress {
        host: "broker".into(),
        port: 9092,
    };
    match cache
        .round_trip(&broker, Request::Fetch { version: 13, request })
        .await?
    {
        Response::Fetch(response) => Ok(response),
        Response::Other(_) => Ok(FetchResponse::default()),
    }
}

/// All partitions came with data.
async fn answered(fetch: Fetch) -> Result<()> {
    let response = fetch.await??;
    let is_whole = response
        .partitions()
        .all(|(_, data)| data.records_size_bytes() > 0);
    anyhow::ensure!(is_whole && response.partitions().count() > 0, "{response:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn one_of_fifty_takes_over_a_flight_whose_task_panics() -> Result<()> {
    let world = world(&[Fate::Panics]);
    let callers: Vec<_> = (0..50).map(|_| world.begin(&[0])).collect();
    for caller in callers {
        answered(caller).await?;
    }
    assert_eq!(world.fetches(), 2);
    assert_eq!(world.started.elapsed(), DELAY * 2);
    Ok(())
}

#[tokio::test]
async fn one_of_fifty_takes_over_a_flight_whose_runtime_ends() -> Result<()> {
    let world = world(&[Fate::Hangs]);
    let cache = world.cache.clone();
    let other = std::thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let cut_off =
            runtime.block_on(async { tokio::time::timeout(DELAY * 5, fetch(cache, vec![0])).await });
        assert!(cut_off.is_err());
        Ok(())
    });
    sleep(DELAY).await;
    let callers: Vec<_> = (0..50).map(|_| world.begin(&[0])).collect();
    for caller in callers {
        answered(caller).await?;
    }
    assert_eq!(world.fetches(), 2);
    assert!(
        world.started.elapsed() < LOST_AFTER,
        "{:?}",
        world.started.elapsed()
    );
    other.join().ok().context("the other thread panicked")?
}

#[tokio::test(start_paused = true)]
async fn one_of_fifty_takes_over_a_flight_that_does_not_land_in_time() -> Result<()> {
    let world = world(&[Fate::Hangs]);
    let callers: Vec<_> = (0..50).map(|_| world.begin(&[0])).collect();
    for caller in callers {
        answered(caller).await?;
    }
    assert_eq!(world.fetches(), 2);
    assert_eq!(world.started.elapsed(), LOST_AFTER + DELAY);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn callers_get_an_error_after_as_long_as_two_flights_may_take() -> Result<()> {
    let world = world(&[Fate::Hangs; 10]);
    let callers: Vec<_> = (0..50).map(|_| world.begin(&[0])).collect();
    for caller in callers {
        let outcome = caller.await?;
        assert!(
            matches!(outcome, Err(TransportError::Timeout { timeout, .. }) if timeout == LOST_AFTER * 2),
            "{outcome:?}"
        );
    }
    assert_eq!(world.fetches(), 2);
    assert_eq!(world.started.elapsed(), LOST_AFTER * 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn nobody_joins_a_flight_that_is_lost() -> Result<()> {
    let world = world(&[Fate::Hangs]);
    let given_up = world.begin(&[0]);
    sleep(DELAY).await;
    given_up.abort();
    sleep(LOST_AFTER).await;
    let callers: Vec<_> = (0..10).map(|_| world.begin(&[0])).collect();
    for caller in callers {
        answered(caller).await?;
    }
    assert_eq!(world.fetches(), 2);
    assert_eq!(world.started.elapsed(), LOST_AFTER + DELAY * 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn flights_that_break_off_each_time_are_tried_three_times_and_end_in_an_error() -> Result<()> {
    let world = world(&[Fate::Panics; 100]);
    let callers: Vec<_> = (0..50).map(|_| world.begin(&[0])).collect();
    for caller in callers {
        let outcome = caller.await?;
        assert!(
            matches!(outcome, Err(TransportError::BrokenOff { times: 3, .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(world.fetches(), 3);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn one_of_fifty_asks_for_a_partition_that_had_no_room_in_the_fetch_of_others() -> Result<()> {
    let world = world(&[Fate::OnlyFirst]);
    let both = world.begin(&[0, 1]);
    sleep(DELAY / 2).await;
    let callers: Vec<_> = (0..50).map(|_| world.begin(&[1])).collect();
    let both = both.await??;
    let sizes: Vec<_> = both
        .partitions()
        .map(|(_, data)| data.records_size_bytes())
        .collect();
    assert!(
        sizes[0] > 0 && sizes[1] == 0,
        "the broker's answer as it is: {sizes:?}"
    );
    for caller in callers {
        answered(caller).await?;
    }
    assert_eq!(world.fetches(), 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_request_that_overlaps_with_two_under_way_asks_only_for_the_rest() -> Result<()> {
    let world = world(&[Fate::Answered, Fate::Panics]);
    let first = world.begin(&[0, 1]);
    sleep(DELAY / 4).await;
    let second = world.begin(&[1, 2]);
    sleep(DELAY / 4).await;
    // The flight that brings partition 2 breaks off; of the two who wait one takes it over.
    let third = world.begin(&[2, 3, 0]);
    for caller in [first, second, third] {
        answered(caller).await?;
    }
    assert_eq!(world.fetches(), 4);
    Ok(())
}
