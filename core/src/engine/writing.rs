//! How what is inserted gets to the medium: a segment grows in memory, goes there about a mebibyte at a time, and is read
//! from there as soon as it is.
//!
//! What a storage fails to take costs the segment. One that is full is met by a lower limit, which rises again as writes
//! succeed; one that fails again and again is left alone for a while, and tried again.

use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use bytes::Bytes;

use super::Engine;
use super::jobs::{Job, Task};
use super::segments::{Segment, Stage};
use crate::eviction::LogKind;
use crate::segment::{
    DirectoryEntry, Place, Record, SEGMENT_HEADER_BYTES, append_record, append_record_head,
    encode_segment_header, record_size_bytes,
};
use crate::storage::{SegmentReader, StorageError, StorageErrorKind};
use crate::wire::{Crc32c, RecordBatch};

/// So much is written at once, in bytes, unless a segment ends before.
const WRITE_BYTES: u64 = 1 << 20;
/// So much may wait to be written, in bytes; then inserts wait for the storage.
pub(super) const UNWRITTEN_LIMIT_BYTES: u64 = 32 << 20;
/// A segment with so many records is sealed however small it is: what its footer will say is kept in memory until then.
const RECORDS_IN_SEGMENT_MAX: usize = 64 * 1024;
/// Writes that fail in a row before inserts pause.
const FAILURES_BEFORE_PAUSE: u32 = 4;
/// So many batches the first pause lets go; each next one twice as many.
const FIRST_PAUSE_BATCHES: u32 = 64;
const PAUSE_DOUBLINGS_MAX: u32 = 10;
/// Of what is written to a medium that was full, this share raises the limit again.
const REGROWTH_SHARE: u64 = 4;

/// A record, or one half of it: what stands in front of a batch, or the batch. In front of the first one lies the segment's
/// header.
#[derive(Clone, Debug)]
struct Piece {
    /// Where it begins in the segment, in bytes.
    position: u32,
    bytes: Bytes,
}

/// The part of a segment that the storage is not known to hold.
#[derive(Debug)]
pub(super) struct Tail<R> {
    pieces: Vec<Piece>,
    unwritten_bytes: u64,
    /// How many of the pieces a job is about to write.
    writing: Option<usize>,
    /// Reads what is in front of them.
    written: Option<R>,
    /// What the footer is to name, where there will be one.
    entries: Vec<DirectoryEntry>,
}

impl<R> Default for Tail<R> {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            unwritten_bytes: 0,
            writing: None,
            written: None,
            entries: Vec::new(),
        }
    }
}

impl<R> Tail<R> {
    /// Whether nothing of the segment has been made yet.
    fn is_new(&self) -> bool {
        self.pieces.is_empty() && !self.is_known_to_storage()
    }

    /// Whether the storage has been asked for anything of it.
    fn is_known_to_storage(&self) -> bool {
        self.written.is_some() || self.writing.is_some()
    }

    /// Takes in a record that lies at `place` behind all others. Its batch is copied, unless it is given to be held. Gives
    /// what is to be written for it, in bytes.
    pub(super) fn push_record(
        &mut self,
        place: Place,
        record: &Record,
        batch: RecordBatch<'_>,
        held: Option<&Bytes>,
        crc32c: Crc32c,
    ) -> Option<u64> {
        let before_bytes = self.unwritten_bytes;
        let mut bytes = Vec::new();
        if self.is_new() {
            let batch_bytes = held.map_or(batch.as_bytes().len(), |_| 0);
            bytes.reserve_exact(SEGMENT_HEADER_BYTES + record_size_bytes(&record.aborted, batch_bytes));
            bytes.extend_from_slice(&encode_segment_header(place.segment, crc32c));
        }
        let begins = place.position.checked_sub(u32::try_from(bytes.len()).ok()?)?;
        if let Some(held) = held {
            append_record_head(&mut bytes, place, record, batch, crc32c);
            let behind_head = begins.checked_add(u32::try_from(bytes.len()).ok()?)?;
            self.push(begins, bytes.into());
            self.push(behind_head, held.clone());
        } else {
            append_record(&mut bytes, place, record, batch, crc32c);
            self.push(begins, bytes.into());
        }
        Some(self.unwritten_bytes - before_bytes)
    }

    fn push(&mut self, position: u32, bytes: Bytes) {
        self.unwritten_bytes += bytes.len() as u64;
        self.pieces.push(Piece { position, bytes });
    }

    /// The footer is to name this.
    pub(super) fn will_name(&mut self, entry: DirectoryEntry) {
        self.entries.push(entry);
    }

    pub(super) fn unwritten_bytes(&self) -> u64 {
        self.unwritten_bytes
    }

    pub(super) fn written(&self) -> Option<&R> {
        self.written.as_ref()
    }

    /// The piece with the batch that takes `range` of the segment, and where in it that lies.
    pub(super) fn piece(&self, range: &Range<u64>) -> Option<(&Bytes, Range<usize>)> {
        let behind = self
            .pieces
            .partition_point(|piece| u64::from(piece.position) <= range.start);
        let piece = self.pieces.get(behind.checked_sub(1)?)?;
        let at = |place: u64| usize::try_from(place.checked_sub(u64::from(piece.position))?).ok();
        let range = at(range.start)?..at(range.end)?;
        (range.end <= piece.bytes.len()).then_some((&piece.bytes, range))
    }

    /// The job that writes what there is. `None` while another is at it, or if there is nothing to be done.
    fn next_write(&mut self, is_sealing: bool) -> Option<Task<R>> {
        if self.writing.is_some() || (self.pieces.is_empty() && !is_sealing) {
            return None;
        }
        self.writing = Some(self.pieces.len());
        Some(Task::Write {
            creates: self.written.is_none(),
            pieces: self.pieces.iter().map(|piece| piece.bytes.clone()).collect(),
            seals: is_sealing.then(|| mem::take(&mut self.entries)),
        })
    }

    /// The storage holds what it was asked to write. Gives the pieces, which are read from there now.
    fn wrote(&mut self, reader: R) -> Vec<Piece> {
        self.written = Some(reader);
        let count = self.writing.take().unwrap_or(0).min(self.pieces.len());
        let behind = self.pieces.split_off(count);
        let done = mem::replace(&mut self.pieces, behind);
        self.unwritten_bytes -= bytes_of(&done);
        done
    }
}

fn bytes_of(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| piece.bytes.len() as u64).sum()
}

/// How the storage has taken what it was to write lately.
#[derive(Debug, Default)]
pub(super) struct WriteHealth {
    failed_in_a_row: u32,
    /// So many batches are let go before the next is tried.
    paused_batches: u32,
}

impl WriteHealth {
    fn failed(&mut self) {
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        if let Some(pauses) = self.failed_in_a_row.checked_sub(FAILURES_BEFORE_PAUSE) {
            self.paused_batches = FIRST_PAUSE_BATCHES << pauses.min(PAUSE_DOUBLINGS_MAX);
        }
    }

    /// Whether a batch is to be let go, so that the storage is left alone.
    pub(super) fn lets_go(&mut self) -> bool {
        let is_paused = self.paused_batches > 0;
        self.paused_batches = self.paused_batches.saturating_sub(1);
        is_paused
    }

    pub(super) fn is_paused(&self) -> bool {
        self.failed_in_a_row >= FAILURES_BEFORE_PAUSE
    }
}

impl<R: SegmentReader> Engine<R> {
    /// Has everything written that is in memory only. With `seals`, open segments are closed as well, so that they need not
    /// be walked when they are opened again.
    pub(crate) fn write_out(&mut self, seals: bool) {
        for log in [LogKind::Small, LogKind::Main] {
            if seals {
                self.seal(log);
            } else if let Some(slot) = self.open[log as usize] {
                self.write_on(slot);
            }
        }
    }

    /// Has a segment written as far as it has come, unless a job is at it already.
    pub(super) fn write_on(&mut self, slot: u32) {
        if !R::MAY_CORRUPT
            && self
                .segment(slot)
                .is_some_and(|segment| matches!(segment.stage, Stage::Open(_)))
        {
            // In memory it is of no use before it is sealed.
            return;
        }
        let Some(segment) = self.segment_mut(slot) else {
            return;
        };
        let is_sealing = matches!(segment.stage, Stage::Sealing(_));
        let id = segment.id;
        let task = segment.tail_mut().and_then(|tail| tail.next_write(is_sealing));
        if let Some(task) = task {
            self.jobs.push_back(Job {
                slot,
                segment: id,
                task,
            });
        }
    }

    /// Has an open segment written once enough has come together, and sealed once it is full.
    pub(super) fn appended(&mut self, slot: u32) {
        let size_bytes = self.ledger.segment_size_bytes();
        let Some(segment) = self.segment(slot) else { return };
        let Stage::Open(tail) = &segment.stage else { return };
        let log = segment.log;
        if segment.end_bytes >= size_bytes || tail.entries.len() >= RECORDS_IN_SEGMENT_MAX {
            self.seal(log);
        } else if tail.unwritten_bytes >= WRITE_BYTES {
            self.write_on(slot);
        }
    }

    /// Hands the open segment of a log to the storage, if there is one.
    pub(super) fn seal(&mut self, log: LogKind) {
        let Some(slot) = self.open[log as usize].take() else {
            return;
        };
        self.logs[log as usize].push_back(slot);
        if let Some(segment) = self.segment_mut(slot)
            && let Stage::Open(tail) = &mut segment.stage
        {
            let mut tail = mem::take(tail);
            // What was dropped meanwhile need not come back after a restart.
            let entries = mem::take(&mut tail.entries);
            let live = entries
                .into_iter()
                .filter(|entry| self.live(slot, entry).is_some());
            tail.entries = live.collect();
            if let Some(segment) = self.segment_mut(slot) {
                segment.stage = Stage::Sealing(tail);
            }
        }
        self.write_on(slot);
    }

    /// The storage holds what it was asked to write of a segment, all of it if it was sealed.
    pub(super) fn written(&mut self, slot: u32, reader: R, is_sealed: bool) {
        self.write_health = WriteHealth::default();
        let Some(tail) = self.segment_mut(slot).and_then(Segment::tail_mut) else {
            return;
        };
        let pieces = tail.wrote(reader.clone());
        let written_bytes = bytes_of(&pieces);
        self.ledger.wrote(written_bytes, written_bytes / REGROWTH_SHARE);
        if pieces.len() > 1 {
            // A single piece is what a storage in memory holds itself.
            self.hold_pieces(pieces);
        }
        if is_sealed {
            self.sealed(slot, reader);
        } else if self
            .segment(slot)
            .is_some_and(|segment| matches!(segment.stage, Stage::Sealing(_)))
        {
            self.write_on(slot);
        } else {
            self.appended(slot);
        }
    }

    fn sealed(&mut self, slot: u32, reader: R) {
        let Some(segment) = self.segment_mut(slot) else {
            return;
        };
        let (log, counted_bytes) = (segment.log, segment.size_bytes);
        let (size_bytes, is_dead) = (reader.size_bytes(), segment.live_batches == 0);
        segment.size_bytes = size_bytes;
        segment.stage = Stage::Sealed { reader };
        self.ledger.shrink(log, counted_bytes);
        self.ledger.grow(log, size_bytes);
        if is_dead {
            self.remove_segment(slot);
        }
    }

    /// The storage has not taken what it was to write: the segment is lost.
    pub(super) fn not_written(&mut self, slot: u32, error: &StorageError) {
        self.storage_errors += 1;
        self.write_health.failed();
        let lost_bytes = self.segment(slot).map_or(0, |segment| segment.size_bytes);
        self.remove_segment(slot);
        if error.kind == StorageErrorKind::Full {
            let held_bytes = self.size_bytes().saturating_sub(lost_bytes);
            self.ledger.fill_up_to(held_bytes);
        }
    }

    /// Drops an open segment to which no entry leads any more.
    pub(super) fn discard_open(&mut self, slot: u32) {
        if self.segment(slot).is_some_and(|segment| match &segment.stage {
            Stage::Open(tail) => tail.is_known_to_storage(),
            _ => true,
        }) {
            return self.remove_segment(slot);
        }
        let Some(segment) = self.segments.get_mut(slot as usize).and_then(Option::take) else {
            return;
        };
        self.open[segment.log as usize] = None;
        self.ledger.shrink(segment.log, segment.size_bytes);
        self.ledger.segments -= 1;
        self.free_slots.push(slot);
        if let Stage::Open(tail) = segment.stage {
            self.drop_tail(tail);
        }
    }

    /// Gives up what is not written. Gives the reader of what is.
    pub(super) fn drop_tail(&mut self, tail: Tail<R>) -> Option<R> {
        self.ledger.wrote(tail.unwritten_bytes, 0);
        self.hold_pieces(tail.pieces);
        tail.written
    }

    /// Pieces that readers still hold count until they let go, where memory is what counts.
    fn hold_pieces(&mut self, pieces: Vec<Piece>) {
        if R::MAY_CORRUPT {
            return;
        }
        for piece in pieces {
            if !piece.bytes.is_unique() {
                self.ledger.held_pieces_bytes += piece.bytes.len() as u64;
                self.departing.push(super::Departing::Piece(piece.bytes));
            }
        }
    }
}
