//! The same messages as kafka-protocol has them.
//!
//! Comparing a message that kafka-protocol decoded with one that is made here from ours compares every field
//! that kafka-protocol knows, whether or not somebody thought of it.
//!
//! What kafka-protocol cannot represent: a tagged field that is present with the value that stands for absent
//! (it has no `Option` for them), tags above `i32::MAX` (it keeps them as `i32` and drops the negative ones),
//! and, as unknown, the tags that a later version defines (it refuses them).

use std::collections::BTreeMap;

use bytes::Bytes;
use kachet_core::wire::{
    Chunks, FetchRequest, FetchResponse, PartitionData, TaggedFields, TopicId, TopicRef, WireStr,
};
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::{fetch_request, fetch_response};
use kafka_protocol::protocol::{Decodable, StrBytes};

/// Decodes with kafka-protocol; panics if it cannot or if bytes are left over.
pub(crate) fn decode<T: Decodable>(body: &Bytes, version: i16) -> T {
    let mut left = body.clone();
    let message = T::decode(&mut left, version).unwrap_or_else(|why| panic!("v{version}: {why}"));
    assert!(left.is_empty(), "v{version}: {} bytes are left over", left.len());
    message
}

/// Encodes with Kachet.
pub(crate) fn encode_request(request: &FetchRequest, version: i16) -> Bytes {
    let mut out = Chunks::new();
    request.encode(version, &mut out).unwrap();
    out.into_bytes()
}

/// Encodes with Kachet.
pub(crate) fn encode_response(response: &FetchResponse, version: i16) -> Bytes {
    let mut out = Chunks::new();
    response.encode(version, &mut out).unwrap();
    out.into_bytes()
}

/// Our request as kafka-protocol has it.
pub(crate) fn request(ours: &FetchRequest) -> kafka::FetchRequest {
    let topic = |topic: &kachet_core::wire::FetchTopic| {
        let (name, id) = name_and_id(&topic.topic);
        fetch_request::FetchTopic::default()
            .with_topic(string(&name).into())
            .with_topic_id(id.0.to_vec().try_into().unwrap())
            .with_partitions(topic.partitions.iter().map(request_partition).collect())
            .with_unknown_tagged_fields(tags(&topic.unknown_tags))
    };
    let forgotten = |topic: &kachet_core::wire::ForgottenTopic| {
        let (name, id) = name_and_id(&topic.topic);
        fetch_request::ForgottenTopic::default()
            .with_topic(string(&name).into())
            .with_topic_id(id.0.to_vec().try_into().unwrap())
            .with_partitions(topic.partitions.clone())
            .with_unknown_tagged_fields(tags(&topic.unknown_tags))
    };
    let replica_state = ours.replica_state.as_ref().map(|state| {
        fetch_request::ReplicaState::default()
            .with_replica_id(state.replica_id.into())
            .with_replica_epoch(state.replica_epoch)
            .with_unknown_tagged_fields(tags(&state.unknown_tags))
    });
    kafka::FetchRequest::default()
        .with_replica_id(ours.replica_id.into())
        .with_max_wait_ms(ours.max_wait_ms)
        .with_min_bytes(ours.min_bytes)
        .with_max_bytes(ours.max_bytes)
        .with_isolation_level(ours.isolation_level)
        .with_session_id(ours.session_id)
        .with_session_epoch(ours.session_epoch)
        .with_topics(ours.topics.iter().map(topic).collect())
        .with_forgotten_topics_data(ours.forgotten_topics.iter().map(forgotten).collect())
        .with_rack_id(string(&ours.rack_id))
        .with_cluster_id(ours.cluster_id.as_ref().map(string))
        .with_replica_state(replica_state.unwrap_or_default())
        .with_unknown_tagged_fields(tags(&ours.unknown_tags))
}

fn request_partition(ours: &kachet_core::wire::FetchPartition) -> fetch_request::FetchPartition {
    let directory = ours.replica_directory_id.unwrap_or_default();
    fetch_request::FetchPartition::default()
        .with_partition(ours.partition)
        .with_current_leader_epoch(ours.current_leader_epoch)
        .with_fetch_offset(ours.fetch_offset)
        .with_last_fetched_epoch(ours.last_fetched_epoch)
        .with_log_start_offset(ours.log_start_offset)
        .with_partition_max_bytes(ours.partition_max_bytes)
        .with_replica_directory_id(directory.0.to_vec().try_into().unwrap())
        .with_high_watermark(ours.high_watermark.unwrap_or(i64::MAX))
        .with_unknown_tagged_fields(tags(&ours.unknown_tags))
}

/// Our response as kafka-protocol has it.
pub(crate) fn response(ours: &FetchResponse) -> kafka::FetchResponse {
    let topic = |topic: &kachet_core::wire::FetchableTopic| {
        let (name, id) = name_and_id(&topic.topic);
        fetch_response::FetchableTopicResponse::default()
            .with_topic(string(&name).into())
            .with_topic_id(id.0.to_vec().try_into().unwrap())
            .with_partitions(topic.partitions.iter().map(response_partition).collect())
            .with_unknown_tagged_fields(tags(&topic.unknown_tags))
    };
    let endpoint = |node: &kachet_core::wire::NodeEndpoint| {
        fetch_response::NodeEndpoint::default()
            .with_node_id(node.node_id.into())
            .with_host(string(&node.host))
            .with_port(node.port)
            .with_rack(node.rack.as_ref().map(string))
            .with_unknown_tagged_fields(tags(&node.unknown_tags))
    };
    kafka::FetchResponse::default()
        .with_throttle_time_ms(ours.throttle_time_ms)
        .with_error_code(ours.error_code)
        .with_session_id(ours.session_id)
        .with_responses(ours.topics.iter().map(topic).collect())
        .with_node_endpoints(ours.node_endpoints.iter().map(endpoint).collect())
        .with_unknown_tagged_fields(tags(&ours.unknown_tags))
}

fn response_partition(ours: &PartitionData) -> fetch_response::PartitionData {
    let aborted = |each: &kachet_core::wire::AbortedTransaction| {
        fetch_response::AbortedTransaction::default()
            .with_producer_id(each.producer_id.into())
            .with_first_offset(each.first_offset)
            .with_unknown_tagged_fields(tags(&each.unknown_tags))
    };
    let diverging = ours.diverging_epoch.as_ref().map(|diverging| {
        fetch_response::EpochEndOffset::default()
            .with_epoch(diverging.epoch)
            .with_end_offset(diverging.end_offset)
            .with_unknown_tagged_fields(tags(&diverging.unknown_tags))
    });
    let leader = ours.current_leader.as_ref().map(|leader| {
        fetch_response::LeaderIdAndEpoch::default()
            .with_leader_id(leader.leader_id.into())
            .with_leader_epoch(leader.leader_epoch)
            .with_unknown_tagged_fields(tags(&leader.unknown_tags))
    });
    let snapshot = ours.snapshot_id.as_ref().map(|snapshot| {
        fetch_response::SnapshotId::default()
            .with_end_offset(snapshot.end_offset)
            .with_epoch(snapshot.epoch)
            .with_unknown_tagged_fields(tags(&snapshot.unknown_tags))
    });
    fetch_response::PartitionData::default()
        .with_partition_index(ours.partition_index)
        .with_error_code(ours.error_code)
        .with_high_watermark(ours.high_watermark)
        .with_last_stable_offset(ours.last_stable_offset)
        .with_log_start_offset(ours.log_start_offset)
        .with_aborted_transactions(
            ours.aborted_transactions
                .as_ref()
                .map(|list| list.iter().map(aborted).collect()),
        )
        .with_preferred_read_replica(ours.preferred_read_replica.into())
        .with_records(
            ours.records
                .as_ref()
                .map(kachet_core::wire::RecordBytes::to_bytes),
        )
        .with_diverging_epoch(diverging.unwrap_or_default())
        .with_current_leader(leader.unwrap_or_default())
        .with_snapshot_id(snapshot.unwrap_or_default())
        .with_unknown_tagged_fields(tags(&ours.unknown_tags))
}

fn name_and_id(topic: &TopicRef) -> (WireStr, TopicId) {
    match topic {
        TopicRef::Name(name) => (name.clone(), TopicId::ZERO),
        TopicRef::Id(id) => (WireStr::default(), *id),
    }
}

fn string(ours: &WireStr) -> StrBytes {
    StrBytes::from_string(ours.as_str().to_owned())
}

fn tags(ours: &TaggedFields) -> BTreeMap<i32, Bytes> {
    let all = ours.as_slice().iter();
    all.map(|field| (i32::try_from(field.tag).unwrap(), field.data.clone()))
        .collect()
}
