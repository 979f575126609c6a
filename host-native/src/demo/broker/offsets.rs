//! Where logs begin and end, and what lies where in time: `ListOffsets` and `OffsetForLeaderEpoch`.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};

use super::BrokerState;
use super::fetch::epoch_error;
use super::log::{PartitionLog, TimedOffset, Unreadable};
use super::topics::Topic;

/// Asks for the end of the log.
const LATEST_TIMESTAMP: i64 = -1;
/// Asks for the beginning of the log.
const EARLIEST_TIMESTAMP: i64 = -2;
/// Asks for the record with the greatest time (v7+, KIP-734).
const MAX_TIMESTAMP: i64 = -3;
/// Asks for the beginning of what lies on the broker's own disks (v8+, KIP-405).
const EARLIEST_LOCAL_TIMESTAMP: i64 = -4;
/// Asks for the end of what lies in tiered storage (v9+, KIP-1005).
const LATEST_TIERED_TIMESTAMP: i64 = -5;

/// What stands where nothing was found.
const NOTHING: TimedOffset = TimedOffset {
    timestamp: -1,
    offset: -1,
    leader_epoch: -1,
};

/// Offsets by time.
pub(super) fn list_offsets(
    state: &BrokerState,
    request: &ListOffsetsRequest,
    version: i16,
) -> ListOffsetsResponse {
    let topics = state.topics();
    let results = request.topics.iter().map(|asked| {
        let topic = topics.by_name(&asked.name);
        let partitions = asked
            .partitions
            .iter()
            .map(|each| list_offset(topic, each, version));
        ListOffsetsTopicResponse::default()
            .with_name(asked.name.clone())
            .with_partitions(partitions.collect())
    });
    ListOffsetsResponse::default().with_topics(results.collect())
}

fn list_offset(
    topic: Option<&Topic>,
    asked: &ListOffsetsPartition,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let log = topic.and_then(|topic| topic.partition(asked.partition_index));
    let found = log.ok_or(ResponseError::UnknownTopicOrPartition).and_then(|log| {
        if let Some(error) = epoch_error(log, asked.current_leader_epoch) {
            return Err(error);
        }
        find_offset(log, asked.timestamp, version)
    });
    let (error_code, found) = match found {
        Ok(found) => (0, found),
        Err(error) => (error.code(), NOTHING),
    };
    ListOffsetsPartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_error_code(error_code)
        .with_timestamp(found.timestamp)
        .with_offset(found.offset)
        // Earlier versions do not carry it.
        .with_leader_epoch(if version >= 4 { found.leader_epoch } else { -1 })
}

fn find_offset(log: &PartitionLog, timestamp: i64, version: i16) -> Result<TimedOffset, ResponseError> {
    let at = |offset| TimedOffset {
        timestamp: -1,
        offset,
        leader_epoch: log.epoch_at(offset),
    };
    let or_nothing = |found: Result<Option<TimedOffset>, Unreadable>| match found {
        Ok(found) => Ok(found.unwrap_or(NOTHING)),
        Err(Unreadable) => Err(ResponseError::CorruptMessage),
    };
    match timestamp {
        LATEST_TIMESTAMP => Ok(TimedOffset {
            leader_epoch: log.leader_epoch(),
            ..at(log.end_offset())
        }),
        EARLIEST_TIMESTAMP => Ok(at(log.log_start_offset())),
        MAX_TIMESTAMP if version >= 7 => or_nothing(log.latest_by_time()),
        EARLIEST_LOCAL_TIMESTAMP if version >= 8 => Ok(at(log.log_start_offset())),
        LATEST_TIERED_TIMESTAMP if version >= 9 => Ok(NOTHING),
        0.. => or_nothing(log.first_since(timestamp)),
        _ => Err(ResponseError::UnsupportedVersion),
    }
}

/// Where leader epochs end (KIP-320).
pub(super) fn offset_for_leader_epoch(
    state: &BrokerState,
    request: &OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = state.topics();
    let results = request.topics.iter().map(|asked| {
        let topic = topics.by_name(&asked.topic);
        let partitions = asked.partitions.iter().map(|each| epoch_end(topic, each));
        OffsetForLeaderTopicResult::default()
            .with_topic(asked.topic.clone())
            .with_partitions(partitions.collect())
    });
    OffsetForLeaderEpochResponse::default().with_topics(results.collect())
}

fn epoch_end(topic: Option<&Topic>, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let nothing = EpochEndOffset::default()
        .with_partition(asked.partition)
        .with_leader_epoch(-1)
        .with_end_offset(-1);
    let Some(log) = topic.and_then(|topic| topic.partition(asked.partition)) else {
        return nothing.with_error_code(ResponseError::UnknownTopicOrPartition.code());
    };
    if let Some(error) = epoch_error(log, asked.current_leader_epoch) {
        return nothing.with_error_code(error.code());
    }
    match log.epoch_end(asked.leader_epoch) {
        Some((epoch, end_offset)) => nothing.with_leader_epoch(epoch).with_end_offset(end_offset),
        None => nothing,
    }
}
