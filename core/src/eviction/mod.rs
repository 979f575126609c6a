//! What goes when the limit is reached: S3-FIFO over two logs of segments, in which what comes back is compared with
//! what it would displace.
//!
//! New batches go to the small log. When room is needed, the oldest segment of one of the logs goes as a whole;
//! batches in it that were hit are appended to the main log first, at the cost of one hit. Four rules differ from
//! S3-FIFO, and each is for reads that come in long runs, as those of logs do:
//!
//! - Until something had to go, the main log takes everything. Then it loses only what better batches displace, so that
//!   a loop or a scan that is longer than the cache hits what stays there.
//! - A batch leaves a ghost. When it comes back it goes to the main log only if it was away for a small share of the
//!   time since the main log's oldest segment was written: what lies there unread was not needed for that long. All
//!   time is counted in bytes put in.
//! - That share is smaller the more of what went from the main log comes back as well.
//! - Hits count to two, so that batches which a group of readers has passed do not stay for long.
//!
//! And readers that go through a partition batch by batch tell what they will read next (see [`Readers`]):
//!
//! - What one of them will reach before the main log has turned over goes to the main log, and moves on unread, up to as
//!   many bytes as are put in. That a batch has to lie there until the next reader comes serves short gaps between
//!   readers first: long ones do not fit into the age.
//! - What all of them have passed does not move on, whatever its hits, unless others read the partition as well.
//! - If what is kept for readers goes unread more often than not, none is for a while.
//!
//! A hit writes a counter of two bits on the batch's index entry, and one that answers a fetch the place of a reader.

mod ghosts;
mod readers;
#[cfg(test)]
mod tests;

use core::hash::BuildHasher;

use foldhash::fast::FixedState;

use self::ghosts::Ghosts;
pub(crate) use self::readers::{Reach, Readers};
use crate::identity::PartitionKey;

/// The logs that segments stand in, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogKind {
    /// What is new.
    Small,
    /// What was hit, or came back soon, or was there first.
    Main,
}

impl LogKind {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Small => Self::Main,
            Self::Main => Self::Small,
        }
    }
}

/// The share of the limit that the small log may take before its segments go first.
const SMALL_LOG_PERCENT: u64 = 3;

/// How long a batch is remembered, in multiples of the limit that are put in meanwhile.
const GHOST_LIMITS: u16 = 3;

/// The clock of ghosts ticks so often while as much is put in as the limit.
const TICKS_PER_LIMIT: u16 = 1024;

/// How long a batch may have been away, in percent of the age of the main log's oldest segment, if as much of what goes
/// from the main log comes back as [`BALANCE_PERCENT`] says.
const AWAY_PERCENT: i64 = 24;
/// By how much that differs at most, either way.
const AWAY_PERCENT_SPREAD: i64 = 16;
/// How much of what goes from the main log may come back before the share of the age falls.
const BALANCE_PERCENT: i64 = 30;

/// What a reader will reach within so much of the age of the main log's oldest segment is worth its place there, in
/// percent.
const REACH_PERCENT: u64 = 90;
/// Readers are looked at anew after so much of the limit was put in, in percent.
const WINDOW_PERCENT: u64 = 10;
/// So much may be spared at once, and be read or not before that is judged, as a share of the limit.
const AID_SHARE: u64 = 16;

/// What a batch is remembered by once it has gone.
pub(crate) fn batch_hash(key: &PartitionKey, last_offset: i64) -> u64 {
    FixedState::with_seed(0).hash_one((key, last_offset))
}

/// How the main log stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MainLog {
    pub(crate) size_bytes: u64,
    /// When its oldest segment was begun, by [`Policy::now_bytes`].
    pub(crate) oldest_since_bytes: u64,
}

/// Decides in which log a batch begins, from which log a segment goes, and which of its batches survive.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    ghosts: Ghosts,
    limit_bytes: u64,
    /// Bytes that were put into the cache so far: the clock of everything here.
    clock_bytes: u64,
    /// Whether anything had to go yet.
    was_full: bool,
    /// What went from the main log for good, less what of it came back.
    balance_bytes: i64,
    /// Up to when, by the clock, what was put in has paid for what readers have had spared.
    spared_until_bytes: u64,
    /// What was kept for readers and read, less what was not.
    aid_balance_bytes: i64,
    /// Until then nothing is kept for readers, by the clock.
    aid_off_until_bytes: u64,
}

impl Policy {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            ..Self::default()
        }
    }

    /// The time, in bytes that were put in.
    pub(crate) fn now_bytes(&self) -> u64 {
        self.clock_bytes
    }

    /// Since when what moves on now counts as unread, if it lay there since `since_bytes`: it was read at a time that
    /// nobody knows, and not likely only just now.
    pub(crate) fn moved_since_bytes(&self, since_bytes: u64) -> u64 {
        self.clock_bytes - self.clock_bytes.saturating_sub(since_bytes) / 3
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "ticks wrap, what counts are differences"
    )]
    fn now_ticks(&self) -> u16 {
        (self.clock_bytes / self.tick_bytes()) as u16
    }

    fn tick_bytes(&self) -> u64 {
        (self.limit_bytes / u64::from(TICKS_PER_LIMIT)).max(1)
    }

    /// The log in which a new batch begins.
    pub(crate) fn log_for(&self, hash: u64, main: MainLog) -> LogKind {
        let main_limit_bytes = self.limit_bytes / 100 * (100 - SMALL_LOG_PERCENT);
        let fills = !self.was_full && main.size_bytes < main_limit_bytes;
        if fills || self.returns_soon(hash, main) {
            LogKind::Main
        } else {
            LogKind::Small
        }
    }

    /// Whether a batch comes back so soon that it is worth more than what the main log would lose for it.
    fn returns_soon(&self, hash: u64, main: MainLog) -> bool {
        let Some(ghost) = self.ghosts.get(hash, self.now_ticks()) else {
            return false;
        };
        let away_bytes = u64::from(ghost.away_ticks) * self.tick_bytes();
        let age_bytes = self.clock_bytes.saturating_sub(main.oldest_since_bytes);
        ghost.log == LogKind::Small
            && ghost.away_ticks <= GHOST_LIMITS * TICKS_PER_LIMIT
            && away_bytes <= age_bytes / 100 * self.away_percent()
    }

    fn away_percent(&self) -> u64 {
        let limit_bytes = i64::try_from(self.limit_bytes).unwrap_or(i64::MAX).max(1);
        let spread = self.balance_bytes.saturating_mul(2 * AWAY_PERCENT_SPREAD) / limit_bytes;
        u64::try_from(AWAY_PERCENT + spread).unwrap_or(0)
    }

    /// Notes that `from` up to `next` was fetched, because it was not cached.
    pub(crate) fn fetched(&self, readers: &mut Readers, from: i64, next: i64) {
        readers.note(from, next);
        readers.look(self.clock_bytes, self.limit_bytes / 100 * WINDOW_PERCENT);
    }

    /// Whether a reader comes by an offset before what is put into the main log now has to go.
    pub(crate) fn reach(&self, readers: &Readers, offset: i64, main: MainLog) -> Reach {
        if self.clock_bytes < self.aid_off_until_bytes {
            return Reach::Unknown;
        }
        let age_bytes = self.clock_bytes.saturating_sub(main.oldest_since_bytes);
        readers.reach(offset, age_bytes / 100 * REACH_PERCENT, self.clock_bytes)
    }

    /// Whether a batch without a hit may move on for a reader. As much as is put in may, so that segments come free.
    fn may_spare(&mut self, bytes: u64) -> bool {
        let earliest_bytes = self.clock_bytes.saturating_sub(self.limit_bytes / AID_SHARE);
        let until_bytes = self.spared_until_bytes.max(earliest_bytes).saturating_add(bytes);
        let may = until_bytes <= self.clock_bytes;
        if may {
            self.spared_until_bytes = until_bytes;
        }
        may
    }

    /// Notes what came of a batch that was kept for a reader. While more of them are for nothing, none is kept for a while.
    pub(crate) fn aided(&mut self, was_read: bool, bytes: u64) {
        let share_bytes = i64::try_from(self.limit_bytes / AID_SHARE).unwrap_or(i64::MAX);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let change_bytes = if was_read { bytes } else { -bytes };
        let balance_bytes = self.aid_balance_bytes.saturating_add(change_bytes);
        self.aid_balance_bytes = balance_bytes.min(share_bytes);
        if balance_bytes < -share_bytes {
            self.aid_balance_bytes = 0;
            self.aid_off_until_bytes = self.clock_bytes.saturating_add(self.limit_bytes);
        }
    }

    /// Notes that something has to go.
    pub(crate) fn is_full(&mut self) {
        self.was_full = true;
    }

    /// The log whose oldest segment is to go.
    pub(crate) fn victim(&self, small_bytes: u64) -> LogKind {
        if small_bytes > self.limit_bytes / 100 * SMALL_LOG_PERCENT {
            LogKind::Small
        } else {
            LogKind::Main
        }
    }

    /// With how many hits to its name a batch survives the eviction of its segment, if it does.
    pub(crate) fn survives(&mut self, hits: u8, reach: Reach, bytes: u64) -> Option<u8> {
        match reach {
            Reach::Soon if hits == 0 => self.may_spare(bytes).then_some(0),
            Reach::Never => None,
            _ => hits.checked_sub(1),
        }
    }

    /// Notes that a batch went.
    pub(crate) fn evicted(&mut self, log: LogKind, hash: u64, bytes: u64) {
        self.ghosts.add(hash, log, self.now_ticks());
        if log == LogKind::Main {
            self.weigh(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// Notes that a batch was put in: its ghost goes, the others age by its size, and there are places for as many as
    /// there are batches.
    pub(crate) fn inserted(&mut self, hash: u64, bytes: u64, batches: u64) {
        let ghost = self.ghosts.get(hash, self.now_ticks());
        if ghost.is_some_and(|ghost| ghost.log == LogKind::Main) {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.weigh(-(bytes.saturating_mul(100) / BALANCE_PERCENT));
        }
        self.ghosts.forget(hash);
        self.clock_bytes = self.clock_bytes.saturating_add(bytes);
        self.ghosts.make_places(batches);
    }

    /// Moves the balance, which stays within half of the limit either way.
    fn weigh(&mut self, bytes: i64) {
        let half_bytes = i64::try_from(self.limit_bytes / 2).unwrap_or(i64::MAX);
        self.balance_bytes = self
            .balance_bytes
            .saturating_add(bytes)
            .clamp(-half_bytes, half_bytes);
    }

    /// How much memory the policy takes more as soon as there are so many batches, in bytes.
    pub(crate) fn growth_bytes(&self, batches: u64) -> u64 {
        self.ghosts.growth_bytes(batches)
    }

    /// Takes over another limit. What was remembered was counted by the old one, and might take too much of a lower one, or
    /// last for too long.
    pub(crate) fn fit_into(&mut self, limit_bytes: u64) {
        self.limit_bytes = limit_bytes;
        self.ghosts = Ghosts::default();
        self.balance_bytes = 0;
        self.aid_balance_bytes = 0;
        self.aid_off_until_bytes = 0;
    }

    /// Memory of what it remembers, in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.ghosts.size_bytes()
    }
}
