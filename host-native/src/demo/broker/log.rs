//! The log of one partition: whole batches in memory, read in the way a broker reads its segments.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use kachet_core::offset::OffsetSpan;
use kachet_core::wire::codec::{DEFAULT_DECOMPRESSED_LIMIT_BYTES, decompress};
use kachet_core::wire::{Crc32c, RecordBatch, RecordBytes};

use super::LogError;

/// What a broker writes into a batch when it appends it, and what the batch's CRC therefore leaves out.
const BASE_OFFSET: Range<usize> = 0..8;
const PARTITION_LEADER_EPOCH: Range<usize> = 12..16;

/// A batch of the log, and what is looked up about it.
struct Stored {
    bytes: Bytes,
    span: OffsetSpan,
    max_timestamp: i64,
    leader_epoch: i32,
    /// Bytes that were ever appended before this batch.
    position: u64,
}

/// A leader epoch and the offset at which it began.
#[derive(Clone, Copy)]
struct EpochStart {
    epoch: i32,
    start_offset: i64,
}

/// An offset that a look-up by time found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimedOffset {
    pub(super) timestamp: i64,
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
}

/// How much one partition may add to a response.
#[derive(Clone, Copy)]
pub(super) struct ReadLimit {
    pub(super) size_bytes: usize,
    /// The first batch comes whole even if it is larger (KIP-74).
    pub(super) first_batch_whole: bool,
    /// The batch that no longer fits comes cut off, as brokers send it.
    pub(super) cut_last_batch: bool,
}

/// A batch that passed its CRC and yet cannot be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unreadable;

/// The log of one partition. There is one replica, so that every offset below the end is replicated: the high
/// watermark and the last stable offset are the end of the log.
pub(super) struct PartitionLog {
    batches: VecDeque<Stored>,
    log_start_offset: i64,
    end_offset: i64,
    end_position: u64,
    /// Ascending; never empty.
    epochs: Vec<EpochStart>,
}

impl PartitionLog {
    pub(super) fn new() -> Self {
        Self {
            batches: VecDeque::new(),
            log_start_offset: 0,
            end_offset: 0,
            end_position: 0,
            epochs: vec![EpochStart {
                epoch: 0,
                start_offset: 0,
            }],
        }
    }

    pub(super) fn log_start_offset(&self) -> i64 {
        self.log_start_offset
    }

    /// The first offset that does not exist yet; also the high watermark and the last stable offset.
    pub(super) fn end_offset(&self) -> i64 {
        self.end_offset
    }

    pub(super) fn leader_epoch(&self) -> i32 {
        self.epochs.last().map_or(0, |latest| latest.epoch)
    }

    /// Bytes of the batches that the log holds.
    pub(super) fn size_bytes(&self) -> u64 {
        self.end_position
            - self
                .batches
                .front()
                .map_or(self.end_position, |first| first.position)
    }

    /// Appends one batch. Its base offset and its leader epoch are replaced, as a broker does.
    pub(super) fn append(&mut self, bytes: Bytes) -> Result<OffsetSpan, LogError> {
        let batch = RecordBatch::parse(&bytes)?;
        if batch.size_bytes() != bytes.len() {
            return Err(LogError::SeveralBatches {
                first_size_bytes: batch.size_bytes(),
                size_bytes: bytes.len(),
            });
        }
        batch.verify(Crc32c::from_fn(crc32c::crc32c))?;
        let base = self.end_offset;
        let last = base.saturating_add(batch.last_offset() - batch.base_offset());
        let span = OffsetSpan::new(base, last)
            .filter(|_| last < i64::MAX)
            .ok_or(LogError::EndOfOffsets)?;
        let (max_timestamp, leader_epoch) = (batch.max_timestamp(), self.leader_epoch());

        // Copies only if the caller shares the bytes with someone.
        let mut bytes = bytes
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        bytes[BASE_OFFSET].copy_from_slice(&base.to_be_bytes());
        bytes[PARTITION_LEADER_EPOCH].copy_from_slice(&leader_epoch.to_be_bytes());
        let position = self.end_position;
        self.end_position += bytes.len() as u64;
        self.end_offset = last + 1;
        self.batches.push_back(Stored {
            bytes: bytes.freeze(),
            span,
            max_timestamp,
            leader_epoch,
            position,
        });
        Ok(span)
    }

    /// Leaves `count` offsets without records, as compaction does when it removes whole batches.
    pub(super) fn skip_offsets(&mut self, count: u32) -> Result<(), LogError> {
        let end = self
            .end_offset
            .checked_add(count.into())
            .filter(|end| *end < i64::MAX);
        self.end_offset = end.ok_or(LogError::EndOfOffsets)?;
        Ok(())
    }

    /// Moves the log start forward, as `DeleteRecords` and retention do. A batch goes once its last offset lies
    /// below; one that the offset lies inside stays whole (H4).
    pub(super) fn truncate_before(&mut self, offset: i64) -> Result<(), LogError> {
        self.check_offset(offset)?;
        self.log_start_offset = self.log_start_offset.max(offset);
        let gone = self.index_of(self.log_start_offset);
        self.batches.drain(..gone);
        Ok(())
    }

    /// A new leader takes over with all that the old one had.
    pub(super) fn elect_leader(&mut self) -> i32 {
        let epoch = self.leader_epoch().saturating_add(1);
        let start_offset = self.end_offset;
        // An epoch under which nothing was appended leaves no trace.
        self.epochs.retain(|each| each.start_offset < start_offset);
        self.epochs.push(EpochStart { epoch, start_offset });
        epoch
    }

    /// A new leader takes over that lacks everything from `offset` on, or from the base of the batch that
    /// `offset` lies in (H7).
    pub(super) fn elect_unclean_leader(&mut self, offset: i64) -> Result<i32, LogError> {
        self.check_offset(offset)?;
        let kept = self.index_of(offset);
        let end = self
            .batches
            .get(kept)
            .map_or(offset, |first_lost| first_lost.span.base().min(offset));
        if let Some(first_lost) = self.batches.get(kept) {
            self.end_position = first_lost.position;
        }
        self.batches.truncate(kept);
        self.end_offset = end.max(self.log_start_offset);
        Ok(self.elect_leader())
    }

    fn check_offset(&self, offset: i64) -> Result<(), LogError> {
        let (log_start_offset, end_offset) = (self.log_start_offset, self.end_offset);
        if self.holds(offset) {
            return Ok(());
        }
        Err(LogError::OffsetOutOfRange {
            offset,
            log_start_offset,
            end_offset,
        })
    }

    /// Whether a fetch may begin at `offset`; the end of the log is such an offset.
    pub(super) fn holds(&self, offset: i64) -> bool {
        (self.log_start_offset..=self.end_offset).contains(&offset)
    }

    /// The batch that contains `offset`, or else the next one (H11).
    fn index_of(&self, offset: i64) -> usize {
        self.batches.partition_point(|batch| batch.span.last() < offset)
    }

    /// Bytes from the batch that a fetch at `offset` begins with to the end of the log.
    pub(super) fn available_bytes(&self, offset: i64) -> u64 {
        let first = self.batches.get(self.index_of(offset));
        self.end_position - first.map_or(self.end_position, |first| first.position)
    }

    /// The batches from `offset` on, shared with the log, as far as the limit allows (H12).
    pub(super) fn read(&self, offset: i64, limit: ReadLimit) -> RecordBytes {
        let mut records = RecordBytes::empty();
        let first = self.index_of(offset);
        let first_size_bytes = self.batches.get(first).map_or(0, |batch| batch.bytes.len());
        let mut left_bytes = limit.size_bytes;
        if left_bytes < first_size_bytes {
            if !limit.first_batch_whole {
                return records;
            }
            left_bytes = first_size_bytes;
        }
        for batch in self.batches.range(first..) {
            if batch.bytes.len() > left_bytes {
                if limit.cut_last_batch {
                    records.push(batch.bytes.slice(..left_bytes));
                }
                break;
            }
            left_bytes -= batch.bytes.len();
            records.push(batch.bytes.clone());
        }
        records
    }

    /// The leader epoch under which `offset` was, or would have been, appended.
    pub(super) fn epoch_at(&self, offset: i64) -> i32 {
        let after = self.epochs.partition_point(|each| each.start_offset <= offset);
        self.epochs
            .get(after.saturating_sub(1))
            .map_or(0, |each| each.epoch)
    }

    /// The greatest epoch that is not above `requested`, and the first offset beyond it (KIP-320). Before the
    /// first known epoch it is `requested` itself; `None` for an epoch above the leader's.
    pub(super) fn epoch_end(&self, requested: i32) -> Option<(i32, i64)> {
        if requested < 0 || requested > self.leader_epoch() {
            return None;
        }
        let after = self.epochs.partition_point(|each| each.epoch <= requested);
        let end_offset = self
            .epochs
            .get(after)
            .map_or(self.end_offset, |next| next.start_offset);
        let floor = after.checked_sub(1).and_then(|at| self.epochs.get(at));
        Some((floor.map_or(requested, |each| each.epoch), end_offset))
    }

    /// The first record whose time is not before `timestamp`.
    pub(super) fn first_since(&self, timestamp: i64) -> Result<Option<TimedOffset>, Unreadable> {
        for batch in self
            .batches
            .iter()
            .filter(|batch| batch.max_timestamp >= timestamp)
        {
            let found = batch.find(|at, offset| at >= timestamp && offset >= self.log_start_offset)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first record with the greatest time (KIP-734).
    pub(super) fn latest_by_time(&self) -> Result<Option<TimedOffset>, Unreadable> {
        let Some(latest) = self.batches.iter().map(|batch| batch.max_timestamp).max() else {
            return Ok(None);
        };
        self.first_since(latest)
    }
}

impl Stored {
    /// The first record for which `wanted` holds, given its time and its offset.
    fn find(&self, wanted: impl Fn(i64, i64) -> bool) -> Result<Option<TimedOffset>, Unreadable> {
        let batch = RecordBatch::parse(&self.bytes).map_err(|_| Unreadable)?;
        let codec = batch.codec().map_err(|_| Unreadable)?;
        let payload = decompress(codec, batch.payload(), DEFAULT_DECOMPRESSED_LIMIT_BYTES);
        for record in batch.records(&payload.map_err(|_| Unreadable)?) {
            let record = record.map_err(|_| Unreadable)?;
            if wanted(record.timestamp, record.offset) {
                let leader_epoch = self.leader_epoch;
                return Ok(Some(TimedOffset {
                    timestamp: record.timestamp,
                    offset: record.offset,
                    leader_epoch,
                }));
            }
        }
        Ok(None)
    }
}
