//! Asks upstream whether what is cached still stands (H4, H6, H7): one Metadata, and for each leader two
//! ListOffsets and one OffsetForLeaderEpoch, for all partitions of a request together.
//!
//! Nothing here fails a fetch: what cannot be validated is a miss, and upstream gives the error if there is one.

use core::time::Duration;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use kachet_core::cache::{Doubtful, EpochEnd, Evidence};
use kachet_core::identity::PartitionKey;
use kachet_core::storage::Storage;
use kachet_core::time::Instant;
use kachet_core::wire::{FetchRequest, TopicId, TopicRef, WireStr};
use tokio::time::Instant as Deadline;
use tracing::{debug, instrument};

use super::names::stands_for;
use super::single_flight::runtime::spawn;
use super::single_flight::{Open, Table, Turn};
use super::{Inner, patience};
use crate::cluster::{
    EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, PartitionEpoch, PartitionName, TopicMetadata, Topology, code,
    compacted_topics, epoch_ends, list_offsets,
};
use crate::transport::{BrokerAddress, Transport, TransportError};

const READ_UNCOMMITTED: i8 = 0;
/// How long a topic's clean-up policy is taken to stay what it was.
const POLICY_LIFETIME: Duration = Duration::from_secs(30);

/// So many requests for the ends of older epochs are under way to one leader at once.
const EPOCH_REQUESTS_AT_ONCE: usize = 8;

/// How long a background validation waits before the next may begin after it failed.
const BACKGROUND_PAUSE: Duration = Duration::from_millis(100);

/// What is being asked of brokers, by what it is about, so that of several callers who need an answer one asks.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Whether what is cached of a partition still stands.
    partitions: Arc<Table<PartitionKey, ()>>,
    /// Partitions that could lately not be validated in the background.
    resting: Arc<Table<PartitionKey, ()>>,
    /// Which id a topic has.
    pub(super) names: Arc<Table<WireStr, ()>>,
    /// Whether a topic is compacted.
    policies: Arc<Table<TopicId, ()>>,
    /// By id: a topic that is created anew under a name may have another policy.
    known_policies: Mutex<HashMap<TopicId, (bool, Instant)>>,
}

impl Questions {
    /// Whether topics are compacted, and since when that is known.
    fn known_policies(&self, now: Instant) -> MutexGuard<'_, HashMap<TopicId, (bool, Instant)>> {
        let known = self.known_policies.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, known_at)| now.since(*known_at) < POLICY_LIFETIME);
        known
    }
}

pub(super) fn needed<K: Clone>(key: K) -> Open<K, K> {
    Open {
        question: key.clone(),
        key,
        is_needed: true,
    }
}

/// A doubtful partition, the leader to ask, and what Metadata says of it.
struct Question {
    doubtful: Doubtful,
    topic_name: WireStr,
    leader_epoch: i32,
}

impl Question {
    fn partition(&self) -> PartitionName {
        (self.topic_name.clone(), self.doubtful.key.partition)
    }

    /// How far the log still holds what is cached.
    fn cached_epoch(&self) -> PartitionEpoch {
        PartitionEpoch {
            partition: self.partition(),
            epoch: self.doubtful.newest_cached_epoch,
        }
    }

    /// The older epochs that are to be asked for: those that may have ended elsewhere in this leader's log.
    fn older_epochs(&self) -> impl Iterator<Item = PartitionEpoch> {
        let older = self.doubtful.older_epochs.iter().copied();
        let older = older.filter(|epoch| self.leader_epoch < 0 || *epoch < self.leader_epoch);
        older.map(|epoch| PartitionEpoch {
            partition: self.partition(),
            epoch,
        })
    }
}

impl<T: Transport, S: Storage + 'static> Inner<T, S> {
    /// Validates what the request would hit and what is due: before this returns where hits have to wait for it,
    /// otherwise in the background. Of several callers who need the same partition one asks; those who need others
    /// ask beside it.
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
            return self.validate_in_background(broker, request, arrived_at);
        }
        let open = || {
            let doubtful = self.read().doubtful(request, arrived_at);
            let open = doubtful.into_iter().map(|each| Open {
                key: each.key,
                is_needed: each.blocks_hits,
                question: each,
            });
            open.collect()
        };
        let max_staleness = self.read().settings().max_staleness;
        let will_do = |began_at| max_staleness.allows(began_at, arrived_at);
        let ask = async |doubtful| {
            if let Err(error) = self.validate(broker, doubtful).await {
                debug!(%broker, %error, "cached partitions could not be validated");
            }
        };
        // Boxed, so that hits do not carry the room that it takes.
        Box::pin(self.questions.partitions.ask(|| self.turn(), open, will_do, ask)).await;
    }

    /// What others are validating comes up again with the next hit, should they fail.
    fn validate_in_background(
        self: &Arc<Self>,
        broker: &BrokerAddress,
        request: &FetchRequest,
        arrived_at: Instant,
    ) {
        let open = || {
            let doubtful = self.read().doubtful(request, arrived_at);
            let resting = self.questions.resting.board();
            let open = doubtful
                .into_iter()
                .filter(|each| resting.flight(&each.key).is_none());
            open.map(|each| Open {
                key: each.key,
                is_needed: true,
                question: each,
            })
            .collect()
        };
        let Some((departure, doubtful)) = self.questions.partitions.take(self.turn(), open) else {
            return;
        };
        let (inner, broker) = (Arc::clone(self), broker.clone());
        spawn(async move {
            let keys = doubtful.iter().map(|each| each.key).collect();
            let Err(error) = inner.validate(&broker, doubtful).await else {
                return departure.land(());
            };
            debug!(%broker, %error, "cached partitions could not be validated in the background");
            // At rest before they are off the table, so that nobody begins in between.
            let overdue_at = Deadline::now() + BACKGROUND_PAUSE;
            let rest = inner
                .questions
                .resting
                .board()
                .depart(keys, inner.now(), overdue_at);
            departure.land(());
            tokio::time::sleep_until(overdue_at).await;
            rest.land(());
        });
    }

    /// The questions of one round count as lost after as long as one of them may take: whoever waits has better asked
    /// for the data itself by then.
    pub(super) fn turn(&self) -> Turn {
        Turn {
            began_at: self.now(),
            overdue_at: Deadline::now() + patience::of_flights(&self.transport, 0),
        }
    }

    #[instrument(level = "debug", name = "revalidate", skip_all, fields(%broker, partitions = doubtful.len()))]
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
            let topology = self.described(broker, &topics).await?;
            for each in doubtful {
                self.route(each, &topology, asked_at, &mut by_leader);
            }
        }
        let asked_of = by_leader
            .values()
            .flatten()
            .map(|question| (question.doubtful.key.topic_id, question.topic_name.clone()));
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
        topics: BTreeMap<TopicId, WireStr>,
        asked_at: Instant,
    ) -> BTreeMap<TopicId, bool> {
        let open = || {
            let known = self.questions.known_policies(asked_at);
            let unknown = topics.iter().filter(|(id, _)| !known.contains_key(*id));
            let open = unknown.map(|(id, name)| Open {
                key: *id,
                question: (*id, name.clone()),
                is_needed: true,
            });
            open.collect()
        };
        let ask = |unknown| self.ask_policies(broker, unknown, asked_at);
        self.questions
            .policies
            .ask(|| self.turn(), open, |_| true, ask)
            .await;
        let known = self.questions.known_policies(asked_at);
        let policy = |id: TopicId| known.get(&id).map(|(is_compacted, _)| (id, *is_compacted));
        topics.into_keys().filter_map(policy).collect()
    }

    async fn ask_policies(
        &self,
        broker: &BrokerAddress,
        unknown: Vec<(TopicId, WireStr)>,
        asked_at: Instant,
    ) {
        let told = match self.told_policies(broker, &unknown).await {
            Ok(told) => told,
            Err(error) => {
                debug!(%broker, %error, "clean-up policies could not be asked for");
                unknown.into_iter().map(|(id, _)| (id, true)).collect()
            }
        };
        let mut known = self.questions.known_policies(asked_at);
        for (id, is_compacted) in told {
            known.insert(id, (is_compacted, asked_at));
        }
    }

    /// What a broker says of topics by name, of those that are called so before and after (H6). A policy that it does not
    /// tell counts as compacted.
    async fn told_policies(
        &self,
        broker: &BrokerAddress,
        topics: &[(TopicId, WireStr)],
    ) -> Result<Vec<(TopicId, bool)>, TransportError> {
        let names: Vec<WireStr> = topics.iter().map(|(_, name)| name.clone()).collect();
        let asked: Vec<TopicRef> = names.iter().cloned().map(TopicRef::Name).collect();
        let is_told = |(id, name): &&(TopicId, WireStr)| self.told_names.by(broker, name) == Some(*id);
        if !topics.iter().all(|topic| is_told(&topic)) {
            self.described(broker, &asked).await?;
        }
        let before: Vec<_> = topics.iter().filter(is_told).collect();
        let told = compacted_topics(&self.transport, broker, &names).await?;
        let after = self.described(broker, &asked).await?;
        let certain = before
            .into_iter()
            .filter(|(id, name)| stands_for(&after, name, *id));
        Ok(certain
            .map(|(id, name)| (*id, told.get(name).copied().unwrap_or(true)))
            .collect())
    }

    async fn ask_leader(
        &self,
        leader: &BrokerAddress,
        questions: &[Question],
        compacted: &BTreeMap<TopicId, bool>,
        asked_at: Instant,
    ) -> Result<(), TransportError> {
        // Leaders are asked by name, so what it stands for has to be known from before and after, by the same leader (H6).
        let mut names: Vec<_> = questions
            .iter()
            .map(|each| TopicRef::Name(each.topic_name.clone()))
            .collect();
        names.sort();
        names.dedup();
        let is_told = |each: &Question| {
            let told = self.told_names.by(leader, &each.topic_name);
            told == Some(each.doubtful.key.topic_id)
        };
        if !questions.iter().all(is_told) {
            self.described(leader, &names).await?;
        }
        let are_told: Vec<bool> = questions.iter().map(is_told).collect();
        let partitions: Vec<_> = questions.iter().map(Question::partition).collect();
        let cached: Vec<_> = questions.iter().map(Question::cached_epoch).collect();
        let (earliest, latest, ends, older_ends) = tokio::try_join!(
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
            epoch_ends(&self.transport, leader, &cached),
            self.older_epoch_ends(leader, questions),
        )?;
        let confirmed_at = self.now();
        let topology = self.described(leader, &names).await?;
        self.learn_names(&topology, confirmed_at);
        for (question, is_told) in questions.iter().zip(are_told) {
            let (partition, topic_id) = (question.partition(), question.doubtful.key.topic_id);
            if !is_told || !stands_for(&topology, &question.topic_name, topic_id) {
                debug!(%leader, topic = %partition.0, "created anew while it was asked about");
                continue;
            }
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
                is_compacted: compacted.get(&topic_id).copied().unwrap_or(true),
                epoch_end: *epoch_end,
                older_epoch_ends: older_ends.get(&partition).cloned().unwrap_or_default(),
            };
            self.write().validate(&question.doubtful, &evidence, asked_at);
        }
        Ok(())
    }

    /// Where the older epochs of each partition have ended. A request can ask for one epoch of a partition, since answers
    /// do not name it; so there are as many requests as there are such epochs, mostly one or none.
    async fn older_epoch_ends(
        &self,
        leader: &BrokerAddress,
        questions: &[Question],
    ) -> Result<BTreeMap<PartitionName, Vec<(i32, EpochEnd)>>, TransportError> {
        let mut rounds: Vec<Vec<PartitionEpoch>> = Vec::new();
        for question in questions {
            for (round, epoch) in question.older_epochs().enumerate() {
                if round == rounds.len() {
                    rounds.push(Vec::new());
                }
                if let Some(round) = rounds.get_mut(round) {
                    round.push(epoch);
                }
            }
        }
        let asked = rounds.into_iter().map(async |epochs| {
            let ends = epoch_ends(&self.transport, leader, &epochs).await?;
            Ok((epochs, ends))
        });
        let mut answers = stream::iter(asked).buffered(EPOCH_REQUESTS_AT_ONCE);
        let mut older_ends: BTreeMap<PartitionName, Vec<(i32, EpochEnd)>> = BTreeMap::new();
        while let Some((epochs, ends)) = answers.try_next().await? {
            for PartitionEpoch { partition, epoch } in epochs {
                if let Some(Ok(end)) = ends.get(&partition) {
                    older_ends.entry(partition).or_default().push((epoch, *end));
                }
            }
        }
        Ok(older_ends)
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
