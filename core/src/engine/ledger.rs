//! What is held, in bytes, and what may be.

use super::segments::SEGMENT_BYTES;
use super::writing::UNWRITTEN_LIMIT_BYTES;
use crate::eviction::{LogKind, Policy, Readers};
use crate::freshness::{UNCONFIRMED_EPOCHS_LIMIT, UnconfirmedEpoch};
use crate::index::BATCH_INDEX_BYTES;
use crate::segment::{FOOTER_FIXED_BYTES, SEGMENT_HEADER_BYTES};
use crate::transactions::AbortedState;

/// Memory of a partition beside its batches: its place in the table, its state, its first chunk, its readers, and the epochs
/// that await their confirmation.
pub(crate) const PARTITION_BYTES: u64 =
    512 + size_of::<Readers>() as u64 + (UNCONFIRMED_EPOCHS_LIMIT * size_of::<UnconfirmedEpoch>()) as u64;

/// How many segments there are about, when nobody says how large they are to be.
const SEGMENTS_WANTED: u64 = 256;
/// Larger ones gain nothing in memory, where they are copied in one piece.
const SEGMENT_SIZE_MAX_IN_MEMORY_BYTES: u64 = 1 << 20;
/// On a medium each is a file or an object; fewer of them open faster.
const SEGMENT_SIZE_MAX_BYTES: u64 = 64 << 20;
/// However large the limit is, there are not many more, because a system maps so many files and no more.
const SEGMENTS_MAX: u64 = 16 * 1024;
/// However full the medium is, so many are tried, so that it shows when there is room again.
const SEGMENTS_TRIED: u64 = 4;
/// Positions have 32 bits.
const SEGMENT_SIZE_END_BYTES: u64 = 1 << 30;

/// The one account of everything that counts against the limit. In memory that is all that the cache holds, its index
/// included; on another medium it is what lies there.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) limit_bytes: u64,
    segment_size_bytes: Option<u32>,
    is_memory: bool,
    /// Where the medium turned out to be full, in bytes, if that is below the limit.
    full_at_bytes: u64,
    /// Of the segments, what is in memory because it has not been written yet.
    unwritten_bytes: u64,
    /// Segments from their first record on until they are removed and nobody reads them.
    segments_bytes: u64,
    /// Of these, those that stand in a log.
    log_bytes: [u64; 2],
    /// Pieces of sealed segments that readers still hold.
    pub(super) held_pieces_bytes: u64,
    pub(super) segments: u64,
    pub(super) batches: u64,
    aborted_bytes: u64,
}

impl Ledger {
    pub(super) fn new(limit_bytes: u64, segment_size_bytes: Option<u32>, is_memory: bool) -> Self {
        Self {
            limit_bytes,
            segment_size_bytes,
            is_memory,
            full_at_bytes: u64::MAX,
            unwritten_bytes: 0,
            segments_bytes: 0,
            log_bytes: [0; 2],
            held_pieces_bytes: 0,
            segments: 0,
            batches: 0,
            aborted_bytes: 0,
        }
    }

    /// `bytes` where memory is what is counted, else none.
    pub(super) fn memory_only(&self, bytes: u64) -> u64 {
        if self.is_memory { bytes } else { 0 }
    }

    pub(super) fn size_bytes(&self, partitions: usize, policy: &Policy) -> u64 {
        let index_bytes = self.batches * BATCH_INDEX_BYTES as u64
            + self.aborted_bytes
            + partitions as u64 * PARTITION_BYTES
            + self.segments * SEGMENT_BYTES
            + policy.size_bytes();
        self.segments_bytes + self.held_pieces_bytes + self.memory_only(index_bytes)
    }

    /// How large segments become. A record that is larger has one of its own.
    pub(super) fn segment_size_bytes(&self) -> u64 {
        let wanted_bytes = self.limit_bytes / SEGMENTS_WANTED;
        let by_limit = if self.is_memory {
            wanted_bytes.min(SEGMENT_SIZE_MAX_IN_MEMORY_BYTES)
        } else {
            let bounded_bytes = wanted_bytes.min(SEGMENT_SIZE_MAX_BYTES);
            bounded_bytes.max((self.limit_bytes / SEGMENTS_MAX).min(SEGMENT_SIZE_END_BYTES))
        };
        self.segment_size_bytes.map_or(by_limit, u64::from)
    }

    /// What a segment takes before its first record: a header, and what follows the entries of its footer.
    pub(super) fn head_bytes(&self) -> u64 {
        if self.is_memory {
            SEGMENT_HEADER_BYTES as u64
        } else {
            (SEGMENT_HEADER_BYTES + FOOTER_FIXED_BYTES) as u64
        }
    }

    /// What a record takes in a segment; footers are for what outlives the process.
    pub(super) fn stored_bytes(&self, record_bytes: u64, footer_bytes: u64) -> u64 {
        if self.is_memory {
            record_bytes
        } else {
            record_bytes + footer_bytes
        }
    }

    /// Where admission ends: one segment is kept free for batches that move on when theirs goes, and in memory one
    /// for the copy that sealing makes.
    pub(super) fn admission_limit_bytes(&self) -> u64 {
        let reserved = self.segment_size_bytes() * if self.is_memory { 2 } else { 1 };
        self.effective_limit_bytes().saturating_sub(reserved)
    }

    /// Where moving ends.
    pub(super) fn moving_limit_bytes(&self) -> u64 {
        self.effective_limit_bytes()
            .saturating_sub(self.memory_only(self.segment_size_bytes()))
    }

    /// The limit, or what the medium has turned out to hold.
    pub(super) fn effective_limit_bytes(&self) -> u64 {
        self.limit_bytes.min(self.full_at_bytes)
    }

    /// The medium is full while it holds so much. One segment less leaves others of its users some room.
    pub(super) fn fill_up_to(&mut self, held_bytes: u64) {
        let less_bytes = held_bytes.saturating_sub(self.segment_size_bytes());
        self.full_at_bytes = less_bytes.max(SEGMENTS_TRIED * self.segment_size_bytes());
    }

    /// Whatever is known of the medium, it may have room up to the limit.
    pub(super) fn expect_room(&mut self) {
        self.full_at_bytes = u64::MAX;
    }

    /// Something is in memory until it is written.
    pub(super) fn will_write(&mut self, bytes: u64) {
        self.unwritten_bytes += bytes;
    }

    /// It is written, or given up. What a medium takes that was full raises what it is expected to hold.
    pub(super) fn wrote(&mut self, bytes: u64, regrowth_bytes: u64) {
        self.unwritten_bytes = self.unwritten_bytes.saturating_sub(bytes);
        self.full_at_bytes = self.full_at_bytes.saturating_add(regrowth_bytes);
    }

    pub(super) fn unwritten_bytes(&self) -> u64 {
        if self.is_memory { 0 } else { self.unwritten_bytes }
    }

    /// Whether so much more may wait to be written.
    pub(super) fn may_wait(&self, bytes: u64) -> bool {
        self.is_memory || self.unwritten_bytes == 0 || self.unwritten_bytes + bytes <= UNWRITTEN_LIMIT_BYTES
    }

    pub(super) fn can_ever_hold(&self, needed_bytes: u64) -> bool {
        needed_bytes <= self.admission_limit_bytes()
    }

    /// A segment of a log takes more.
    pub(super) fn grow(&mut self, log: LogKind, bytes: u64) {
        self.segments_bytes += bytes;
        self.log_bytes[log as usize] += bytes;
    }

    /// A segment of a log takes less.
    pub(super) fn shrink(&mut self, log: LogKind, bytes: u64) {
        self.segments_bytes = self.segments_bytes.saturating_sub(bytes);
        self.leave(log, bytes);
    }

    /// A segment leaves its log, and goes on to count.
    pub(super) fn leave(&mut self, log: LogKind, bytes: u64) {
        let log = &mut self.log_bytes[log as usize];
        *log = log.saturating_sub(bytes);
    }

    /// A segment joins a log, and counts already.
    pub(super) fn join(&mut self, log: LogKind, bytes: u64) {
        self.log_bytes[log as usize] += bytes;
    }

    /// A segment that has left its log is gone for good.
    pub(super) fn free(&mut self, bytes: u64) {
        self.segments_bytes = self.segments_bytes.saturating_sub(bytes);
    }

    pub(super) fn log_bytes(&self, log: LogKind) -> u64 {
        self.log_bytes[log as usize]
    }

    pub(super) fn batch_in(&mut self, aborted: AbortedState) {
        self.batches += 1;
        self.aborted_bytes += aborted.size_bytes();
    }

    /// The list of a batch is forgotten, or goes with it.
    pub(super) fn aborted_out(&mut self, aborted: AbortedState) {
        self.aborted_bytes = self.aborted_bytes.saturating_sub(aborted.size_bytes());
    }

    pub(super) fn batch_out(&mut self, aborted: AbortedState) {
        self.batches = self.batches.saturating_sub(1);
        self.aborted_out(aborted);
    }
}
