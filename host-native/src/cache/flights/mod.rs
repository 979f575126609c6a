//! Single flight for fetches: whoever asks for what is already on its way waits for it instead of asking again (H25).
//!
//! Each upstream fetch runs in a task of its own, so that it is finished and kept although the caller who began it
//! has given up (H21), and nobody who waits depends on that caller. When the task itself ends without an answer, the
//! first of those who waited takes the flight over.

mod answer;
#[cfg(all(test, feature = "embedded-broker"))]
mod interleavings;
mod key;
mod nearby;
mod nearest;
mod part;
mod rack;

use std::sync::Arc;

use kachet_core::cache::{Harvest, Plan};
use kachet_core::storage::Storage;
use kachet_core::time::Instant;
use kachet_core::wire::{FetchPartition, FetchRequest, FetchResponse, TopicRef};
use tokio::time::Instant as Deadline;
use tracing::{Instrument, debug, debug_span};

use self::answer::{Arrival, Asked, Awaited, land};
use self::key::FlightKey;
use self::nearby::Reaches;
use self::part::{Brought, Part};
pub(super) use self::rack::Rack;
use super::names::is_by_name;
use super::single_flight::runtime::{spawn, yield_now};
use super::single_flight::{Boarding, Departure, Flight, Landed, Table};
use super::{CRC32C, Inner, not_a_fetch_response, patience};
use crate::transport::{BrokerAddress, Request, Response, Transport, TransportError};

/// How often one caller sees a flight lost, and it or another that waits takes it over, before it gets an error.
const LOSSES_MAX: usize = 2;
/// How often the flights of others may leave a partition out before the caller asks for what it lacks by itself.
const LEFT_OUT_MAX: usize = 2;

const READ_COMMITTED: i8 = 1;

type Outcome = Result<Arc<FetchResponse>, TransportError>;

/// What is on its way, by partition.
#[derive(Debug, Default)]
pub(super) struct Flights {
    table: Arc<Table<FlightKey, Outcome>>,
    reaches: Reaches,
}

/// A fetch of one caller.
struct Caller<'c> {
    broker: &'c BrokerAddress,
    version: i16,
    request: FetchRequest,
    arrived_at: Instant,
}

/// Why a round gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Again {
    /// A flight broke off or is overdue.
    Lost,
    /// A flight brought nothing of this partition though there is something to bring.
    LeftOut(TopicRef, i32),
    /// A flight from an offset nearby has landed.
    Look,
}

/// What has gone by in the rounds so far.
#[derive(Debug, Default)]
struct Rounds {
    lost: usize,
    left_out: usize,
    /// The partition that was left out last.
    lacking: Option<(TopicRef, i32)>,
    has_looked_again: bool,
}

impl Rounds {
    fn count(&mut self, again: Again) {
        match again {
            Again::Lost => self.lost += 1,
            Again::LeftOut(topic, partition) => {
                self.left_out += 1;
                self.lacking = Some((topic, partition));
            }
            Again::Look => self.has_looked_again = true,
        }
    }

    /// Whether the caller goes on with what others bring. Once it has what was left out, it begins to count anew.
    fn may_join(&mut self, seats: &[Seat]) -> bool {
        let is_lacking = |seat: &Seat| matches!(&self.lacking, Some((topic, partition)) if seat.topic == *topic && seat.asked.partition == *partition);
        if !seats.iter().any(is_lacking) {
            self.left_out = 0;
        }
        self.left_out < LEFT_OUT_MAX
    }

    fn may_join_nearby(&self) -> bool {
        !self.has_looked_again && self.lost == 0 && self.left_out == 0
    }
}

/// How one round goes on.
enum Boarded {
    /// Others have brought everything meanwhile.
    Meanwhile(FetchResponse),
    /// A flight from an offset nearby may bring it.
    Nearby(Flight<Outcome>),
    Waiting(Box<Waiting>),
}

/// Which flights answer a request: the caller's own, for what nobody has asked for yet, and those of others.
struct Waiting {
    /// What the cache has answered meanwhile.
    plan: Plan,
    /// The partitions that are left of the request, in its order.
    awaited: Vec<Awaited>,
    asked: Asked,
    own: Option<Own>,
}

/// A flight that the caller begins.
struct Own {
    request: FetchRequest,
    keys: Vec<FlightKey>,
    departure: Departure<FlightKey, Outcome>,
}

impl<T: Transport, S: Storage + 'static> Inner<T, S> {
    /// Upstream's answer to `request`, which may be put together from fetches that others have begun. Gives it as
    /// soon as all of its partitions are there; what arrives is absorbed by whoever asked for it.
    ///
    /// A caller waits as long as two fetches may take, one that is lost and one in its place.
    pub(super) async fn fetch_upstream(
        self: &Arc<Self>,
        broker: &BrokerAddress,
        version: i16,
        request: FetchRequest,
        arrived_at: Instant,
    ) -> Result<FetchResponse, TransportError> {
        let allowed = patience::of_callers(&self.transport, request.max_wait_ms);
        let give_up_at = Deadline::now() + allowed;
        let caller = Caller {
            broker,
            version,
            request,
            arrived_at,
        };
        let mut rounds = Rounds::default();
        while rounds.lost <= LOSSES_MAX {
            let arrival = match self.board(&caller, &mut rounds) {
                Boarded::Meanwhile(answer) => return Ok(answer),
                Boarded::Nearby(flight) => match flight.landed(give_up_at).await {
                    Landed::TooLate => Arrival::TooLate,
                    // Its failure is not this caller's, who has asked for something else.
                    Landed::Outcome(_) | Landed::Lost => Arrival::Again(Again::Look),
                },
                Boarded::Waiting(waiting) => self.wait(&caller, *waiting, give_up_at).await,
            };
            match arrival {
                Arrival::Answer(answer) => return answer,
                Arrival::Again(again) => {
                    debug!(%broker, ?again, "looking again for what is on its way");
                    rounds.count(again);
                }
                Arrival::TooLate => {
                    let (broker, api, timeout) = (broker.clone(), "Fetch", allowed);
                    return Err(TransportError::Timeout { broker, api, timeout });
                }
            }
        }
        Err(TransportError::BrokenOff {
            broker: broker.clone(),
            times: rounds.lost,
        })
    }

    /// Sends the caller's own flight off, and waits for all.
    async fn wait(self: &Arc<Self>, caller: &Caller<'_>, waiting: Waiting, give_up_at: Deadline) -> Arrival {
        let Waiting {
            plan,
            awaited,
            asked,
            own,
        } = waiting;
        if let Some(own) = own {
            let (inner, broker, version) = (Arc::clone(self), caller.broker.clone(), caller.version);
            let fill = debug_span!("fill", %broker, partitions = own.keys.len());
            spawn(async move { inner.fly(&broker, version, own).await }.instrument(fill));
        }
        match land(awaited, give_up_at, asked).await {
            Arrival::Answer(Ok(answer)) => Arrival::Answer(Ok(plan.merge(answer))),
            other => other,
        }
    }

    /// Joins the flights that bring parts of the request, and departs for the rest. A flight is joined only if it
    /// began within the staleness bound before the request arrived: what it brings is no newer than that.
    ///
    /// What flights have brought is in the cache before they leave the table. So it is looked up once more with the
    /// table locked, and a fetch that was planned just before a flight landed does not ask again.
    fn board(&self, caller: &Caller<'_>, rounds: &mut Rounds) -> Boarded {
        let max_staleness = self.read().settings().max_staleness;
        let is_fresh = |flight: &Flight<Outcome>| max_staleness.allows(flight.began_at, caller.arrived_at);
        let boarding = self.flights.table.board();
        let plan = self.read().replan(caller.request.clone(), caller.arrived_at);
        let Some(request) = plan.upstream_request() else {
            return Boarded::Meanwhile(plan.into_response().unwrap_or_default());
        };
        let mut seats: Vec<Seat> = seats(caller, request);
        if let [seat] = seats.as_slice()
            && rounds.may_join_nearby()
            && let Some(flight) = self.flights.nearby(&boarding, &seat.key).filter(is_fresh)
        {
            return Boarded::Nearby(flight);
        }
        if rounds.may_join(&seats) {
            for seat in &mut seats {
                seat.flight = boarding
                    .flight(&seat.key)
                    .filter(|flight| is_fresh(flight))
                    .cloned();
            }
        }
        let request = request.clone();
        Boarded::Waiting(Box::new(self.depart(boarding, plan, &request, seats)))
    }

    /// Takes off for what nobody else brings.
    fn depart(
        &self,
        boarding: Boarding<'_, FlightKey, Outcome>,
        plan: Plan,
        request: &FetchRequest,
        seats: Vec<Seat>,
    ) -> Waiting {
        let left: Vec<FlightKey> = seats
            .iter()
            .filter(|seat| seat.flight.is_none())
            .map(|seat| seat.key.clone())
            .collect();
        let asked = Asked {
            alone: left.len() == seats.len(),
            committed: request.isolation_level == READ_COMMITTED,
            max_bytes: request.max_bytes,
        };
        let own = (!left.is_empty()).then(|| {
            let overdue_at = Deadline::now() + patience::of_flights(&self.transport, request.max_wait_ms);
            Own {
                request: without_others(request, &seats),
                keys: left.clone(),
                departure: boarding.depart(left, self.now(), overdue_at),
            }
        });
        let awaited = seats.into_iter().filter_map(|seat| {
            let is_own = seat.flight.is_none();
            let own = || own.as_ref().map(|own| own.departure.flight().clone());
            Some(Awaited {
                topic: seat.topic,
                asked: seat.asked,
                flight: seat.flight.or_else(own)?,
                is_own,
            })
        });
        let awaited = awaited.collect();
        Waiting {
            plan,
            awaited,
            asked,
            own,
        }
    }

    /// Asks, absorbs, and lands. An answer under names lands first: what it is of has to be asked for, and nobody is to
    /// wait for that. Nor for the storage: to seal a segment of a mebibyte in memory takes longer than to fetch a batch.
    async fn fly(self: &Arc<Self>, broker: &BrokerAddress, version: i16, own: Own) {
        let Own {
            request,
            keys,
            departure,
        } = own;
        let asked_at = self.now();
        let Brought { outcome, parts } = self.ask_nearest(broker, version, &request).await;
        if let Ok(response) = &outcome {
            let committed = request.isolation_level == READ_COMMITTED;
            self.flights.reaches.learn(&keys, response, committed);
        }
        if !is_by_name(&request) || !self.knows_ids() {
            for part in &parts {
                self.absorb(self.harvests(part), asked_at).await;
            }
            departure.land(outcome);
        } else {
            departure.land(outcome);
            for part in &parts {
                let mut harvests = self.harvests(part);
                self.identify_harvests(&part.broker, &part.names, &mut harvests)
                    .await;
                self.absorb(harvests, asked_at).await;
            }
        }
        drop(parts);
        // Whoever has waited goes on first: a task that is woken from here may have to run where this one does.
        yield_now().await;
        self.have_jobs_done_aside();
    }

    /// What a broker has given, to be kept.
    fn harvests(&self, part: &Part) -> Vec<Harvest> {
        let mut harvests = Harvest::gather(&part.request, &part.response, CRC32C);
        if !part.unheard.is_empty() {
            harvests.retain(|harvest| {
                let place = (harvest.topic().clone(), harvest.partition());
                !part.unheard.contains(&place)
            });
        }
        for harvest in &mut harvests {
            let (topic, partition) = (harvest.topic(), harvest.partition());
            if part.is_of_follower || self.catalogue.is_follower(&part.broker, topic, partition) {
                harvest.mark_of_follower();
            }
        }
        harvests
    }

    /// One fetch upstream.
    async fn ask(
        &self,
        broker: &BrokerAddress,
        version: i16,
        request: &FetchRequest,
    ) -> Result<FetchResponse, TransportError> {
        self.read().count_upstream_fetch();
        let sent = Request::Fetch {
            version,
            request: request.clone(),
        };
        match self.round_trip(broker, sent).await? {
            Response::Fetch(response) => Ok(response),
            Response::Other(_) => Err(not_a_fetch_response(broker, version)),
        }
    }
}

impl Flights {
    /// A flight from an offset nearby that is likely to bring what is looked for.
    fn nearby(
        &self,
        boarding: &Boarding<'_, FlightKey, Outcome>,
        wanted: &FlightKey,
    ) -> Option<Flight<Outcome>> {
        let (key, flight) = boarding.nearest(wanted)?;
        let is_likely = self.reaches.is_likely_to_bring(key, wanted);
        is_likely.then(|| flight.clone())
    }
}

/// A partition of a request, and the flight of others that brings it.
struct Seat {
    topic: TopicRef,
    asked: FetchPartition,
    key: FlightKey,
    flight: Option<Flight<Outcome>>,
}

/// One for each partition, in request order; nobody has joined a flight yet.
fn seats(caller: &Caller<'_>, request: &FetchRequest) -> Vec<Seat> {
    let seat = |(topic, asked): (&TopicRef, &FetchPartition)| Seat {
        topic: topic.clone(),
        asked: asked.clone(),
        key: FlightKey::new(caller.broker, caller.version, request, topic, asked),
        flight: None,
    };
    request.partitions().map(seat).collect()
}

/// The request without the partitions that flights of others bring.
fn without_others(request: &FetchRequest, seats: &[Seat]) -> FetchRequest {
    let mut request = request.clone();
    let mut seats = seats.iter();
    for topic in &mut request.topics {
        // In this order, so that each partition takes its own seat.
        topic
            .partitions
            .retain(|_| seats.next().is_some_and(|seat| seat.flight.is_none()));
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    request
}
