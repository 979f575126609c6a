//! What there is to read: topics, partitions, offsets.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use kachet_core::storage::Storage;
use kachet_core::time::MaxStaleness;
use kachet_core::wire::{TopicRef, WireStr};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::parameters::{PathParts, Query};
use super::problem::Problem;
use super::{Shared, accept, router};
use crate::client::{ClientError, Position};
use crate::cluster::{TopicMetadata, Topology, code, describe, describe_all};
use crate::transport::Transport;

const FORMS: [&str; 1] = ["application/json"];
/// Topics of one answer, at most and unless a request says otherwise.
const TOPICS_LIMIT: u64 = 1_000;
/// What is told of all topics may be this old: to ask for them is the most costly question that there is.
const LISTING_MAX_AGE: core::time::Duration = core::time::Duration::from_secs(1);

/// All topics, as they were told last. Who asks while they are asked for waits for that answer.
#[derive(Debug, Default)]
pub(super) struct Listing(Mutex<Option<(Instant, Arc<Topology>)>>);

pub(super) async fn list<T: Transport, S: Storage + 'static>(
    State(shared): State<Arc<Shared<T, S>>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "prefix", "count"])?;
    let count = query.count("count", TOPICS_LIMIT, TOPICS_LIMIT)?;
    accepts_json(&headers)?;
    let (after, prefix) = (query.text("after"), query.text("prefix").unwrap_or_default());
    let topology = shared.all_topics().await?;
    let mut topics: Vec<(&str, &TopicMetadata)> = topology
        .topics
        .iter()
        .filter(|topic| topic.error_code == 0)
        .filter_map(|topic| Some((topic.name.as_ref()?.as_str(), topic)))
        .filter(|(name, _)| name.starts_with(prefix) && after.is_none_or(|after| *name > after))
        .collect();
    topics.sort_unstable_by_key(|(name, _)| *name);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let has_more = topics.len() > count;
    topics.truncate(count);
    let next = topics.last().filter(|_| has_more).map(|(name, _)| *name);
    let described = topics
        .iter()
        .map(|(name, topic)| json!({ "name": name, "id": id(topic), "partitions": topic.partitions.len() }));
    let described: Vec<Value> = described.collect();
    Ok(json_answer(&json!({ "topics": described, "next": next })))
}

pub(super) async fn topic<T: Transport, S: Storage + 'static>(
    State(shared): State<Arc<Shared<T, S>>>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let path = PathParts::new(path)?;
    Query::parse(query.as_deref(), &[])?;
    accepts_json(&headers)?;
    let topic = shared.topic(path.topic()).await?;
    let partitions = topic.partitions.iter().map(|(index, partition)| {
        json!({
            "partition": index,
            "leader": (partition.leader_id >= 0).then_some(partition.leader_id),
            "leader_epoch": (partition.leader_epoch >= 0).then_some(partition.leader_epoch),
        })
    });
    let partitions: Vec<Value> = partitions.collect();
    Ok(json_answer(&json!({
        "name": path.topic(), "id": id(&topic), "partitions": partitions,
    })))
}

pub(super) async fn partition<T: Transport, S: Storage + 'static>(
    State(shared): State<Arc<Shared<T, S>>>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let path = PathParts::new(path)?;
    let (topic, partition) = (path.topic(), path.partition()?);
    let isolation = Query::parse(query.as_deref(), &["isolation"])?.isolation()?;
    accepts_json(&headers)?;
    let client = shared.client(isolation);
    let (log_start_offset, end_offset) = tokio::try_join!(
        client.offset_of(topic, partition, Position::Earliest),
        client.offset_of(topic, partition, Position::BeforeEnd(0)),
    )?;
    Ok(json_answer(&json!({
        "topic": topic, "partition": partition,
        "log_start_offset": log_start_offset, "end_offset": end_offset,
    })))
}

fn accepts_json(headers: &HeaderMap) -> Result<(), Problem> {
    let chosen = accept::choose(headers, &FORMS);
    chosen.map(drop).ok_or_else(|| Problem::not_acceptable(&FORMS))
}

/// `None` where brokers are older than ids.
fn id(topic: &TopicMetadata) -> Option<String> {
    (!topic.topic_id.is_zero()).then(|| topic.topic_id.to_string())
}

fn json_answer(value: &Value) -> Response {
    let mut text = value.to_string();
    text.push('\n');
    router::answer(FORMS[0], Body::from(text))
}

impl<T: Transport, S: Storage + 'static> Shared<T, S> {
    async fn all_topics(&self) -> Result<Arc<Topology>, Problem> {
        let arrived = Instant::now();
        let mut listing = self.listing.0.lock().await;
        let bound = match self.cache.max_staleness() {
            MaxStaleness::Within(bound) => bound.min(LISTING_MAX_AGE),
            MaxStaleness::Forever => LISTING_MAX_AGE,
        };
        if let Some((asked_at, topology)) = &*listing
            && (*asked_at >= arrived || asked_at.elapsed() < bound)
        {
            return Ok(Arc::clone(topology));
        }
        let asked_at = Instant::now();
        match self.ask_for_all_topics().await {
            Ok(topology) => {
                let topology = Arc::new(topology);
                *listing = Some((asked_at, Arc::clone(&topology)));
                Ok(topology)
            }
            Err(error) => match &*listing {
                // As old as it may be.
                Some((_, topology)) if self.cache.max_staleness() == MaxStaleness::Forever => {
                    Ok(Arc::clone(topology))
                }
                _ => Err(error.into()),
            },
        }
    }

    async fn ask_for_all_topics(&self) -> Result<Topology, ClientError> {
        let mut failure = None;
        for broker in self.leaders.brokers() {
            match describe_all(&self.cache, &broker).await {
                Ok(topology) => return Ok(topology),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.map_or(ClientError::NoBootstrap, ClientError::Transport))
    }

    async fn topic(&self, name: &str) -> Result<TopicMetadata, Problem> {
        let unknown = || ClientError::UnknownTopic { topic: name.into() };
        let invalid = || ClientError::InvalidTopicName { topic: name.into() };
        let asked = WireStr::copy_from(name)
            .filter(crate::client::is_topic_name)
            .ok_or_else(invalid)?;
        let asked = [TopicRef::Name(asked)];
        let mut failure = None;
        for broker in self.leaders.brokers() {
            let topology = match describe(&self.cache, &broker, &asked).await {
                Ok(topology) => topology,
                Err(error) => {
                    failure = failure.or(Some(error));
                    continue;
                }
            };
            let found = topology.topics.into_iter().next().ok_or_else(unknown)?;
            return match found.error_code {
                0 | code::LEADER_NOT_AVAILABLE => Ok(found),
                code::UNKNOWN_TOPIC_OR_PARTITION => Err(unknown().into()),
                code => Err(ClientError::Broker {
                    topic: name.into(),
                    partition: -1,
                    code,
                }
                .into()),
            };
        }
        Err(failure.map_or_else(|| ClientError::NoBootstrap.into(), |error| (&error).into()))
    }
}
