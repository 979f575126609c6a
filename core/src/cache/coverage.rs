//! What is cached of a partition, for those who look at it: bit by bit, so that nobody holds the cache for long.

use alloc::vec::Vec;

use super::Cache;
use crate::identity::PartitionKey;
use crate::offset::OffsetSpan;
use crate::storage::SegmentReader;

/// What brokers have said last of the offsets of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownOffsets {
    /// The highest log start offset that was reported; −1 if none was.
    pub log_start_offset: i64,
    /// The last high watermark that was reported; −1 if none was (H10).
    pub high_watermark: i64,
}

/// A part of what is cached of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoveredPart {
    /// Runs of cached offsets, in ascending order. The first may go on where the last of the part before has ended.
    pub runs: Vec<OffsetSpan>,
    /// How many batches were looked at.
    pub batches: usize,
    /// Where the next part begins; `None` if this is the last one.
    pub next: Option<i64>,
}

impl<R: SegmentReader> Cache<R> {
    /// What is known of a partition's offsets; `None` unless something of it is cached.
    pub fn known_offsets(&self, key: PartitionKey) -> Option<KnownOffsets> {
        let state = &self.engine.partitions.get(&key)?.state;
        Some(KnownOffsets {
            log_start_offset: state.log_start_offset,
            high_watermark: state.high_watermark,
        })
    }

    /// Like [`Self::covered`], from `offset` on and over no more than so many batches, each of which takes some
    /// nanoseconds.
    pub fn covered_from(&self, key: PartitionKey, offset: i64, batches_max: usize) -> CoveredPart {
        let partition = self.engine.partitions.get(&key);
        let covered = partition.map(|partition| partition.index.covered_from(offset, batches_max));
        let covered = covered.unwrap_or_default();
        CoveredPart {
            runs: covered.runs,
            batches: covered.batches,
            next: covered.next,
        }
    }
}
