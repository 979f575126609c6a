//! What can be wrong with a segment, and where.

use core::fmt;

use crate::identity::PartitionKey;
use crate::offset::OffsetSpan;
use crate::storage::{SegmentId, StorageError};
use crate::wire::BatchError;

/// A segment, or a part of it, could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentError {
    /// The segment.
    pub segment: SegmentId,
    /// At which byte of it the part begins that could not be read.
    pub at_byte: u64,
    /// What was wrong.
    pub kind: SegmentErrorKind,
}

impl SegmentError {
    /// What a storage failed with while a segment was read.
    pub(crate) fn of_storage(segment: SegmentId, error: StorageError) -> Self {
        Self {
            segment,
            at_byte: 0,
            kind: SegmentErrorKind::Storage(error),
        }
    }
}

/// The parts of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The header at its beginning.
    SegmentHeader,
    /// A record with a batch.
    Record,
    /// The footer with its trailer.
    Footer,
}

/// What was wrong with a part of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentErrorKind {
    /// The storage failed to give the bytes.
    Storage(StorageError),
    /// The storage gave another number of bytes than it was asked for.
    ReadLength {
        /// What it was asked for, in bytes.
        expected_bytes: u64,
        /// What it gave, in bytes.
        found_bytes: u64,
    },
    /// The segment was written by a later version of this program.
    NewerVersion {
        /// The version of its format.
        version: u16,
        /// The newest version that is read here.
        newest: u16,
    },
    /// The bytes end inside the part, or go on behind it where they must not.
    Length {
        /// What is cut or too long.
        part: Part,
        /// What it takes by its own account, in bytes.
        expected_bytes: u64,
        /// What is there, in bytes.
        found_bytes: u64,
    },
    /// The part does not begin with its magic number.
    Magic {
        /// What was expected there.
        part: Part,
        /// What stands in its place, little-endian.
        found: u64,
    },
    /// The checksum does not match, so not a field of the part is to be trusted.
    Checksum {
        /// What is damaged.
        part: Part,
        /// The checksum that it holds.
        stored: u32,
        /// The checksum of its bytes at this place.
        computed: u32,
    },
    /// A field holds what none may.
    Field {
        /// Of which part.
        part: Part,
        /// The field's name.
        field: &'static str,
        /// What it holds.
        found: i128,
    },
    /// The header of a record and the batch behind it disagree.
    Disagreement {
        /// The field's name.
        field: &'static str,
        /// What the header says.
        header: i64,
        /// What the batch says.
        batch: i64,
    },
    /// The record is intact, but of another batch than was asked for.
    OtherBatch {
        /// The partition and the offsets that were asked for.
        expected: (PartitionKey, OffsetSpan),
        /// Those that the record holds.
        found: (PartitionKey, OffsetSpan),
    },
    /// The batch itself is damaged.
    Batch(BatchError),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SegmentHeader => "the segment's header",
            Self::Record => "the record",
            Self::Footer => "the footer",
        })
    }
}

impl fmt::Display for SegmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "segment {} at byte {}: {}",
            self.segment, self.at_byte, self.kind
        )
    }
}

impl fmt::Display for SegmentErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(source) => fmt::Display::fmt(source, f),
            Self::ReadLength {
                expected_bytes,
                found_bytes,
            } => write!(
                f,
                "the storage gave {found_bytes} bytes instead of {expected_bytes}"
            ),
            Self::NewerVersion { version, newest } => write!(
                f,
                "written in version {version} of the format, {newest} is the newest that is read here"
            ),
            Self::Length {
                part,
                expected_bytes,
                found_bytes,
            } => write!(f, "{part} takes {expected_bytes} bytes, {found_bytes} are there"),
            Self::Magic { part, found } => write!(f, "{found:#x} stands where {part} should begin"),
            Self::Checksum {
                part,
                stored,
                computed,
            } => write!(
                f,
                "the checksum of {part} is {computed:#010x}, stored is {stored:#010x}"
            ),
            Self::Field { part, field, found } => write!(f, "{field} of {part} is {found}"),
            Self::Disagreement { field, header, batch } => {
                write!(
                    f,
                    "{field} is {header} by the record's header and {batch} by its batch"
                )
            }
            Self::OtherBatch { expected, found } => write!(
                f,
                "holds {} of {}, expected {} of {}",
                found.1, found.0, expected.1, expected.0
            ),
            Self::Batch(source) => fmt::Display::fmt(source, f),
        }
    }
}

impl core::error::Error for SegmentError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match &self.kind {
            SegmentErrorKind::Storage(source) => Some(source),
            SegmentErrorKind::Batch(source) => Some(source),
            _ => None,
        }
    }
}
