//! Record batches (magic 2) as views over the bytes they came in, and the walk over the batches of a response.
//!
//! Source: `DefaultRecordBatch.java`, `LegacyRecord.java`; KIP-98 (format 2), KIP-74 (truncated tails).

use core::ops::Range;

use super::checksum::Crc32c;
use super::codec::{Codec, CodecError};
use super::error::BatchError;
use super::record::RecordIter;
use crate::offset::OffsetSpan;

/// Where the fields of a batch header lie. All integers are big-endian.
mod field {
    use super::Range;

    pub(super) const BASE_OFFSET: Range<usize> = 0..8;
    pub(super) const BATCH_LENGTH: Range<usize> = 8..12;
    pub(super) const PARTITION_LEADER_EPOCH: Range<usize> = 12..16;
    /// At the same place in every format.
    pub(super) const MAGIC: usize = 16;
    pub(super) const CRC: Range<usize> = 17..21;
    /// The CRC covers everything from here to the end of the batch.
    pub(super) const CHECKED_FROM: usize = 21;
    pub(super) const ATTRIBUTES: Range<usize> = 21..23;
    pub(super) const LAST_OFFSET_DELTA: Range<usize> = 23..27;
    pub(super) const BASE_TIMESTAMP: Range<usize> = 27..35;
    pub(super) const MAX_TIMESTAMP: Range<usize> = 35..43;
    pub(super) const PRODUCER_ID: Range<usize> = 43..51;
    pub(super) const PRODUCER_EPOCH: Range<usize> = 51..53;
    pub(super) const BASE_SEQUENCE: Range<usize> = 53..57;
    pub(super) const RECORDS_COUNT: Range<usize> = 57..61;
}

/// Bytes in front of what the batch length counts: base offset and the length itself.
const LOG_OVERHEAD: usize = 12;
/// Bytes of the header of a batch of format 2.
pub const BATCH_HEADER_BYTES: usize = 61;
/// The smallest batch length of format 2.
const BATCH_LENGTH_MIN: i32 = 49;
/// The smallest size of a message of formats 0 and 1.
const LEGACY_SIZE_MIN: i32 = 14;

const ATTRIBUTE_LOG_APPEND_TIME: i16 = 1 << 3;
const ATTRIBUTE_TRANSACTIONAL: i16 = 1 << 4;
const ATTRIBUTE_CONTROL: i16 = 1 << 5;

/// A whole record batch of format 2. Its header fields are proven to be there and in range; the CRC is
/// checked by [`RecordBatch::verify`] only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RecordBatch<'a> {
    bytes: &'a [u8],
    span: OffsetSpan,
}

impl<'a> RecordBatch<'a> {
    /// The batch at the beginning of `bytes`, which may go on behind it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let mut batches = Batches::new(bytes);
        match batches.next() {
            Some(Ok(BatchEntry::Batch(batch))) => Ok(batch),
            Some(Ok(BatchEntry::Legacy(legacy))) => Err(BatchError::Magic {
                at_byte: 0,
                magic: legacy.magic,
            }),
            Some(Err(error)) => Err(error),
            None => Err(BatchError::Incomplete {
                at_byte: 0,
                // Before the magic byte is there, the length is not checked yet and may state next to nothing.
                needed_bytes: stated_size_bytes(bytes)
                    .filter(|&size| size > bytes.len())
                    .unwrap_or(BATCH_HEADER_BYTES),
                available_bytes: bytes.len(),
            }),
        }
    }

    /// `bytes` hold exactly the batch and at least a header.
    #[inline]
    fn parse_whole(bytes: &'a [u8], at_byte: usize) -> Result<Self, BatchError> {
        let wrong = |field, value| {
            Err(BatchError::Header {
                at_byte,
                field,
                value,
            })
        };
        let mut batch = Self {
            bytes,
            span: OffsetSpan::single(0),
        };
        let base = batch.i64(field::BASE_OFFSET);
        let delta = batch.i32(field::LAST_OFFSET_DELTA);
        let count = batch.records_count();
        if base < 0 {
            return wrong("baseOffset", base);
        }
        if delta < 0 {
            return wrong("lastOffsetDelta", delta.into());
        }
        if count < 0 {
            return wrong("recordsCount", count.into());
        }
        let Some(span) = base
            .checked_add(delta.into())
            .and_then(|last| OffsetSpan::new(base, last))
        else {
            return wrong("lastOffsetDelta", delta.into());
        };
        batch.span = span;
        Ok(batch)
    }

    fn array<const N: usize>(&self, range: Range<usize>) -> [u8; N] {
        // Every range lies inside the header, which `parse` has proven to be there.
        self.bytes
            .get(range)
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or([0; N])
    }

    fn i16(&self, range: Range<usize>) -> i16 {
        i16::from_be_bytes(self.array(range))
    }

    fn i32(&self, range: Range<usize>) -> i32 {
        i32::from_be_bytes(self.array(range))
    }

    fn i64(&self, range: Range<usize>) -> i64 {
        i64::from_be_bytes(self.array(range))
    }

    /// The batch, to the byte as it came (H27).
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Size of the batch, in bytes, header included.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The offsets from base to last, both inclusive.
    pub fn span(&self) -> OffsetSpan {
        self.span
    }

    /// The offset of the first record that the batch was written with.
    pub fn base_offset(&self) -> i64 {
        self.span.base()
    }

    /// The offset of the last record that the batch was written with, inclusive. Stays when compaction
    /// removes that record.
    pub fn last_offset(&self) -> i64 {
        self.span.last()
    }

    /// The epoch of the leader that appended the batch.
    pub fn partition_leader_epoch(&self) -> i32 {
        self.i32(field::PARTITION_LEADER_EPOCH)
    }

    /// The CRC-32C that the header holds; it covers everything from the attributes on.
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(self.array(field::CRC))
    }

    /// The attribute bits.
    pub fn attributes(&self) -> i16 {
        self.i16(field::ATTRIBUTES)
    }

    /// How the records are compressed.
    pub fn codec(&self) -> Result<Codec, CodecError> {
        Codec::from_attributes(self.attributes())
    }

    /// Whether timestamps are those of the append, not of the producer.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes() & ATTRIBUTE_LOG_APPEND_TIME != 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes() & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// Whether the batch holds a transaction marker instead of data (H3).
    pub fn is_control(&self) -> bool {
        self.attributes() & ATTRIBUTE_CONTROL != 0
    }

    /// What the records' timestamp deltas count from, in milliseconds since 1970.
    pub fn base_timestamp(&self) -> i64 {
        self.i64(field::BASE_TIMESTAMP)
    }

    /// The greatest timestamp, in milliseconds since 1970.
    pub fn max_timestamp(&self) -> i64 {
        self.i64(field::MAX_TIMESTAMP)
    }

    /// Who produced it, −1 for a producer without an id.
    pub fn producer_id(&self) -> i64 {
        self.i64(field::PRODUCER_ID)
    }

    /// The producer's epoch.
    pub fn producer_epoch(&self) -> i16 {
        self.i16(field::PRODUCER_EPOCH)
    }

    /// The producer's sequence number of the first record.
    pub fn base_sequence(&self) -> i32 {
        self.i32(field::BASE_SEQUENCE)
    }

    /// How many records are left in it; compaction can bring it to 0.
    pub fn records_count(&self) -> i32 {
        self.i32(field::RECORDS_COUNT)
    }

    /// The records, compressed as [`Self::codec`] says.
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(BATCH_HEADER_BYTES..).unwrap_or_default()
    }

    /// Checks the CRC-32C.
    pub fn verify(&self, crc32c: Crc32c) -> Result<(), BatchError> {
        let computed = crc32c.of(self.bytes.get(field::CHECKED_FROM..).unwrap_or_default());
        let stored = self.crc();
        if computed == stored {
            return Ok(());
        }
        Err(BatchError::Checksum {
            base_offset: self.base_offset(),
            stored,
            computed,
        })
    }

    /// The records in `decompressed`, which is [`Self::payload`] after decompression.
    pub fn records<'p>(&self, decompressed: &'p [u8]) -> RecordIter<'p> {
        RecordIter::new(self, decompressed)
    }
}

impl core::fmt::Debug for RecordBatch<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RecordBatch")
            .field("span", &self.span)
            .field("size_bytes", &self.size_bytes())
            .field("partition_leader_epoch", &self.partition_leader_epoch())
            .field("attributes", &self.attributes())
            .field("records_count", &self.records_count())
            .finish_non_exhaustive()
    }
}

/// A message of format 0 or 1, or a compressed set of them. Recognised, passed through, never cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegacyMessage<'a> {
    /// The whole message.
    pub bytes: &'a [u8],
    /// Its offset; of a compressed set the **last** of the inner ones.
    pub offset: i64,
    /// 0 or 1.
    pub magic: i8,
}

/// What stands in a `Records` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchEntry<'a> {
    /// A batch of format 2.
    Batch(RecordBatch<'a>),
    /// A message of an older format.
    Legacy(LegacyMessage<'a>),
}

/// Walks the batches of a `Records` field. Ends at a truncated tail, which is not a batch; after an error it
/// gives nothing more, because what follows cannot be found.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    at_byte: usize,
    failed: bool,
}

impl<'a> Batches<'a> {
    /// Starts at the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at_byte: 0,
            failed: false,
        }
    }

    /// Offset in the input of what comes next, in bytes; at the end of the walk, of the truncated tail.
    pub fn at_byte(&self) -> usize {
        self.at_byte
    }

    /// What has not been walked: after the last batch, the truncated tail.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at_byte..).unwrap_or_default()
    }

    #[inline]
    fn entry(&self) -> Result<Option<BatchEntry<'a>>, BatchError> {
        let (at_byte, rest) = (self.at_byte, self.rest());
        let Some(&magic) = rest.get(field::MAGIC) else {
            return Ok(None);
        };
        let magic = i8::from_be_bytes([magic]);
        let minimum = match magic {
            0 | 1 => LEGACY_SIZE_MIN,
            2 => BATCH_LENGTH_MIN,
            _ => return Err(BatchError::Magic { at_byte, magic }),
        };
        let length = stated_length(rest).unwrap_or_default();
        if length < minimum {
            return Err(BatchError::Length {
                at_byte,
                length,
                minimum,
            });
        }
        let Some(bytes) = stated_size_bytes(rest).and_then(|size| rest.get(..size)) else {
            return Ok(None);
        };
        Ok(Some(if magic == 2 {
            BatchEntry::Batch(RecordBatch::parse_whole(bytes, at_byte)?)
        } else {
            let offset = bytes
                .first_chunk()
                .map_or(0, |offset| i64::from_be_bytes(*offset));
            BatchEntry::Legacy(LegacyMessage { bytes, offset, magic })
        }))
    }
}

fn stated_length(bytes: &[u8]) -> Option<i32> {
    let length = bytes.get(field::BATCH_LENGTH)?;
    length.try_into().ok().map(i32::from_be_bytes)
}

/// Bytes that the batch at the beginning of `bytes` takes by its own account.
fn stated_size_bytes(bytes: &[u8]) -> Option<usize> {
    usize::try_from(stated_length(bytes)?)
        .ok()?
        .checked_add(LOG_OVERHEAD)
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchEntry<'a>, BatchError>;

    // So that whoever walks keeps the place in a register: each batch is found by the length of the one before it.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match self.entry().transpose()? {
            Ok(entry) => {
                self.at_byte += match &entry {
                    BatchEntry::Batch(batch) => batch.size_bytes(),
                    BatchEntry::Legacy(legacy) => legacy.bytes.len(),
                };
                Some(Ok(entry))
            }
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}
