//! Metadata while no broker can be asked: what the cluster said last, if the cache may tell it however old it is.

use bytes::{BufMut, Bytes, BytesMut};
use kachet_core::wire::{TopicId, TopicRef, WireStr};
use kafka_protocol::messages::metadata_request::MetadataRequest;
use kafka_protocol::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use uuid::Uuid;

use super::apis::{self, key};
use super::request::{Head, body_at};
use crate::cluster::{TopicMetadata, Topology};
use crate::transport::array_counts::ArrayWalk;
use crate::transport::{BrokerAddress, Transport};

/// From this version on topics have ids.
const VERSION_TOPIC_IDS: i16 = 10;

/// The response with its header, addresses being the brokers' own. `None` for a request that cannot be read, one for all
/// topics, and one for a topic of which nothing is known.
pub(super) fn metadata<T: Transport>(
    cache: &T,
    broker: &BrokerAddress,
    head: Head,
    frame: &Bytes,
) -> Option<Bytes> {
    let flexible = apis::is_flexible(key::METADATA, head.version);
    let mut body = frame.slice(body_at(frame, flexible)?..);
    prove_arrays(&body, flexible, head.version)?;
    let request = MetadataRequest::decode(&mut body, head.version).ok()?;
    let asked = request.topics?;
    let by_name = |name: &TopicName| WireStr::copy_from(name.as_str()).map(TopicRef::Name);
    let topics = asked.iter().map(|topic| match &topic.name {
        Some(name) => by_name(name),
        None => Some(TopicRef::Id(TopicId(*topic.topic_id.as_bytes()))),
    });
    let topics: Vec<TopicRef> = topics.collect::<Option<_>>()?;
    if topics.is_empty() && head.version == 0 {
        return None;
    }
    let response = response(&cache.topology(broker, &topics)?, head.version);
    let mut out = BytesMut::new();
    out.put_i32(head.correlation_id);
    if flexible {
        out.put_u8(0);
    }
    response.encode(&mut out, head.version).ok()?;
    Some(out.freeze())
}

/// kafka-protocol allocates by the counts that it reads.
fn prove_arrays(body: &[u8], flexible: bool, version: i16) -> Option<()> {
    let id_bytes = if version >= VERSION_TOPIC_IDS { 16 } else { 0 };
    ArrayWalk::new(body, flexible).array(|topic| {
        topic.skip(id_bytes)?;
        topic.string()
    })
}

fn response(topology: &Topology, version: i16) -> MetadataResponse {
    let brokers = topology.brokers.iter().map(|(node_id, address)| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(*node_id))
            .with_host(StrBytes::from_string(address.host.clone()))
            .with_port(address.port.into())
    });
    let text = |text: &WireStr| StrBytes::from_string(text.as_str().to_owned());
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(topology.cluster_id.as_ref().filter(|_| version >= 2).map(text))
        .with_topics(
            topology
                .topics
                .iter()
                .map(|topic| described(topic, version))
                .collect(),
        )
}

fn described(topic: &TopicMetadata, version: i16) -> MetadataResponseTopic {
    let partition = |(index, known): (&i32, &crate::cluster::PartitionMetadata)| {
        // Nobody knows which replicas there are; the leader is one.
        let replicas = if known.leader_id >= 0 {
            vec![BrokerId(known.leader_id)]
        } else {
            Vec::new()
        };
        let partition = MetadataResponsePartition::default()
            .with_error_code(known.error_code)
            .with_partition_index(*index)
            .with_leader_id(BrokerId(known.leader_id))
            .with_replica_nodes(replicas.clone())
            .with_isr_nodes(replicas);
        if version >= 7 {
            partition.with_leader_epoch(known.leader_epoch)
        } else {
            partition
        }
    };
    let name = topic
        .name
        .as_ref()
        .map(|name| TopicName(StrBytes::from_string(name.as_str().to_owned())));
    let described = MetadataResponseTopic::default()
        .with_error_code(topic.error_code)
        .with_name(name)
        .with_partitions(topic.partitions.iter().map(partition).collect());
    if version >= VERSION_TOPIC_IDS {
        described.with_topic_id(Uuid::from_bytes(topic.topic_id.0))
    } else {
        described
    }
}
