//! Records as they are handed to the caller.

use bytes::Bytes;

/// What a record's timestamp tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// When the producer made it.
    Create,
    /// When the broker appended it.
    LogAppend,
}

/// One record. Its bytes share the memory of the batch that it came in, or of what that batch decompressed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset.
    pub offset: i64,
    /// Its time, in milliseconds since 1970; −1 for none.
    pub timestamp_ms: i64,
    /// What the time tells.
    pub timestamp_type: TimestampType,
    /// The key, or null.
    pub key: Option<Bytes>,
    /// The value, or null (a tombstone).
    pub value: Option<Bytes>,
    /// The headers in order: keys, and values or null.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}
