//! Kafka's Fetch messages, record batches and records, field by field: views over bytes, never copies.
//!
//! Nothing here trusts a length, and no input makes anything here panic or allocate more than a small multiple
//! of its own size. Decompression has a bound of its own, in [`codec`].

mod aborted_walk;
mod batch;
mod checksum;
pub mod codec;
mod error;
mod fetch_request;
mod fetch_response;
mod made_table;
mod reader;
mod record;
mod record_bytes;
mod tagged;
mod types;
mod writer;

pub use aborted_walk::AbortedWalk;
pub use batch::{BATCH_HEADER_BYTES, BatchEntry, Batches, LegacyMessage, RecordBatch};
pub use checksum::Crc32c;
pub use error::{BatchError, DecodeError, DecodeErrorKind};
pub use fetch_request::{
    FETCH_API_KEY, FETCH_VERSION_FLEXIBLE, FETCH_VERSION_MAX, FETCH_VERSION_MIN, FETCH_VERSION_TOPIC_IDS,
    FetchPartition, FetchRequest, FetchTopic, ForgottenTopic, ReplicaState,
};
pub use fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchResponse, FetchableTopic, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData, SnapshotId,
};
pub use record::{ControlRecord, Headers, Record, RecordIter};
pub use record_bytes::RecordBytes;
pub use tagged::{TaggedField, TaggedFields};
pub use types::{TopicId, TopicRef, WireStr};
pub use writer::Chunks;
