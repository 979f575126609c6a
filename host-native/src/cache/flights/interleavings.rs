//! Fetches through the cache under many orders in which callers and flights may run, be cancelled, and fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use bytes::{Bytes, BytesMut};
use kachet_core::time::MaxStaleness;
use kachet_core::wire::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopic, PartitionData, RecordBatch,
    RecordBytes, TaggedFields, TopicId, TopicRef,
};
use shuttle::future::{JoinHandle, block_on, spawn, yield_now};

use crate::cache::Cache;
use crate::cache::single_flight::explore::explore;
use crate::cache::single_flight::runtime::under_shuttle::take_spawned;
use crate::demo::records::{Events, Packing, pack};
use crate::transport::{ApiVersions, BrokerAddress, Request, Response, Transport, TransportError};

const TOPIC: TopicId = TopicId([7; 16]);
const RECORDS_PER_BATCH: usize = 10;

static BATCH: LazyLock<Bytes> = LazyLock::new(|| {
    let events: Vec<_> = Events::new(1).take(RECORDS_PER_BATCH).collect();
    pack(&events, Packing::Lz4).unwrap()
});

/// The batch that holds an offset. The checksum leaves the base offset out.
fn batch_at(offset: i64) -> Bytes {
    let base = offset - offset % i64::try_from(RECORDS_PER_BATCH).unwrap();
    let mut batch = BytesMut::from(&BATCH[..]);
    batch[..8].copy_from_slice(&base.to_be_bytes());
    batch.freeze()
}

/// A broker that answers each fetch with one batch.
#[derive(Default)]
struct Upstream {
    /// The first so many fetches fail.
    failures: AtomicUsize,
    fetches: Mutex<Vec<Vec<(i32, i64)>>>,
}

impl Transport for Upstream {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        let Request::Fetch { request, .. } = request else {
            panic!("only fetches are asked")
        };
        let asked: Vec<_> = request
            .partitions()
            .map(|(_, asked)| (asked.partition, asked.fetch_offset))
            .collect();
        self.fetches.lock().unwrap().push(asked.clone());
        yield_now().await;
        let one_less = |failures: usize| failures.checked_sub(1);
        if self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
        {
            return Err(TransportError::Closed {
                broker: broker.clone(),
            });
        }
        let partitions = asked.into_iter().map(|(index, offset)| PartitionData {
            high_watermark: 1_000,
            last_stable_offset: 1_000,
            log_start_offset: 0,
            records: Some(RecordBytes::from(batch_at(offset))),
            ..PartitionData::error(index, 0)
        });
        Ok(Response::Fetch(FetchResponse {
            topics: vec![FetchableTopic {
                topic: TopicRef::Id(TOPIC),
                partitions: partitions.collect(),
                unknown_tags: TaggedFields::default(),
            }],
            ..FetchResponse::default()
        }))
    }

    async fn api_versions(&self, _: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        Ok(Arc::default())
    }
}

struct World {
    cache: Cache<Upstream>,
}

type Outcome = Result<FetchResponse, TransportError>;

impl World {
    fn new() -> Self {
        Self::failing(0)
    }

    fn failing(failures: usize) -> Self {
        let upstream = Upstream {
            failures: AtomicUsize::new(failures),
            ..Upstream::default()
        };
        take_spawned();
        let cache = Cache::builder(upstream)
            .size_limit_bytes(1 << 20)
            .max_staleness(MaxStaleness::Forever);
        Self { cache: cache.build() }
    }

    fn begin(&self, partitions: &[(i32, i64)]) -> JoinHandle<Outcome> {
        let asked = partitions
            .iter()
            .map(|(index, offset)| FetchPartition::new(*index, *offset, 1 << 16));
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
        let cache = self.cache.clone();
        spawn(async move {
            let broker = BrokerAddress {
                host: "broker".into(),
                port: 9092,
            };
            match cache
                .round_trip(&broker, Request::Fetch { version: 13, request })
                .await?
            {
                Response::Fetch(response) => Ok(response),
                Response::Other(_) => panic!("not a Fetch response"),
            }
        })
    }

    fn fetches(&self) -> Vec<Vec<(i32, i64)>> {
        self.cache.transport().fetches.lock().unwrap().clone()
    }

    /// How often each was asked upstream.
    fn counts(&self) -> BTreeMap<(i32, i64), usize> {
        let mut counts = BTreeMap::new();
        for asked in self.fetches().into_iter().flatten() {
            *counts.entry(asked).or_default() += 1;
        }
        counts
    }

    /// Waits for the flights that nobody waits for.
    async fn settle(&self) {
        for flight in take_spawned() {
            while !flight.is_finished() {
                yield_now().await;
            }
        }
        assert!(
            self.cache.inner.flights.table.is_empty(),
            "a flight is left on the table"
        );
    }
}

/// The base offset that came for each partition.
fn bases(response: &FetchResponse) -> Vec<(i32, i64)> {
    let base = |data: &PartitionData| {
        let bytes = data.records.as_ref().unwrap().to_bytes();
        RecordBatch::parse(&bytes).unwrap().base_offset()
    };
    response
        .partitions()
        .map(|(_, data)| (data.partition_index, base(data)))
        .collect()
}

#[test]
fn of_those_who_miss_at_once_one_asks_and_all_get_its_answer() {
    explore(|| {
        let world = World::new();
        let callers = [(); 3].map(|()| world.begin(&[(0, 12)]));
        block_on(async {
            for caller in callers {
                assert_eq!(bases(&caller.await.unwrap().unwrap()), [(0, 10)]);
            }
            world.settle().await;
        });
        assert_eq!(world.fetches().len(), 1);
    });
}

#[test]
fn requests_that_overlap_ask_for_each_partition_once() {
    explore(|| {
        let world = World::new();
        let asked = [[(0, 5), (1, 15)], [(1, 15), (2, 25)], [(2, 25), (0, 5)]];
        let callers = asked.map(|asked| (asked, world.begin(&asked)));
        block_on(async {
            for (asked, caller) in callers {
                let expected = asked.map(|(index, offset)| (index, offset - 5));
                assert_eq!(bases(&caller.await.unwrap().unwrap()), expected);
            }
            world.settle().await;
        });
        assert!(
            world.counts().into_values().all(|count| count == 1),
            "{:?}",
            world.fetches()
        );
    });
}

#[test]
fn a_failure_reaches_those_who_wait_and_nobody_who_comes_later() {
    explore(|| {
        let world = World::failing(1);
        let callers = [(); 3].map(|()| world.begin(&[(0, 12)]));
        let (mut failed, mut answered) = (0, 0);
        block_on(async {
            for caller in callers {
                match caller.await.unwrap() {
                    Ok(_) => answered += 1,
                    Err(TransportError::Closed { .. }) => failed += 1,
                    Err(other) => panic!("{other:?}"),
                }
            }
            let later = world.begin(&[(0, 12)]).await.unwrap();
            assert!(later.is_ok(), "{later:?}");
            world.settle().await;
        });
        assert!(failed >= 1 && failed + answered == 3, "{failed} {answered}");
        assert_eq!(world.fetches().len(), 2);
    });
}

#[test]
fn a_caller_who_gives_up_takes_nothing_from_the_others_and_the_fill_is_kept() {
    explore(|| {
        let world = World::new();
        let [given_up, other] = [(); 2].map(|()| world.begin(&[(0, 12)]));
        block_on(async {
            given_up.abort();
            assert!(other.await.unwrap().is_ok());
            let _cancelled = given_up.await;
            world.settle().await;
        });
        assert_eq!(world.fetches().len(), 1);
        assert_eq!(world.cache.statistics().batches, 1);
    });
}

#[test]
fn a_fill_whose_only_caller_gives_up_is_finished_or_was_never_begun() {
    explore(|| {
        let world = World::new();
        let given_up = world.begin(&[(0, 12)]);
        block_on(async {
            given_up.abort();
            let _cancelled = given_up.await;
            world.settle().await;
        });
        let batches = world.cache.statistics().batches;
        assert_eq!(usize::try_from(batches), Ok(world.fetches().len()));
    });
}

#[test]
fn one_of_those_who_wait_takes_over_a_flight_that_breaks_off() {
    explore(|| {
        let world = World::new();
        let callers = [(); 3].map(|()| world.begin(&[(0, 12)]));
        block_on(async {
            let mut flights = take_spawned();
            while flights.is_empty() {
                yield_now().await;
                flights = take_spawned();
            }
            flights.swap_remove(0).abort();
            for caller in callers {
                assert_eq!(bases(&caller.await.unwrap().unwrap()), [(0, 10)]);
            }
            world.settle().await;
        });
        assert!(world.fetches().len() <= 2, "{:?}", world.fetches());
    });
}

#[test]
fn flights_that_break_off_each_time_end_in_an_error() {
    explore(|| {
        let world = World::new();
        let callers = [(); 3].map(|()| world.begin(&[(0, 12)]));
        block_on(async {
            while !callers.iter().all(JoinHandle::is_finished) {
                for flight in take_spawned() {
                    flight.abort();
                }
                yield_now().await;
            }
            for caller in callers {
                let outcome = caller.await.unwrap();
                let is_clear = matches!(outcome, Ok(_) | Err(TransportError::BrokenOff { times: 3, .. }));
                assert!(is_clear, "{outcome:?}");
            }
            world.settle().await;
        });
    });
}

#[test]
fn who_finds_a_flight_nearby_looks_again_and_asks_by_itself_at_most_once() {
    explore(|| {
        let world = World::new();
        block_on(async {
            // Shows how far a fetch reaches: ten offsets.
            world.begin(&[(0, 55)]).await.unwrap().unwrap();
            // In one batch; in the batch behind it, as near to a flight; and again the same.
            let callers = [12, 14, 18, 22, 22].map(|offset| (offset, world.begin(&[(0, offset)])));
            for (offset, caller) in callers {
                assert_eq!(bases(&caller.await.unwrap().unwrap()), [(0, offset / 10 * 10)]);
            }
            world.settle().await;
        });
        let counts = world.counts();
        assert!(counts.values().all(|count| *count == 1), "{counts:?}");
        assert!(counts.contains_key(&(0, 22)), "{counts:?}");
    });
}
