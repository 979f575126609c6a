//! What the cluster is made of: `ApiVersions`, Metadata and `DescribeConfigs`.

use kachet_core::wire::TopicId;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, DescribeConfigsRequest, DescribeConfigsResponse, MetadataRequest,
    MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::connection::SPOKEN;
use super::log::PartitionLog;
use super::topics::{Topic, Topics};
use super::{BrokerState, NODE_ID};

/// The type of a topic among the resources that have configurations.
const RESOURCE_TOPIC: i8 = 2;
/// A setting that nobody has changed.
const SOURCE_DEFAULT: i8 = 5;
/// A setting that is a list.
const TYPE_LIST: i8 = 7;

/// The versions of all APIs that are answered.
pub(super) fn api_versions() -> ApiVersionsResponse {
    ApiVersionsResponse::default().with_api_keys(SPOKEN.into_iter().map(version_range).collect())
}

/// The answer, in version 0, to an `ApiVersions` of a version that is not spoken (H18, KIP-511).
pub(super) fn unsupported_api_versions() -> ApiVersionsResponse {
    let own = SPOKEN.into_iter().filter(|(api, ..)| *api == ApiKey::ApiVersions);
    ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(own.map(version_range).collect())
}

fn version_range((api, min, max): (ApiKey, i16, i16)) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api as i16)
        .with_min_version(min)
        .with_max_version(max)
}

/// The node and the topics that are asked for.
pub(super) fn metadata(state: &BrokerState, request: &MetadataRequest, version: i16) -> MetadataResponse {
    let node = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE_ID))
        .with_host(StrBytes::from_string(state.address.host.clone()))
        .with_port(state.address.port.into());
    let topics = state.topics();
    let all = || {
        topics
            .iter()
            .map(|(name, topic)| described(name, topic))
            .collect()
    };
    let topics = match &request.topics {
        None => all(),
        // Version 0 has no null.
        Some(asked) if version == 0 && asked.is_empty() => all(),
        Some(asked) => asked.iter().map(|each| find(&topics, each, version)).collect(),
    };
    MetadataResponse::default()
        .with_brokers(vec![node])
        .with_cluster_id(Some(StrBytes::from_string(state.settings.cluster_id.clone())))
        .with_controller_id(BrokerId(NODE_ID))
        .with_topics(topics)
}

fn find(topics: &Topics, asked: &MetadataRequestTopic, version: i16) -> MetadataResponseTopic {
    let failed = |error: ResponseError| {
        // Null only where the version knows it: from 12 on.
        let no_name = (version < 12).then(TopicName::default);
        MetadataResponseTopic::default()
            .with_error_code(error.code())
            .with_name(asked.name.clone().or(no_name))
            .with_topic_id(asked.topic_id)
    };
    if !asked.topic_id.is_nil() {
        let found = topics.by_id(TopicId(asked.topic_id.into_bytes()));
        return found.map_or_else(
            || failed(ResponseError::UnknownTopicId),
            |(name, topic)| described(name, topic),
        );
    }
    let name = asked.name.as_ref().map_or("", |name| name.as_str());
    let found = topics.by_name(name);
    found.map_or_else(
        || failed(ResponseError::UnknownTopicOrPartition),
        |topic| described(name, topic),
    )
}

fn described(name: &str, topic: &Topic) -> MetadataResponseTopic {
    let partition = |(index, log): (i32, &PartitionLog)| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(NODE_ID))
            .with_leader_epoch(log.leader_epoch())
            .with_replica_nodes(vec![BrokerId(NODE_ID)])
            .with_isr_nodes(vec![BrokerId(NODE_ID)])
    };
    MetadataResponseTopic::default()
        .with_name(Some(StrBytes::from_string(name.into()).into()))
        .with_topic_id(Uuid::from_bytes(topic.id.0))
        .with_partitions((0..).zip(&topic.partitions).map(partition).collect())
}

/// The configuration of topics, as far as a cache asks for it: that they are not compacted (H5).
pub(super) fn describe_configs(
    state: &BrokerState,
    request: &DescribeConfigsRequest,
    version: i16,
) -> DescribeConfigsResponse {
    let topics = state.topics();
    let result = |resource: &DescribeConfigsResource| {
        let mut result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        if resource.resource_type != RESOURCE_TOPIC {
            result.error_code = ResponseError::InvalidRequest.code();
            result.error_message = Some(StrBytes::from_static_str("only topics have configurations here"));
        } else if topics.by_name(&resource.resource_name).is_none() {
            result.error_code = ResponseError::UnknownTopicOrPartition.code();
        } else {
            result.configs = cleanup_policy(resource, version).into_iter().collect();
        }
        result
    };
    DescribeConfigsResponse::default().with_results(request.resources.iter().map(result).collect())
}

fn cleanup_policy(resource: &DescribeConfigsResource, version: i16) -> Option<DescribeConfigsResourceResult> {
    const NAME: &str = "cleanup.policy";
    let keys = resource.configuration_keys.as_ref();
    let is_wanted = keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == NAME));
    is_wanted.then(|| {
        DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(NAME))
            .with_value(Some(StrBytes::from_static_str("delete")))
            .with_config_source(SOURCE_DEFAULT)
            // Earlier versions do not carry it.
            .with_config_type(if version >= 3 { TYPE_LIST } else { 0 })
    })
}
