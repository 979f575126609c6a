//! Clients: they read at random, replay, follow the tail, ask for several partitions, give up, hold what they got, and
//! change the cache's settings under each other.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use kachet::core::storage::Storage;
use kachet::core::wire::{
    FETCH_VERSION_TOPIC_IDS, FetchPartition, FetchRequest, FetchResponse, FetchTopic, RecordBytes,
    TaggedFields, TopicId, TopicRef, WireStr,
};
use kachet::transport::{Request, Response, Transport, TransportError};
use tokio::time::{sleep, timeout};

use crate::checker::{self, Asked};
use crate::cluster::{Cluster, Topic, node};
use crate::dice::{Dice, digest};
use crate::partition::Partition;
use crate::sabotage::Saboteur;
use crate::world::Simulation;

/// Clients act at moments of their own, by this measure in milliseconds, so that it does not matter in which order those
/// wake up that have waited for the same answer.
const SLOTS: u64 = 16;
/// A request that is not answered within this time never will be.
const HANG_MS: u64 = 900_000;

/// What clients talk to.
pub(crate) type Front<S> = Saboteur<S>;

/// How a client chooses offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    Random,
    Replay,
    Tail,
}

pub(crate) struct Client<S: Storage> {
    simulation: Arc<Simulation>,
    front: Arc<Front<S>>,
    number: u64,
    dice: Dice,
    habit: Habit,
    /// Where it goes on reading.
    positions: BTreeMap<(TopicRef, i32), i64>,
}

/// A fetch, and to whom it goes.
#[derive(Clone)]
struct Call {
    broker: i32,
    version: i16,
    request: FetchRequest,
    is_ordinary: bool,
}

impl<S: Storage + 'static> Client<S> {
    pub(crate) fn new(simulation: &Arc<Simulation>, front: &Arc<Front<S>>, number: u32) -> Self {
        let mut dice = simulation.dice(0x1000 + u64::from(number));
        Self {
            simulation: Arc::clone(simulation),
            front: Arc::clone(front),
            number: number.into(),
            habit: dice.pick(&[Habit::Random, Habit::Random, Habit::Replay, Habit::Tail]),
            dice,
            positions: BTreeMap::new(),
        }
    }

    pub(crate) async fn run(mut self) {
        for _ in 0..self.simulation.profile.requests_per_client {
            self.wait_for_turn().await;
            self.meddle();
            let call = self.call();
            let rates = self.simulation.profile.client.clone();
            if self.dice.chance(rates.burst) {
                let calls = (0..self.dice.between(2, 8)).map(|_| self.fetch(&call));
                join_all(calls).await;
                continue;
            }
            let patience = self.dice.between(0, 300);
            if self.dice.chance(rates.gives_up) {
                self.simulation.world().count("requests given up", 1);
                let _ = timeout(Duration::from_millis(patience), self.fetch(&call)).await;
                continue;
            }
            if let Some((response, held)) = self.fetch(&call).await {
                self.go_on(&call, &response);
                if self.dice.chance(rates.holds) {
                    sleep(Duration::from_millis(patience)).await;
                    drop(response);
                    drop(held);
                }
            }
        }
    }

    async fn wait_for_turn(&mut self) {
        let now = self.simulation.now();
        let earliest = now + 1 + self.dice.between(0, self.simulation.profile.think_ms);
        let turn = earliest + (self.number + SLOTS - earliest % SLOTS) % SLOTS;
        sleep(Duration::from_millis(turn - now)).await;
    }

    /// Now and then somebody changes the cache's settings.
    fn meddle(&mut self) {
        let simulation = Arc::clone(&self.simulation);
        let rates = &simulation.profile.client;
        let now = simulation.now();
        let cache = self.front.below();
        if self.dice.chance(rates.resize) {
            let usual = simulation.profile.size_limit_bytes;
            let limit = self
                .dice
                .pick(&[0, usual / 4, usual / 2, usual, usual, usual * 2]);
            let mut world = simulation.world();
            world.limits.push((now, limit));
            world.count("size limit changed", 1);
            world.event(now, "limit", || limit.to_string());
            drop(world);
            cache.set_size_limit_bytes(limit);
        }
        if self.dice.chance(rates.invalidate) {
            let mut world = simulation.world();
            let topics: Vec<TopicId> = world.cluster.topics.iter().map(|topic| topic.id).collect();
            let topic = topics[self.dice.below(topics.len())];
            world.count("invalidated", 1);
            world.event(now, "invalidate", || topic.to_string());
            drop(world);
            if self.dice.chance(200) {
                cache.clear();
            } else {
                cache.invalidate_topic(topic);
            }
        }
    }

    /// Sends one fetch, judges the answer and gives it, together with the note that it is held.
    async fn fetch(&self, call: &Call) -> Option<(FetchResponse, Holding)> {
        let simulation = &*self.simulation;
        let arrived_at = simulation.now();
        let number = simulation.world().begin(arrived_at);
        let holding = Holding {
            simulation: Arc::clone(&self.simulation),
            number,
        };
        let asked = Asked {
            arrived_at,
            request: call.request.clone(),
            is_ordinary: call.is_ordinary,
        };
        let request = Request::Fetch {
            version: call.version,
            request: call.request.clone(),
        };
        let broker = Cluster::address(call.broker);
        let round_trip = self.front.round_trip(&broker, request);
        let outcome: Result<FetchResponse, TransportError> =
            match timeout(Duration::from_millis(HANG_MS), round_trip).await {
                Ok(Ok(Response::Fetch(response))) => Ok(response),
                Ok(Err(error)) => Err(error),
                Ok(Ok(Response::Other(_))) | Err(_) => {
                    let what = crate::network::told_short(&call.request);
                    simulation.world().violate(simulation.now(), "hang", what);
                    return None;
                }
            };
        {
            let now = simulation.now();
            let mut world = simulation.world();
            world.count("requests", 1);
            world.event(now, "answer", || {
                let asked = crate::network::told_short(&call.request);
                format!(
                    "client {} v{} to {}: {asked} → {}",
                    self.number,
                    call.version,
                    call.broker,
                    shown(&outcome)
                )
            });
        }
        checker::judge(simulation, &asked, &outcome);
        checker::judge_size(simulation, &self.front.statistics(), self.front.below().audit());
        outcome.ok().map(|response| (response, holding))
    }

    /// Reads on behind what came.
    fn go_on(&mut self, call: &Call, response: &FetchResponse) {
        for (topic, data) in response.partitions() {
            let place = (topic.clone(), data.partition_index);
            let asked = call.request.partitions();
            let asked = asked
                .filter(|(of, each)| *of == topic && each.partition == data.partition_index)
                .last();
            let Some((_, asked)) = asked else { continue };
            let records = data
                .records
                .as_ref()
                .map(RecordBytes::to_bytes)
                .unwrap_or_default();
            let batches = kachet::core::wire::Batches::new(&records);
            let last = batches.filter_map(Result::ok).filter_map(|entry| match entry {
                kachet::core::wire::BatchEntry::Batch(batch) => Some(batch.last_offset()),
                kachet::core::wire::BatchEntry::Legacy(_) => None,
            });
            let next = match (data.error_code, last.last()) {
                (0, Some(last)) => last + 1,
                (0, None) if asked.fetch_offset < data.high_watermark => asked.fetch_offset,
                // At the end a replay begins anew.
                _ => -1,
            };
            self.positions.insert(place, next);
        }
    }

    fn call(&mut self) -> Call {
        let simulation = Arc::clone(&self.simulation);
        let rates = &simulation.profile.client;
        let by_name = self.dice.chance(rates.by_name);
        let version = if by_name {
            self.dice.pick(&[4, 5, 7, 9, 10, 11, 12])
        } else {
            self.dice.pick(&[13, 15, 16, 17, 18])
        };
        let now = simulation.now();
        let world = simulation.world();
        let count = if self.dice.chance(rates.several) {
            self.dice.between(2, 4)
        } else {
            1
        };
        let mut request = self.frame(rates.odd_limits, rates.committed);
        let mut broker = node(self.dice.below(world.cluster.brokers));
        for _ in 0..count {
            let topics = world.cluster.live_topics();
            let topic = if self.dice.chance(30) {
                &world.cluster.topics[self.dice.below(world.cluster.topics.len())]
            } else {
                topics[self.dice.below(topics.len())]
            };
            let index = self.dice.below(topic.partitions.len());
            let partition = &topic.partitions[index];
            if !self.dice.chance(rates.wrong_broker) {
                broker = partition.leader_as_told_by(broker, now).0.max(1);
            }
            let reference = self.reference(topic, by_name, rates.unknown_topic);
            let index = i32::try_from(index).unwrap_or(0);
            let asked = self.partition(&reference, index, partition, version, &request);
            add(&mut request, reference, asked);
        }
        drop(world);
        if version >= 11 && self.dice.chance(20) {
            request.rack_id = WireStr::from_static("2");
        }
        let is_ordinary = !self.dice.chance(rates.odd_kinds) || !self.make_odd(&mut request, version);
        Call {
            broker,
            version,
            request,
            is_ordinary,
        }
    }

    /// The request without partitions.
    fn frame(&mut self, odd_limits: u32, committed: u32) -> FetchRequest {
        let max_bytes = if self.dice.chance(odd_limits) {
            self.dice.pick(&[0, 1, 500, 3000, i32::MAX])
        } else {
            self.dice.pick(&[4 << 10, 64 << 10, 1 << 20])
        };
        FetchRequest {
            max_bytes,
            min_bytes: self.dice.pick(&[0, 1, 1, 1, 10_000]),
            max_wait_ms: self.dice.pick(&[0, 0, 30, 300]),
            isolation_level: i8::from(self.dice.chance(committed)),
            ..FetchRequest::default()
        }
    }

    fn reference(&mut self, topic: &Topic, by_name: bool, unknown: u32) -> TopicRef {
        let is_unknown = self.dice.chance(unknown);
        match (by_name, is_unknown) {
            (true, false) => TopicRef::Name(topic.name.clone()),
            (true, true) => TopicRef::Name(WireStr::from_static("nowhere")),
            (false, false) => TopicRef::Id(topic.id),
            (false, true) => TopicRef::Id(TopicId([7; 16])),
        }
    }

    fn partition(
        &mut self,
        topic: &TopicRef,
        index: i32,
        partition: &Partition,
        version: i16,
        request: &FetchRequest,
    ) -> FetchPartition {
        let rates = &self.simulation.profile.client;
        let log = &partition.log;
        let position = self
            .positions
            .get(&(topic.clone(), index))
            .copied()
            .filter(|position| *position >= 0);
        let dice = &mut self.dice;
        let offset = match self.habit {
            Habit::Random if dice.chance(500) => log.start + 7 * dice.offset(0, 5),
            Habit::Random => dice.offset(log.start - 3, log.high_watermark + 3),
            Habit::Replay => position.unwrap_or(log.start),
            Habit::Tail => position.unwrap_or(log.high_watermark),
        };
        let limit = if dice.chance(rates.odd_limits) {
            dice.pick(&[0, 1, 300, i32::MAX])
        } else {
            dice.pick(&[1 << 10, 16 << 10, 1 << 20])
                .min(request.max_bytes.max(1))
        };
        let mut asked = FetchPartition::new(index, offset.max(0), limit);
        let epoch = log.leader_epoch();
        if version >= 9 && dice.chance(rates.epochs) {
            asked.current_leader_epoch = dice.pick(&[epoch, epoch, epoch - 1, epoch + 1]).max(-1);
        }
        if version >= 12 && dice.chance(rates.epochs) {
            let before = log.entries.iter().rev().find(|entry| entry.batch.last() < offset);
            let last = before.map_or(epoch, |entry| entry.batch.content.leader_epoch);
            asked.last_fetched_epoch = dice.pick(&[last, last, last, last - 1, epoch]).max(-1);
        }
        asked
    }

    /// Makes the request one that only passes through; says whether it did.
    fn make_odd(&mut self, request: &mut FetchRequest, version: i16) -> bool {
        match self.dice.below(7) {
            0 if version >= 7 => (request.session_id, request.session_epoch) = (7, 3),
            1 if version <= 14 => request.replica_id = 2,
            2 => request.max_bytes = -1,
            3 => request.isolation_level = 2,
            4 => {
                let again = request.topics[0].clone();
                request.topics.push(again);
            }
            5 => request.topics[0].partitions[0].fetch_offset = -5,
            6 if version >= FETCH_VERSION_TOPIC_IDS => request.topics[0].topic = TopicRef::Id(TopicId::ZERO),
            _ => return false,
        }
        true
    }
}

/// Puts a partition into the request, unless it is there already.
fn add(request: &mut FetchRequest, topic: TopicRef, asked: FetchPartition) {
    let is_there =
        |(of, each): (&TopicRef, &FetchPartition)| *of == topic && each.partition == asked.partition;
    if request.partitions().any(is_there) {
        return;
    }
    match request.topics.iter_mut().find(|each| each.topic == topic) {
        Some(known) => known.partitions.push(asked),
        None => request.topics.push(FetchTopic {
            topic,
            partitions: vec![asked],
            unknown_tags: TaggedFields::default(),
        }),
    }
}

/// Somebody waits for an answer or looks at it, until this is dropped.
struct Holding {
    simulation: Arc<Simulation>,
    number: u64,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.simulation.world().outstanding.remove(&self.number);
    }
}

/// An answer in one line, its bytes as a digest.
fn shown(outcome: &Result<FetchResponse, TransportError>) -> String {
    let response = match outcome {
        Ok(response) => response,
        Err(error) => return error.to_string(),
    };
    let partitions = response.partitions().map(|(_, data)| {
        let records = data
            .records
            .as_ref()
            .map(RecordBytes::to_bytes)
            .unwrap_or_default();
        let aborted = data.aborted_transactions.as_ref();
        format!(
            "{}: error {} hw {} lso {} start {} {} bytes {:x} aborted {:?}",
            data.partition_index,
            data.error_code,
            data.high_watermark,
            data.last_stable_offset,
            data.log_start_offset,
            records.len(),
            digest(&records),
            aborted.map(|list| list
                .iter()
                .map(|each| (each.producer_id, each.first_offset))
                .collect::<Vec<_>>())
        )
    });
    let partitions: Vec<String> = partitions.collect();
    format!(
        "error {} throttle {} [{}]",
        response.error_code,
        response.throttle_time_ms,
        partitions.join("; ")
    )
}
