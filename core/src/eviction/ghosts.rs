//! Batches that went and may come back, by fingerprint.

use alloc::vec::Vec;

use super::LogKind;

/// A table without chains: a later ghost in the same place displaces an earlier one. So it takes 4 bytes for each,
/// never grows beyond what it was made for, and forgets a little early, which costs a hit and never correctness.
#[derive(Debug, Default)]
pub(crate) struct Ghosts {
    places: Vec<Ghost>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ghost {
    /// The fingerprint, and in its lowest bit the log that the batch went from. 0 for an empty place.
    tag: u16,
    /// When it went, wrapping.
    gone_at: u16,
}

/// What is known of a batch that went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    /// The log that it went from.
    pub(super) log: LogKind,
    /// How long ago it went, in ticks.
    pub(super) away_ticks: u16,
}

/// So many places for each batch that is cached, rounded up to a power of two.
const PLACES_PER_BATCH: usize = 4;
/// 64 MiB of ghosts; more batches than it has places share them.
const PLACES_MAX: usize = 1 << 24;

const FROM_MAIN: u16 = 1;

fn fingerprint(hash: u64) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are what is meant")]
    let low = (hash as u16) & !FROM_MAIN;
    low.max(2)
}

impl Ghosts {
    fn place(&self, hash: u64) -> Option<usize> {
        let mask = self.places.len().checked_sub(1)?;
        Some(usize::try_from(hash >> 32).unwrap_or(0) & mask)
    }

    /// Remembers a batch that goes from a log at `now`, in ticks.
    pub(super) fn add(&mut self, hash: u64, log: LogKind, now: u16) {
        let place = self.place(hash);
        if let Some(ghost) = place.and_then(|place| self.places.get_mut(place)) {
            let from = if log == LogKind::Main { FROM_MAIN } else { 0 };
            *ghost = Ghost {
                tag: fingerprint(hash) | from,
                gone_at: now,
            };
        }
    }

    /// What is known of a batch, if it is remembered.
    pub(super) fn get(&self, hash: u64, now: u16) -> Option<Remembered> {
        let ghost = self.place(hash).and_then(|place| self.places.get(place))?;
        let log = if ghost.tag & FROM_MAIN == 0 {
            LogKind::Small
        } else {
            LogKind::Main
        };
        (ghost.tag & !FROM_MAIN == fingerprint(hash)).then(|| Remembered {
            log,
            away_ticks: now.wrapping_sub(ghost.gone_at),
        })
    }

    /// Forgets a batch.
    pub(super) fn forget(&mut self, hash: u64) {
        let place = self.place(hash);
        if let Some(ghost) = place.and_then(|place| self.places.get_mut(place))
            && ghost.tag & !FROM_MAIN == fingerprint(hash)
        {
            *ghost = Ghost::default();
        }
    }

    /// Makes places for the ghosts of so many batches.
    pub(super) fn make_places(&mut self, batches: u64) {
        if let Some(places) = self.places_wanted(batches) {
            // What was remembered is lost, which happens once each time that the number of batches doubles.
            self.places = alloc::vec![Ghost::default(); places];
        }
    }

    /// How many places there should be instead, if there should be more.
    fn places_wanted(&self, batches: u64) -> Option<usize> {
        let batches = usize::try_from(batches).unwrap_or(usize::MAX);
        let wanted = batches.saturating_mul(PLACES_PER_BATCH).min(PLACES_MAX);
        (wanted > self.places.len()).then(|| wanted.next_power_of_two())
    }

    /// How much larger the table becomes as soon as there are so many batches, in bytes.
    pub(super) fn growth_bytes(&self, batches: u64) -> u64 {
        let places = self.places_wanted(batches);
        places.map_or(0, |places| {
            ((places - self.places.len()) * size_of::<Ghost>()) as u64
        })
    }

    /// Memory, in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        (self.places.len() * size_of::<Ghost>()) as u64
    }
}
