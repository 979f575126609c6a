//! The segments that the cache keeps, from the first batch in one to the last reader of it.

use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;

use super::jobs::{Job, Task};
use crate::eviction::LogKind;
use crate::identity::PartitionKey;
use crate::index::{IndexedBatch, Location};
use crate::segment::{
    Expected, Place, SEGMENT_HEADER_BYTES, SegmentError, before_batch_bytes, verified_batch,
};
use crate::storage::{SegmentId, SegmentReader};
use crate::wire::Crc32c;

/// Memory of a segment beside its bytes: its place in the table and in its log, the storage's and the allocator's part.
pub(crate) const SEGMENT_BYTES: u64 = 256;

impl Location {
    /// The whole record, in its segment.
    pub(crate) fn record(&self) -> Range<u64> {
        let from = u64::from(self.position);
        from..from + before_batch_bytes(self.aborted) as u64 + u64::from(self.batch_bytes)
    }

    /// The batch alone, in its segment.
    fn batch(&self) -> Range<u64> {
        let record = self.record();
        record.end - u64::from(self.batch_bytes)..record.end
    }

    pub(crate) fn record_bytes(&self) -> u64 {
        let record = self.record();
        record.end - record.start
    }
}

/// A part of a segment that is not sealed yet: a record, and in front of the first one the segment's header.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// Where it begins in the segment, in bytes.
    pub(super) position: u32,
    pub(super) bytes: Bytes,
}

/// Where a segment stands in its life.
#[derive(Debug)]
pub(super) enum Stage<R> {
    /// Records are added; all of them are in memory as well.
    Open { pieces: Vec<Piece> },
    /// Nothing is added any more, and the storage has not confirmed yet that it holds everything.
    Sealing { pieces: Vec<Piece> },
    /// The storage holds it.
    Sealed { reader: R },
    /// It is being evicted: hits still read it, and the job that looks at it is under way.
    Evicting { reader: R },
    /// No entry leads here any more, and the storage is asked to remove it.
    Removing { reader: Option<R> },
}

#[derive(Debug)]
pub(super) struct Segment<R> {
    pub(super) id: SegmentId,
    pub(super) log: LogKind,
    pub(super) stage: Stage<R>,
    /// What it counts for, in bytes: what was written or is to be written, a footer included.
    pub(super) size_bytes: u64,
    /// Where the next record begins, in bytes.
    pub(super) end_bytes: u64,
    /// Bytes of records that the index leads to.
    pub(super) live_bytes: u64,
    /// Batches that the index leads to.
    pub(super) live_batches: u32,
    /// When it was begun, or moved on as it is, by the clock of the eviction policy.
    pub(super) since_bytes: u64,
}

impl<R: SegmentReader> Segment<R> {
    pub(super) fn new(id: SegmentId, log: LogKind, size_bytes: u64, since_bytes: u64) -> Self {
        Self {
            id,
            log,
            stage: Stage::Open { pieces: Vec::new() },
            size_bytes,
            end_bytes: SEGMENT_HEADER_BYTES as u64,
            live_bytes: 0,
            live_batches: 0,
            since_bytes,
        }
    }

    /// One that the storage holds already, and of which nothing is indexed yet.
    pub(super) fn sealed(id: SegmentId, log: LogKind, reader: R, since_bytes: u64) -> Self {
        let size_bytes = reader.size_bytes();
        Self {
            stage: Stage::Sealed { reader },
            end_bytes: size_bytes,
            ..Self::new(id, log, size_bytes, since_bytes)
        }
    }

    /// Closes an open segment and gives the job that stores it. `None` if it is not open.
    pub(super) fn seal(&mut self, slot: u32) -> Option<Job<R>> {
        let Stage::Open { pieces } = &mut self.stage else {
            return None;
        };
        let pieces = core::mem::take(pieces);
        let to_write = pieces.iter().map(|piece| piece.bytes.clone()).collect();
        self.stage = Stage::Sealing { pieces };
        Some(Job {
            slot,
            segment: self.id,
            task: Task::Write { pieces: to_write },
        })
    }

    /// The batch at a location, if it can be had without waiting. What a storage may have changed is verified.
    pub(super) fn batch_now(
        &self,
        key: &PartitionKey,
        batch: &IndexedBatch,
        crc32c: Crc32c,
    ) -> Option<Result<Bytes, SegmentError>> {
        let location = &batch.location;
        match &self.stage {
            Stage::Open { pieces } | Stage::Sealing { pieces } => {
                let (piece, range) = within_piece(pieces, location)?;
                Some(Ok(piece.bytes.slice(range)))
            }
            Stage::Sealed { reader } | Stage::Evicting { reader } if R::MAY_CORRUPT => {
                let record = match reader.read_now(location.record())? {
                    Ok(record) => record,
                    Err(error) => return Some(Err(SegmentError::of_storage(self.id, error))),
                };
                Some(self.verify(&record, key, batch, crc32c))
            }
            Stage::Sealed { reader } | Stage::Evicting { reader } => {
                let read = reader.read_now(location.batch())?;
                Some(read.map_err(|error| SegmentError::of_storage(self.id, error)))
            }
            Stage::Removing { .. } => None,
        }
    }

    /// The batch at a location, if it lies in memory as it is.
    pub(super) fn batch_slice(&self, location: &Location) -> Option<&[u8]> {
        match &self.stage {
            Stage::Open { pieces } | Stage::Sealing { pieces } => {
                let (piece, range) = within_piece(pieces, location)?;
                piece.bytes.get(range)
            }
            Stage::Sealed { reader } | Stage::Evicting { reader } => {
                let batch = location.batch();
                let range = usize::try_from(batch.start).ok()?..usize::try_from(batch.end).ok()?;
                reader.as_slice()?.get(range)
            }
            Stage::Removing { .. } => None,
        }
    }

    /// The batch in a record that was read from this segment, verified if the storage may have changed it.
    pub(super) fn batch_of(
        &self,
        record: &Bytes,
        key: &PartitionKey,
        batch: &IndexedBatch,
        crc32c: Crc32c,
    ) -> Result<Bytes, SegmentError> {
        if R::MAY_CORRUPT {
            return self.verify(record, key, batch, crc32c);
        }
        let before_batch = before_batch_bytes(batch.location.aborted);
        Ok(record.slice(before_batch.min(record.len())..))
    }

    /// The batch in a record that was read from this segment, if all of it is intact and as the index says.
    fn verify(
        &self,
        record: &Bytes,
        key: &PartitionKey,
        batch: &IndexedBatch,
        crc32c: Crc32c,
    ) -> Result<Bytes, SegmentError> {
        let place = Place {
            segment: self.id,
            position: batch.location.position,
        };
        let expected = Expected {
            key: *key,
            span: batch.span,
        };
        verified_batch(record, place, &expected, crc32c)
    }

    pub(super) fn reader(&self) -> Option<&R> {
        match &self.stage {
            Stage::Sealed { reader } | Stage::Evicting { reader } => Some(reader),
            Stage::Open { .. } | Stage::Sealing { .. } | Stage::Removing { .. } => None,
        }
    }

    /// What it holds, as far as it shows; elsewhere what it counts for.
    pub(super) fn held_bytes(&self) -> u64 {
        match &self.stage {
            Stage::Open { pieces } | Stage::Sealing { pieces } if !R::MAY_CORRUPT => {
                pieces.iter().map(|piece| piece.bytes.len() as u64).sum()
            }
            Stage::Sealed { reader }
            | Stage::Evicting { reader }
            | Stage::Removing { reader: Some(reader) } => reader.size_bytes(),
            Stage::Open { .. } | Stage::Sealing { .. } | Stage::Removing { reader: None } => self.size_bytes,
        }
    }

    pub(super) fn is_sealed(&self) -> bool {
        matches!(self.stage, Stage::Sealed { .. })
    }
}

/// The piece that holds a batch, and where in it.
fn within_piece<'p>(pieces: &'p [Piece], location: &Location) -> Option<(&'p Piece, Range<usize>)> {
    let behind = pieces.partition_point(|piece| piece.position <= location.position);
    let piece = pieces.get(behind.checked_sub(1)?)?;
    let batch = location.batch();
    let at = |position: u64| usize::try_from(position - u64::from(piece.position)).ok();
    let range = at(batch.start)?..at(batch.end)?;
    (range.end <= piece.bytes.len()).then_some((piece, range))
}
