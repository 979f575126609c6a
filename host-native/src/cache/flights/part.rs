//! What brokers have brought on one flight, and one answer out of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kachet_core::cache::ResponseRoom;
use kachet_core::wire::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopic, PartitionData, TaggedFields,
    TopicId, TopicRef, WireStr,
};

use super::Outcome;
use crate::cluster::code;
use crate::transport::BrokerAddress;

/// A partition of a request.
pub(super) type Place = (TopicRef, i32);

/// What a flight has brought.
pub(super) struct Brought {
    /// The answer as a whole.
    pub(super) outcome: Outcome,
    /// What it is made of, and what came beside it, to be kept.
    pub(super) parts: Vec<Part>,
}

/// What one broker was asked and has answered.
pub(super) struct Part {
    pub(super) broker: BrokerAddress,
    /// Whether it follows another broker in all of these partitions, so that its watermarks may be older (H7, H10).
    pub(super) is_of_follower: bool,
    /// What the broker said before that the names of the request stand for (H6).
    pub(super) names: Vec<(WireStr, TopicId)>,
    /// Of these partitions nothing is learned from it.
    pub(super) unheard: HashSet<Place>,
    pub(super) request: FetchRequest,
    pub(super) response: Arc<FetchResponse>,
}

/// A request for some of the partitions of another one.
pub(super) fn restricted(
    request: &FetchRequest,
    is_kept: impl Fn(&TopicRef, &FetchPartition) -> bool,
) -> FetchRequest {
    let topics = request.topics.iter().map(|topic| {
        let kept = topic
            .partitions
            .iter()
            .filter(|asked| is_kept(&topic.topic, asked));
        FetchTopic {
            topic: topic.topic.clone(),
            partitions: kept.cloned().collect(),
            unknown_tags: topic.unknown_tags.clone(),
        }
    });
    FetchRequest {
        topics: topics.filter(|topic| !topic.partitions.is_empty()).collect(),
        ..request.clone()
    }
}

/// One answer to a request out of several, in the request's order and within its limits (H12). What nobody has answered is
/// left out.
pub(super) fn assembled(
    request: &FetchRequest,
    mut found: HashMap<Place, PartitionData>,
    parts: &[Part],
) -> FetchResponse {
    let mut answer = FetchResponse::default();
    for response in parts.iter().map(|part| &part.response) {
        answer.throttle_time_ms = answer.throttle_time_ms.max(response.throttle_time_ms);
        for node in &response.node_endpoints {
            if !answer.node_endpoints.contains(node) {
                answer.node_endpoints.push(node.clone());
            }
        }
    }
    let mut room = ResponseRoom::new(usize::try_from(request.max_bytes).unwrap_or(0));
    let mut unknown = Vec::new();
    for (topic, asked) in request.partitions() {
        // A partition that is named twice is answered once.
        let Some(mut data) = found.remove(&(topic.clone(), asked.partition)) else {
            continue;
        };
        if is_unknown(&data) {
            unknown.push((topic, data));
            continue;
        }
        room.cut_to_fit(&mut data, usize::try_from(asked.partition_max_bytes).unwrap_or(0));
        push(&mut answer.topics, topic, data);
    }
    for (topic, data) in unknown {
        push(&mut answer.topics, topic, data);
    }
    answer
}

/// Brokers answer what they do not know behind everything else.
fn is_unknown(data: &PartitionData) -> bool {
    let unknown = [code::UNKNOWN_TOPIC_OR_PARTITION, code::UNKNOWN_TOPIC_ID];
    unknown.contains(&data.error_code) && data.aborted_transactions.is_some()
}

fn push(topics: &mut Vec<FetchableTopic>, topic: &TopicRef, data: PartitionData) {
    match topics.last_mut() {
        Some(last) if last.topic == *topic => last.partitions.push(data),
        _ => topics.push(FetchableTopic {
            topic: topic.clone(),
            partitions: vec![data],
            unknown_tags: TaggedFields::default(),
        }),
    }
}
