//! Metadata: brokers, topics, leaders.

use core::time::Duration;
use std::collections::BTreeMap;

use kachet_core::wire::{TopicId, TopicRef, WireStr};
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::metadata_response::{MetadataResponse, MetadataResponseTopic};
use kafka_protocol::messages::{ApiKey, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::transport::{BrokerAddress, Transport, TransportError, call_with};

/// From this version on responses carry topic ids (Kafka 2.8).
const VERSION_TOPIC_IDS: i16 = 10;
/// From this version on topics may be asked for by id.
const VERSION_BY_ID: i16 = 12;
const VERSION_MAX: i16 = 13;

/// What one Metadata response says.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// The cluster's id.
    pub cluster_id: Option<WireStr>,
    /// The brokers by node id.
    pub brokers: BTreeMap<i32, BrokerAddress>,
    /// The topics that were asked for; also those that do not exist, with an error.
    pub topics: Vec<TopicMetadata>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    /// The name; `None` for an id that the cluster does not know.
    pub name: Option<WireStr>,
    /// The id; zero if the topic does not exist or the broker is older than topic ids.
    pub topic_id: TopicId,
    /// The error, 0 for none.
    pub error_code: i16,
    /// The partitions by index.
    pub partitions: BTreeMap<i32, PartitionMetadata>,
}

/// One partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// The error, 0 for none.
    pub error_code: i16,
    /// The leader's node id, −1 for none.
    pub leader_id: i32,
    /// The leader's epoch, −1 if unknown.
    pub leader_epoch: i32,
}

/// Whether the broker's Metadata carries topic ids, without which nothing can be cached safely.
pub(crate) async fn answers_topic_ids<T: Transport>(
    transport: &T,
    broker: &BrokerAddress,
) -> Result<bool, TransportError> {
    let versions = transport.api_versions(broker).await?;
    let ours = VERSION_TOPIC_IDS..=VERSION_MAX;
    Ok(versions.negotiate(ApiKey::Metadata as i16, ours).is_some())
}

/// Asks a broker for some topics, all by name or all by id, because that is what Metadata can do in one request.
/// Names that do not exist are not created. If the broker cannot be asked, the answer is what the transport
/// [knows](Transport::topology).
pub async fn describe<T: Transport>(
    transport: &T,
    broker: &BrokerAddress,
    topics: &[TopicRef],
) -> Result<Topology, TransportError> {
    let by_id = topics.iter().any(|topic| matches!(topic, TopicRef::Id(_)));
    let ours = if by_id {
        VERSION_BY_ID..=VERSION_MAX
    } else {
        1..=VERSION_MAX
    };
    let build = |version| {
        let asked = topics.iter().map(asked_for).collect();
        let request = MetadataRequest::default().with_topics(Some(asked));
        // Before v4 a broker creates topics as its own settings say.
        if version >= 4 {
            request.with_allow_auto_topic_creation(false)
        } else {
            request
        }
    };
    match call_with(transport, broker, ours, Duration::ZERO, build).await {
        Ok((_, response)) => Ok(Topology::from(response)),
        Err(error) => transport.topology(broker, topics).ok_or(error),
    }
}

/// Asks a broker for all topics that it lets this client see.
pub async fn describe_all<T: Transport>(
    transport: &T,
    broker: &BrokerAddress,
) -> Result<Topology, TransportError> {
    let build = |_| MetadataRequest::default().with_topics(None);
    let answer = call_with(transport, broker, 1..=VERSION_MAX, Duration::ZERO, build).await;
    answer.map(|(_, response)| Topology::from(response))
}

fn asked_for(topic: &TopicRef) -> MetadataRequestTopic {
    let asked = MetadataRequestTopic::default();
    match topic {
        TopicRef::Name(name) => asked.with_name(Some(topic_name(name))),
        TopicRef::Id(id) => asked.with_name(None).with_topic_id(Uuid::from_bytes(id.0)),
    }
}

/// Shares nothing, because names are short.
pub(super) fn topic_name(name: &WireStr) -> TopicName {
    TopicName(StrBytes::from_string(name.as_str().to_owned()))
}

impl From<MetadataResponse> for Topology {
    fn from(response: MetadataResponse) -> Self {
        let address = |host: &StrBytes, port| {
            let port = u16::try_from(port).ok()?;
            Some(BrokerAddress {
                host: host.as_str().to_owned(),
                port,
            })
        };
        let brokers = response.brokers.iter().filter_map(|broker| {
            address(&broker.host, broker.port).map(|address| (broker.node_id.0, address))
        });
        Self {
            cluster_id: response
                .cluster_id
                .as_ref()
                .and_then(|id| WireStr::copy_from(id.as_str())),
            brokers: brokers.collect(),
            topics: response.topics.iter().map(TopicMetadata::from).collect(),
        }
    }
}

impl From<&MetadataResponseTopic> for TopicMetadata {
    fn from(topic: &MetadataResponseTopic) -> Self {
        let partitions = topic.partitions.iter().map(|partition| {
            let metadata = PartitionMetadata {
                error_code: partition.error_code,
                leader_id: partition.leader_id.0,
                leader_epoch: partition.leader_epoch,
            };
            (partition.partition_index, metadata)
        });
        Self {
            name: topic
                .name
                .as_ref()
                .and_then(|name| WireStr::copy_from(name.0.as_str())),
            topic_id: TopicId(*topic.topic_id.as_bytes()),
            error_code: topic.error_code,
            partitions: partitions.collect(),
        }
    }
}
