//! How often the broker was asked what.

use core::sync::atomic::{AtomicU64, Ordering};

use kafka_protocol::messages::ApiKey;

/// Requests that the broker has answered since it started, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Connections that were accepted.
    pub connections: u64,
    /// `ApiVersions`, those of an unsupported version included.
    pub api_versions: u64,
    /// Metadata.
    pub metadata: u64,
    /// `ListOffsets`.
    pub list_offsets: u64,
    /// `OffsetForLeaderEpoch`.
    pub offset_for_leader_epoch: u64,
    /// `DescribeConfigs`.
    pub describe_configs: u64,
    /// Fetch.
    pub fetch: u64,
    /// Bytes of all answers, frames included.
    pub bytes_sent: u64,
}

/// The counters behind [`RequestCounts`]. Each is exact; read together they need not be of one instant.
#[derive(Default)]
pub(super) struct Counters {
    connections: AtomicU64,
    api_versions: AtomicU64,
    metadata: AtomicU64,
    list_offsets: AtomicU64,
    offset_for_leader_epoch: AtomicU64,
    describe_configs: AtomicU64,
    fetch: AtomicU64,
    bytes_sent: AtomicU64,
}

impl Counters {
    pub(super) fn count_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer just before it is written, so that whoever has read it finds it counted.
    pub(super) fn count_answer(&self, api: ApiKey, size_bytes: usize) {
        let counter = match api {
            ApiKey::ApiVersions => &self.api_versions,
            ApiKey::Metadata => &self.metadata,
            ApiKey::ListOffsets => &self.list_offsets,
            ApiKey::OffsetForLeaderEpoch => &self.offset_for_leader_epoch,
            ApiKey::DescribeConfigs => &self.describe_configs,
            ApiKey::Fetch => &self.fetch,
            // No other API is answered.
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.bytes_sent.fetch_add(size_bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> RequestCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RequestCounts {
            connections: read(&self.connections),
            api_versions: read(&self.api_versions),
            metadata: read(&self.metadata),
            list_offsets: read(&self.list_offsets),
            offset_for_leader_epoch: read(&self.offset_for_leader_epoch),
            describe_configs: read(&self.describe_configs),
            fetch: read(&self.fetch),
            bytes_sent: read(&self.bytes_sent),
        }
    }
}
