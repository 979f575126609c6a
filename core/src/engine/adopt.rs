//! Taking over segments that the storage held before this process.

use alloc::vec::Vec;

use super::segments::Segment;
use super::{Engine, Partition};
use crate::eviction::LogKind;
use crate::eviction::Readers;
use crate::freshness::PartitionState;
use crate::index::{IndexedBatch, KnownAt, Location, PartitionIndex};
use crate::segment::DirectoryEntry;
use crate::storage::{SegmentId, SegmentReader};
use crate::time::Instant;
use crate::transactions::AbortedInBatch;

impl<R: SegmentReader> Engine<R> {
    /// Keeps the number of a segment from being given again.
    pub(crate) fn reserve_id(&mut self, id: SegmentId) {
        self.next_segment = self.next_segment.max(id.0.saturating_add(1));
    }

    /// Takes a segment over, of which nothing is indexed yet. It joins the main log: what outlived a restart is no
    /// longer new. Gives its slot. Until [`Self::drop_dead`] it counts one batch more than are indexed, so that it does not
    /// go when the first of its entries is replaced and others are yet to come.
    pub(crate) fn adopt(&mut self, id: SegmentId, reader: R) -> u32 {
        let mut segment = Segment::sealed(id, LogKind::Main, reader, self.policy.now_bytes());
        segment.live_batches = 1;
        let size_bytes = segment.size_bytes;
        let slot = self.place(segment);
        self.ledger.grow(LogKind::Main, size_bytes);
        self.logs[LogKind::Main as usize].push_back(slot);
        slot
    }

    /// Takes an entry of such a segment over, in the place of whatever covers the same offsets, and of what cannot be of the
    /// same log (H7). Unless what it says of aborted transactions is `trusted`, that is forgotten. `new` is what is known of a
    /// partition at first.
    pub(crate) fn adopt_entry(
        &mut self,
        slot: u32,
        entry: &DirectoryEntry,
        trusted: bool,
        new: &PartitionState,
    ) {
        self.next_sequence = self.next_sequence.max(entry.sequence.saturating_add(1));
        let in_the_way = self.partitions.get(&entry.key).is_some_and(|partition| {
            let index = &partition.index;
            index.first_overlap(entry.covers).is_some()
                || index.contradicts_epoch(entry.span, entry.leader_epoch).is_some()
        });
        if in_the_way {
            self.make_way(entry);
        }
        let location = Location {
            slot,
            position: entry.position,
            batch_bytes: entry.batch_bytes,
            aborted: if trusted {
                entry.aborted.state()
            } else {
                entry.aborted.state().forgotten()
            },
        };
        self.index_adopted(entry, location, new);
    }

    /// Removes what covers the same offsets, and what cannot be of the same log.
    fn make_way(&mut self, entry: &DirectoryEntry) {
        while let Some(older) = self.partitions.get(&entry.key).and_then(|partition| {
            let (older, _) = partition.index.first_overlap(entry.covers)?;
            Some(older)
        }) {
            self.remove(entry.key, older.covers.last());
        }
        let partition = self.partitions.get(&entry.key);
        if let Some(offset) =
            partition.and_then(|partition| partition.index.contradicts_epoch(entry.span, entry.leader_epoch))
        {
            self.remove_where(entry.key, |index, removed| {
                index.remove_from(offset, |batch| removed.push(*batch));
            });
        }
    }

    fn index_adopted(&mut self, entry: &DirectoryEntry, location: Location, new: &PartitionState) {
        let slot = location.slot;
        let list = if location.aborted.is_known() {
            &entry.aborted
        } else {
            &AbortedInBatch::Unknown
        };
        let batch = IndexedBatch {
            span: entry.span,
            covers: entry.covers,
            leader_epoch: entry.leader_epoch,
            known_at: KnownAt::default(),
            location,
        };
        let partition = self.partitions.entry(entry.key).or_insert_with(|| Partition {
            index: PartitionIndex::default(),
            state: new.clone(),
            readers: Readers::default(),
        });
        partition.state.leader_epoch = partition.state.leader_epoch.max(entry.leader_epoch);
        if partition.state.validated_at.is_some() {
            // Nobody is going to be asked for the leader's own, so the newest there is stands for it.
            partition.state.told_epoch = partition.state.leader_epoch;
        }
        if location.aborted.is_known() && partition.state.validated_at.is_some() {
            // Nothing is known of a batch before it is stable. Where brokers are asked, they say how far that is.
            let stable_below = entry.span.last().saturating_add(1);
            partition.state.stable_below = partition.state.stable_below.max(stable_below);
        }
        partition
            .state
            .note_epoch(entry.leader_epoch, Instant::default(), usize::MAX);
        // The segment does not tell timestamps, so no search by time may skip the batch.
        if partition.index.insert(&batch, i64::MAX, list) {
            self.ledger.batch_in(location.aborted);
            if let Some(segment) = self.segment_mut(slot) {
                segment.live_batches += 1;
                segment.live_bytes += location.record_bytes();
            }
        } else {
            self.forget_if_empty(entry.key);
        }
    }

    /// Ends the adoption: has those segments removed of which nothing is indexed.
    pub(crate) fn drop_dead(&mut self) {
        let adopted: Vec<u32> = self.logs.iter().flatten().copied().collect();
        for slot in adopted {
            let Some(segment) = self.segment_mut(slot) else {
                continue;
            };
            segment.live_batches = segment.live_batches.saturating_sub(1);
            if segment.live_batches == 0 {
                self.remove_segment(slot);
            }
        }
    }
}
