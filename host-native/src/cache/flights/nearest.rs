//! Asks the replicas in the cache's own rack, and the leaders for what these do not give (KIP-392, H16).
//!
//! A replica is believed where it gives records. An error it may give because it is behind, so the leader is asked in its
//! place; and that there is nothing is said to nobody before the leader has said so. Only where other partitions bring
//! enough is an empty one left as it is, for a second at most.

use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::future::{join_all, select_all};
use kachet_core::storage::Storage;
use kachet_core::wire::{
    FetchPartition, FetchRequest, FetchResponse, PartitionData, TopicId, TopicRef, WireStr,
};
use tokio::time::{Instant as Deadline, timeout};
use tracing::debug;

use super::part::{Brought, Part, Place, assembled, restricted};
use super::rack::{Rack, Whom};
use super::{Inner, READ_COMMITTED};
use crate::transport::{BrokerAddress, Transport, TransportError};

/// The first Fetch version that tells a rack, and that followers answer.
const RACK_VERSION: i16 = 11;
/// How long a replica may take beyond what it is to wait, before the leader is asked in its place.
const REPLICA_PATIENCE: Duration = Duration::from_secs(5);
/// How long a replica may give nothing of a partition while others bring enough, before the leader is asked for it.
const EMPTY_PATIENCE: Duration = Duration::from_secs(1);

impl<T: Transport, S: Storage + 'static> Inner<T, S> {
    /// The answer to a request, from the nearest replicas if the cache has a rack.
    pub(super) async fn ask_nearest(
        &self,
        leader: &BrokerAddress,
        version: i16,
        request: &FetchRequest,
    ) -> Brought {
        let is_asked_by_rack = version >= RACK_VERSION && request.rack_id.as_str().is_empty();
        if let Some(rack) = self.rack.as_ref().filter(|_| is_asked_by_rack) {
            return Gathering::new(self, rack, leader, version, request).run().await;
        }
        let names = self.told_names.of_request(leader, request);
        let outcome = self.ask(leader, version, request).await.map(Arc::new);
        let part = outcome.as_ref().ok().map(|response| Part {
            broker: leader.clone(),
            is_of_follower: false,
            names,
            unheard: HashSet::new(),
            request: request.clone(),
            response: Arc::clone(response),
        });
        Brought {
            outcome,
            parts: part.into_iter().collect(),
        }
    }
}

/// An answer as it is gathered.
struct Gathering<'g, T, S: Storage> {
    inner: &'g Inner<T, S>,
    rack: &'g Rack,
    leader: &'g BrokerAddress,
    version: i16,
    request: &'g FetchRequest,
    /// The end of the time that brokers may wait.
    wait_until: Deadline,
    /// Whether one was allowed to.
    has_waited: bool,
    found: HashMap<Place, PartitionData>,
    open: Open,
    parts: Vec<Part>,
    /// Why the leader has not answered.
    failure: Option<TransportError>,
    /// What the leader has answered as a whole in place of records.
    refusal: Option<Arc<FetchResponse>>,
}

/// What replicas have left open.
#[derive(Default)]
struct Open {
    /// The replica has answered an error, or not at all.
    failed: Vec<Place>,
    /// The replica has nothing, for the moment.
    empty: Vec<Place>,
    /// It has had nothing for long.
    stale: Vec<Place>,
    /// The leader names a replica, by its node id.
    redirected: Vec<(Place, i32)>,
}

/// What came of one request.
struct Answered {
    whom: Whom,
    part: FetchRequest,
    names: Vec<(WireStr, TopicId)>,
    /// `None` if a replica was silent.
    outcome: Option<Result<FetchResponse, TransportError>>,
}

impl<'g, T: Transport, S: Storage + 'static> Gathering<'g, T, S> {
    fn new(
        inner: &'g Inner<T, S>,
        rack: &'g Rack,
        leader: &'g BrokerAddress,
        version: i16,
        request: &'g FetchRequest,
    ) -> Self {
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        Self {
            inner,
            rack,
            leader,
            version,
            request,
            wait_until: Deadline::now() + wait,
            has_waited: false,
            found: HashMap::new(),
            open: Open::default(),
            parts: Vec::new(),
            failure: None,
            refusal: None,
        }
    }

    async fn run(mut self) -> Brought {
        let asked = self.rack.split(self.leader, self.request);
        let is_one = asked.len() == 1;
        // One may wait. Several would hold each other back (H14).
        let wait_ms = if is_one { self.left_ms() } else { 0 };
        self.ask_all(asked, wait_ms).await;
        self.follow_redirects(is_one).await;
        self.ask_leader_for_the_rest().await;
        if !self.has_waited && !self.is_enough() && self.is_answered() {
            self.wait_for_any().await;
        }
        self.finish()
    }

    /// How long brokers may still wait.
    fn left_ms(&self) -> i32 {
        let left = self.wait_until.saturating_duration_since(Deadline::now());
        i32::try_from(left.as_millis()).unwrap_or(i32::MAX)
    }

    /// Whether an answer of this much is not waited for any longer.
    fn is_enough(&self) -> bool {
        let size_bytes: usize = self.found.values().map(PartitionData::records_size_bytes).sum();
        size_bytes >= usize::try_from(self.request.min_bytes).unwrap_or(0).max(1)
    }

    /// Whether there is no error that an answer would not wait with.
    fn is_answered(&self) -> bool {
        self.failure.is_none() && self.refusal.is_none() && self.found.values().all(is_plain)
    }

    async fn ask_all(&mut self, asked: Vec<(Whom, FetchRequest)>, wait_ms: i32) {
        self.has_waited |= wait_ms > 0;
        let answers = asked
            .into_iter()
            .map(|(whom, part)| self.ask(whom, part, wait_ms));
        let answers = join_all(answers).await;
        for answered in answers {
            self.take(answered);
        }
    }

    async fn ask(&self, whom: Whom, mut part: FetchRequest, wait_ms: i32) -> Answered {
        part.max_wait_ms = wait_ms;
        if whom != Whom::Leader {
            part.rack_id = self.rack.id();
        }
        let broker = match &whom {
            Whom::Replica(replica) => replica,
            Whom::Leader | Whom::LeaderByRack => self.leader,
        };
        let names = self.inner.told_names.of_request(broker, &part);
        let asking = self.inner.ask(broker, self.version, &part);
        let outcome = if let Whom::Replica(_) = whom {
            let wait = Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0));
            timeout(wait + REPLICA_PATIENCE, asking).await.ok()
        } else {
            Some(asking.await)
        };
        Answered {
            whom,
            part,
            names,
            outcome,
        }
    }

    fn take(&mut self, answered: Answered) {
        let Answered {
            whom,
            part,
            names,
            outcome,
        } = answered;
        let outcome = match (&whom, outcome) {
            (Whom::Replica(replica), outcome) => match outcome {
                Some(Ok(response)) if response.error_code == 0 => Ok((replica.clone(), response)),
                failure => return self.replica_has_failed(replica, &part, failure),
            },
            (_, Some(outcome)) => outcome.map(|response| (self.leader.clone(), response)),
            // Only replicas are asked for a limited time.
            (_, None) => return,
        };
        let (broker, response) = match outcome {
            Ok(answered) => answered,
            Err(error) => return self.failure = Some(error),
        };
        let is_of_follower = matches!(whom, Whom::Replica(_));
        if response.error_code != 0 {
            self.refusal = Some(Arc::new(response));
            return;
        }
        let unheard = if is_of_follower {
            self.take_from_replica(&part, &response)
        } else {
            self.take_from_leader(&response, whom == Whom::LeaderByRack);
            HashSet::new()
        };
        self.parts.push(Part {
            broker,
            is_of_follower,
            names,
            unheard,
            request: part,
            response: Arc::new(response),
        });
    }

    fn replica_has_failed(
        &mut self,
        replica: &BrokerAddress,
        part: &FetchRequest,
        outcome: Option<Result<FetchResponse, TransportError>>,
    ) {
        let was_silent = outcome.is_none();
        let reason = match outcome {
            None => "it is silent".to_owned(),
            Some(Ok(response)) => format!("error {}", response.error_code),
            Some(Err(error)) => error.to_string(),
        };
        debug!(%replica, reason, "the nearest replica fails; the leader is read");
        for place in places(part) {
            self.rack.rest(self.leader, &place, was_silent);
            self.open.failed.push(place);
        }
    }

    fn take_from_leader(&mut self, response: &FetchResponse, may_redirect: bool) {
        for (topic, data) in response.partitions() {
            let place = (topic.clone(), data.partition_index);
            if may_redirect && is_redirect(data) {
                self.open.redirected.push((place, data.preferred_read_replica));
                continue;
            }
            if data.error_code != 0 {
                self.rack.forget(self.leader, &place);
            }
            self.found.insert(place, data.clone());
        }
    }

    /// Gives the partitions that the replica has failed at: its errors are nothing to learn from.
    fn take_from_replica(&mut self, part: &FetchRequest, response: &FetchResponse) -> HashSet<Place> {
        let told = response.partitions();
        let told: HashMap<_, _> = told
            .map(|(topic, data)| ((topic, data.partition_index), data))
            .collect();
        let is_empty = told.values().all(|data| data.records_size_bytes() == 0);
        let mut failed = HashSet::new();
        for (topic, asked) in part.partitions() {
            let place = (topic.clone(), asked.partition);
            let data = told.get(&(topic, asked.partition)).copied();
            let Some(data) = data.filter(|data| is_plain(data)) else {
                failed.insert(place);
                continue;
            };
            if data.records_size_bytes() > 0 {
                self.inner
                    .read()
                    .count_replica_bytes(data.records_size_bytes() as u64);
                self.rack.gave_records(self.leader, &place);
            } else if is_empty || self.is_at_the_end(asked, data) {
                let is_long = self.rack.gave_nothing(self.leader, &place) >= EMPTY_PATIENCE;
                let open = if is_long {
                    &mut self.open.stale
                } else {
                    &mut self.open.empty
                };
                open.push(place.clone());
            }
            self.found.insert(place, data.clone());
        }
        self.open.failed.extend(failed.iter().cloned());
        failed
    }

    /// Whether a replica has nothing, rather than no room for it in its answer.
    fn is_at_the_end(&self, asked: &FetchPartition, data: &PartitionData) -> bool {
        let end = if self.request.isolation_level == READ_COMMITTED {
            data.last_stable_offset
        } else {
            data.high_watermark
        };
        asked.fetch_offset >= end
    }

    /// Asks the replicas that the leader has named.
    async fn follow_redirects(&mut self, may_wait: bool) {
        let redirected = core::mem::take(&mut self.open.redirected);
        if redirected.is_empty() {
            return;
        }
        // A leader that names a replica does not wait.
        self.has_waited = false;
        if redirected
            .iter()
            .any(|(_, node_id)| self.replica(*node_id).is_none())
        {
            // A broker that has come since Metadata was asked for.
            let told = self.inner.described(self.leader, &[]).await;
            if let Err(error) = told {
                debug!(leader = %self.leader, %error, "the address of a replica could not be asked for");
            }
        }
        let mut named = Vec::new();
        for (place, node_id) in redirected {
            if let Some(replica) = self.replica(node_id) {
                debug!(topic = %place.0, partition = place.1, node_id, "the leader names a replica that is nearer");
                self.rack.name(self.leader, &place, replica);
                named.push(place);
            } else {
                self.rack.rest(self.leader, &place, false);
                self.open.failed.push(place);
            }
        }
        if named.is_empty() {
            return;
        }
        let mut asked = self.rack.split(self.leader, &self.part_of(&named));
        // Where there are too many to be remembered.
        asked.retain(|(whom, part)| {
            let is_named = *whom != Whom::LeaderByRack;
            if !is_named {
                self.open.failed.extend(places(part));
            }
            is_named
        });
        let waits = may_wait && asked.len() == 1 && self.found.is_empty();
        let wait_ms = if waits { self.left_ms() } else { 0 };
        self.ask_all(asked, wait_ms).await;
    }

    /// `None` also of the leader itself, which would name itself again.
    fn replica(&self, node_id: i32) -> Option<BrokerAddress> {
        let replica = self.inner.catalogue.broker(node_id);
        replica.filter(|replica| replica != self.leader)
    }

    /// Asks the leader for what replicas have failed to give; and what they do not have, unless others bring enough.
    async fn ask_leader_for_the_rest(&mut self) {
        let Open {
            failed, empty, stale, ..
        } = core::mem::take(&mut self.open);
        let mut nothing = stale;
        if !self.is_enough() {
            nothing.extend(empty);
        }
        let is_down = self.failure.is_some() || self.refusal.is_some();
        if is_down || (failed.is_empty() && nothing.is_empty()) {
            return;
        }
        // What was waited for already is not waited for again.
        let waits = nothing.is_empty() && self.found.is_empty();
        let wait_ms = if waits { self.left_ms() } else { 0 };
        let rest: Vec<Place> = failed.iter().chain(&nothing).cloned().collect();
        self.ask_all(vec![(Whom::Leader, self.part_of(&rest))], wait_ms)
            .await;
        if self.failure.is_some() || self.refusal.is_some() {
            return;
        }
        for place in &failed {
            // It was the replica's error, and not what the leader says, too.
            if self.found.get(place).is_some_and(|data| data.error_code == 0) {
                self.rack.rest(self.leader, place, false);
            }
        }
        for place in &nothing {
            let has_records = self
                .found
                .get(place)
                .is_some_and(|data| data.records_size_bytes() > 0);
            self.rack.leader_has(self.leader, place, has_records);
        }
    }

    /// Waits until anyone has something, where all have been asked and nobody has enough.
    async fn wait_for_any(&mut self) {
        let wait_ms = self.left_ms();
        if wait_ms == 0 {
            return;
        }
        let asked = self.rack.split(self.leader, self.request);
        let waiting: Vec<_> = asked
            .into_iter()
            .map(|(whom, part)| Box::pin(self.ask(whom, part, wait_ms)))
            .collect();
        if waiting.is_empty() {
            return;
        }
        let (first, _, others) = select_all(waiting).await;
        drop(others);
        self.take(first);
        // Who is named now is asked the next time.
        let redirected = core::mem::take(&mut self.open.redirected);
        for (place, node_id) in redirected {
            if let Some(replica) = self.replica(node_id) {
                self.rack.name(self.leader, &place, replica);
            }
        }
        self.ask_leader_for_the_rest().await;
    }

    fn part_of(&self, kept: &[Place]) -> FetchRequest {
        let kept: HashSet<(&TopicRef, i32)> = kept
            .iter()
            .map(|(topic, partition)| (topic, *partition))
            .collect();
        restricted(self.request, |topic, asked| {
            kept.contains(&(topic, asked.partition))
        })
    }

    fn finish(self) -> Brought {
        let has_records = self.found.values().any(|data| data.records_size_bytes() > 0);
        let is_whole = || places(self.request).all(|place| self.found.contains_key(&place));
        let outcome = match (self.refusal, self.failure, self.parts.as_slice()) {
            (Some(refusal), _, _) => Ok(refusal),
            (None, None, [whole]) => Ok(Arc::clone(&whole.response)),
            // What replicas have given is not lost with the leader.
            (None, Some(error), _) if !has_records || !is_whole() => Err(error),
            (None, _, parts) => Ok(Arc::new(assembled(self.request, self.found, parts))),
        };
        Brought {
            outcome,
            parts: self.parts,
        }
    }
}

/// Whether a leader names a replica in place of records.
fn is_redirect(data: &PartitionData) -> bool {
    data.error_code == 0 && data.preferred_read_replica >= 0 && data.records_size_bytes() == 0
}

fn is_plain(data: &PartitionData) -> bool {
    data.error_code == 0 && data.diverging_epoch.is_none()
}

fn places(request: &FetchRequest) -> impl Iterator<Item = Place> {
    let partitions = request.partitions();
    partitions.map(|(topic, asked)| (topic.clone(), asked.partition))
}
