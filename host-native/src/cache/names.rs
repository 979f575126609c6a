//! Which topics the names in requests stand for.
//!
//! Brokers hear of changes one after the other, so one may still answer for a topic of which another says that it was
//! created anew. What came by name is therefore identified by what the broker that gave it said itself, before and
//! after (H6).

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kachet_core::cache::Harvest;
use kachet_core::storage::Storage;
use kachet_core::time::Instant;
use kachet_core::wire::{FetchRequest, TopicId, TopicRef, WireStr};
use tracing::{debug, warn};

use super::Inner;
use super::revalidate::needed;
use crate::cluster::{Topology, answers_topic_ids, code, describe};
use crate::transport::{BrokerAddress, Transport, TransportError};

/// Names that are remembered at most, over all brokers; each is told again with the next answer.
const TOLD_LIMIT: usize = 64 * 1024;

/// What each broker said last that a name stands for.
#[derive(Debug, Default)]
pub(super) struct ToldNames(Mutex<HashMap<(BrokerAddress, WireStr), TopicId>>);

impl ToldNames {
    pub(super) fn by(&self, broker: &BrokerAddress, name: &WireStr) -> Option<TopicId> {
        self.lock().get(&(broker.clone(), name.clone())).copied()
    }

    /// The names of a request with what the broker said of them.
    pub(super) fn of_request(
        &self,
        broker: &BrokerAddress,
        request: &FetchRequest,
    ) -> Vec<(WireStr, TopicId)> {
        let told = request.topics.iter().filter_map(|topic| match &topic.topic {
            TopicRef::Name(name) => Some((name.clone(), self.by(broker, name)?)),
            TopicRef::Id(_) => None,
        });
        told.collect()
    }

    fn note(&self, broker: &BrokerAddress, topology: &Topology) {
        let mut told = self.lock();
        for topic in &topology.topics {
            let Some(name) = &topic.name else { continue };
            let key = (broker.clone(), name.detached());
            if topic.error_code != 0 || topic.topic_id.is_zero() {
                told.remove(&key);
                continue;
            }
            if told.len() >= TOLD_LIMIT && !told.contains_key(&key) {
                told.clear();
            }
            told.insert(key, topic.topic_id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(BrokerAddress, WireStr), TopicId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a topic of this name has this id, and no other.
pub(super) fn stands_for(topology: &Topology, name: &WireStr, topic_id: TopicId) -> bool {
    let mut topics = topology.topics.iter();
    topics
        .any(|topic| topic.error_code == 0 && topic.name.as_ref() == Some(name) && topic.topic_id == topic_id)
}

/// Whether a request names its topics.
pub(super) fn is_by_name(request: &FetchRequest) -> bool {
    let mut topics = request.topics.iter();
    topics.any(|topic| matches!(topic.topic, TopicRef::Name(_)))
}

impl<T: Transport, S: Storage + 'static> Inner<T, S> {
    /// Learns the ids of topics that a request names. A name whose id cannot be had is not cached.
    pub(super) async fn resolve_names(
        &self,
        broker: &BrokerAddress,
        request: &FetchRequest,
        arrived_at: Instant,
    ) {
        let unresolved = || {
            let topics = request.topics.iter().map(|topic| &topic.topic);
            self.read().unresolved_names(topics, arrived_at)
        };
        if unresolved().is_empty() || !self.knows_ids() {
            return;
        }
        let open = || unresolved().into_iter().map(needed).collect();
        let max_staleness = self.read().settings().max_staleness;
        let will_do = |began_at| max_staleness.allows(began_at, arrived_at);
        let ask = |names| self.ask_names(broker, names);
        // Boxed, so that hits do not carry the room that it takes.
        Box::pin(self.questions.names.ask(|| self.turn(), open, will_do, ask)).await;
    }

    async fn ask_names(&self, broker: &BrokerAddress, names: Vec<WireStr>) {
        match answers_topic_ids(&self.transport, broker).await {
            Ok(true) => {}
            Ok(false) => {
                self.lacks_topic_ids.store(true, Ordering::Relaxed);
                warn!(%broker, "the broker is older than Kafka 2.8 and knows no topic ids; nothing is cached");
                return;
            }
            Err(error) => return debug!(%broker, %error, "topic ids could not be asked for"),
        }
        let asked_at = self.now();
        let names: Vec<TopicRef> = names.into_iter().map(TopicRef::Name).collect();
        match self.described(broker, &names).await {
            Ok(topology) => self.learn_names(&topology, asked_at),
            Err(error) => debug!(%broker, %error, "topic ids could not be learned"),
        }
    }

    /// Gives those harvests their topics whose names still stand for the same ids as before the fetch was sent, by the
    /// broker that answered it (H6). The others are not kept.
    pub(super) async fn identify_harvests(
        &self,
        broker: &BrokerAddress,
        before: &[(WireStr, TopicId)],
        harvests: &mut [Harvest],
    ) {
        let mut names: Vec<TopicRef> = harvests.iter().map(|each| each.topic().clone()).collect();
        names.sort();
        names.dedup();
        let asked_at = self.now();
        let topology = match self.described(broker, &names).await {
            Ok(topology) => topology,
            Err(error) => {
                return debug!(%broker, %error, "what a fetch by name brought could not be identified");
            }
        };
        self.learn_names(&topology, asked_at);
        for harvest in harvests {
            let TopicRef::Name(of) = harvest.topic() else {
                continue;
            };
            let id = before.iter().find(|(name, _)| name == of).map(|(_, id)| *id);
            if let Some(id) = id.filter(|id| stands_for(&topology, of, *id)) {
                harvest.identify(id);
            }
        }
    }

    /// Whether what comes by name can be identified at all.
    pub(super) fn knows_ids(&self) -> bool {
        !self.lacks_topic_ids.load(Ordering::Relaxed)
    }

    /// What a broker says of topics, with a note of the ids that it gave.
    pub(super) async fn described(
        &self,
        broker: &BrokerAddress,
        topics: &[TopicRef],
    ) -> Result<Topology, TransportError> {
        let topology = describe(&self.transport, broker, topics).await?;
        self.identify(topology.cluster_id.as_ref());
        self.catalogue.learn(broker, &topology);
        // Whoever knows an id need not have heard yet that its name stands for it.
        if topics.iter().all(|topic| matches!(topic, TopicRef::Name(_))) {
            self.told_names.note(broker, &topology);
        }
        Ok(topology)
    }

    pub(super) fn learn_names(&self, topology: &Topology, asked_at: Instant) {
        let mut core = self.write();
        for topic in &topology.topics {
            match (&topic.name, topic.error_code) {
                (Some(name), 0) => core.learn_topic(name, topic.topic_id, asked_at),
                (Some(name), code::UNKNOWN_TOPIC_OR_PARTITION) => core.forget_name(name),
                _ => {}
            }
        }
    }
}
