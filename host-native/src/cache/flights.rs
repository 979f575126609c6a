//! Single flight: whoever asks for what is already on its way waits for it instead of asking again (H25).
//!
//! Each upstream fetch runs in a task of its own, so that it is finished and kept although the caller who began it
//! has given up (H21), and nobody who waits depends on that caller.

use core::time::Duration;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kachet_core::cache::{Plan, ResponseRoom};
use kachet_core::storage::Storage;
use kachet_core::time::Instant;
use kachet_core::wire::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopic, PartitionData, TaggedFields,
    TopicRef, WireStr,
};
use tokio::sync::watch;
use tracing::debug;

use super::{Inner, not_a_fetch_response};
use crate::transport::{BrokerAddress, Request, Response, Transport, TransportError};

/// How long a waiter waits beyond what the broker was allowed to take, before it asks by itself.
///
/// Longer than the request timeout of the transport, whose error would otherwise come too late to be shared.
const WAIT_LIMIT: Duration = Duration::from_secs(90);

const READ_COMMITTED: i8 = 1;

/// Everything on which a broker's answer about one partition depends. Fetches share an answer only if all of it is
/// the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FlightKey {
    broker: BrokerAddress,
    version: i16,
    topic: TopicRef,
    asked: FetchPartition,
    isolation_level: i8,
    max_wait_ms: i32,
    min_bytes: i32,
    max_bytes: i32,
    rack_id: WireStr,
    cluster_id: Option<WireStr>,
}

type Outcome = Result<Arc<FetchResponse>, TransportError>;
/// `None` until it has landed.
type Landing = watch::Receiver<Option<Outcome>>;

/// A fetch that is under way.
#[derive(Clone, Debug)]
struct Flight {
    landing: Landing,
    began_at: Instant,
}

/// What is on its way, by partition.
#[derive(Debug, Default)]
pub(super) struct Flights {
    under_way: Mutex<HashMap<FlightKey, Flight>>,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<FlightKey, Flight>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A partition, and the flight that brings it.
struct Awaited {
    topic: TopicRef,
    asked: FetchPartition,
    landing: Landing,
    is_own: bool,
}

/// Which flights answer a request: its own, for what nobody has asked for yet, and those of others.
struct Boarding {
    /// What the cache has answered meanwhile.
    plan: Plan,
    /// What is left of the request.
    request: FetchRequest,
    /// What is to be asked, under which keys it stands on the table, and where it is to be announced.
    own: Option<(FetchRequest, Vec<FlightKey>, watch::Sender<Option<Outcome>>)>,
    /// Every partition in request order.
    awaited: Vec<Awaited>,
}

impl<T: Transport, S: Storage + 'static> Inner<T, S> {
    /// Upstream's answer to `request`, which may be put together from fetches that others have begun. Gives it as
    /// soon as all of its partitions are there; what arrives is absorbed by whoever asked for it.
    pub(super) async fn fetch_upstream(
        self: &Arc<Self>,
        broker: &BrokerAddress,
        version: i16,
        request: FetchRequest,
        arrived_at: Instant,
    ) -> Result<FetchResponse, TransportError> {
        let boarding = match self.board(broker, version, request, arrived_at) {
            Ok(boarding) => boarding,
            Err(meanwhile) => return Ok(meanwhile),
        };
        let Boarding { plan, request, .. } = boarding;
        let alone = boarding.own.as_ref().is_some_and(|(own, ..)| *own == request);
        if let Some((own, keys, announce)) = boarding.own {
            let (inner, landing) = (Arc::clone(self), announce.subscribe());
            let on_the_table = OnTheTable { inner, keys, landing };
            let broker = broker.clone();
            tokio::spawn(async move { on_the_table.fly(&broker, version, own, &announce).await });
        }
        let limit = WAIT_LIMIT + Duration::from_millis(request.max_wait_ms.max(0).unsigned_abs().into());
        let landed = tokio::time::timeout(limit, land(boarding.awaited, alone, &request)).await;
        let answer = match landed {
            Ok(Landed::Complete(answer)) => answer,
            Ok(Landed::Incomplete) => self.ask(broker, version, request).await,
            Err(_) => {
                debug!(%broker, ?limit, "a shared fetch did not land; asking again");
                self.ask(broker, version, request).await
            }
        };
        answer.map(|answer| plan.merge(answer))
    }

    /// Joins the flights that bring parts of the request, and announces one for the rest. A flight is joined only if it
    /// began within the staleness bound before the request arrived: what it brings is no newer than that.
    ///
    /// What flights have brought is in the cache before they leave the table. So it is looked up once more with the
    /// table locked, and a fetch that was planned just before a flight landed does not ask again. Gives the answer
    /// if nothing is left to ask.
    fn board(
        &self,
        broker: &BrokerAddress,
        version: i16,
        request: FetchRequest,
        arrived_at: Instant,
    ) -> Result<Boarding, FetchResponse> {
        let max_staleness = self.read().settings().max_staleness;
        let began_at = self.now();
        let (announce, landing) = watch::channel(None);
        let (mut keys, mut topics, mut awaited) = (Vec::new(), Vec::new(), Vec::new());
        let mut under_way = self.flights.lock();
        let plan = self.read().replan(request, arrived_at);
        let Some(request) = plan.upstream_request().cloned() else {
            return Err(plan.into_response().unwrap_or_default());
        };
        let key = |topic: &TopicRef, asked: &FetchPartition| FlightKey {
            broker: broker.clone(),
            version,
            topic: topic.clone(),
            asked: asked.clone(),
            isolation_level: request.isolation_level,
            max_wait_ms: request.max_wait_ms,
            min_bytes: request.min_bytes,
            max_bytes: request.max_bytes,
            rack_id: request.rack_id.clone(),
            cluster_id: request.cluster_id.clone(),
        };
        for topic in &request.topics {
            let mut own = FetchTopic {
                partitions: Vec::new(),
                ..topic.clone()
            };
            for asked in &topic.partitions {
                let key = key(&topic.topic, asked);
                let shared = under_way
                    .get(&key)
                    .filter(|flight| max_staleness.allows(flight.began_at, arrived_at))
                    .map(|flight| flight.landing.clone());
                let is_own = shared.is_none();
                if is_own {
                    own.partitions.push(asked.clone());
                    let landing = landing.clone();
                    under_way.insert(key.clone(), Flight { landing, began_at });
                    keys.push(key);
                }
                let landing = shared.unwrap_or_else(|| landing.clone());
                let (topic, asked) = (topic.topic.clone(), asked.clone());
                awaited.push(Awaited {
                    topic,
                    asked,
                    landing,
                    is_own,
                });
            }
            if !own.partitions.is_empty() {
                topics.push(own);
            }
        }
        drop(under_way);
        let own = (!topics.is_empty()).then(|| {
            let own = FetchRequest {
                topics,
                ..request.clone()
            };
            (own, keys, announce)
        });
        Ok(Boarding {
            plan,
            request,
            own,
            awaited,
        })
    }

    /// One fetch upstream, absorbed.
    async fn ask(
        self: &Arc<Self>,
        broker: &BrokerAddress,
        version: i16,
        request: FetchRequest,
    ) -> Result<FetchResponse, TransportError> {
        let asked_at = self.now();
        self.read().count_upstream_fetch();
        let sent = Request::Fetch {
            version,
            request: request.clone(),
        };
        let Response::Fetch(response) = self.transport.round_trip(broker, sent).await? else {
            return Err(not_a_fetch_response(broker, version));
        };
        self.absorb(&request, &response, asked_at).await;
        Ok(response)
    }
}

/// A flight that others may join. It is off the table once this is dropped, be it by a panic or with its runtime.
struct OnTheTable<T, S: Storage> {
    inner: Arc<Inner<T, S>>,
    keys: Vec<FlightKey>,
    /// Tells this flight from a later one that has taken its place.
    landing: Landing,
}

impl<T: Transport, S: Storage + 'static> OnTheTable<T, S> {
    /// Asks, absorbs, and announces the outcome. However it ends, the flight is off the table before that, so that a
    /// failure reaches those who wait and nobody who comes later.
    async fn fly(
        self,
        broker: &BrokerAddress,
        version: i16,
        request: FetchRequest,
        announce: &watch::Sender<Option<Outcome>>,
    ) {
        let outcome = self.inner.ask(broker, version, request).await.map(Arc::new);
        drop(self);
        announce.send_replace(Some(outcome));
    }
}

impl<T, S: Storage> Drop for OnTheTable<T, S> {
    fn drop(&mut self) {
        let mut under_way = self.inner.flights.lock();
        for key in &self.keys {
            if under_way
                .get(key)
                .is_some_and(|flight| flight.landing.same_channel(&self.landing))
            {
                under_way.remove(key);
            }
        }
    }
}

enum Landed {
    /// The whole answer, or the failure of a flight that it depends on.
    Complete(Result<FetchResponse, TransportError>),
    /// A flight broke off, or brought nothing of a partition though there is something to bring: ask by oneself.
    Incomplete,
}

/// Waits for every flight and puts the answer together. `alone` says that there is one flight, for exactly this
/// request, so that its response is the answer as it is.
async fn land(awaited: Vec<Awaited>, alone: bool, request: &FetchRequest) -> Landed {
    let committed = request.isolation_level == READ_COMMITTED;
    // In its own flight each partition may have been the first, and kept a batch that does not fit here (H12).
    let mut room = ResponseRoom::new(usize::try_from(request.max_bytes).unwrap_or(0));
    let mut answer = FetchResponse::default();
    for Awaited {
        topic,
        asked,
        mut landing,
        is_own,
    } in awaited
    {
        let outcome = match landing.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => return Landed::Incomplete,
        };
        let response = match outcome {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Landed::Complete(Err(error)),
            None => return Landed::Incomplete,
        };
        if alone || response.error_code != 0 {
            return Landed::Complete(Ok(Arc::unwrap_or_clone(response)));
        }
        match find(&response, &topic, asked.partition) {
            Some(data) if !left_out(data, &asked, committed) => {
                let mut data = data.clone();
                room.cut_to_fit(&mut data, usize::try_from(asked.partition_max_bytes).unwrap_or(0));
                add(&mut answer, topic, data);
            }
            _ => return Landed::Incomplete,
        }
        if is_own {
            // A quota that held somebody else back is not this client's (H20).
            answer.throttle_time_ms = response.throttle_time_ms;
        }
        for node in &response.node_endpoints {
            if !answer.node_endpoints.contains(node) {
                answer.node_endpoints.push(node.clone());
            }
        }
    }
    Landed::Complete(Ok(answer))
}

fn find<'r>(response: &'r FetchResponse, topic: &TopicRef, partition: i32) -> Option<&'r PartitionData> {
    let mut partitions = response.partitions();
    let found = partitions.find(|(of, data)| *of == topic && data.partition_index == partition);
    found.map(|(_, data)| data)
}

/// Whether a partition came back empty although there is data: in the request that brought it others stood before
/// it and took up the limit, or a quota held it back.
fn left_out(data: &PartitionData, asked: &FetchPartition, committed: bool) -> bool {
    let readable_end = if committed {
        data.last_stable_offset
    } else {
        data.high_watermark
    };
    data.error_code == 0
        && data.diverging_epoch.is_none()
        && data.preferred_read_replica < 0
        && data.records_size_bytes() == 0
        && asked.fetch_offset < readable_end
}

fn add(answer: &mut FetchResponse, topic: TopicRef, data: PartitionData) {
    match answer.topics.last_mut() {
        Some(last) if last.topic == topic => last.partitions.push(data),
        _ => {
            let unknown_tags = TaggedFields::default();
            answer.topics.push(FetchableTopic {
                topic,
                partitions: vec![data],
                unknown_tags,
            });
        }
    }
}
