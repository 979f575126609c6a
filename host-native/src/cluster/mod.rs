//! What a cluster says of itself: brokers, topics with their ids, leaders with their epochs, and offsets.

mod configs;
mod metadata;
mod nearest;
mod offsets;

pub use configs::compacted_topics;
pub(crate) use metadata::answers_topic_ids;
pub use metadata::{PartitionMetadata, TopicMetadata, Topology, describe, describe_all};
pub(crate) use nearest::{Nearest, NearestReplicas};
pub use offsets::{
    EARLIEST_TIMESTAMP, FoundOffset, LATEST_TIMESTAMP, PartitionEpoch, PartitionName, epoch_ends,
    list_offsets,
};

use kafka_protocol::ResponseError;

/// Kafka's name of an error code, for messages.
pub fn error_name(code: i16) -> String {
    ResponseError::try_from_code(code)
        .map_or_else(|| "no error".into(), |error| format!("{error:?} ({code})"))
}

/// The error codes that the crate reacts to.
pub(crate) mod code {
    pub(crate) const OFFSET_OUT_OF_RANGE: i16 = 1;
    pub(crate) const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    pub(crate) const LEADER_NOT_AVAILABLE: i16 = 5;
    pub(crate) const NOT_LEADER_OR_FOLLOWER: i16 = 6;
    #[cfg(feature = "gateway")]
    pub(crate) const REQUEST_TIMED_OUT: i16 = 7;
    pub(crate) const REPLICA_NOT_AVAILABLE: i16 = 9;
    pub(crate) const INVALID_TOPIC: i16 = 17;
    #[cfg(feature = "gateway")]
    pub(crate) const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
    #[cfg(feature = "gateway")]
    pub(crate) const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
    pub(crate) const KAFKA_STORAGE_ERROR: i16 = 56;
    pub(crate) const FENCED_LEADER_EPOCH: i16 = 74;
    pub(crate) const UNKNOWN_LEADER_EPOCH: i16 = 75;
    pub(crate) const OFFSET_NOT_AVAILABLE: i16 = 78;
    pub(crate) const UNKNOWN_TOPIC_ID: i16 = 100;
    pub(crate) const INCONSISTENT_TOPIC_ID: i16 = 103;
}
