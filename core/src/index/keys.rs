//! The keys of one chunk, all of which a search compares.

use core::ops::Range;

/// Keys of a full chunk. With all of so many compared without a branch, a lookup among ten thousand batches takes six tenths of
/// the time that it took to step to the right one from a good guess, because that mispredicts.
pub(super) const KEYS_MAX: usize = 64;

/// Up to [`KEYS_MAX`] keys in ascending order.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Keys {
    /// Behind the keys stands what no key is larger than, so that all of them can be compared however many there are.
    keys: [u32; KEYS_MAX],
}

const NO_KEY: u32 = u32::MAX;

impl Keys {
    pub(super) fn new() -> Self {
        Self {
            keys: [NO_KEY; KEYS_MAX],
        }
    }

    /// How many keys are smaller than `wanted`.
    pub(super) fn smaller_than(&self, wanted: u32) -> usize {
        let smaller: u32 = self.keys.iter().map(|key| u32::from(*key < wanted)).sum();
        smaller as usize
    }

    pub(super) fn get(&self, at: usize) -> Option<u32> {
        self.keys.get(at).copied()
    }

    /// Puts a key in at its place; the last of all places has to be free.
    pub(super) fn insert(&mut self, at: usize, key: u32) {
        if let Some(behind) = self.keys.get_mut(at..) {
            behind.rotate_right(1);
            if let Some(place) = behind.first_mut() {
                *place = key;
            }
        }
    }

    pub(super) fn remove(&mut self, range: Range<usize>) {
        let count = range.len();
        if let Some(behind) = self.keys.get_mut(range.start..) {
            behind.rotate_left(count.min(behind.len()));
            let end = behind.len();
            if let Some(freed) = behind.get_mut(end - count.min(end)..) {
                freed.fill(NO_KEY);
            }
        }
    }

    /// Adds to each of the first `count` keys; whoever does has proven that nothing overflows.
    pub(super) fn shift_up(&mut self, count: usize, shift: u32) {
        for key in self.keys.iter_mut().take(count) {
            *key = key.saturating_add(shift);
        }
    }

    /// The keys at these places.
    pub(super) fn range(&self, range: Range<usize>) -> &[u32] {
        self.keys.get(range).unwrap_or_default()
    }
}
