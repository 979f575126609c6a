//! A run of neighbouring entries: the keys side by side, so that a search reads two or three cache lines, and
//! offsets as 32-bit distances from one base.

use alloc::vec::Vec;

use super::entry::{Entry, IndexedBatch, delta};
use super::keys::{KEYS_MAX, Keys};
use crate::offset::OffsetSpan;

/// Entries of a full chunk.
pub(super) const CHUNK_ENTRIES: usize = KEYS_MAX;

/// Entries in order of offsets; never empty while it stands in an index. What a search needs of it is one cache line.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The last offset of each entry, as deltas.
    lasts: Keys,
    /// What the deltas count from; not above any covered offset.
    base: i64,
    entries: Vec<Entry>,
}

/// Where a chunk that begins with `batch` counts from: its first covered offset, but for a gap that is too long.
fn base_for(batch: &IndexedBatch) -> i64 {
    let lowest = batch.covers.last().saturating_sub(i64::from(u32::MAX));
    batch.covers.base().max(lowest)
}

impl Chunk {
    /// `None` if the batch's own offsets do not fit, which no batch of Kafka's can bring about.
    pub(super) fn of(batch: &IndexedBatch) -> Option<Self> {
        let base = base_for(batch);
        let (last, entry) = Entry::new(batch, base)?;
        let mut lasts = Keys::new();
        lasts.insert(0, last);
        Some(Self {
            lasts,
            base,
            entries: alloc::vec![entry],
        })
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= CHUNK_ENTRIES
    }

    /// Where the first entry stands whose last offset is `offset` or beyond.
    pub(super) fn position(&self, offset: i64) -> usize {
        if offset <= self.base {
            return 0;
        }
        match delta(self.base, offset) {
            Some(delta) => self.lasts.smaller_than(delta),
            None => self.len(),
        }
    }

    /// The entry that covers an offset.
    pub(super) fn covering(&self, offset: i64) -> Option<&Entry> {
        let delta = delta(self.base, offset)?;
        let entry = self.entries.get(self.lasts.smaller_than(delta))?;
        (entry.covers_from() <= delta).then_some(entry)
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn entries_mut(&mut self) -> &mut [Entry] {
        &mut self.entries
    }

    pub(super) fn entry(&self, at: usize) -> Option<&Entry> {
        self.entries.get(at)
    }

    pub(super) fn batch(&self, at: usize) -> Option<IndexedBatch> {
        Some(self.entries.get(at)?.batch(self.base, self.lasts.get(at)?))
    }

    /// All batches, in order of offsets.
    pub(super) fn batches(&self) -> impl Iterator<Item = IndexedBatch> + '_ {
        (0..self.len()).filter_map(|at| self.batch(at))
    }

    /// What the deltas count from; not above any covered offset.
    pub(super) fn base(&self) -> i64 {
        self.base
    }

    /// What the entry covers, without the rest of it.
    pub(super) fn covers(&self, at: usize) -> Option<OffsetSpan> {
        let last = self.base.saturating_add(i64::from(self.lasts.get(at)?));
        OffsetSpan::new(self.entries.get(at)?.covers_base(self.base), last)
    }

    /// The last offset of the last entry.
    pub(super) fn last_offset(&self) -> Option<i64> {
        let last = self.lasts.get(self.len().checked_sub(1)?)?;
        Some(self.base.saturating_add(i64::from(last)))
    }

    /// Puts an entry in at its place; `false` if it lies too far away.
    pub(super) fn insert(&mut self, at: usize, batch: &IndexedBatch) -> bool {
        if !self.lower_base(base_for(batch)) {
            return false;
        }
        let Some((last, entry)) = Entry::new(batch, self.base) else {
            return false;
        };
        self.lasts.insert(at, last);
        self.entries.insert(at, entry);
        true
    }

    /// Exchanges an entry for another with the same last offset; the hits stay.
    pub(super) fn replace(&mut self, at: usize, batch: &IndexedBatch) {
        // A wider gap may reach below the base; where the base cannot follow, the gap is cut.
        self.lower_base(base_for(batch));
        if let (Some((last, mut entry)), Some(place)) =
            (Entry::new(batch, self.base), self.entries.get_mut(at))
        {
            core::mem::swap(&mut entry.mark, &mut place.mark);
            debug_assert_eq!(self.lasts.get(at), Some(last), "the last offset is the key");
            *place = entry;
        }
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.lasts.remove(at..at + 1);
        self.entries.remove(at);
        self.give_back();
    }

    /// Takes the entries from `at` on out, into a chunk of their own.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let (mut lasts, len) = (self.lasts.clone(), self.len());
        lasts.remove(0..at);
        self.lasts.remove(at..len);
        let split = Self {
            lasts,
            base: self.base,
            entries: self.entries.split_off(at),
        };
        self.give_back();
        split
    }

    /// Removes the entries in front of `at`.
    pub(super) fn remove_front(&mut self, at: usize) {
        self.lasts.remove(0..at);
        self.entries.drain(..at);
        self.give_back();
    }

    /// Moves `count` entries from the front of `next` to the end of this chunk; `false`, with nothing changed, if
    /// they lie too far away.
    pub(super) fn take_front_of(&mut self, next: &mut Self, count: usize) -> bool {
        let fits = next
            .lasts
            .get(count.wrapping_sub(1))
            .and_then(|last| next.base.checked_add(i64::from(last)))
            .is_some_and(|last| delta(self.base, last).is_some());
        let Some(shift) = delta(self.base, next.base).filter(|_| fits) else {
            return false;
        };
        for (at, last) in (self.len()..).zip(next.lasts.range(0..count)) {
            self.lasts.insert(at, last.saturating_add(shift));
        }
        next.lasts.remove(0..count);
        self.entries
            .extend(next.entries.drain(..count).map(|entry| entry.shifted_up(shift)));
        next.give_back();
        true
    }

    /// Moves `count` entries from the end of `previous` to the front of this chunk; `false`, with nothing changed, if
    /// they lie too far away.
    pub(super) fn take_back_of(&mut self, previous: &mut Self, count: usize) -> bool {
        if !self.lower_base(previous.base) {
            return false;
        }
        let from = previous.len() - count;
        let Some(shift) = delta(self.base, previous.base) else {
            return false;
        };
        for (at, last) in previous.lasts.range(from..from + count).iter().enumerate() {
            self.lasts.insert(at, last.saturating_add(shift));
        }
        previous.lasts.remove(from..from + count);
        let entries = previous.entries.drain(from..);
        self.entries
            .splice(..0, entries.map(|entry| entry.shifted_up(shift)));
        previous.give_back();
        true
    }

    /// Counts from `base`, if that is lower and every entry can be counted from there.
    fn lower_base(&mut self, base: i64) -> bool {
        if base >= self.base {
            return true;
        }
        let Some(shift) = delta(base, self.base) else {
            return false;
        };
        let highest = self.len().checked_sub(1).and_then(|at| self.lasts.get(at));
        if highest.unwrap_or(0).checked_add(shift).is_none() {
            return false;
        }
        self.lasts.shift_up(self.len(), shift);
        for entry in &mut self.entries {
            entry.shift_up(shift);
        }
        self.base = base;
        true
    }

    /// Gives memory back that is not needed, so that what the index takes follows what it holds.
    fn give_back(&mut self) {
        let (held, needed) = (self.entries.capacity(), self.entries.len());
        if held > 8 && needed < held / 4 {
            self.entries.shrink_to(2 * needed);
        }
    }

    /// Memory that it takes on the heap, in bytes.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }
}
