//! Leader epochs along the index: in a log they never fall from one batch to the next (H7).

use super::{PartitionIndex, Place};
use crate::offset::OffsetSpan;

impl PartitionIndex {
    /// The first offset that is covered by a batch of a newer epoch than `epoch`, and the epoch of that batch.
    pub(crate) fn first_of_newer_epoch(&self, epoch: i32) -> Option<(i64, i32)> {
        // Epochs never fall, so it lies in the last chunk that begins with an older one, or begins the next.
        let begun_newer = self.chunks.partition_point(|chunk| {
            let first = chunk.entry(0);
            first.is_some_and(|first| first.leader_epoch() <= epoch)
        });
        let from = begun_newer.saturating_sub(1);
        let chunks = self.chunks.iter().skip(from).take(2);
        chunks
            .flat_map(|chunk| {
                chunk
                    .entries()
                    .iter()
                    .enumerate()
                    .map(move |(at, entry)| (chunk, at, entry))
            })
            .find(|(_, _, entry)| entry.leader_epoch() > epoch)
            .and_then(|(chunk, at, entry)| Some((chunk.covers(at)?.base(), entry.leader_epoch())))
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
