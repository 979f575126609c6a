//! Asks upstream whether what is cached still stands (H4, H6, H7): one Metadata, and for each leader two
//! ListOffsets and one OffsetForLeaderEpoch, for all partitions of a request together.
//!
//! Nothing here fails a fetch: what cannot be validated is a miss, and upstream gives the error if there is one.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use kachet_core::cache::{Doubtful, Evidence};
use kachet_core::storage::Storage;
use kachet_core::time::Instant;
use kachet_core::wire::{FetchRequest, TopicRef, WireStr};
use tracing::{debug, warn};

use super::{BACKGROUND_PAUSE, Inner};
use crate::cluster::{
    EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, PartitionEpoch, TopicMetadata, Topology, answers_topic_ids, code,
    compacted_topics, describe, epoch_ends, list_offsets,
};
use crate::transport::{BrokerAddress, Transport, TransportError};

const READ_UNCOMMITTED: i8 = 0;
/// How long a topic's clean-up policy is taken to stay what it was.
const POLICY_LIFETIME: Duration = Duration::from_secs(30);

/// A doubtful partition, the leader to ask, and what Metadata says of it.
struct Question {
    doubtful: Doubtful,
    topic_name: WireStr,
    leader_epoch: i32,
}

impl<T: Transport, S: Storage + 'static> Inner<T, S> {
    /// Learns the ids of topics that a request names. A name whose id cannot be had is not cached.
    pub(super) async fn resolve_names(
        &self,
        broker: &BrokerAddress,
        request: &FetchRequest,
        arrived_at: Instant,
    ) {
        let topics = request.topics.iter().map(|topic| &topic.topic);
        let names = self.read().unresolved_names(topics, arrived_at);
        if names.is_empty() || self.lacks_topic_ids.load(Ordering::Relaxed) {
            return;
        }
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
        match describe(&self.transport, broker, &names).await {
            Ok(topology) => self.learn_names(&topology, asked_at),
            Err(error) => debug!(%broker, %error, "topic ids could not be learned"),
        }
    }

    fn learn_names(&self, topology: &Topology, asked_at: Instant) {
        self.identify(topology.cluster_id.as_ref());
        let mut core = self.write();
        for topic in &topology.topics {
            match (&topic.name, topic.error_code) {
                (Some(name), 0) => core.learn_topic(name, topic.topic_id, asked_at),
                (Some(name), code::UNKNOWN_TOPIC_OR_PARTITION) => core.forget_name(name),
                _ => {}
            }
        }
    }

    /// Validates what the request would hit and what is due: before this returns where hits have to wait for it,
    /// otherwise in the background.
    pub(super) async fn revalidate(
        self: &Arc<Self>,
        broker: &BrokerAddress,
        request: &FetchRequest,
        arrived_at: Instant,
    ) {
        let doubtful = self.read().doubtful(request, arrived_at);
        if doubtful.is_empty() {
            return;
        }
        if !doubtful.iter().any(|each| each.blocks_hits) {
            return self.validate_in_background(broker.clone(), doubtful);
        }
        let _one_at_a_time = self.validation.lock().await;
        // Whoever held the lock may have asked for the same partitions.
        let doubtful = self.read().doubtful(request, arrived_at);
        if doubtful.iter().any(|each| each.blocks_hits)
            && let Err(error) = self.validate(broker, doubtful).await
        {
            debug!(%broker, %error, "cached partitions could not be validated");
        }
    }

    fn validate_in_background(self: &Arc<Self>, broker: BrokerAddress, doubtful: Vec<Doubtful>) {
        // Whoever holds the lock is validating; what is left over comes up again with the next hit.
        let Ok(one_at_a_time) = Arc::clone(&self.validation).try_lock_owned() else {
            return;
        };
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = inner.validate(&broker, doubtful).await {
                debug!(%broker, %error, "cached partitions could not be validated in the background");
                tokio::time::sleep(BACKGROUND_PAUSE).await;
            }
            drop(one_at_a_time);
        });
    }

    async fn validate(&self, broker: &BrokerAddress, doubtful: Vec<Doubtful>) -> Result<(), TransportError> {
        let asked_at = self.now();
        let (named, unnamed): (Vec<_>, Vec<_>) =
            doubtful.into_iter().partition(|each| each.topic_name.is_some());
        let mut by_leader = BTreeMap::new();
        for doubtful in [named, unnamed] {
            if doubtful.is_empty() {
                continue;
            }
            let mut topics: Vec<TopicRef> = doubtful.iter().map(topic_ref).collect();
            topics.sort();
            topics.dedup();
            let topology = describe(&self.transport, broker, &topics).await?;
            self.identify(topology.cluster_id.as_ref());
            for each in doubtful {
                self.route(each, &topology, asked_at, &mut by_leader);
            }
        }
        let asked_of = by_leader
            .values()
            .flatten()
            .map(|question| question.topic_name.clone());
        let compacted = &self.compacted_topics(broker, asked_of.collect(), asked_at).await;
        let answers = by_leader
            .iter()
            .map(|(leader, questions)| self.ask_leader(leader, questions, compacted, asked_at));
        join_all(answers).await.into_iter().collect()
    }

    /// Finds the leader to ask about a partition; drops the partition if its topic is gone.
    fn route(
        &self,
        doubtful: Doubtful,
        topology: &Topology,
        asked_at: Instant,
        by_leader: &mut BTreeMap<BrokerAddress, Vec<Question>>,
    ) {
        let Some(topic) = topology.topics.iter().find(|topic| is_meant(topic, &doubtful)) else {
            return;
        };
        match topic.error_code {
            0 => {}
            code::UNKNOWN_TOPIC_OR_PARTITION | code::UNKNOWN_TOPIC_ID => {
                return self.write().forget_topic(doubtful.key.topic_id);
            }
            _ => return,
        }
        let Some(topic_name) = topic.name.clone() else {
            return;
        };
        self.write().learn_topic(&topic_name, topic.topic_id, asked_at);
        if topic.topic_id != doubtful.key.topic_id {
            // Deleted, and created again under the same name.
            return self.write().forget_topic(doubtful.key.topic_id);
        }
        let Some(partition) = topic.partitions.get(&doubtful.key.partition) else {
            return self.write().forget_partition(doubtful.key);
        };
        if let Some(leader) = topology.brokers.get(&partition.leader_id) {
            let question = Question {
                doubtful,
                topic_name,
                leader_epoch: partition.leader_epoch,
            };
            by_leader.entry(leader.clone()).or_default().push(question);
        }
    }

    /// Which topics the cleaner may rewrite. Settings change rarely, so each answer serves for a while; a topic of
    /// which no broker tells counts as compacted.
    async fn compacted_topics(
        &self,
        broker: &BrokerAddress,
        names: BTreeSet<WireStr>,
        asked_at: Instant,
    ) -> BTreeMap<WireStr, bool> {
        let mut policies = self.policies.lock().await;
        policies.retain(|_, (_, known_at)| asked_at.since(*known_at) < POLICY_LIFETIME);
        let unknown: Vec<WireStr> = names
            .iter()
            .filter(|name| !policies.contains_key(*name))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            let told = match compacted_topics(&self.transport, broker, &unknown).await {
                Ok(told) => told,
                Err(error) => {
                    debug!(%broker, %error, "clean-up policies could not be asked for");
                    BTreeMap::new()
                }
            };
            for name in unknown {
                let is_compacted = told.get(&name).copied().unwrap_or(true);
                policies.insert(name, (is_compacted, asked_at));
            }
        }
        let known = |name: WireStr| policies.get(&name).map(|(is_compacted, _)| (name, *is_compacted));
        names.into_iter().filter_map(known).collect()
    }

    async fn ask_leader(
        &self,
        leader: &BrokerAddress,
        questions: &[Question],
        compacted: &BTreeMap<WireStr, bool>,
        asked_at: Instant,
    ) -> Result<(), TransportError> {
        let name = |each: &Question| (each.topic_name.clone(), each.doubtful.key.partition);
        let partitions: Vec<_> = questions.iter().map(name).collect();
        let epochs: Vec<_> = questions
            .iter()
            .map(|each| PartitionEpoch {
                partition: name(each),
                epoch: each.doubtful.newest_cached_epoch,
            })
            .collect();
        let (earliest, latest, ends) = tokio::try_join!(
            list_offsets(
                &self.transport,
                leader,
                &partitions,
                EARLIEST_TIMESTAMP,
                READ_UNCOMMITTED
            ),
            list_offsets(
                &self.transport,
                leader,
                &partitions,
                LATEST_TIMESTAMP,
                READ_UNCOMMITTED
            ),
            epoch_ends(&self.transport, leader, &epochs),
        )?;
        for question in questions {
            let partition = name(question);
            let (Some(Ok(earliest)), Some(Ok(latest)), Some(Ok(epoch_end))) = (
                earliest.get(&partition),
                latest.get(&partition),
                ends.get(&partition),
            ) else {
                // The leader has moved, or is not ready: the partition stays in doubt.
                debug!(%leader, topic = %partition.0, partition = partition.1, "not validated by its leader");
                continue;
            };
            let evidence = Evidence {
                leader_epoch: question.leader_epoch,
                log_start_offset: earliest.offset,
                high_watermark: latest.offset,
                is_compacted: compacted.get(&question.topic_name).copied().unwrap_or(true),
                epoch_end: *epoch_end,
            };
            self.write().validate(&question.doubtful, &evidence, asked_at);
        }
        Ok(())
    }
}

fn topic_ref(doubtful: &Doubtful) -> TopicRef {
    let by_id = || TopicRef::Id(doubtful.key.topic_id);
    doubtful.topic_name.clone().map_or_else(by_id, TopicRef::Name)
}

fn is_meant(topic: &TopicMetadata, doubtful: &Doubtful) -> bool {
    match &doubtful.topic_name {
        Some(name) => topic.name.as_ref() == Some(name),
        None => topic.topic_id == doubtful.key.topic_id,
    }
}
