//! What goes when the limit is reached: byte-weighted S3-FIFO over two logs of segments.
//!
//! New batches go to the small log. When room is needed, the oldest segment of one of the logs goes as a whole;
//! batches in it that were hit are appended to the main log first, and those of the small log that were not leave
//! a ghost: when they come back soon, they go to the main log at once. A hit writes a counter of two bits on the
//! batch's index entry and nothing else.

mod ghosts;

use core::hash::BuildHasher;

use foldhash::fast::FixedState;

use self::ghosts::Ghosts;
use crate::identity::PartitionKey;

/// The logs that segments stand in, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogKind {
    /// What is new.
    Small,
    /// What was hit, or came back.
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
const SMALL_LOG_PERCENT: u64 = 10;

/// Decides in which log a batch begins, from which log a segment goes, and which of its batches survive.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    ghosts: Ghosts,
}

/// What a batch is remembered by once it has gone.
pub(crate) fn batch_hash(key: &PartitionKey, last_offset: i64) -> u64 {
    FixedState::with_seed(0).hash_one((key, last_offset))
}

impl Policy {
    /// The log in which a new batch begins.
    pub(crate) fn log_for(&self, hash: u64) -> LogKind {
        if self.ghosts.remembers(hash) {
            LogKind::Main
        } else {
            LogKind::Small
        }
    }

    /// The log whose oldest segment is to go.
    pub(crate) fn victim(small_bytes: u64, limit_bytes: u64) -> LogKind {
        if small_bytes > limit_bytes / 100 * SMALL_LOG_PERCENT {
            LogKind::Small
        } else {
            LogKind::Main
        }
    }

    /// Whether a batch survives the eviction of its segment, and with how many hits to its name.
    pub(crate) fn survives(log: LogKind, hits: u8) -> Option<u8> {
        match log {
            LogKind::Small => (hits > 0).then_some(0),
            LogKind::Main => hits.checked_sub(1),
        }
    }

    /// Notes that a batch went.
    pub(crate) fn evicted(&mut self, log: LogKind, hash: u64) {
        if log == LogKind::Small {
            self.ghosts.add(hash);
        }
    }

    /// Notes that a batch was put in: its ghost goes, the others age by its size, and there are places for as many as
    /// there are batches.
    pub(crate) fn inserted(&mut self, hash: u64, bytes: u64, batches: u64, limit_bytes: u64) {
        self.ghosts.forget(hash);
        self.ghosts.advance(bytes, batches, limit_bytes);
    }

    /// How much memory the policy takes more as soon as there are so many batches, in bytes.
    pub(crate) fn growth_bytes(&self, batches: u64) -> u64 {
        self.ghosts.growth_bytes(batches)
    }

    /// Forgets what takes too much of a lower limit.
    pub(crate) fn fit_into(&mut self, limit_bytes: u64) {
        if self.ghosts.size_bytes() > limit_bytes / 16 {
            self.ghosts = Ghosts::default();
        }
    }

    /// Memory of what it remembers, in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.ghosts.size_bytes()
    }
}
