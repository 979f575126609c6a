//! What makes two fetches of a partition the same.

use kachet_core::wire::{FetchPartition, FetchRequest, TopicRef, WireStr};

use crate::transport::BrokerAddress;

/// Everything on which a broker's answer about one partition depends but for the offset. Ordered by partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Lane {
    pub(super) topic: TopicRef,
    /// With an offset of zero.
    pub(super) asked: FetchPartition,
    isolation_level: i8,
    pub(super) max_wait_ms: i32,
    pub(super) min_bytes: i32,
    max_bytes: i32,
    rack_id: WireStr,
    cluster_id: Option<WireStr>,
    version: i16,
    broker: BrokerAddress,
}

/// Fetches share an answer only if all of it is the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FlightKey {
    pub(super) lane: Lane,
    pub(super) fetch_offset: i64,
}

impl FlightKey {
    pub(super) fn new(
        broker: &BrokerAddress,
        version: i16,
        request: &FetchRequest,
        topic: &TopicRef,
        asked: &FetchPartition,
    ) -> Self {
        // A broker that does not wait looks at no lower limit, and the partition's own limit is within that of the whole
        // response: so a request of which the cache has answered a part still shares the rest with others.
        let is_prompt = request.max_wait_ms == 0;
        let lane = Lane {
            topic: topic.clone(),
            asked: FetchPartition {
                fetch_offset: 0,
                ..asked.clone()
            },
            isolation_level: request.isolation_level,
            max_wait_ms: request.max_wait_ms,
            min_bytes: if is_prompt { 0 } else { request.min_bytes },
            max_bytes: request.max_bytes.min(asked.partition_max_bytes),
            rack_id: request.rack_id.clone(),
            cluster_id: request.cluster_id.clone(),
            version,
            broker: broker.clone(),
        };
        Self {
            lane,
            fetch_offset: asked.fetch_offset,
        }
    }
}
