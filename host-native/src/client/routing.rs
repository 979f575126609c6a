//! Finds the leader of a partition, and finds it again when it has moved.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use kachet_core::wire::{TopicId, TopicRef, WireStr};
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::{Answer, Client, ClientError, RETRY_PAUSE};
use crate::cluster::{Nearest, NearestReplicas, TopicMetadata, Topology, code, describe};
use crate::transport::{BrokerAddress, Transport, TransportError};

/// Topics whose leaders are remembered at most.
const TOPICS_LIMIT: usize = 4096;

/// Where a partition is read.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) topic_name: WireStr,
    /// Zero if the cluster is older than topic ids.
    pub(super) topic_id: TopicId,
    pub(super) leader: BrokerAddress,
}

/// What is known of the cluster.
#[derive(Debug)]
pub(super) struct Routing {
    bootstrap: Vec<BrokerAddress>,
    /// Which bootstrap broker is asked first: the last that answered.
    preferred: AtomicUsize,
    known: RwLock<Known>,
    /// Held while the cluster is asked, so that many readers of a topic share one answer.
    learning: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    brokers: BTreeMap<i32, BrokerAddress>,
    topics: HashMap<String, Topic>,
}

#[derive(Debug)]
struct Topic {
    name: WireStr,
    id: TopicId,
    /// By partition; `None` for one that has no leader for the moment.
    leaders: HashMap<i32, Option<BrokerAddress>>,
    /// By partition; those of which a leader has named a replica that is nearer to this client.
    nearest: NearestReplicas<i32>,
}

impl Routing {
    pub(super) fn new(bootstrap: Vec<BrokerAddress>) -> Self {
        Self {
            bootstrap,
            preferred: AtomicUsize::new(0),
            known: RwLock::default(),
            learning: tokio::sync::Mutex::default(),
        }
    }

    /// The partition's leader, if the topic is known. `Ok(None)` if it has none, an error if the topic has no
    /// such partition.
    fn route(&self, topic: &str, partition: i32) -> Option<Result<Option<Route>, ClientError>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.topics.get(topic)?;
        let Some(leader) = found.leaders.get(&partition) else {
            let (topic, count) = (topic.to_owned(), found.leaders.len());
            return Some(Err(ClientError::UnknownPartition {
                topic,
                partition,
                count,
            }));
        };
        let route = |leader: &BrokerAddress| Route {
            topic_name: found.name.clone(),
            topic_id: found.id,
            leader: leader.clone(),
        };
        Some(Ok(leader.as_ref().map(route)))
    }

    /// Whether any broker has ever told of the cluster.
    fn has_answered(&self) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        !known.brokers.is_empty()
    }

    fn forget(&self, topic: &str) {
        self.known
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .topics
            .remove(topic);
    }

    fn learn(&self, topology: &Topology, topic: &TopicMetadata) {
        let Some(name) = topic.name.clone() else { return };
        let leader_of = |id: &i32| topology.brokers.get(id).cloned();
        let leaders = topic
            .partitions
            .iter()
            .map(|(index, partition)| (*index, leader_of(&partition.leader_id)));
        let found = Topic {
            id: topic.topic_id,
            leaders: leaders.collect(),
            nearest: NearestReplicas::default(),
            name,
        };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.topics.len() >= TOPICS_LIMIT {
            // Rare, and cheap to learn again.
            known.topics.clear();
        }
        known.brokers.clone_from(&topology.brokers);
        known.topics.insert(found.name.as_str().to_owned(), found);
    }

    /// The brokers to ask about the cluster: those given, the one that answered last first, then those that the
    /// cluster has named.
    fn candidates(&self) -> Vec<(Option<usize>, BrokerAddress)> {
        let preferred = self.preferred.load(Ordering::Relaxed);
        let count = self.bootstrap.len();
        let given = (0..count).map(|n| (preferred + n) % count);
        let mut candidates: Vec<_> = given
            .map(|index| (Some(index), self.bootstrap[index].clone()))
            .collect();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        for broker in known.brokers.values() {
            if !candidates.iter().any(|(_, candidate)| candidate == broker) {
                candidates.push((None, broker.clone()));
            }
        }
        candidates
    }

    /// Where a client with a rack reads a partition for now; `None` if the leader has to be asked.
    pub(super) fn nearest(&self, topic: &str, partition: i32) -> Option<Nearest> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.topics.get(topic)?.nearest.of(&partition)
    }

    /// Takes note of the replica that the leader has named, by its node id. Gives its address, if Metadata has told it.
    pub(super) fn redirect(&self, topic: &str, partition: i32, node_id: i32) -> Option<BrokerAddress> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let replica = known.brokers.get(&node_id)?.clone();
        let nearest = &mut known.topics.get_mut(topic)?.nearest;
        nearest.name(partition, replica.clone());
        Some(replica)
    }

    /// The replica has failed: the leader is read for a while.
    pub(super) fn rest_nearest(&self, topic: &str, partition: i32) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = known.topics.get_mut(topic) {
            topic.nearest.rest(partition);
        }
    }

    fn prefer(&self, index: Option<usize>) {
        if let Some(index) = index {
            self.preferred.store(index, Ordering::Relaxed);
        }
    }
}

/// Whether asking again, after finding the leader anew, may help.
fn is_passing(error_code: i16) -> bool {
    matches!(
        error_code,
        code::UNKNOWN_TOPIC_OR_PARTITION
            | code::LEADER_NOT_AVAILABLE
            | code::NOT_LEADER_OR_FOLLOWER
            | code::REPLICA_NOT_AVAILABLE
            | code::KAFKA_STORAGE_ERROR
            | code::FENCED_LEADER_EPOCH
            | code::UNKNOWN_LEADER_EPOCH
            | code::OFFSET_NOT_AVAILABLE
            | code::UNKNOWN_TOPIC_ID
            | code::INCONSISTENT_TOPIC_ID
    )
}

/// Tries of one question to a partition's leader, each to whoever leads by then.
pub(super) struct Attempts<'c, T> {
    client: &'c Client<T>,
    topic: &'c str,
    partition: i32,
    deadline: Instant,
    /// Whether a try has failed, so that what is known of the cluster may be out of date.
    has_failed: bool,
}

impl<T: Transport> Attempts<'_, T> {
    /// Where to ask. Waits while the partition has no leader.
    pub(super) async fn route(&mut self) -> Result<Route, ClientError> {
        loop {
            let route = self
                .client
                .route(self.topic, self.partition, self.has_failed)
                .await;
            let error = match route {
                Ok(Some(route)) => return Ok(route),
                Ok(None) => {
                    let (topic, partition) = (self.topic.to_owned(), self.partition);
                    ClientError::NoLeader { topic, partition }
                }
                // A cluster that has answered before is restarting, or the network has a fault. One that has not is more
                // likely looked for at the wrong place, which is to be said at once.
                Err(ClientError::Transport(error))
                    if self.client.routing.has_answered() && !is_hopeless(&error) =>
                {
                    error.into()
                }
                Err(error) => return Err(error),
            };
            self.pause(error).await?;
        }
    }

    /// The answer, or `None` if it is worth while to ask again.
    pub(super) async fn judge<V>(
        &mut self,
        outcome: Result<Answer<V>, TransportError>,
    ) -> Result<Option<V>, ClientError> {
        let error = match outcome {
            Ok(Answer::Value(value)) => return Ok(Some(value)),
            Ok(Answer::Error(code)) => {
                let error = ClientError::Broker {
                    topic: self.topic.to_owned(),
                    partition: self.partition,
                    code,
                };
                if !is_passing(code) {
                    return Err(error);
                }
                error
            }
            Err(error) if is_hopeless(&error) => return Err(error.into()),
            Err(error) => error.into(),
        };
        self.pause(error).await.map(|()| None)
    }

    /// Waits before the next try; gives the error once there is no time for one.
    async fn pause(&mut self, error: ClientError) -> Result<(), ClientError> {
        if Instant::now() + RETRY_PAUSE >= self.deadline {
            return Err(error);
        }
        debug!(topic = self.topic, partition = self.partition, %error, "asking again");
        self.has_failed = true;
        self.client.routing.forget(self.topic);
        sleep(RETRY_PAUSE).await;
        Ok(())
    }
}

impl<T: Transport> Client<T> {
    /// Tries of one question, until [`ClientSettings::retry_timeout`](super::ClientSettings::retry_timeout).
    pub(super) fn attempts<'c>(&'c self, topic: &'c str, partition: i32) -> Attempts<'c, T> {
        let deadline = Instant::now() + self.settings.retry_timeout;
        Attempts {
            client: self,
            topic,
            partition,
            deadline,
            has_failed: false,
        }
    }

    /// The leader of a partition; `None` if it has none for the moment. Brokers are asked only where the transport does
    /// not know it, or `has_failed`.
    pub(super) async fn route(
        &self,
        topic: &str,
        partition: i32,
        has_failed: bool,
    ) -> Result<Option<Route>, ClientError> {
        if let Some(route) = self.routing.route(topic, partition) {
            return route;
        }
        let unknown = || ClientError::UnknownTopic {
            topic: topic.to_owned(),
        };
        let invalid = || ClientError::InvalidTopicName {
            topic: topic.to_owned(),
        };
        let name = WireStr::copy_from(topic)
            .filter(is_topic_name)
            .ok_or_else(invalid)?;
        let _one_at_a_time = self.routing.learning.lock().await;
        if let Some(route) = self.routing.route(topic, partition) {
            return route;
        }
        let asked = TopicRef::Name(name.clone());
        let known = (!has_failed).then(|| self.known(&asked, partition)).flatten();
        let topology = match known {
            Some(known) => known,
            None => self.describe(asked).await?,
        };
        let found = topology
            .topics
            .iter()
            .find(|each| each.name.as_ref() == Some(&name));
        match found.map(|found| (found, found.error_code)) {
            Some((_, code::UNKNOWN_TOPIC_OR_PARTITION)) | None => Err(unknown()),
            Some((_, code::INVALID_TOPIC)) => Err(invalid()),
            Some((_, code::LEADER_NOT_AVAILABLE)) => Ok(None),
            Some((found, 0)) => {
                self.routing.learn(&topology, found);
                self.routing
                    .route(topic, partition)
                    .unwrap_or_else(|| Err(unknown()))
            }
            Some((_, code)) => Err(ClientError::Broker {
                topic: topic.to_owned(),
                partition,
                code,
            }),
        }
    }

    /// What the transport knows of a topic that has this partition, with its leader.
    fn known(&self, topic: &TopicRef, partition: i32) -> Option<Topology> {
        let topics = core::slice::from_ref(topic);
        let mut candidates = self.routing.candidates().into_iter();
        let known = candidates.find_map(|(_, broker)| self.transport.topology(&broker, topics))?;
        let leader = known.topics.first()?.partitions.get(&partition)?.leader_id;
        known.brokers.contains_key(&leader).then_some(known)
    }

    /// Asks one broker after the other until one answers; the error is that of the first.
    async fn describe(&self, topic: TopicRef) -> Result<Topology, ClientError> {
        let topics = [topic];
        let mut first_error = None;
        for (index, broker) in self.routing.candidates() {
            match describe(&self.transport, &broker, &topics).await {
                Ok(topology) => {
                    self.routing.prefer(index);
                    return Ok(topology);
                }
                Err(error) => {
                    debug!(%broker, %error, "no metadata from this broker");
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.map_or(ClientError::NoBootstrap, ClientError::Transport))
    }
}

/// Errors that another try, to whichever broker, does not mend.
fn is_hopeless(error: &TransportError) -> bool {
    use TransportError as E;
    error.is_refusal()
        || matches!(
            error,
            E::NoCommonVersion { .. } | E::Message { .. } | E::ResponseTooLarge { .. } | E::Fetch { .. }
        )
}

/// Kafka's rule for topic names.
pub(crate) fn is_topic_name(name: &WireStr) -> bool {
    let name = name.as_str();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
}
