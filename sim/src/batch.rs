//! Record batches of format 2, as producers, coordinators and the cleaner make them.

use bytes::{BufMut, Bytes, BytesMut};
use kachet::core::wire::BATCH_HEADER_BYTES;

use crate::dice::mix;

/// The attribute bits of a batch.
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
/// Where a batch's checksum begins to count.
const CHECKED_FROM: usize = 21;
const CRC_AT: usize = 17;

/// What a batch is to hold.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) base: i64,
    /// The last offset, inclusive; also of a batch whose last records the cleaner has removed.
    pub(crate) last: i64,
    pub(crate) leader_epoch: i32,
    /// −1 for a producer without an id.
    pub(crate) producer_id: i64,
    pub(crate) transactional: bool,
    /// A transaction's end: whether it commits.
    pub(crate) commits: Option<bool>,
    /// The offsets of the records; some of those between base and last are missing after a cleaning.
    pub(crate) records: Vec<i64>,
    /// What each record's value takes, in bytes.
    pub(crate) value_bytes: usize,
    /// Tells the values of this batch from those of any other.
    pub(crate) salt: u64,
}

/// A batch in a log.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) content: Content,
    pub(crate) bytes: Bytes,
}

impl Batch {
    pub(crate) fn new(content: Content) -> Self {
        let bytes = encode(&content);
        Self { content, bytes }
    }

    pub(crate) fn base(&self) -> i64 {
        self.content.base
    }

    pub(crate) fn last(&self) -> i64 {
        self.content.last
    }

    pub(crate) fn is_control(&self) -> bool {
        self.content.commits.is_some()
    }

    /// Whether a consumer would be given a record of it that lies at or behind `offset`.
    pub(crate) fn has_records_from(&self, offset: i64) -> bool {
        !self.is_control() && self.content.records.last().is_some_and(|last| *last >= offset)
    }
}

fn encode(content: &Content) -> Bytes {
    let mut records = BytesMut::new();
    for offset in &content.records {
        match content.commits {
            Some(commits) => marker(&mut records, commits),
            None => record(&mut records, *offset, content),
        }
    }
    let mut attributes = 0;
    if content.transactional {
        attributes |= TRANSACTIONAL;
    }
    if content.commits.is_some() {
        attributes |= CONTROL;
    }
    let mut batch = BytesMut::with_capacity(BATCH_HEADER_BYTES + records.len());
    batch.put_i64(content.base);
    batch.put_i32(length(BATCH_HEADER_BYTES - 12 + records.len()));
    batch.put_i32(content.leader_epoch);
    batch.put_i8(2);
    batch.put_u32(0);
    batch.put_i16(attributes);
    batch.put_i32(i32::try_from(content.last - content.base).unwrap_or(i32::MAX));
    let timestamp = 1_700_000_000_000 + content.base;
    batch.put_i64(timestamp);
    batch.put_i64(timestamp);
    batch.put_i64(content.producer_id);
    batch.put_i16(if content.producer_id < 0 { -1 } else { 0 });
    batch.put_i32(if content.producer_id < 0 { -1 } else { 0 });
    batch.put_i32(length(content.records.len()));
    batch.extend_from_slice(&records);
    let crc = crc32c::crc32c(&batch[CHECKED_FROM..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

fn length(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

fn record(out: &mut BytesMut, offset: i64, content: &Content) {
    let mut body = BytesMut::with_capacity(content.value_bytes + 24);
    body.put_i8(0);
    varint(&mut body, 0);
    varint(&mut body, offset - content.base);
    varint(&mut body, -1);
    varint(&mut body, i64::try_from(content.value_bytes).unwrap_or(0));
    let mut word = mix(content.salt ^ offset.unsigned_abs());
    let mut left = content.value_bytes;
    while left > 0 {
        let taken = left.min(8);
        body.put_slice(&word.to_le_bytes()[..taken]);
        left -= taken;
        word = mix(word);
    }
    varint(&mut body, 0);
    varint(out, i64::try_from(body.len()).unwrap_or(0));
    out.extend_from_slice(&body);
}

/// The record of a control batch: its key says how the transaction ended.
fn marker(out: &mut BytesMut, commits: bool) {
    let mut body = BytesMut::new();
    body.put_i8(0);
    varint(&mut body, 0);
    varint(&mut body, 0);
    varint(&mut body, 4);
    body.put_i16(0);
    body.put_i16(i16::from(commits));
    varint(&mut body, 6);
    body.put_slice(&[0; 6]);
    varint(&mut body, 0);
    varint(out, i64::try_from(body.len()).unwrap_or(0));
    out.extend_from_slice(&body);
}

/// A zigzag varint.
fn varint(out: &mut BytesMut, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while left >= 0x80 {
        out.put_u8(u8::try_from(left & 0x7f).unwrap_or(0) | 0x80);
        left >>= 7;
    }
    out.put_u8(u8::try_from(left).unwrap_or(0));
}
