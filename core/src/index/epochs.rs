//! Leader epochs along the index: in a log they never fall from one batch to the next (H7).

use super::entry::Entry;
use super::{PartitionIndex, Place};
use crate::offset::OffsetSpan;

impl PartitionIndex {
    /// The first offset that is covered by a batch of a newer epoch than `epoch`.
    pub(crate) fn first_of_newer_epoch(&self, epoch: i32) -> Option<i64> {
        self.newer_than(epoch, self.last_place())
    }

    /// The first offset of the batches of newer epochs than `epoch` that end at `place`.
    fn newer_than(&self, epoch: i32, mut place: Option<Place>) -> Option<i64> {
        let mut first = None;
        while let Some(here) = place {
            let chunk = self.chunks.get(here.chunk)?;
            if chunk.entry(here.at)?.leader_epoch() <= epoch {
                break;
            }
            first = chunk.covers(here.at).map(OffsetSpan::base);
            place = self.previous(here);
        }
        first
    }

    /// The epoch of the last cached batch, which is the newest: along a log epochs never fall. −1 for none.
    pub(crate) fn newest_epoch(&self) -> i32 {
        let newest = self.last_place().and_then(|place| self.batch(place));
        newest.map_or(-1, |batch| batch.leader_epoch)
    }

    /// The newest epoch but one among the cached batches; −1 if all are of one.
    pub(crate) fn newest_epoch_but_one(&self) -> i32 {
        let newest = self.newest_epoch();
        let is_older = |entry: &Entry| entry.leader_epoch() < newest;
        // Epochs never fall, so the last chunk that begins with an older one holds the last batch of an older one.
        let begun_older = self
            .chunks
            .partition_point(|chunk| chunk.entry(0).is_some_and(is_older));
        let last = begun_older.checked_sub(1).and_then(|at| self.chunks.get(at));
        let mut entries = last.into_iter().flat_map(|chunk| chunk.entries().iter().rev());
        entries
            .find(|entry| is_older(entry))
            .map_or(-1, Entry::leader_epoch)
    }

    /// The offset from which on cached batches contradict that `span` is of `leader_epoch`, because along a log
    /// epochs never fall (H7).
    pub(crate) fn contradicts_epoch(&self, span: OffsetSpan, leader_epoch: i32) -> Option<i64> {
        let at_base = self.first_from(span.base());
        let before = match at_base {
            Some(place) => self.previous(place),
            None => self.last_place(),
        };
        let newer_before = self.newer_than(leader_epoch, before);
        newer_before.or_else(|| {
            let mut place = self.first_from(span.last());
            while let Some(batch) = place.and_then(|place| self.batch(place)) {
                if batch.covers.base() > span.last() {
                    return (batch.leader_epoch < leader_epoch).then_some(batch.covers.base());
                }
                place = place.and_then(|place| self.next(place));
            }
            None
        })
    }
}
