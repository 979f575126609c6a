//! Why records cannot be read.

use core::fmt;

use kachet_core::wire::BatchError;
use kachet_core::wire::codec::CodecError;

/// Why records cannot be read, with a code for programs and words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A batch is not what Kafka writes.
    Batch {
        /// The partition.
        partition: i32,
        /// What is wrong.
        source: BatchError,
    },
    /// A batch is of a format from before Kafka 0.11.
    LegacyFormat {
        /// The partition.
        partition: i32,
        /// Where it lies.
        offset: i64,
        /// Its format, 0 or 1.
        magic: i8,
    },
    /// A batch cannot be decompressed.
    Codec {
        /// The partition.
        partition: i32,
        /// The first offset of the batch.
        base_offset: i64,
        /// What is wrong.
        source: CodecError,
    },
    /// The broker gave an error in the place of records.
    Broker {
        /// The partition, −1 if the error is of the whole response.
        partition: i32,
        /// Kafka's code of the error.
        error_code: i16,
    },
}

impl Error {
    /// A word for programs, the same on every platform.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Batch { .. } => "MALFORMED_BATCH",
            Self::LegacyFormat { .. } => "LEGACY_FORMAT",
            Self::Codec { .. } => "CODEC",
            Self::Broker { .. } => "BROKER",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch { partition, source } => write!(f, "partition {partition}: {source}"),
            Self::LegacyFormat {
                partition,
                offset,
                magic,
            } => write!(
                f,
                "partition {partition}: the message at offset {offset} is of format {magic}, only 2 is read"
            ),
            Self::Codec {
                partition,
                base_offset,
                source,
            } => write!(
                f,
                "partition {partition}, batch at offset {base_offset}: {source}"
            ),
            Self::Broker {
                partition: -1,
                error_code,
            } => write!(f, "the broker answered with error {error_code}"),
            Self::Broker {
                partition,
                error_code,
            } => write!(
                f,
                "partition {partition}: the broker answered with error {error_code}"
            ),
        }
    }
}

impl core::error::Error for Error {}
