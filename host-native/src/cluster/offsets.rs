//! ListOffsets and OffsetForLeaderEpoch, which a broker answers for the partitions that it leads.

use core::time::Duration;
use std::collections::BTreeMap;

use kachet_core::cache::EpochEnd;
use kachet_core::wire::WireStr;
use kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, TopicName};

use super::metadata::topic_name;
use crate::transport::{BrokerAddress, Transport, TransportError, call_with};

/// Asks for the log start offset.
pub const EARLIEST_TIMESTAMP: i64 = -2;
/// Asks for the high watermark, or the last stable offset if committed data is read.
pub const LATEST_TIMESTAMP: i64 = -1;

/// A partition by its topic's name, which is how these two APIs want it.
pub type PartitionName = (WireStr, i32);

/// What ListOffsets found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset, −1 if there is none.
    pub offset: i64,
    /// The timestamp of the record there, in milliseconds since 1970; −1 for the earliest and latest offsets.
    pub timestamp: i64,
}

/// Asks for the first offset at or after `timestamp` (milliseconds since 1970, or one of the constants here) of
/// each partition. A partition gives its error code if it has no answer, and is missing if the broker leaves it
/// out.
pub async fn list_offsets<T: Transport>(
    transport: &T,
    broker: &BrokerAddress,
    partitions: &[PartitionName],
    timestamp: i64,
    isolation_level: i8,
) -> Result<BTreeMap<PartitionName, Result<FoundOffset, i16>>, TransportError> {
    let asked = |index: &i32| {
        ListOffsetsPartition::default()
            .with_partition_index(*index)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp)
    };
    let build = |version| {
        let topics = by_topic(partitions.iter().map(|(name, index)| (name, index)));
        let topics = topics.into_iter().map(|(name, indexes)| {
            let partitions = indexes.into_iter().map(asked).collect();
            ListOffsetsTopic::default()
                .with_name(name)
                .with_partitions(partitions)
        });
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(topics.collect());
        if version >= 2 {
            request.with_isolation_level(isolation_level)
        } else {
            request
        }
    };
    let (_, response) = call_with(transport, broker, 1..=10, Duration::ZERO, build).await?;
    let mut found = BTreeMap::new();
    for topic in &response.topics {
        let Some(name) = WireStr::copy_from(topic.name.0.as_str()) else {
            continue;
        };
        for partition in &topic.partitions {
            let answer = match partition.error_code {
                0 => Ok(FoundOffset {
                    offset: partition.offset,
                    timestamp: partition.timestamp,
                }),
                error_code => Err(error_code),
            };
            found.insert((name.clone(), partition.partition_index), answer);
        }
    }
    Ok(found)
}

/// A partition and a leader epoch of which the end is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionEpoch {
    /// The partition.
    pub partition: PartitionName,
    /// The epoch.
    pub epoch: i32,
}

/// Asks where epochs end in the leader's log (KIP-320). A partition gives its error code if it has no answer, and
/// is missing if the broker leaves it out.
pub async fn epoch_ends<T: Transport>(
    transport: &T,
    broker: &BrokerAddress,
    partitions: &[PartitionEpoch],
) -> Result<BTreeMap<PartitionName, Result<EpochEnd, i16>>, TransportError> {
    let asked = |each: &PartitionEpoch| {
        OffsetForLeaderPartition::default()
            .with_partition(each.partition.1)
            .with_current_leader_epoch(-1)
            .with_leader_epoch(each.epoch)
    };
    let build = |version| {
        let topics = by_topic(partitions.iter().map(|each| (&each.partition.0, each)));
        let topics = topics.into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(asked).collect();
            OffsetForLeaderTopic::default()
                .with_topic(name)
                .with_partitions(partitions)
        });
        let request = OffsetForLeaderEpochRequest::default().with_topics(topics.collect());
        // From v3 on a consumer says that it is none of the replicas.
        if version >= 3 {
            request.with_replica_id(BrokerId(-1))
        } else {
            request
        }
    };
    let (_, response) = call_with(transport, broker, 2..=4, Duration::ZERO, build).await?;
    let mut ends = BTreeMap::new();
    for topic in &response.topics {
        let Some(name) = WireStr::copy_from(topic.topic.0.as_str()) else {
            continue;
        };
        for partition in &topic.partitions {
            let answer = match partition.error_code {
                0 => Ok(EpochEnd {
                    epoch: partition.leader_epoch,
                    end_offset: partition.end_offset,
                }),
                error_code => Err(error_code),
            };
            ends.insert((name.clone(), partition.partition), answer);
        }
    }
    Ok(ends)
}

fn by_topic<'p, P>(partitions: impl Iterator<Item = (&'p WireStr, P)>) -> Vec<(TopicName, Vec<P>)> {
    let mut topics: BTreeMap<&WireStr, Vec<P>> = BTreeMap::new();
    for (name, partition) in partitions {
        topics.entry(name).or_default().push(partition);
    }
    topics
        .into_iter()
        .map(|(name, partitions)| (topic_name(name), partitions))
        .collect()
}
