//! Which offsets of a partition are cached, and in which record of which segment.
//!
//! A partition's batches stand in chunks of at most 64, in order of offsets. A search goes through the array of the
//! chunks' last offsets, then compares the keys of one chunk, all at once, then reads one entry of 32 bytes:
//!
//! ```text
//! lasts   [ 63 | 127 | 900 | … ]          8 bytes a chunk: 128 KiB for a million batches
//!                  │
//! chunks  [ ──▶ [ keys 4 B × 64, base, entries ──▶ [ 32 B × 64 ] ] ]
//! ```

mod chunk;
mod covered;
mod entry;
mod epochs;
mod guess;
mod keys;
mod lists;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use self::chunk::{CHUNK_ENTRIES, Chunk};
use self::entry::Entry;
pub(crate) use self::entry::{HitMark, IndexedBatch, KnownAt, Location};
use self::guess::Guess;
use self::lists::Lists;
use crate::offset::OffsetSpan;
use crate::transactions::{AbortedInBatch, AbortedState};

/// Memory that a batch takes in the index, in bytes: 38 in a full chunk, 46 as chunks fill in practice.
pub(crate) const BATCH_INDEX_BYTES: usize = 48;

/// The cached batches of one partition. No two of them cover the same offset.
#[derive(Debug, Default)]
pub(crate) struct PartitionIndex {
    /// The last offset in each chunk.
    lasts: Vec<i64>,
    #[expect(
        clippy::vec_box,
        reason = "a chunk of 320 bytes is put between others all the time"
    )]
    chunks: Vec<Box<Chunk>>,
    /// No batch of a chunk has a later timestamp. Not lowered when batches go.
    max_timestamps: Vec<i64>,
    /// Where an offset is to be looked for first.
    guess: Guess,
    len: usize,
    /// The lists of batches that aborted transactions touch, by the batch's last offset.
    aborted: Lists,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    chunk: usize,
    at: usize,
}

impl PartitionIndex {
    #[cfg(test)]
    fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first entry whose last offset is `offset` or beyond.
    fn first_from(&self, offset: i64) -> Option<Place> {
        let chunk = self.chunk_of(offset);
        let at = self.chunks.get(chunk)?.position(offset);
        Some(Place { chunk, at })
    }

    /// The first chunk whose last offset is `offset` or beyond.
    fn chunk_of(&self, offset: i64) -> usize {
        self.guess.search(&self.lasts, offset)
    }

    /// Brings the guess up to date after the directory has changed.
    fn directory_changed(&mut self) {
        let base = self.chunks.first().map_or(0, |chunk| chunk.base());
        self.guess = Guess::along(&self.lasts, base);
    }

    fn batch(&self, place: Place) -> Option<IndexedBatch> {
        self.chunks.get(place.chunk)?.batch(place.at)
    }

    fn next(&self, place: Place) -> Option<Place> {
        let chunk = self.chunks.get(place.chunk)?;
        if place.at + 1 < chunk.len() {
            return Some(Place {
                at: place.at + 1,
                ..place
            });
        }
        let chunk = place.chunk + 1;
        (chunk < self.chunks.len()).then_some(Place { chunk, at: 0 })
    }

    fn previous(&self, place: Place) -> Option<Place> {
        if let Some(at) = place.at.checked_sub(1) {
            return Some(Place { at, ..place });
        }
        let chunk = place.chunk.checked_sub(1)?;
        let at = self.chunks.get(chunk)?.len().checked_sub(1)?;
        Some(Place { chunk, at })
    }

    /// The batch that answers a fetch at `offset`, and its mark.
    pub(crate) fn get(&self, offset: i64) -> Option<(IndexedBatch, &HitMark)> {
        let place = self.first_from(offset)?;
        let chunk = self.chunks.get(place.chunk)?;
        let batch = chunk.batch(place.at)?;
        let mark = &chunk.entry(place.at)?.mark;
        batch.covers.contains(offset).then_some((batch, mark))
    }

    /// Where the batch that covers an offset lies.
    #[inline]
    pub(crate) fn locate(&self, offset: i64) -> Option<(Location, &HitMark)> {
        let entry = self.chunks.get(self.chunk_of(offset))?.covering(offset)?;
        Some((entry.location(), &entry.mark))
    }

    /// The batches that answer a fetch at `offset` and each next one that begins right behind, until an offset
    /// is not covered.
    pub(crate) fn run(&self, offset: i64) -> Run<'_> {
        Run {
            index: self,
            next: self.first_from(offset),
            offset: Some(offset),
        }
    }

    /// The batch whose last offset is exactly `last_offset`.
    pub(crate) fn by_last_offset(&self, last_offset: i64) -> Option<(IndexedBatch, &HitMark)> {
        let place = self.first_from(last_offset)?;
        let chunk = self.chunks.get(place.chunk)?;
        let batch = chunk.batch(place.at)?;
        (batch.covers.last() == last_offset).then_some((batch, &chunk.entry(place.at)?.mark))
    }

    /// The batch that ends right before `offset`.
    pub(crate) fn ending_before(&self, offset: i64) -> Option<IndexedBatch> {
        self.by_last_offset(offset.checked_sub(1)?)
            .map(|(batch, _)| batch)
    }

    /// The first batch, in order of offsets, that covers an offset of `span`.
    pub(crate) fn first_overlap(&self, span: OffsetSpan) -> Option<(IndexedBatch, &HitMark)> {
        let place = self.first_from(span.base())?;
        let chunk = self.chunks.get(place.chunk)?;
        if !chunk.covers(place.at)?.overlaps(span) {
            return None;
        }
        Some((chunk.batch(place.at)?, &chunk.entry(place.at)?.mark))
    }

    /// What is known of the aborted transactions that touch a batch.
    pub(crate) fn aborted(&self, batch: &IndexedBatch) -> AbortedInBatch {
        match batch.location.aborted {
            AbortedState::Unknown | AbortedState::Forgotten { .. } => AbortedInBatch::Unknown,
            AbortedState::Plain => AbortedInBatch::Plain,
            AbortedState::Known { count: 0 } => AbortedInBatch::None,
            AbortedState::Known { .. } => match self.aborted.get(batch.covers.last()) {
                Some(list) => AbortedInBatch::Some(Arc::clone(list)),
                None => AbortedInBatch::Unknown,
            },
        }
    }

    /// Puts a batch in. What overlaps it must have been removed. Says whether it is in: one whose offsets do not fit
    /// into 32 bits, which no broker sends, is not.
    pub(crate) fn insert(
        &mut self,
        batch: &IndexedBatch,
        max_timestamp: i64,
        aborted: &AbortedInBatch,
    ) -> bool {
        debug_assert!(
            self.first_overlap(batch.covers).is_none(),
            "covered offsets overlap"
        );
        let last = batch.covers.last();
        let chunk = self.chunk_of(last);
        let at = self.chunks.get(chunk).map_or(0, |chunk| chunk.position(last));
        if !self.insert_near(Place { chunk, at }, batch, max_timestamp) {
            return false;
        }
        self.len += 1;
        if let AbortedInBatch::Some(list) = aborted {
            self.aborted.insert(last, Arc::clone(list));
        }
        true
    }

    /// Puts a batch in front of `place`: in the chunk before it, in its own, or in a new one.
    fn insert_near(&mut self, place: Place, batch: &IndexedBatch, max_timestamp: i64) -> bool {
        let before = place.chunk.checked_sub(1).filter(|_| place.at == 0);
        if let Some(before) = before
            && self.insert_into(before, None, batch, max_timestamp)
        {
            return true;
        }
        if place.chunk < self.chunks.len()
            && self.insert_into(place.chunk, Some(place.at), batch, max_timestamp)
        {
            return true;
        }
        // Between two chunks, or behind the last: a chunk of its own.
        if place.at == 0 {
            let Some(chunk) = Chunk::of(batch) else {
                return false;
            };
            self.add_chunk(place.chunk, chunk, max_timestamp);
            return true;
        }
        // In the middle of a chunk that is full, or whose base is too far away.
        self.make_way(place);
        let chunk = self.chunk_of(batch.covers.last());
        let at = self
            .chunks
            .get(chunk)
            .map_or(0, |chunk| chunk.position(batch.covers.last()));
        let behind = (at > 0 && self.insert_into(chunk, Some(at), batch, max_timestamp))
            || chunk
                .checked_sub(1)
                .is_some_and(|chunk| self.insert_into(chunk, None, batch, max_timestamp));
        behind
            || Chunk::of(batch).is_some_and(|alone| {
                if at > 0 {
                    let split = self.split(chunk, at);
                    self.add_chunk(chunk + 1, split, self.max_timestamp(chunk));
                }
                self.add_chunk(chunk + usize::from(at > 0), alone, max_timestamp);
                true
            })
    }

    /// Puts a batch into a chunk that has room, at the end if no place is given.
    fn insert_into(
        &mut self,
        chunk: usize,
        at: Option<usize>,
        batch: &IndexedBatch,
        max_timestamp: i64,
    ) -> bool {
        let Some(into) = self.chunks.get_mut(chunk).filter(|chunk| !chunk.is_full()) else {
            return false;
        };
        if !into.insert(at.unwrap_or(into.len()), batch) {
            return false;
        }
        self.raise_timestamp(chunk, max_timestamp);
        self.note_last(chunk);
        true
    }

    /// Makes room in a full chunk: by moving some of it into a neighbour that has some, else by halving it.
    fn make_way(&mut self, place: Place) {
        let chunk = place.chunk;
        let room = |chunk: Option<&Chunk>| chunk.map_or(0, |chunk| CHUNK_ENTRIES - chunk.len());
        let few = CHUNK_ENTRIES / 4;
        let behind = room(self.chunks.get(chunk + 1).map(Box::as_ref));
        if behind >= few
            && let Some([full, next]) = self.chunks.get_mut(chunk..chunk + 2)
            && next.take_back_of(full, behind / 2)
        {
            self.raise_timestamp(chunk + 1, self.max_timestamp(chunk));
            return self.note_last(chunk);
        }
        let before = chunk.checked_sub(1);
        let room_before = before.map_or(0, |before| room(self.chunks.get(before).map(Box::as_ref)));
        if room_before >= few
            && let Some(before) = before
            && let Some([previous, full]) = self.chunks.get_mut(before..=chunk)
            && previous.take_front_of(full, room_before / 2)
        {
            self.raise_timestamp(before, self.max_timestamp(chunk));
            return self.note_last(before);
        }
        let split = self.split(chunk, CHUNK_ENTRIES / 2);
        self.add_chunk(chunk + 1, split, self.max_timestamp(chunk));
    }

    fn split(&mut self, chunk: usize, at: usize) -> Option<Chunk> {
        let split = self
            .chunks
            .get_mut(chunk)
            .filter(|chunk| at < chunk.len())?
            .split_off(at);
        self.note_last(chunk);
        Some(split)
    }

    fn max_timestamp(&self, chunk: usize) -> i64 {
        self.max_timestamps.get(chunk).copied().unwrap_or(i64::MAX)
    }

    fn raise_timestamp(&mut self, chunk: usize, max_timestamp: i64) {
        if let Some(known) = self.max_timestamps.get_mut(chunk) {
            *known = max_timestamp.max(*known);
        }
    }

    fn remove_chunk(&mut self, chunk: usize) {
        self.lasts.remove(chunk);
        self.chunks.remove(chunk);
        self.max_timestamps.remove(chunk);
        self.directory_changed();
    }

    fn add_chunk(&mut self, at: usize, chunk: impl Into<Option<Chunk>>, max_timestamp: i64) {
        if let Some((chunk, last)) = chunk
            .into()
            .and_then(|chunk| chunk.last_offset().map(|last| (chunk, last)))
        {
            self.lasts.insert(at, last);
            self.chunks.insert(at, Box::new(chunk));
            self.max_timestamps.insert(at, max_timestamp);
            self.directory_changed();
        }
    }

    /// Brings the directory up to date after a chunk has changed, and drops the chunk if it is empty.
    fn note_last(&mut self, chunk: usize) {
        match self.chunks.get(chunk).map(|chunk| chunk.last_offset()) {
            Some(Some(last)) => {
                if let Some(noted) = self.lasts.get_mut(chunk) {
                    *noted = last;
                }
                self.directory_changed();
            }
            Some(None) => self.remove_chunk(chunk),
            None => {}
        }
    }

    /// Exchanges what is known of the batch that ends at the same offset: what it covers, where it lies, since when it
    /// is known. Its hits stay.
    pub(crate) fn replace(&mut self, batch: &IndexedBatch) {
        let Some(place) = self.first_from(batch.covers.last()) else {
            return;
        };
        if let Some(chunk) = self.chunks.get_mut(place.chunk)
            && chunk
                .covers(place.at)
                .is_some_and(|covers| covers.last() == batch.covers.last())
        {
            chunk.replace(place.at, batch);
        }
    }

    /// Removes the batch that ends at `last_offset`.
    pub(crate) fn remove(&mut self, last_offset: i64) -> Option<IndexedBatch> {
        let place = self.first_from(last_offset)?;
        let batch = self
            .batch(place)
            .filter(|batch| batch.covers.last() == last_offset)?;
        self.chunks.get_mut(place.chunk)?.remove(place.at);
        self.note_last(place.chunk);
        self.join_small(place.chunk);
        self.len -= 1;
        self.aborted.remove(last_offset);
        Some(batch)
    }

    /// Joins a chunk that has become small with a neighbour, so that chunks do not outnumber what is in them.
    fn join_small(&mut self, chunk: usize) {
        self.join_with_next(chunk);
        if let Some(before) = chunk.checked_sub(1) {
            self.join_with_next(before);
        }
        self.give_room_back();
    }

    /// Memory that the directory does not need goes back.
    fn give_room_back(&mut self) {
        let (held, needed) = (self.chunks.capacity(), self.chunks.len());
        if held > 8 && needed < held / 4 {
            self.lasts.shrink_to(2 * needed);
            self.chunks.shrink_to(2 * needed);
            self.max_timestamps.shrink_to(2 * needed);
        }
    }

    fn join_with_next(&mut self, chunk: usize) {
        let Some([this, next]) = self.chunks.get_mut(chunk..chunk + 2) else {
            return;
        };
        let together = this.len() + next.len();
        if this.len().min(next.len()) < CHUNK_ENTRIES / 4 && together <= CHUNK_ENTRIES / 2 {
            let all = next.len();
            if this.take_front_of(next, all) {
                self.raise_timestamp(chunk, self.max_timestamp(chunk + 1));
                self.remove_chunk(chunk + 1);
                self.note_last(chunk);
            }
        }
    }

    /// Removes every batch that covers an offset from `offset` on, and tells of each.
    pub(crate) fn remove_from(&mut self, offset: i64, mut removed: impl FnMut(&IndexedBatch)) {
        let Some(place) = self.first_from(offset) else {
            return;
        };
        let mut from = place.chunk;
        let mut gone = Vec::new();
        if place.at > 0 {
            gone.extend(self.split(place.chunk, place.at));
            from += 1;
        }
        self.lasts.truncate(from);
        self.max_timestamps.truncate(from);
        gone.extend(self.chunks.drain(from..).map(|chunk| *chunk));
        self.count_out(&gone, &mut removed);
        self.give_room_back();
        self.directory_changed();
        self.aborted.remove_from(offset);
    }

    /// Removes every batch that ends before `offset`, and tells of each. One that `offset` lies in stays, because
    /// brokers go on serving it (H4).
    pub(crate) fn remove_below(&mut self, offset: i64, mut removed: impl FnMut(&IndexedBatch)) {
        let place = self.first_from(offset).unwrap_or(Place {
            chunk: self.chunks.len(),
            at: 0,
        });
        self.lasts.drain(..place.chunk);
        self.max_timestamps.drain(..place.chunk);
        let gone: Vec<Chunk> = self.chunks.drain(..place.chunk).map(|chunk| *chunk).collect();
        self.count_out(&gone, &mut removed);
        if let Some(first) = self.chunks.first_mut() {
            for at in 0..place.at {
                if let Some(batch) = first.batch(at) {
                    self.len -= 1;
                    removed(&batch);
                }
            }
            first.remove_front(place.at);
        }
        self.give_room_back();
        self.directory_changed();
        self.aborted.remove_below(offset);
    }

    fn count_out(&mut self, gone: &[Chunk], removed: &mut impl FnMut(&IndexedBatch)) {
        for chunk in gone {
            self.len -= chunk.len();
            (0..chunk.len())
                .filter_map(|at| chunk.batch(at))
                .for_each(|batch| removed(&batch));
        }
    }

    /// Removes every batch that lies in a segment, and tells of each. Reads the whole index: for segments that
    /// have been lost, and cannot tell themselves what they held.
    pub(crate) fn remove_in_slot(&mut self, slot: u32, mut removed: impl FnMut(&IndexedBatch)) {
        let in_slot = |batch: &IndexedBatch| batch.location.slot == slot;
        let lost: Vec<i64> = self
            .iter()
            .filter(in_slot)
            .map(|batch| batch.covers.last())
            .collect();
        for last_offset in lost {
            if let Some(batch) = self.remove(last_offset) {
                removed(&batch);
            }
        }
    }

    /// Forgets which transactions are aborted, and tells for each batch what was known.
    pub(crate) fn forget_aborted(&mut self, mut forgotten: impl FnMut(AbortedState)) {
        let chunks = self.chunks.iter_mut();
        chunks
            .flat_map(|chunk| chunk.entries_mut())
            .map(Entry::forget_aborted)
            .filter(|before| matches!(before, AbortedState::Known { .. }))
            .for_each(&mut forgotten);
        self.aborted.clear();
    }

    fn last_place(&self) -> Option<Place> {
        let chunk = self.chunks.len().checked_sub(1)?;
        let at = self.chunks.get(chunk)?.len().checked_sub(1)?;
        Some(Place { chunk, at })
    }

    /// Every batch in order of offsets.
    pub(crate) fn iter(&self) -> impl Iterator<Item = IndexedBatch> {
        self.chunks.iter().map(Box::as_ref).flat_map(Chunk::batches)
    }

    /// The batches that may hold a record at or after `timestamp`, in order of offsets. Chunks without any are skipped;
    /// whether a batch holds one, its header tells.
    pub(crate) fn since(&self, timestamp: i64) -> impl Iterator<Item = IndexedBatch> {
        let chunks = self.chunks.iter().map(Box::as_ref).zip(&self.max_timestamps);
        let may_hold = move |(_, max_timestamp): &(&Chunk, &i64)| **max_timestamp >= timestamp;
        chunks.filter(may_hold).flat_map(|(chunk, _)| chunk.batches())
    }
}

/// See [`PartitionIndex::run`].
#[derive(Debug)]
pub(crate) struct Run<'a> {
    index: &'a PartitionIndex,
    next: Option<Place>,
    /// What the next batch has to cover.
    offset: Option<i64>,
}

impl<'a> Iterator for Run<'a> {
    type Item = (IndexedBatch, &'a HitMark);

    fn next(&mut self) -> Option<Self::Item> {
        let place = self.next.take()?;
        let chunk = self.index.chunks.get(place.chunk)?;
        let batch = chunk.batch(place.at)?;
        if !batch.covers.contains(self.offset?) {
            return None;
        }
        self.offset = batch.covers.last().checked_add(1);
        self.next = if place.at + 1 < chunk.len() {
            Some(Place {
                at: place.at + 1,
                ..place
            })
        } else {
            self.index.next(place)
        };
        Some((batch, &chunk.entry(place.at)?.mark))
    }
}
