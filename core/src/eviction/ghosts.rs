//! Batches that went and may come back, by fingerprint.

use alloc::vec::Vec;

/// A table without chains: a later ghost in the same place displaces an earlier one. So it takes 8 bytes for each,
/// never grows beyond what it was made for, and forgets a little early, which costs a hit and never correctness.
#[derive(Debug, Default)]
pub(crate) struct Ghosts {
    places: Vec<Ghost>,
    /// Bytes that were put into the cache so far.
    clock_bytes: u64,
    /// How long a ghost is remembered, in bytes put in since.
    window_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ghost {
    /// 0 for an empty place.
    fingerprint: u32,
    /// The clock when it was added, in units of [`CLOCK_UNIT_BYTES`], wrapping.
    added_at: u32,
}

const CLOCK_UNIT_BYTES: u64 = 1024;
/// 64 MiB of ghosts; more batches than it has places share them.
const PLACES_MAX: usize = 1 << 23;

fn fingerprint(hash: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is meant")]
    let low = hash as u32;
    low.max(1)
}

impl Ghosts {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the clock wraps, ages are differences"
    )]
    fn now(&self) -> u32 {
        (self.clock_bytes / CLOCK_UNIT_BYTES) as u32
    }

    fn place(&self, hash: u64) -> Option<usize> {
        let mask = self.places.len().checked_sub(1)?;
        Some(usize::try_from(hash >> 32).unwrap_or(0) & mask)
    }

    /// Remembers a batch.
    pub(crate) fn add(&mut self, hash: u64) {
        let (place, added_at) = (self.place(hash), self.now());
        if let Some(place) = place.and_then(|place| self.places.get_mut(place)) {
            *place = Ghost {
                fingerprint: fingerprint(hash),
                added_at,
            };
        }
    }

    /// Whether a batch is remembered, and went not too long ago.
    pub(crate) fn remembers(&self, hash: u64) -> bool {
        let Some(ghost) = self.place(hash).and_then(|place| self.places.get(place)) else {
            return false;
        };
        let age_bytes = u64::from(self.now().wrapping_sub(ghost.added_at)) * CLOCK_UNIT_BYTES;
        ghost.fingerprint == fingerprint(hash) && age_bytes <= self.window_bytes
    }

    /// Forgets a batch.
    pub(crate) fn forget(&mut self, hash: u64) {
        let place = self.place(hash);
        if let Some(ghost) = place.and_then(|place| self.places.get_mut(place))
            && ghost.fingerprint == fingerprint(hash)
        {
            *ghost = Ghost::default();
        }
    }

    /// Lets time pass, and makes places for as many ghosts as there are batches.
    pub(crate) fn advance(&mut self, bytes: u64, batches: u64, window_bytes: u64) {
        self.clock_bytes = self.clock_bytes.wrapping_add(bytes);
        self.window_bytes = window_bytes;
        if let Some(places) = self.places_wanted(batches) {
            // What was remembered is lost, which happens once each time that the number of batches doubles.
            self.places = alloc::vec![Ghost::default(); places];
        }
    }

    /// How many places there should be instead, if there should be more.
    fn places_wanted(&self, batches: u64) -> Option<usize> {
        let batches = usize::try_from(batches).unwrap_or(usize::MAX).min(PLACES_MAX);
        (batches > self.places.len()).then(|| batches.next_power_of_two())
    }

    /// How much larger the table becomes as soon as there are so many batches, in bytes.
    pub(crate) fn growth_bytes(&self, batches: u64) -> u64 {
        let places = self.places_wanted(batches);
        places.map_or(0, |places| {
            ((places - self.places.len()) * size_of::<Ghost>()) as u64
        })
    }

    /// Memory, in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        (self.places.len() * size_of::<Ghost>()) as u64
    }
}
