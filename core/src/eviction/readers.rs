//! Where the readers of a partition are, which read it one batch after the other.

use core::sync::atomic::{AtomicI64, AtomicU8, AtomicU16, Ordering::Relaxed};

/// So many positions are known of a partition.
const CURSORS: usize = 8;
/// So many fetches have to go on where one ended before that is a reader: random reads meet now and then.
const MOVES_OF_READER: u8 = 8;
/// Where nobody is.
const NOWHERE: i64 = -1;
/// The share of strays is that among about so many reads.
const READS: u16 = 256;
/// The share, if all were strays.
const ALL: u16 = 1 << 15;
/// With fewer strays than this, what every reader has passed is done with.
const FEW: u16 = ALL / 16;

/// A few cursors, which the fetches make: one that begins where another ended moves the cursor there, and any other
/// takes the place of a cursor that has never moved. So random reads push no reader out.
///
/// A hit writes a position and a counter, both relaxed: whoever reads the table may find a cursor a moment late, which
/// costs a hit of the cache at most. Everything else is brought up to date when something is put in.
#[derive(Debug)]
pub(crate) struct Readers {
    /// Where a fetch ended, and the next one of the same reader begins.
    next: [AtomicI64; CURSORS],
    /// How often each was moved, up to [`MOVES_OF_READER`].
    moves: [AtomicU8; CURSORS],
    /// The cursor that the next newcomer may take.
    turn: AtomicU8,
    paces: [Option<Pace>; CURSORS],
    /// The share of reads lately that were no reader's, of [`ALL`].
    strays: AtomicU16,
}

/// Where a reader was at two moments, which tells how fast it goes. Time is counted as [`Policy`](super::Policy) does.
#[derive(Clone, Copy, Debug)]
struct Pace {
    earlier: Sight,
    later: Sight,
}

#[derive(Clone, Copy, Debug)]
struct Sight {
    offset: i64,
    at_bytes: u64,
}

/// When a batch will be read next, as far as readers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// A reader comes by within the time that was asked about.
    Soon,
    /// A reader is on its way, and will take longer, or stands still.
    Later,
    /// Every reader is past it, and hardly anybody else reads the partition.
    Never,
    /// Nothing is known: readers of this kind do not tell.
    Unknown,
}

impl Default for Readers {
    fn default() -> Self {
        Self {
            next: [const { AtomicI64::new(NOWHERE) }; CURSORS],
            moves: [const { AtomicU8::new(0) }; CURSORS],
            turn: AtomicU8::new(0),
            paces: [None; CURSORS],
            strays: AtomicU16::new(0),
        }
    }
}

impl Readers {
    /// Notes that somebody has read from `from` up to `next`.
    pub(crate) fn note(&self, from: i64, next: i64) {
        let stray = if self.moved(from, next) { 0 } else { ALL / READS };
        let strays = self.strays.load(Relaxed);
        let strays_now = strays - strays.div_ceil(READS) + stray;
        if strays_now != strays {
            self.strays.store(strays_now, Relaxed);
        }
    }

    /// Moves the cursor that stands at `from`, or makes one. Says whether it is that of a reader. Where several stand, the
    /// one that moved most often goes on: one that came by chance would leave the reader's behind as another.
    fn moved(&self, from: i64, next: i64) -> bool {
        let mut found = None;
        for (place, moves) in self.next.iter().zip(&self.moves) {
            if place.load(Relaxed) == from {
                let count = moves.load(Relaxed);
                if found.is_none_or(|(_, _, most)| count > most) {
                    found = Some((place, moves, count));
                }
            }
        }
        let Some((place, moves, count)) = found else {
            self.begin(next);
            return false;
        };
        place.store(next, Relaxed);
        if count < MOVES_OF_READER {
            moves.store(count + 1, Relaxed);
        }
        count + 1 >= MOVES_OF_READER
    }

    /// Somebody new may be at `next`. Forgotten where every cursor has moved.
    fn begin(&self, next: i64) {
        let turn = usize::from(self.turn.load(Relaxed));
        let free = (turn..turn + CURSORS).find_map(|turn| {
            let at = turn % CURSORS;
            let (place, moves) = (self.next.get(at)?, self.moves.get(at)?);
            (moves.load(Relaxed) == 0).then_some((at, place))
        });
        if let Some((at, place)) = free {
            place.store(next, Relaxed);
            let turn = u8::try_from((at + 1) % CURSORS).unwrap_or(0);
            self.turn.store(turn, Relaxed);
        }
    }

    /// Brings paces up to date at `now`. What has not moved for two windows of time is no reader any more, and what has
    /// not become one within a window may be displaced.
    pub(super) fn look(&mut self, now_bytes: u64, window_bytes: u64) {
        let cursors = self.next.iter_mut().zip(&mut self.moves).zip(&mut self.paces);
        for ((next, moves), pace) in cursors {
            let now = Sight {
                offset: *next.get_mut(),
                at_bytes: now_bytes,
            };
            if *moves.get_mut() == 0 {
                *pace = None;
                continue;
            }
            let Pace { earlier, later } = *pace.get_or_insert(Pace {
                earlier: now,
                later: now,
            });
            if now_bytes.saturating_sub(later.at_bytes) <= window_bytes {
                continue;
            }
            let stands = now.offset == later.offset && now.offset == earlier.offset;
            if stands || *moves.get_mut() < MOVES_OF_READER {
                *moves.get_mut() = 0;
                *pace = None;
            } else {
                *pace = Some(Pace {
                    earlier: later,
                    later: now,
                });
            }
        }
    }

    /// Whether a reader gets from where it is to `offset` within some time.
    pub(super) fn reach(&self, offset: i64, within_bytes: u64, now_bytes: u64) -> Reach {
        let (mut is_read, mut is_ahead) = (false, false);
        for ((next, moves), pace) in self.next.iter().zip(&self.moves).zip(&self.paces) {
            if moves.load(Relaxed) < MOVES_OF_READER {
                continue;
            }
            is_read = true;
            let next = next.load(Relaxed);
            let Some(way) = offset.checked_sub(next).and_then(|way| u64::try_from(way).ok()) else {
                continue;
            };
            is_ahead = true;
            let Some(Pace { earlier, .. }) = pace else {
                continue;
            };
            let gone = u64::try_from(next.saturating_sub(earlier.offset)).unwrap_or(0);
            let took_bytes = now_bytes.saturating_sub(earlier.at_bytes);
            if gone > 0 && product(way, took_bytes) <= product(within_bytes, gone) {
                return Reach::Soon;
            }
        }
        match (is_read, is_ahead) {
            (true, true) => Reach::Later,
            (true, false) if self.strays.load(Relaxed) < FEW => Reach::Never,
            _ => Reach::Unknown,
        }
    }
}

fn product(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}
