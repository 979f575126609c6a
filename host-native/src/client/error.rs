//! Why the client could not answer.

use kachet_core::wire::BatchError;
use kachet_core::wire::codec::CodecError;

use crate::cluster::error_name;
use crate::transport::{BrokerAddressError, TransportError};

/// The client could not answer. Messages name the partition and say what to try.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No bootstrap broker was given.
    #[error("no broker to begin with: give at least one HOST:PORT")]
    NoBootstrap,
    /// A bootstrap address cannot be read.
    #[error(transparent)]
    Address(#[from] BrokerAddressError),
    /// A broker could not be asked.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A topic name that Kafka does not allow.
    #[error("'{topic}' is not a topic name: Kafka allows 1 to 249 letters, digits, '.', '_' and '-'")]
    InvalidTopicName {
        /// The name.
        topic: String,
    },
    /// The cluster knows no such topic.
    #[error(
        "topic '{topic}' does not exist on this cluster; check its name, and whether this is the right cluster"
    )]
    UnknownTopic {
        /// The topic.
        topic: String,
    },
    /// The topic has no such partition.
    #[error("topic '{topic}' has no partition {partition}; it has {count}, counted from 0")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// How many the topic has.
        count: usize,
    },
    /// The log no longer, or not yet, holds the offset.
    #[error(
        "offset {offset} of {topic}/{partition} is out of range; the log holds offsets from {log_start_offset} up to, not including, {high_watermark}"
    )]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset that was asked for.
        offset: i64,
        /// The first offset that the log holds.
        log_start_offset: i64,
        /// The first offset that it does not hold yet.
        high_watermark: i64,
    },
    /// The broker kept giving nothing where its log goes on.
    #[error(
        "{topic}/{partition}: the broker gives nothing at offset {offset}, though it can be read up to {end_offset}; does it throttle this client?"
    )]
    NoProgress {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset that was asked for.
        offset: i64,
        /// The first offset that cannot be read yet.
        end_offset: i64,
    },
    /// No record has that time or a later one.
    #[error("{topic}/{partition} has no record at or after timestamp {timestamp_ms}")]
    NoSuchTimestamp {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The time that was asked for, in milliseconds since 1970.
        timestamp_ms: i64,
    },
    /// The broker answered with an error that trying again does not mend, or that it kept giving.
    #[error("{topic}/{partition}: the broker answers {}", error_name(*.code))]
    Broker {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Kafka's error code.
        code: i16,
    },
    /// The partition has no leader for the moment, and had none for as long as was waited.
    #[error("{topic}/{partition} has no leader; is the broker that holds it running?")]
    NoLeader {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// The answer holds messages of a format older than Kafka 0.11.
    #[error(
        "{topic}/{partition} at offset {offset} is stored in message format {magic}; records are read from format 2 only"
    )]
    LegacyFormat {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
        /// The format.
        magic: i8,
    },
    /// A batch is malformed.
    #[error("{topic}/{partition}: {source}")]
    Batch {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// What is wrong with it.
        source: BatchError,
    },
    /// A batch cannot be decompressed.
    #[error("{topic}/{partition}, batch at offset {base_offset}: {source}")]
    Codec {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The base offset of the batch.
        base_offset: i64,
        /// What is wrong with it.
        source: CodecError,
    },
}
