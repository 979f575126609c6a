//! How a broker answers what the cache asks besides Fetch: Metadata, ListOffsets, OffsetForLeaderEpoch and
//! DescribeConfigs.

use bytes::{Bytes, BytesMut};
use kachet::core::wire::{TopicId, TopicRef, WireStr};
use kachet::transport::ApiVersions;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    ApiKey, BrokerId, DescribeConfigsRequest, DescribeConfigsResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use uuid::Uuid;

use crate::broker::epoch_error;
use crate::cluster::{Cluster, Topic, node};
use crate::partition::Role;

const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// A watermark that a broker has named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub(crate) id: TopicId,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) is_start: bool,
}

/// A request other than Fetch as a broker sees it.
#[derive(Clone, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) broker: i32,
    pub(crate) version: i16,
    pub(crate) now: u64,
    /// Whether the asking client may not read configurations.
    pub(crate) configs_denied: bool,
}

pub(crate) fn api_versions() -> ApiVersions {
    let spoken = [
        (ApiKey::Fetch, 4..=18),
        (ApiKey::ListOffsets, 1..=10),
        (ApiKey::Metadata, 0..=13),
        (ApiKey::OffsetForLeaderEpoch, 2..=4),
        (ApiKey::DescribeConfigs, 1..=4),
    ];
    spoken
        .into_iter()
        .map(|(api, range)| (api as i16, range))
        .collect()
}

/// The encoded answer, and the watermarks that it names; `None` for what cannot be read.
pub(crate) fn answer(question: &Question<'_>, api_key: i16, body: Bytes) -> Option<(Bytes, Vec<Named>)> {
    let version = question.version;
    let plain = |body| Some((body, Vec::new()));
    if api_key == ApiKey::Metadata as i16 {
        plain(encode(&metadata(question, &decode(body, version)?), version)?)
    } else if api_key == ApiKey::DescribeConfigs as i16 {
        plain(encode(&configs(question, &decode(body, version)?), version)?)
    } else if api_key == ApiKey::OffsetForLeaderEpoch as i16 {
        plain(encode(&epoch_ends(question, &decode(body, version)?), version)?)
    } else if api_key == ApiKey::ListOffsets as i16 {
        let (response, named) = list_offsets(question, &decode(body, version)?);
        Some((encode(&response, version)?, named))
    } else {
        None
    }
}

fn decode<M: Decodable>(mut body: Bytes, version: i16) -> Option<M> {
    M::decode(&mut body, version).ok()
}

fn encode<M: Encodable>(message: &M, version: i16) -> Option<Bytes> {
    let mut body = BytesMut::new();
    message.encode(&mut body, version).ok()?;
    Some(body.freeze())
}

fn metadata(question: &Question<'_>, request: &MetadataRequest) -> MetadataResponse {
    let cluster = question.cluster;
    let brokers = (0..cluster.brokers).map(|place| {
        let address = Cluster::address(node(place));
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(node(place)))
            .with_host(StrBytes::from_string(address.host))
            .with_port(address.port.into())
    });
    let topics = request
        .topics
        .iter()
        .flatten()
        .map(|asked| describe(question, asked));
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(StrBytes::from_string(cluster.id.as_str().to_owned())))
        .with_controller_id(BrokerId(1))
        .with_topics(topics.collect())
}

fn describe(question: &Question<'_>, asked: &MetadataRequestTopic) -> MetadataResponseTopic {
    let (topic, error) = if asked.topic_id.is_nil() {
        let name = asked.name.as_ref().map_or("", |name| name.as_str());
        (named(name), ResponseError::UnknownTopicOrPartition)
    } else {
        (
            TopicRef::Id(TopicId(asked.topic_id.into_bytes())),
            ResponseError::UnknownTopicId,
        )
    };
    let Some(found) = question.cluster.find(&topic, question.broker, question.now) else {
        return MetadataResponseTopic::default()
            .with_error_code(error.code())
            .with_name(asked.name.clone())
            .with_topic_id(asked.topic_id);
    };
    let partitions = (0..).zip(&found.partitions).map(|(index, partition)| {
        let (leader, epoch) = partition.leader_as_told_by(question.broker, question.now);
        let error = if leader < 0 {
            ResponseError::LeaderNotAvailable.code()
        } else {
            0
        };
        MetadataResponsePartition::default()
            .with_error_code(error)
            .with_partition_index(index)
            .with_leader_id(BrokerId(leader))
            .with_leader_epoch(epoch)
    });
    MetadataResponseTopic::default()
        .with_name(Some(StrBytes::from_string(found.name.as_str().to_owned()).into()))
        .with_topic_id(Uuid::from_bytes(found.id.0))
        .with_partitions(partitions.collect())
}

fn named(name: &str) -> TopicRef {
    TopicRef::Name(WireStr::copy_from(name).unwrap_or_default())
}

fn configs(question: &Question<'_>, request: &DescribeConfigsRequest) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let found = question
            .cluster
            .find(&named(&resource.resource_name), question.broker, question.now);
        match found {
            _ if question.configs_denied => {
                result.with_error_code(ResponseError::TopicAuthorizationFailed.code())
            }
            None => result.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
            Some(topic) => {
                let policy = if topic.compacted { "compact" } else { "delete" };
                let config = DescribeConfigsResourceResult::default()
                    .with_name(StrBytes::from_static_str("cleanup.policy"))
                    .with_value(Some(StrBytes::from_static_str(policy)));
                result.with_configs(vec![config])
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

/// The leader's view of a partition, or the error that a broker gives which is asked and does not lead.
fn led<'a>(
    question: &Question<'a>,
    topic: &str,
    partition: i32,
) -> Result<(&'a Topic, Role<'a>, bool), ResponseError> {
    let found = question
        .cluster
        .find(&named(topic), question.broker, question.now);
    let found = found.and_then(|topic| topic.partition(partition).map(|each| (topic, each)));
    let (topic, partition) = found.ok_or(ResponseError::UnknownTopicOrPartition)?;
    let role = partition.role(question.broker, question.now);
    if !role.leads {
        return Err(ResponseError::NotLeaderOrFollower);
    }
    Ok((topic, role, partition.catching_up))
}

fn list_offsets(question: &Question<'_>, request: &ListOffsetsRequest) -> (ListOffsetsResponse, Vec<Named>) {
    let mut watermarks = Vec::new();
    let mut topics = Vec::new();
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for asked in &topic.partitions {
            let found = led(question, topic.name.as_str(), asked.partition_index).and_then(
                |(topic, role, catching_up)| {
                    let offset = match asked.timestamp {
                        EARLIEST => role.log.start,
                        LATEST if catching_up => return Err(ResponseError::OffsetNotAvailable),
                        LATEST => role.high_watermark,
                        _ => return Err(ResponseError::UnsupportedVersion),
                    };
                    watermarks.push(Named {
                        id: topic.id,
                        partition: asked.partition_index,
                        offset,
                        is_start: asked.timestamp == EARLIEST,
                    });
                    Ok(offset)
                },
            );
            let answer = ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
            partitions.push(match found {
                Ok(offset) => answer.with_offset(offset),
                Err(error) => answer.with_error_code(error.code()).with_offset(-1),
            });
        }
        let answer = ListOffsetsTopicResponse::default().with_name(topic.name.clone());
        topics.push(answer.with_partitions(partitions));
    }
    (ListOffsetsResponse::default().with_topics(topics), watermarks)
}

fn epoch_ends(
    question: &Question<'_>,
    request: &OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let nothing = EpochEndOffset::default()
                .with_partition(asked.partition)
                .with_leader_epoch(-1)
                .with_end_offset(-1);
            match led(question, topic.topic.as_str(), asked.partition) {
                Err(error) => nothing.with_error_code(error.code()),
                Ok((_, role, _)) => {
                    if let Some(error) = epoch_error(role.log.leader_epoch(), asked.current_leader_epoch) {
                        return nothing.with_error_code(error.code());
                    }
                    match role.log.epoch_end(asked.leader_epoch) {
                        Some((epoch, end)) => nothing.with_leader_epoch(epoch).with_end_offset(end),
                        None => nothing,
                    }
                }
            }
        });
        OffsetForLeaderTopicResult::default()
            .with_topic(topic.topic.clone())
            .with_partitions(partitions.collect())
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}
