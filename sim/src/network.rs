//! The network between the cache and the brokers, as a transport: delays, resets, losses, late answers.

use core::future::pending;
use core::time::Duration;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kachet::core::wire::{
    Chunks, FetchPartition, FetchRequest, FetchResponse, PartitionData, TopicId, TopicRef,
};
use kachet::transport::{ApiVersions, BrokerAddress, Request, Response, Transport, TransportError};
use tokio::time::{sleep, timeout};

use crate::answers::{self, Question};
use crate::broker::{Asked, Reading, Told, response};
use crate::dice::{Dice, digest, mix};
use crate::ledger::{Entry, What};
use crate::partition::place;
use crate::world::{CRASHES, Simulation};

/// Errors that a broker gives for one partition at any time.
const PARTITION_ERRORS: [i16; 6] = [56, 9, 6, 29, 78, 2];
/// Errors that a broker gives for a whole response.
const TOP_LEVEL_ERRORS: [i16; 3] = [-1, 58, 72];

/// The simulated cluster as a transport.
#[derive(Clone)]
pub(crate) struct SimulatedNetwork {
    pub(crate) simulation: Arc<Simulation>,
}

/// What happens to one request. It depends on the request and the moment alone, so that requests that leave at the same
/// moment may do so in any order.
struct Passage {
    dice: Dice,
    there: Duration,
    back: Duration,
    /// What goes wrong before the broker has the request.
    before: Mishap,
    /// What goes wrong once the broker has answered.
    after: Mishap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    None,
    Reset,
    Lost,
}

impl Simulation {
    fn passage(&self, broker: &BrokerAddress, content: u64, now: u64) -> Passage {
        let at = mix(now ^ digest(broker.host.as_bytes()).rotate_left(11));
        let mut dice = self.dice(content ^ at);
        let rates = &self.profile.requests;
        let mut delay = || Duration::from_millis(dice.between(0, self.profile.latency_ms));
        let (there, mut back) = (delay(), delay());
        if dice.chance(rates.slow) {
            back += Duration::from_millis(dice.between(1, self.profile.slow_ms));
        }
        let mut mishap = |reset: u32| match (dice.chance(reset), dice.chance(rates.lost)) {
            (_, true) => Mishap::Lost,
            (true, false) => Mishap::Reset,
            (false, false) => Mishap::None,
        };
        let (before, after) = (mishap(rates.reset_before), mishap(rates.reset_after));
        Passage {
            dice,
            there,
            back,
            before,
            after,
        }
    }
}

/// A fetch that is on its way; over when this is dropped.
struct UnderWay<'a> {
    simulation: &'a Simulation,
    number: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.simulation.world().ledger.land(self.number);
    }
}

impl Transport for SimulatedNetwork {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        match request {
            Request::Fetch { version, request } => {
                self.fetch(broker, version, request).await.map(Response::Fetch)
            }
            Request::Other {
                api_key,
                version,
                body,
                ..
            } => self
                .ask(broker, api_key, version, body)
                .await
                .map(Response::Other),
        }
    }

    async fn api_versions(&self, broker: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        let down = self.is_down(broker);
        if down {
            Err(connect_error(broker))
        } else {
            Ok(Arc::new(answers::api_versions()))
        }
    }
}

impl SimulatedNetwork {
    fn is_down(&self, broker: &BrokerAddress) -> bool {
        let now = self.simulation.now();
        let world = self.simulation.world();
        world
            .cluster
            .down_until
            .get(place(node_id(broker)))
            .is_none_or(|until| *until > now)
    }

    /// Carries a request to its broker and the answer back, which `handle` gives.
    async fn carry<A>(
        &self,
        broker: &BrokerAddress,
        api: &'static str,
        passage: &Passage,
        broker_wait: Duration,
        handle: impl Future<Output = A>,
    ) -> Result<A, TransportError> {
        let limit = Duration::from_millis(self.simulation.profile.request_timeout_ms) + broker_wait;
        let closed = || TransportError::Closed {
            broker: broker.clone(),
        };
        let travel = async {
            if self.is_down(broker) {
                return Err(connect_error(broker));
            }
            if passage.before == Mishap::Lost {
                pending::<()>().await;
            }
            sleep(passage.there).await;
            if passage.before == Mishap::Reset || self.is_down(broker) {
                return Err(closed());
            }
            let answer = handle.await;
            if passage.after == Mishap::Lost {
                pending::<()>().await;
            }
            sleep(passage.back).await;
            if passage.after == Mishap::Reset {
                Err(closed())
            } else {
                Ok(answer)
            }
        };
        let outcome = match timeout(limit, travel).await {
            Ok(outcome) => outcome,
            Err(_) => Err(TransportError::Timeout {
                broker: broker.clone(),
                api,
                timeout: limit,
            }),
        };
        if let Err(error) = &outcome {
            let kind = match error {
                TransportError::Connect { .. } => "fault: broker down",
                TransportError::Timeout { .. } => "fault: no answer",
                _ => "fault: connection reset",
            };
            let now = self.simulation.now();
            let mut world = self.simulation.world();
            world.count(kind, 1);
            world.event(now, "fault", || format!("{kind} at {api} to {broker}"));
        }
        outcome
    }

    async fn ask(
        &self,
        broker: &BrokerAddress,
        api_key: i16,
        version: i16,
        body: Bytes,
    ) -> Result<Bytes, TransportError> {
        let simulation = &*self.simulation;
        let content = digest(&body) ^ mix(api_key.unsigned_abs().into());
        let mut passage = simulation.passage(broker, content, simulation.now());
        let configs_denied = passage.dice.chance(simulation.profile.requests.configs_denied);
        let handle = async {
            let now = simulation.now();
            let mut world = simulation.world();
            let question = Question {
                cluster: &world.cluster,
                broker: node_id(broker),
                version,
                now,
                configs_denied,
            };
            let answer = answers::answer(&question, api_key, body);
            world.count("questions to brokers", 1);
            let (body, named) = answer?;
            world.event(now, "question", || {
                format!("api {api_key} to {broker}: {named:?} {:x}", digest(&body))
            });
            for each in named {
                let watermarks = world.ledger.watermarks_mut(each.id, each.partition);
                if each.is_start {
                    watermarks.start.insert(each.offset);
                } else {
                    watermarks.high.insert(each.offset);
                }
            }
            Some(body)
        };
        let answer = self
            .carry(broker, "question", &passage, Duration::ZERO, handle)
            .await?;
        answer.ok_or_else(|| TransportError::NotKafka {
            broker: broker.clone(),
            what: "a request that the simulation does not answer".to_owned(),
        })
    }

    async fn fetch(
        &self,
        broker: &BrokerAddress,
        version: i16,
        request: FetchRequest,
    ) -> Result<FetchResponse, TransportError> {
        let simulation = &*self.simulation;
        let sent_at = simulation.now();
        let mut chunks = Chunks::new();
        let content = match request.encode(version, &mut chunks) {
            Ok(()) => digest(&joined(chunks)),
            Err(_) => 0,
        };
        let passage = simulation.passage(broker, content, sent_at);
        let faults = passage.dice.clone();
        let _under_way = self.depart(broker, version, &request, sent_at);
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        let handle = self.handle(node_id(broker), version, &request, faults);
        let outcome = self.carry(broker, "Fetch", &passage, wait, handle).await;
        let arrived_at = simulation.now();
        let mut world = simulation.world();
        for (topic, asked) in request.partitions() {
            let what = match &outcome {
                Err(_) => What::Failed,
                Ok(response) => what(response, topic, asked),
            };
            let entry = Entry {
                sent_at,
                arrived_at,
                what,
            };
            world.ledger.note(topic, asked.partition, entry);
        }
        outcome
    }

    /// Notes a fetch that leaves, and whether the same one is on its way already (H25).
    fn depart(
        &self,
        broker: &BrokerAddress,
        version: i16,
        request: &FetchRequest,
        sent_at: u64,
    ) -> UnderWay<'_> {
        let simulation = &*self.simulation;
        let mut world = simulation.world();
        world.count("upstream fetches", 1);
        world.event(sent_at, "upstream", || {
            format!("v{version} to {broker}: {}", told_short(request))
        });
        let since = simulation.profile.true_since(sent_at);
        let shared = digest(
            format!(
                "{broker} {version} {} {}",
                request.rack_id, request.isolation_level
            )
            .as_bytes(),
        ) ^ digest(
            format!(
                "{} {} {}",
                request.max_bytes, request.min_bytes, request.max_wait_ms
            )
            .as_bytes(),
        );
        // A flight that has brought nothing of a partition leaves everybody who waited to ask by himself.
        let brought_nothing = request.partitions().any(|(topic, asked)| {
            let mut brought = world.ledger.brought(topic, asked.partition, 0);
            brought.any(|entry| entry.arrived_at == sent_at && entry.what != What::Records)
        });
        // Whoever goes on waiting for a cache that has crashed does so beside the one that took over.
        let has_crashed = world.tally.contains_key(CRASHES);
        let was_off = has_crashed || world.limits.iter().any(|(_, limit)| *limit == 0);
        let mut keys = Vec::new();
        for (topic, asked) in request.partitions() {
            let key = shared ^ digest(format!("{topic:?} {asked:?}").as_bytes());
            if world.ledger.is_on_its_way(key, since) && passes_no_cache(request) {
                world.count("the same fetch twice at once: passed through", 1);
            } else if world.ledger.is_on_its_way(key, since) && brought_nothing {
                world.count("the same fetch twice at once: another brought only a part", 1);
            } else if world.ledger.is_on_its_way(key, since) && !was_off {
                let what = format!(
                    "{topic:?}/{} at {} to {broker}",
                    asked.partition, asked.fetch_offset
                );
                world.violate(sent_at, "single flight", what);
            }
            // Who asks by himself flies alone, and what passes the cache by is joined by nobody.
            if !brought_nothing && !passes_no_cache(request) {
                keys.push(key);
            }
        }
        let number = world.ledger.depart(sent_at, keys);
        drop(world);
        UnderWay { simulation, number }
    }

    async fn handle(
        &self,
        broker: i32,
        version: i16,
        request: &FetchRequest,
        mut faults: Dice,
    ) -> FetchResponse {
        let simulation = &*self.simulation;
        let coin = faults.bits();
        let until = simulation.now() + u64::try_from(request.max_wait_ms).unwrap_or(0);
        loop {
            let changed = simulation.changed.notified();
            let now = simulation.now();
            {
                let mut world = simulation.world();
                let asked = Asked {
                    broker,
                    version,
                    request,
                    now,
                    coin,
                };
                let reading = Reading::of(&world.cluster, &asked);
                if reading.is_enough(request) || now >= until {
                    let (error_code, told) = reading.into_told();
                    for each in &told {
                        note_watermarks(&mut world.ledger, each);
                    }
                    let answer = self.with_faults(version, error_code, told, &mut faults, &mut world);
                    return through_the_wire(&answer, version);
                }
            }
            // Nothing has changed at the deadline, so that reading again gives the same.
            let _ = timeout(Duration::from_millis(until - now), changed).await;
        }
    }

    /// What may befall an answer inside a broker.
    fn with_faults(
        &self,
        version: i16,
        mut error_code: i16,
        mut told: Vec<Told>,
        dice: &mut Dice,
        world: &mut crate::world::World,
    ) -> FetchResponse {
        let rates = &self.simulation.profile.requests;
        let mut throttle_time_ms = 0;
        if dice.chance(rates.throttled) {
            world.count("fault: throttled", 1);
            throttle_time_ms = i32::try_from(dice.between(1, 500)).unwrap_or(1);
            if dice.chance(500) {
                told.clear();
            }
            for each in told.iter_mut().filter(|each| each.data.error_code == 0) {
                each.data.records = PartitionData::error(0, 0).records;
            }
        }
        if version >= 7 && dice.chance(rates.top_level_error) {
            world.count("fault: top-level error", 1);
            error_code = dice.pick(&TOP_LEVEL_ERRORS);
            told.clear();
        }
        let drawn = dice.below(told.len());
        if let Some(each) = told.get_mut(drawn).filter(|_| dice.chance(rates.partition_error)) {
            world.count("fault: partition error", 1);
            each.data = PartitionData::error(each.data.partition_index, dice.pick(&PARTITION_ERRORS));
        }
        if !told.is_empty() && dice.chance(rates.omitted) {
            world.count("fault: partition left out", 1);
            told.remove(dice.below(told.len()));
        }
        if !told.is_empty() && dice.chance(rates.duplicated) {
            world.count("fault: partition twice", 1);
            told.push(told[dice.below(told.len())].clone());
        }
        if told.len() > 1 && dice.chance(rates.reordered) {
            world.count("fault: partitions reordered", 1);
            dice.shuffle(&mut told);
        }
        let mut answer = response(version, error_code, &told);
        answer.throttle_time_ms = throttle_time_ms;
        answer
    }
}

fn note_watermarks(ledger: &mut crate::ledger::Ledger, told: &Told) {
    let Some(id) = told.id.filter(|_| told.data.error_code == 0) else {
        return;
    };
    let watermarks = ledger.watermarks_mut(id, told.data.partition_index);
    watermarks.high.insert(told.data.high_watermark);
    watermarks.stable.insert(told.data.last_stable_offset);
    watermarks.start.insert(told.data.log_start_offset);
}

/// Encodes and decodes the answer, so that its batches share one piece of memory as those of a socket do, and fields that
/// the version does not carry are lost.
fn through_the_wire(answer: &FetchResponse, version: i16) -> FetchResponse {
    let mut chunks = Chunks::new();
    let encoded = answer.encode(version, &mut chunks);
    let decoded = encoded.and_then(|()| FetchResponse::decode(joined(chunks), version));
    decoded.unwrap_or_default()
}

fn joined(chunks: Chunks) -> Bytes {
    let mut joined = BytesMut::new();
    for slice in chunks.into_slices() {
        joined.extend_from_slice(&slice);
    }
    joined.freeze()
}

fn what(response: &FetchResponse, topic: &TopicRef, asked: &FetchPartition) -> What {
    if response.error_code != 0 {
        return What::Refused(response.error_code);
    }
    let mut partitions = response.partitions();
    match partitions.find(|(of, data)| *of == topic && data.partition_index == asked.partition) {
        None => What::Omitted,
        Some((_, data)) if data.error_code != 0 => What::Error(data.error_code),
        Some((_, data)) if data.diverging_epoch.is_some() => What::Diverging,
        Some((_, data)) if data.preferred_read_replica >= 0 => What::Redirect,
        Some((_, data)) if data.records_size_bytes() > 0 => What::Records,
        Some(_) => What::Empty,
    }
}

/// Whether the cache leaves a request to the broker: followers, sessions, limits, offsets and isolation levels that do
/// not exist, zero ids, and partitions that are named twice.
fn passes_no_cache(request: &FetchRequest) -> bool {
    let mut seen = Vec::new();
    let is_odd = request.partitions().any(|(topic, asked)| {
        let is_again = seen.contains(&(topic, asked.partition));
        seen.push((topic, asked.partition));
        is_again || asked.fetch_offset < 0 || *topic == TopicRef::Id(TopicId::ZERO)
    });
    is_odd
        || request.session_epoch != -1
        || request.replica_id >= 0
        || request.max_bytes < 0
        || request.isolation_level > 1
}

/// A request in one line.
pub(crate) fn told_short(request: &FetchRequest) -> String {
    let partitions = request.partitions().map(|(topic, asked)| {
        let epochs = match (asked.current_leader_epoch, asked.last_fetched_epoch) {
            (-1, -1) => String::new(),
            (current, last) => format!(" epochs {current} {last}"),
        };
        format!(
            "{topic:?}/{} at {} ≤ {}{epochs}",
            asked.partition, asked.fetch_offset, asked.partition_max_bytes
        )
    });
    let partitions: Vec<String> = partitions.collect();
    format!(
        "{} (≤ {}, ≥ {} in {} ms, isolation {}, session {} {})",
        partitions.join(", "),
        request.max_bytes,
        request.min_bytes,
        request.max_wait_ms,
        request.isolation_level,
        request.session_id,
        request.session_epoch
    )
}

fn node_id(broker: &BrokerAddress) -> i32 {
    let id = broker.host.rsplit_once('-').and_then(|(_, id)| id.parse().ok());
    id.unwrap_or(i32::MAX)
}

fn connect_error(broker: &BrokerAddress) -> TransportError {
    TransportError::Connect {
        broker: broker.clone(),
        source: Arc::new(io::ErrorKind::ConnectionRefused.into()),
    }
}
