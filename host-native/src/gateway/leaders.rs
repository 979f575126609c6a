//! A Fetch of partitions that several brokers lead, which its client cannot know.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::{join_all, select_all};
use kachet_core::wire::{
    FetchRequest, FetchResponse, FetchTopic, FetchableTopic, PartitionData, RecordBytes, TaggedFields,
    TopicRef,
};

use super::problem::Problem;
use crate::cluster::{Topology, code, describe};
use crate::transport::{BrokerAddress, Transport, TransportError, fetch};

/// Topics whose leaders are remembered at most.
const TOPICS_LIMIT: usize = 4_096;
/// How often leaders that have moved are looked for.
const ATTEMPTS: usize = 2;

/// Who leads what, as far as it has been asked for.
#[derive(Debug)]
pub(super) struct Leaders {
    bootstrap: Vec<BrokerAddress>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    brokers: Vec<BrokerAddress>,
    topics: HashMap<TopicRef, BTreeMap<i32, BrokerAddress>>,
}

/// What each broker is asked.
type Parts = BTreeMap<BrokerAddress, FetchRequest>;

impl Leaders {
    pub(super) fn new(bootstrap: Vec<BrokerAddress>) -> Self {
        Self {
            bootstrap,
            known: Mutex::default(),
        }
    }

    // Nothing panics while it holds the lock; if something did, what is known would still be whole.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The brokers to ask about the cluster, those given first.
    pub(super) fn brokers(&self) -> Vec<BrokerAddress> {
        let mut brokers = self.bootstrap.clone();
        for broker in &self.known().brokers {
            if !brokers.contains(broker) {
                brokers.push(broker.clone());
            }
        }
        brokers
    }

    /// Asks the leaders of the partitions, and makes one answer of theirs.
    pub(super) async fn fetch<T: Transport>(
        &self,
        cache: &T,
        version: i16,
        request: FetchRequest,
    ) -> Result<FetchResponse, Problem> {
        if request.topics.is_empty() {
            return Ok(FetchResponse::default());
        }
        let mut attempt = 1;
        loop {
            self.learn(cache, &request).await?;
            let parts = self.split(&request)?;
            let answered = ask(cache, version, parts, &request).await;
            let may_have_moved = match &answered {
                Ok(response) => response.partitions().any(|(_, data)| is_elsewhere(data)),
                Err(_) => true,
            };
            if !may_have_moved {
                return answered.map_err(|error| (&error).into());
            }
            self.forget(&request);
            if attempt == ATTEMPTS {
                return answered.map_err(|error| (&error).into());
            }
            attempt += 1;
        }
    }

    /// Asks for the leaders of topics of which nothing is known.
    async fn learn<T: Transport>(&self, cache: &T, request: &FetchRequest) -> Result<(), Problem> {
        let unknown: Vec<TopicRef> = {
            let known = self.known();
            let topics = request.topics.iter().map(|topic| &topic.topic);
            let unknown = topics.filter(|topic| !is_nothing(topic) && !known.topics.contains_key(topic));
            unknown.map(detached).collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let mut failure = None;
        for broker in self.brokers() {
            match describe(cache, &broker, &unknown).await {
                Ok(topology) => {
                    self.take_in(&topology, &unknown);
                    return Ok(());
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(()), |error| Err((&error).into()))
    }

    fn take_in(&self, topology: &Topology, asked: &[TopicRef]) {
        let mut known = self.known();
        known.brokers = topology.brokers.values().cloned().collect();
        if known.topics.len().saturating_add(asked.len()) > TOPICS_LIMIT {
            // Rare, and cheap to learn again.
            known.topics.clear();
        }
        for topic in topology.topics.iter().filter(|topic| topic.error_code == 0) {
            let is_it = |asked: &&TopicRef| match asked {
                TopicRef::Name(name) => topic.name.as_ref() == Some(name),
                TopicRef::Id(id) => *id == topic.topic_id,
            };
            let Some(asked) = asked.iter().find(is_it) else {
                continue;
            };
            let leader = |id: &i32| topology.brokers.get(id).cloned();
            let leaders = topic
                .partitions
                .iter()
                .filter_map(|(index, partition)| Some((*index, leader(&partition.leader_id)?)));
            let leaders = leaders.collect();
            if known.topics.len() < TOPICS_LIMIT {
                known.topics.insert(asked.clone(), leaders);
            }
        }
    }

    fn forget(&self, request: &FetchRequest) {
        let mut known = self.known();
        for topic in &request.topics {
            known.topics.remove(&topic.topic);
        }
    }

    /// What has no leader, and what does not exist, any broker answers as it should.
    fn split(&self, request: &FetchRequest) -> Result<Parts, Problem> {
        let any = self.brokers().into_iter().next();
        let known = self.known();
        let mut parts = Parts::new();
        for topic in &request.topics {
            let leaders = known.topics.get(&topic.topic);
            for asked in &topic.partitions {
                let leader = leaders.and_then(|leaders| leaders.get(&asked.partition));
                let Some(broker) = leader.or(any.as_ref()) else {
                    return Err(crate::client::ClientError::NoBootstrap.into());
                };
                let part = parts.entry(broker.clone()).or_insert_with(|| FetchRequest {
                    topics: Vec::new(),
                    ..request.clone()
                });
                match part.topics.last_mut().filter(|last| last.topic == topic.topic) {
                    Some(last) => last.partitions.push(asked.clone()),
                    None => part.topics.push(FetchTopic {
                        topic: topic.topic.clone(),
                        partitions: vec![asked.clone()],
                        unknown_tags: topic.unknown_tags.clone(),
                    }),
                }
            }
        }
        Ok(parts)
    }
}

/// What no topic has (H28): nothing is asked about it.
fn is_nothing(topic: &TopicRef) -> bool {
    match topic {
        TopicRef::Id(id) => id.is_zero(),
        TopicRef::Name(name) => name.as_str().is_empty(),
    }
}

/// Keeps no request alive.
fn detached(topic: &TopicRef) -> TopicRef {
    match topic {
        TopicRef::Name(name) => TopicRef::Name(name.detached()),
        TopicRef::Id(id) => TopicRef::Id(*id),
    }
}

fn is_elsewhere(data: &PartitionData) -> bool {
    matches!(
        data.error_code,
        code::LEADER_NOT_AVAILABLE | code::NOT_LEADER_OR_FOLLOWER | code::REPLICA_NOT_AVAILABLE
    )
}

async fn ask<T: Transport>(
    cache: &T,
    version: i16,
    mut parts: Parts,
    whole: &FetchRequest,
) -> Result<FetchResponse, TransportError> {
    if parts.len() == 1
        && let Some((broker, request)) = parts.pop_first()
    {
        // As it came, to the order of its partitions.
        return fetch(cache, &broker, version, request).await;
    }
    ask_several(cache, version, parts, whole).await
}

/// Whoever has something answers at once; only where nobody has enough is it waited for, until somebody has (H14).
async fn ask_several<T: Transport>(
    cache: &T,
    version: i16,
    parts: Parts,
    whole: &FetchRequest,
) -> Result<FetchResponse, TransportError> {
    let at_once = parts.iter().map(|(broker, request)| {
        let request = FetchRequest {
            max_wait_ms: 0,
            ..request.clone()
        };
        fetch(cache, broker, version, request)
    });
    let mut answers = together(&parts, join_all(at_once).await)?;
    let size_bytes: usize = answers.iter().map(size_bytes).sum();
    let wanted_bytes = usize::try_from(whole.min_bytes).unwrap_or(0);
    let is_enough = size_bytes >= wanted_bytes || answers.iter().any(has_error);
    if !is_enough && whole.max_wait_ms > 0 {
        let waiting = parts
            .into_iter()
            .map(|(broker, request)| Box::pin(async move { fetch(cache, &broker, version, request).await }));
        let (first, index, _others) = select_all(waiting).await;
        if let Some(answer) = answers.get_mut(index) {
            *answer = first?;
        }
    }
    Ok(merge(whole, answers))
}

/// Those of the leaders that answer. What the others lead has none for the moment, unless none of them answers.
fn together(
    parts: &Parts,
    outcomes: Vec<Result<FetchResponse, TransportError>>,
) -> Result<Vec<FetchResponse>, TransportError> {
    let is_hopeless = outcomes.iter().all(Result::is_err);
    let answers = parts
        .values()
        .zip(outcomes)
        .map(|(asked, outcome)| match outcome {
            Err(error) if is_hopeless => Err(error),
            Err(_) => Ok(without_leader(asked)),
            Ok(answer) => Ok(answer),
        });
    answers.collect()
}

fn without_leader(asked: &FetchRequest) -> FetchResponse {
    let topic = |topic: &FetchTopic| FetchableTopic {
        topic: topic.topic.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|asked| PartitionData::error(asked.partition, code::LEADER_NOT_AVAILABLE))
            .collect(),
        unknown_tags: TaggedFields::default(),
    };
    FetchResponse {
        topics: asked.topics.iter().map(topic).collect(),
        ..FetchResponse::default()
    }
}

fn size_bytes(response: &FetchResponse) -> usize {
    response
        .partitions()
        .map(|(_, data)| data.records_size_bytes())
        .sum()
}

fn has_error(response: &FetchResponse) -> bool {
    response.error_code != 0 || response.partitions().any(|(_, data)| data.error_code != 0)
}

/// In the order of the request. Beyond its limit partitions are empty, as they are where a broker has no room for them;
/// the first that has anything is whole (H12).
fn merge(whole: &FetchRequest, answers: Vec<FetchResponse>) -> FetchResponse {
    if let Some(failed) = answers.iter().position(|answer| answer.error_code != 0) {
        return answers.into_iter().nth(failed).unwrap_or_default();
    }
    let mut merged = FetchResponse::default();
    let mut found: HashMap<(TopicRef, i32), PartitionData> = HashMap::new();
    for answer in answers {
        merged.throttle_time_ms = merged.throttle_time_ms.max(answer.throttle_time_ms);
        for topic in answer.topics {
            for data in topic.partitions {
                found.insert((topic.topic.clone(), data.partition_index), data);
            }
        }
    }
    let limit_bytes = usize::try_from(whole.max_bytes).unwrap_or(0);
    let mut size_bytes = 0;
    for topic in &whole.topics {
        let mut partitions = Vec::new();
        for asked in &topic.partitions {
            let Some(mut data) = found.remove(&(topic.topic.clone(), asked.partition)) else {
                continue;
            };
            let with_this_bytes = size_bytes + data.records_size_bytes();
            if with_this_bytes > limit_bytes && size_bytes > 0 {
                data.records = Some(RecordBytes::empty());
            } else {
                size_bytes = with_this_bytes;
            }
            partitions.push(data);
        }
        if !partitions.is_empty() {
            merged.topics.push(FetchableTopic {
                topic: topic.topic.clone(),
                partitions,
                unknown_tags: TaggedFields::default(),
            });
        }
    }
    merged
}

#[cfg(test)]
mod tests;
