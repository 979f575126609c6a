//! The segments that the cache keeps, from the first batch in one to the last reader of it.

use core::ops::Range;

use bytes::Bytes;

use super::writing::Tail;
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

/// Where a segment stands in its life.
#[derive(Debug)]
pub(super) enum Stage<R> {
    /// Records are added.
    Open(Tail<R>),
    /// Nothing is added any more, and the storage has not confirmed yet that it holds everything.
    Sealing(Tail<R>),
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
            stage: Stage::Open(Tail::default()),
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

    /// What is not known to be written, as long as there may be something.
    pub(super) fn tail_mut(&mut self) -> Option<&mut Tail<R>> {
        match &mut self.stage {
            Stage::Open(tail) | Stage::Sealing(tail) => Some(tail),
            Stage::Sealed { .. } | Stage::Evicting { .. } | Stage::Removing { .. } => None,
        }
    }

    /// The batch at a location, if it can be had without waiting. What a storage may have changed is verified.
    pub(super) fn batch_now(
        &self,
        key: &PartitionKey,
        batch: &IndexedBatch,
        crc32c: Crc32c,
    ) -> Option<Result<Bytes, SegmentError>> {
        let location = &batch.location;
        if let Some((bytes, range)) = self.in_memory(location) {
            return Some(Ok(bytes.slice(range)));
        }
        let reader = self.reader()?;
        let range = if R::MAY_CORRUPT {
            location.record()
        } else {
            location.batch()
        };
        match reader.read_now(range)? {
            Ok(record) if R::MAY_CORRUPT => Some(self.verify(&record, key, batch, crc32c)),
            read => Some(read.map_err(|error| SegmentError::of_storage(self.id, error))),
        }
    }

    /// The piece that holds a batch, and where in it, as long as it is not known to be written.
    fn in_memory(&self, location: &Location) -> Option<(&Bytes, Range<usize>)> {
        match &self.stage {
            Stage::Open(tail) | Stage::Sealing(tail) => tail.piece(&location.batch()),
            Stage::Sealed { .. } | Stage::Evicting { .. } | Stage::Removing { .. } => None,
        }
    }

    /// The batch at a location, if it lies in memory as it is.
    pub(super) fn batch_slice(&self, location: &Location) -> Option<&[u8]> {
        if let Some((bytes, range)) = self.in_memory(location) {
            return bytes.get(range);
        }
        let batch = location.batch();
        let range = usize::try_from(batch.start).ok()?..usize::try_from(batch.end).ok()?;
        self.reader()?.as_slice()?.get(range)
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

    /// Reads what has been written.
    pub(super) fn reader(&self) -> Option<&R> {
        match &self.stage {
            Stage::Open(tail) | Stage::Sealing(tail) => tail.written(),
            Stage::Sealed { reader } | Stage::Evicting { reader } => Some(reader),
            Stage::Removing { .. } => None,
        }
    }

    /// What it holds, as far as it shows; elsewhere what it counts for.
    pub(super) fn held_bytes(&self) -> u64 {
        match &self.stage {
            Stage::Open(tail) | Stage::Sealing(tail) if !R::MAY_CORRUPT => tail.unwritten_bytes(),
            Stage::Sealed { reader } | Stage::Evicting { reader } => reader.size_bytes(),
            Stage::Open(_) | Stage::Sealing(_) | Stage::Removing { .. } => self.size_bytes,
        }
    }

    pub(super) fn is_sealed(&self) -> bool {
        matches!(self.stage, Stage::Sealed { .. })
    }
}
