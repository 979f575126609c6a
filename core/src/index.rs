//! Which offsets of a partition are cached, and in which batch.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::offset::OffsetSpan;
use crate::time::Instant;
use crate::transactions::AbortedInBatch;

/// A batch in the cache.
#[derive(Debug)]
pub(crate) struct CachedBatch {
    /// The batch as the broker sent it (H27), in memory of its own (H26).
    pub(crate) bytes: Bytes,
    /// The batch's own offsets.
    pub(crate) span: OffsetSpan,
    /// The offsets that this batch answers: its own and those of the gap before it, where the broker showed
    /// that nothing lies (H5, H11).
    pub(crate) covers: OffsetSpan,
    /// The epoch of the leader that appended it.
    pub(crate) leader_epoch: i32,
    pub(crate) aborted: AbortedInBatch,
    /// When the broker was last asked for it: compaction may rewrite it from then on (H5).
    pub(crate) known_at: Instant,
    /// Tells this insertion from an earlier one at the same offset.
    pub(crate) sequence: u64,
    /// Set by a hit, cleared when eviction passes by.
    pub(crate) was_hit: AtomicBool,
}

impl CachedBatch {
    pub(crate) fn mark_hit(&self) {
        // Only the first hit writes, so that hot batches are not fought over by several processors.
        if !self.was_hit.load(Ordering::Relaxed) {
            self.was_hit.store(true, Ordering::Relaxed);
        }
    }
}

/// The cached batches of one partition. No two of them cover the same offset.
#[derive(Debug, Default)]
pub(crate) struct PartitionIndex {
    /// By the last offset that they cover.
    batches: BTreeMap<i64, CachedBatch>,
}

impl PartitionIndex {
    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The batch that answers a fetch at `offset`.
    pub(crate) fn get(&self, offset: i64) -> Option<&CachedBatch> {
        let (_, batch) = self.batches.range(offset..).next()?;
        batch.covers.contains(offset).then_some(batch)
    }

    pub(crate) fn get_mut(&mut self, offset: i64) -> Option<&mut CachedBatch> {
        let (_, batch) = self.batches.range_mut(offset..).next()?;
        batch.covers.contains(offset).then_some(batch)
    }

    /// The batches that answer a fetch at `offset` and each next one that begins right behind, until an offset
    /// is not covered.
    pub(crate) fn run(&self, offset: i64) -> impl Iterator<Item = &CachedBatch> {
        let mut next = Some(offset);
        self.batches.range(offset..).map_while(move |(_, batch)| {
            let adjoins = next.is_some_and(|next| batch.covers.contains(next));
            next = batch.covers.last().checked_add(1);
            adjoins.then_some(batch)
        })
    }

    /// The batch that ends right before `offset`.
    pub(crate) fn ending_before(&self, offset: i64) -> Option<&CachedBatch> {
        self.batches.get(&offset.checked_sub(1)?)
    }

    /// The first batch, in order of offsets, that has something in common with `span`.
    pub(crate) fn first_overlap(&self, span: OffsetSpan) -> Option<&CachedBatch> {
        let (_, batch) = self.batches.range(span.base()..).next()?;
        batch.covers.overlaps(span).then_some(batch)
    }

    /// Puts a batch in. What overlaps it must have been removed.
    pub(crate) fn insert(&mut self, batch: CachedBatch) {
        debug_assert!(
            self.first_overlap(batch.covers).is_none(),
            "covered offsets overlap"
        );
        self.batches.insert(batch.covers.last(), batch);
    }

    pub(crate) fn remove(&mut self, last_offset: i64) -> Option<CachedBatch> {
        self.batches.remove(&last_offset)
    }

    pub(crate) fn by_last_offset(&self, last_offset: i64) -> Option<&CachedBatch> {
        self.batches.get(&last_offset)
    }

    /// Removes every batch that holds an offset from `offset` on.
    pub(crate) fn remove_from(&mut self, offset: i64) -> Vec<CachedBatch> {
        self.batches.split_off(&offset).into_values().collect()
    }

    /// Removes every batch that ends before `offset`. One that `offset` lies in stays, because brokers go on
    /// serving it (H4).
    pub(crate) fn remove_below(&mut self, offset: i64) -> Vec<CachedBatch> {
        let kept = self.batches.split_off(&offset);
        core::mem::replace(&mut self.batches, kept)
            .into_values()
            .collect()
    }

    /// The first offset that is covered by a batch of a newer epoch than `epoch`.
    pub(crate) fn first_of_newer_epoch(&self, epoch: i32) -> Option<i64> {
        let newer = self
            .batches
            .values()
            .rev()
            .take_while(|batch| batch.leader_epoch > epoch);
        newer.last().map(|batch| batch.covers.base())
    }

    /// The epoch of the last cached batch, which is the newest: along a log epochs never fall. −1 for none.
    pub(crate) fn newest_epoch(&self) -> i32 {
        self.batches
            .values()
            .next_back()
            .map_or(-1, |batch| batch.leader_epoch)
    }

    /// The offset from which on cached batches contradict that `span` is of `leader_epoch`, because along a log
    /// epochs never fall (H7).
    pub(crate) fn contradicts_epoch(&self, span: OffsetSpan, leader_epoch: i32) -> Option<i64> {
        let newer_before = self
            .batches
            .range(..span.base())
            .rev()
            .map(|(_, batch)| batch)
            .take_while(|batch| batch.leader_epoch > leader_epoch)
            .last();
        let older_behind = self
            .batches
            .range(span.last()..)
            .map(|(_, batch)| batch)
            .find(|batch| batch.covers.base() > span.last())
            .filter(|batch| batch.leader_epoch < leader_epoch);
        newer_before.or(older_behind).map(|batch| batch.covers.base())
    }

    /// Every batch in order of offsets.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &CachedBatch> {
        self.batches.values()
    }

    /// The runs of covered offsets, in order.
    pub(crate) fn covered(&self) -> Vec<OffsetSpan> {
        let mut runs: Vec<OffsetSpan> = Vec::new();
        for batch in self.iter() {
            let joined = runs
                .last()
                .filter(|run| run.last().checked_add(1) == Some(batch.covers.base()));
            match joined.and_then(|run| OffsetSpan::new(run.base(), batch.covers.last())) {
                Some(longer) => {
                    runs.pop();
                    runs.push(longer);
                }
                None => runs.push(batch.covers),
            }
        }
        runs
    }
}
