//! What the index keeps of a batch: where it lies and what the rules ask of it, in 36 bytes with its key.

use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;

use crate::offset::OffsetSpan;
use crate::time::Instant;
use crate::transactions::{ABORTED_MAX, AbortedState};

/// Where the record of a batch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The segment's place in the segment table.
    pub(crate) slot: u32,
    /// Where the record begins in the segment, in bytes.
    pub(crate) position: u32,
    /// Size of the batch, in bytes, without what precedes it in the record.
    pub(crate) batch_bytes: u32,
    /// What is known of aborted transactions; their list precedes the batch in the record.
    pub(crate) aborted: AbortedState,
}

/// A batch as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexedBatch {
    /// The batch's own offsets.
    pub(crate) span: OffsetSpan,
    /// The offsets that it answers: its own and those of the gap before it, where the broker showed that nothing
    /// lies (H5, H11).
    pub(crate) covers: OffsetSpan,
    /// The epoch of the leader that appended it.
    pub(crate) leader_epoch: i32,
    pub(crate) known_at: KnownAt,
    pub(crate) location: Location,
}

/// When a broker was last asked for a batch: compaction may rewrite it from then on (H5). In sixteenths of a second, so
/// that 32 bits last for eight years; rounded down, so that nothing seems younger than it is; the end of the range stands
/// for anything beyond it. Of what was restored it is not known, which is older than any moment: the clock has begun anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KnownAt(Option<NonZeroU32>);

const TICKS_PER_SECOND: u32 = 16;

impl KnownAt {
    pub(crate) fn instant(self) -> Option<Instant> {
        let ticks = self.0?.get() - 1;
        Some(Instant::from_start(
            Duration::from_secs(1) / TICKS_PER_SECOND * ticks,
        ))
    }
}

impl From<Instant> for KnownAt {
    fn from(at: Instant) -> Self {
        let since_start = at.since(Instant::default());
        let ticks = since_start
            .as_secs()
            .saturating_mul(TICKS_PER_SECOND.into())
            .saturating_add(
                u64::from(since_start.subsec_nanos()) * u64::from(TICKS_PER_SECOND) / 1_000_000_000,
            );
        Self(NonZeroU32::new(
            u32::try_from(ticks.saturating_add(1)).unwrap_or(u32::MAX),
        ))
    }
}

/// What hits leave on an entry. Written by readers that share the index, so a byte of its own that nothing else
/// depends on.
#[derive(Debug, Default)]
pub(crate) struct HitMark(AtomicU8);

const HITS_MAX: u8 = 2;
const FAULTY: u8 = 1 << 7;
/// Kept for a reader, and not known to have been read since.
const AWAITED: u8 = 1 << 6;
const HITS: u8 = AWAITED - 1;

impl HitMark {
    /// Counts a hit, up to two. Beyond them nothing is written, so that processors do not fight over hot batches.
    pub(crate) fn hit(&self) {
        let mark = self.0.load(Ordering::Relaxed);
        if mark & HITS < HITS_MAX {
            self.0.store(mark + 1, Ordering::Relaxed);
        }
    }

    /// Hits since it was inserted or last [reset](Self::set_hits), at most two.
    pub(crate) fn hits(&self) -> u8 {
        self.0.load(Ordering::Relaxed) & HITS
    }

    pub(crate) fn set_hits(&self, hits: u8) {
        self.0.store(hits.min(HITS_MAX), Ordering::Relaxed);
    }

    /// Says that it is kept for a reader that has not come yet. Ends with [`Self::set_hits`].
    pub(crate) fn mark_awaited(&self) {
        self.0.fetch_or(AWAITED, Ordering::Relaxed);
    }

    pub(crate) fn is_awaited(&self) -> bool {
        self.0.load(Ordering::Relaxed) & AWAITED != 0
    }

    /// Says that the storage did not give the batch back: it is not to be asked again (H23).
    pub(crate) fn mark_faulty(&self) {
        self.0.fetch_or(FAULTY, Ordering::Relaxed);
    }

    pub(crate) fn is_faulty(&self) -> bool {
        self.0.load(Ordering::Relaxed) & FAULTY != 0
    }
}

/// An [`IndexedBatch`], but for its last offset, which is its key. Offsets count from the chunk's base.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// The base offset of the batch.
    span_base: u32,
    /// How far the covered gap reaches below it.
    gap: u32,
    slot: u32,
    position: u32,
    batch_bytes: u32,
    leader_epoch: i32,
    known_at: KnownAt,
    aborted: u16,
    pub(super) mark: HitMark,
}

/// Numbers of aborted transactions that stand for something else, beyond [`ABORTED_MAX`].
const ABORTED_UNKNOWN: u16 = u16::MAX;
const ABORTED_PLAIN: u16 = u16::MAX - 1;
/// Set where the number is of transactions that are forgotten.
const FORGOTTEN: u16 = 1 << 15;

fn encoded(aborted: AbortedState) -> u16 {
    match aborted {
        AbortedState::Unknown => ABORTED_UNKNOWN,
        AbortedState::Plain => ABORTED_PLAIN,
        AbortedState::Known { count } => count.min(ABORTED_MAX),
        AbortedState::Forgotten { count } => count.min(ABORTED_MAX) | FORGOTTEN,
    }
}

fn decoded(aborted: u16) -> AbortedState {
    match aborted {
        ABORTED_UNKNOWN => AbortedState::Unknown,
        ABORTED_PLAIN => AbortedState::Plain,
        count if count & FORGOTTEN == 0 => AbortedState::Known { count },
        count => AbortedState::Forgotten {
            count: count & !FORGOTTEN,
        },
    }
}

impl Entry {
    /// `None` if the batch lies too far from the chunk's base; then it needs a chunk of its own. A gap that is too long
    /// is cut: its front is no longer covered.
    pub(super) fn new(batch: &IndexedBatch, base: i64) -> Option<(u32, Self)> {
        let last = delta(base, batch.covers.last())?;
        let span_base = delta(base, batch.span.base())?;
        // A gap never reaches below the chunk's base, so that every delta is non-negative.
        let gap = batch.span.base().checked_sub(batch.covers.base())?;
        let gap = u32::try_from(gap).unwrap_or(u32::MAX).min(span_base);
        let location = batch.location;
        let entry = Self {
            span_base,
            gap,
            slot: location.slot,
            position: location.position,
            batch_bytes: location.batch_bytes,
            leader_epoch: batch.leader_epoch,
            known_at: batch.known_at,
            aborted: encoded(location.aborted),
            mark: HitMark::default(),
        };
        Some((last, entry))
    }

    /// The batch again. Deltas come from [`Self::new`] and a base that they fit to, so nothing overflows.
    pub(super) fn batch(&self, base: i64, last: u32) -> IndexedBatch {
        let at = |delta: u32| base.saturating_add(i64::from(delta));
        let span = |from: u32| OffsetSpan::new(at(from), at(last)).unwrap_or(OffsetSpan::single(at(last)));
        IndexedBatch {
            span: span(self.span_base),
            covers: span(self.covers_from()),
            leader_epoch: self.leader_epoch,
            known_at: self.known_at,
            location: self.location(),
        }
    }

    pub(super) fn location(&self) -> Location {
        Location {
            slot: self.slot,
            position: self.position,
            batch_bytes: self.batch_bytes,
            aborted: decoded(self.aborted),
        }
    }

    /// The first covered offset, as a delta.
    pub(super) fn covers_from(&self) -> u32 {
        self.span_base - self.gap
    }

    /// The first covered offset.
    pub(super) fn covers_base(&self, base: i64) -> i64 {
        base.saturating_add(i64::from(self.covers_from()))
    }

    pub(super) fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Forgets what was known of aborted transactions, and gives what that was.
    pub(super) fn forget_aborted(&mut self) -> AbortedState {
        let before = decoded(self.aborted);
        self.aborted = encoded(before.forgotten());
        before
    }

    /// The same batch, counted from a base that is lower by `shift`.
    pub(super) fn shifted_up(mut self, shift: u32) -> Self {
        self.shift_up(shift);
        self
    }

    pub(super) fn shift_up(&mut self, shift: u32) {
        // The last offset is not below it, and whoever shifts has proven that it does not overflow.
        self.span_base = self.span_base.saturating_add(shift);
    }
}

/// How far `offset` lies beyond `base`, if 32 bits can say so.
pub(super) fn delta(base: i64, offset: i64) -> Option<u32> {
    u32::try_from(offset.checked_sub(base)?).ok()
}
