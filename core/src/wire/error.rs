//! What can be wrong with bytes from the wire, and where.

use core::fmt;

/// A field could not be decoded. Says which field, at which byte of the input, and what was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The field, by the name that Kafka's message schemas give it.
    pub field: &'static str,
    /// Offset in the input at which the field begins, in bytes. Where less is left than the field's length or
    /// count asks for, it is that of what follows the length.
    pub at_byte: usize,
    /// What was wrong with it.
    pub kind: DecodeErrorKind,
}

/// What was wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The input ends inside the field.
    UnexpectedEnd {
        /// Bytes that the field takes, or at least takes.
        needed_bytes: usize,
        /// Bytes that were left.
        available_bytes: usize,
    },
    /// A length or a count is below zero and not the −1 that stands for null.
    NegativeLength {
        /// The length as it stood in the input.
        length: i64,
    },
    /// Null where the schema allows none.
    UnexpectedNull,
    /// A variable-length integer runs on beyond the bytes that its type can fill.
    VarintTooLong,
    /// A string is not UTF-8.
    InvalidUtf8,
    /// A string is longer than Kafka's own clients and brokers read, though flexible versions could state it.
    StringTooLong {
        /// The length as it stood in the input, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit_bytes: usize,
    },
    /// A version of Fetch outside the range that is spoken here.
    UnsupportedVersion {
        /// The version that was asked for.
        version: i16,
    },
    /// Tagged fields must come in ascending order, each once.
    TagOrder {
        /// The tag that came too late or twice.
        tag: u32,
    },
    /// More unknown tagged fields in one structure than are kept.
    TooManyTags {
        /// The limit.
        limit: usize,
    },
    /// A tagged field does not fill the length that it states.
    TagLength {
        /// Bytes that the field states.
        stated_bytes: usize,
        /// Bytes that its value took.
        used_bytes: usize,
    },
    /// Bytes are left over behind the last field.
    TrailingBytes {
        /// How many.
        count: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: ", self.field, self.at_byte)?;
        match &self.kind {
            DecodeErrorKind::UnexpectedEnd {
                needed_bytes,
                available_bytes,
            } => {
                write!(f, "needs {needed_bytes} bytes, {available_bytes} are left")
            }
            DecodeErrorKind::NegativeLength { length } => write!(f, "length {length} is negative"),
            DecodeErrorKind::UnexpectedNull => f.write_str("is null where the schema allows none"),
            DecodeErrorKind::VarintTooLong => f.write_str("variable-length integer does not end"),
            DecodeErrorKind::InvalidUtf8 => f.write_str("is not UTF-8"),
            DecodeErrorKind::StringTooLong { length, limit_bytes } => {
                write!(f, "takes {length} bytes, a string takes at most {limit_bytes}")
            }
            DecodeErrorKind::UnsupportedVersion { version } => {
                write!(f, "version {version} is not spoken here (4 to 18 are)")
            }
            DecodeErrorKind::TagOrder { tag } => write!(f, "tag {tag} is out of order or repeated"),
            DecodeErrorKind::TooManyTags { limit } => write!(f, "more than {limit} unknown tagged fields"),
            DecodeErrorKind::TagLength {
                stated_bytes,
                used_bytes,
            } => {
                write!(
                    f,
                    "tagged field states {stated_bytes} bytes and takes {used_bytes}"
                )
            }
            DecodeErrorKind::TrailingBytes { count } => write!(f, "{count} bytes are left over"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// A record batch, or a record in it, is not what Kafka writes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchError {
    /// A batch length too small for the header of its format, or negative.
    Length {
        /// Offset of the batch in the input, in bytes.
        at_byte: usize,
        /// The length field as it stood there.
        length: i32,
        /// The smallest that the format allows.
        minimum: i32,
    },
    /// A magic byte outside 0..=2.
    Magic {
        /// Offset of the batch in the input, in bytes.
        at_byte: usize,
        /// The magic byte.
        magic: i8,
    },
    /// A batch of format 2 was expected and the bytes hold less than a whole one.
    Incomplete {
        /// Offset of the batch in the input, in bytes.
        at_byte: usize,
        /// Bytes that a whole batch takes, as far as is known.
        needed_bytes: usize,
        /// Bytes that are there.
        available_bytes: usize,
    },
    /// A header field that contradicts the format: a negative base offset, last offset delta or record
    /// count, or a last offset beyond `i64::MAX`.
    Header {
        /// Offset of the batch in the input, in bytes.
        at_byte: usize,
        /// The field.
        field: &'static str,
        /// Its value.
        value: i64,
    },
    /// The CRC-32C of the batch does not match its bytes.
    Checksum {
        /// Base offset of the batch.
        base_offset: i64,
        /// The CRC in the header.
        stored: u32,
        /// The CRC of the bytes.
        computed: u32,
    },
    /// A record inside the (decompressed) batch is malformed.
    Record {
        /// Which record of the batch, counted from 0.
        index: usize,
        /// What is wrong, and where in the decompressed records.
        source: DecodeError,
    },
    /// The batch holds fewer or more records than its header says.
    RecordCount {
        /// The count in the header.
        stated: i32,
        /// Bytes left over after that many records.
        bytes_left: usize,
    },
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length {
                at_byte,
                length,
                minimum,
            } => {
                write!(
                    f,
                    "batch at byte {at_byte}: length {length} is below the minimum {minimum}"
                )
            }
            Self::Magic { at_byte, magic } => {
                write!(f, "batch at byte {at_byte}: magic {magic} is none of 0, 1 and 2")
            }
            Self::Incomplete {
                at_byte,
                needed_bytes,
                available_bytes,
            } => {
                write!(
                    f,
                    "batch at byte {at_byte}: takes {needed_bytes} bytes, {available_bytes} are there"
                )
            }
            Self::Header {
                at_byte,
                field,
                value,
            } => {
                write!(f, "batch at byte {at_byte}: {field} is {value}")
            }
            Self::Checksum {
                base_offset,
                stored,
                computed,
            } => write!(
                f,
                "batch at offset {base_offset}: CRC-32C is {computed:#010x}, the header says {stored:#010x}"
            ),
            Self::Record { index, source } => write!(f, "record {index} of the batch: {source}"),
            Self::RecordCount { stated, bytes_left } => {
                write!(
                    f,
                    "batch states {stated} records and {bytes_left} bytes are left behind them"
                )
            }
        }
    }
}

impl core::error::Error for BatchError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Record { source, .. } => Some(source),
            _ => None,
        }
    }
}
