//! Making room: the oldest segment of a log goes as a whole, and what was hit in it moves on first.

use alloc::vec::Vec;

use bytes::Bytes;

use super::jobs::{Done, Job, Outcome, Task};
use super::segments::{Segment, Stage};
use super::{Departing, Engine, NewBatch, Partition};
use crate::eviction::{LogKind, Reach, batch_hash};
use crate::identity::PartitionKey;
use crate::index::{HitMark, IndexedBatch};
use crate::segment::DirectoryEntry;
use crate::storage::SegmentReader;

/// A segment of which at least seven eighths move on moves on as it is, without a copy.
const WHOLE_IN_EIGHTHS: u64 = 7;

/// So much of what moves on is read at once, in bytes.
const RESCUE_BYTES: u64 = 4 << 20;

/// The segment that is being evicted.
#[derive(Debug)]
pub(super) struct Eviction {
    slot: u32,
    /// What is to move on, once its bytes are read; the next ones last.
    survivors: Vec<Survivor>,
}

/// A batch that moves on.
#[derive(Debug)]
struct Survivor {
    key: PartitionKey,
    batch: IndexedBatch,
    hits: u8,
    /// Whether a reader is about to come by.
    is_awaited: bool,
}

impl Survivor {
    fn mark(&self, mark: &HitMark) {
        mark.set_hits(self.hits);
        if self.is_awaited {
            mark.mark_awaited();
        }
    }
}

impl<R: SegmentReader> Engine<R> {
    pub(crate) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty() || self.is_over_limit()
    }

    fn is_over_limit(&self) -> bool {
        self.size_bytes() > self.ledger.effective_limit_bytes()
    }

    /// The next thing that the storage has to do, if there is any.
    pub(crate) fn next_job(&mut self) -> Option<Job<R>> {
        if self.jobs.is_empty() && self.is_over_limit() {
            self.let_go();
            if self.is_over_limit() {
                let retry_stuck = self.stuck_retries > 0;
                self.stuck_retries = self.stuck_retries.saturating_sub(1);
                self.begin_eviction(retry_stuck);
            }
        }
        let job = self.jobs.pop_front();
        self.jobs_under_way += usize::from(job.is_some());
        job
    }

    /// Whether jobs are to be done, or being done.
    pub(crate) fn is_busy(&self) -> bool {
        self.has_jobs() || self.jobs_under_way > 0
    }

    /// Takes over what came of a job.
    pub(crate) fn complete(&mut self, done: Done<R>) {
        let Done {
            slot,
            segment: id,
            outcome,
        } = done;
        self.jobs_under_way = self.jobs_under_way.saturating_sub(1);
        if self.segment(slot).is_none_or(|segment| segment.id != id) {
            return;
        }
        match outcome {
            Outcome::Written {
                result: Ok(reader),
                is_sealed,
            } => self.written(slot, reader, is_sealed),
            Outcome::Written {
                result: Err(error), ..
            } => self.not_written(slot, &error),
            Outcome::Surveyed(Err(_)) => {
                self.storage_errors += 1;
                self.remove_segment(slot);
            }
            Outcome::Surveyed(Ok(entries)) => self.surveyed(slot, &entries),
            Outcome::Rescued(records) => self.rescued(slot, records),
            Outcome::Removed(Ok(())) => {
                self.removed(slot);
                self.stuck_retries = self.stuck.len();
            }
            Outcome::Removed(Err(_)) => {
                self.storage_errors += 1;
                self.stuck.push_back(slot);
            }
        }
    }

    /// Begins to evict a segment, if none is being evicted already. Says whether jobs are to be done before there can
    /// be room; without any, nothing is left that could go.
    pub(super) fn begin_eviction(&mut self, retry_stuck: bool) -> bool {
        if !self.jobs.is_empty() || self.eviction.is_some() {
            return true;
        }
        self.policy.is_full();
        let preferred = self.policy.victim(self.ledger.log_bytes(LogKind::Small));
        let [first, second] = [preferred, preferred.other()];
        if let Some(slot) = self.oldest_sealed(first).or_else(|| self.oldest_sealed(second)) {
            self.survey(slot);
        } else {
            // Everything is in open segments.
            self.seal(first);
            if self.jobs.is_empty() {
                self.seal(second);
            }
        }
        if retry_stuck && let Some(slot) = self.stuck.pop_front() {
            self.ask_to_remove(slot);
        }
        self.is_busy()
    }

    fn oldest_sealed(&self, log: LogKind) -> Option<u32> {
        let mut slots = self.logs[log as usize].iter().copied();
        slots.find(|slot| self.segment(*slot).is_some_and(Segment::is_sealed))
    }

    /// Asks what lies in a sealed segment that is to go.
    fn survey(&mut self, slot: u32) {
        let Some(segment) = self.segment_mut(slot) else {
            return;
        };
        let Stage::Sealed { reader } = &segment.stage else {
            return;
        };
        let (id, reader) = (segment.id, reader.clone());
        segment.stage = Stage::Evicting {
            reader: reader.clone(),
        };
        let survivors = Vec::new();
        self.eviction = Some(Eviction { slot, survivors });
        self.jobs.push_back(Job {
            slot,
            segment: id,
            task: Task::Survey { reader },
        });
    }

    /// Parts what lies in the segment into what moves on and what goes.
    fn surveyed(&mut self, slot: u32, entries: &[DirectoryEntry]) {
        let Some(log) = self.segment(slot).map(|segment| segment.log) else {
            return;
        };
        let main = self.main_log();
        let mut survivors = Vec::new();
        for entry in entries {
            let Some((partition, batch, mark)) = self.live(slot, entry) else {
                continue;
            };
            // One that could not be read is not worth moving.
            let (hits, reach) = if mark.is_faulty() {
                (0, Reach::Unknown)
            } else {
                let reach = self.policy.reach(&partition.readers, batch.span.base(), main);
                (mark.hits(), reach)
            };
            let bytes = batch.location.batch_bytes.into();
            if mark.is_awaited() {
                self.policy.aided(hits > 0, bytes);
            }
            match self.policy.survives(hits, reach, bytes) {
                Some(hits) => survivors.push(Survivor {
                    key: entry.key,
                    batch,
                    hits,
                    is_awaited: reach == Reach::Soon,
                }),
                None => self.evict(log, entry.key, &batch),
            }
        }
        self.move_on(slot, survivors);
    }

    /// What the index says of a record, if it leads there.
    pub(super) fn live(
        &self,
        slot: u32,
        entry: &DirectoryEntry,
    ) -> Option<(&Partition, IndexedBatch, &HitMark)> {
        let partition = self.partitions.get(&entry.key)?;
        let (batch, mark) = partition.index.by_last_offset(entry.span.last())?;
        let leads_here = batch.location.slot == slot && batch.location.position == entry.position;
        leads_here.then_some((partition, batch, mark))
    }

    fn evict(&mut self, log: LogKind, key: PartitionKey, batch: &IndexedBatch) {
        if self.remove(key, batch.covers.last()).is_some() {
            self.evictions += 1;
            let (hash, bytes) = (batch_hash(&key, batch.covers.last()), batch.location.batch_bytes);
            self.policy.evicted(log, hash, bytes.into());
        }
    }

    fn move_on(&mut self, slot: u32, mut survivors: Vec<Survivor>) {
        let moving_bytes: u64 = survivors
            .iter()
            .map(|survivor| survivor.batch.location.record_bytes())
            .sum();
        let Some(segment) = self.segment(slot) else { return };
        if survivors.is_empty() {
            return self.remove_segment(slot);
        }
        if moving_bytes >= segment.size_bytes / 8 * WHOLE_IN_EIGHTHS {
            return self.move_whole(slot, &survivors);
        }
        survivors.reverse();
        self.rescue_next(slot, survivors);
    }

    /// Has the next survivors read. Without any left the segment goes.
    fn rescue_next(&mut self, slot: u32, survivors: Vec<Survivor>) {
        let Some(segment) = self.segment(slot) else { return };
        let Stage::Evicting { reader } = &segment.stage else {
            return;
        };
        let mut bytes = 0;
        let next = survivors.iter().rev().map(|survivor| survivor.batch.location);
        let next = next.take_while(|location| {
            let is_first = bytes == 0;
            bytes += location.record_bytes();
            is_first || bytes <= RESCUE_BYTES
        });
        let records: Vec<_> = next.map(|location| location.record()).collect();
        if records.is_empty() {
            return self.remove_segment(slot);
        }
        self.jobs.push_back(Job {
            slot,
            segment: segment.id,
            task: Task::Rescue {
                reader: reader.clone(),
                records,
            },
        });
        self.eviction = Some(Eviction { slot, survivors });
    }

    /// Puts a segment at the head of the main log as it is.
    fn move_whole(&mut self, slot: u32, survivors: &[Survivor]) {
        self.eviction = None;
        for survivor in survivors {
            if let Some((_, mark)) = self.entry(&survivor.key, survivor.batch.covers.last()) {
                survivor.mark(mark);
            }
        }
        let since_bytes = self.segment(slot).map_or(0, |segment| segment.since_bytes);
        let since_bytes = self.policy.moved_since_bytes(since_bytes);
        let Some(segment) = self.segment_mut(slot) else {
            return;
        };
        let (from, size_bytes) = (segment.log, segment.size_bytes);
        segment.log = LogKind::Main;
        segment.since_bytes = since_bytes;
        if let Stage::Evicting { reader } = &segment.stage {
            segment.stage = Stage::Sealed {
                reader: reader.clone(),
            };
        }
        self.logs[from as usize].retain(|other| *other != slot);
        self.logs[LogKind::Main as usize].push_back(slot);
        self.ledger.leave(from, size_bytes);
        self.ledger.join(LogKind::Main, size_bytes);
    }

    /// Appends what was read of the survivors to the main log, and lets the rest go.
    fn rescued(&mut self, slot: u32, records: Vec<Option<Bytes>>) {
        let Some(mut eviction) = self.eviction.take_if(|eviction| eviction.slot == slot) else {
            return;
        };
        for record in records {
            if let Some(survivor) = eviction.survivors.pop()
                && !self.copy_to_main(slot, &survivor, record)
            {
                self.evict(LogKind::Main, survivor.key, &survivor.batch);
            }
        }
        self.rescue_next(slot, eviction.survivors);
    }

    /// Whether the batch lives on, or is gone by itself.
    fn copy_to_main(&mut self, slot: u32, survivor: &Survivor, record: Option<Bytes>) -> bool {
        let key = survivor.key;
        let Some(partition) = self.partitions.get(&key) else {
            return true;
        };
        let Some((batch, _)) = partition.index.by_last_offset(survivor.batch.covers.last()) else {
            return true;
        };
        if batch.location != survivor.batch.location {
            return true;
        }
        let (Some(record), Some(segment)) = (record, self.segment(slot)) else {
            return false;
        };
        let since_bytes = self.policy.moved_since_bytes(segment.since_bytes);
        let Ok(bytes) = segment.batch_of(&record, &key, &batch, self.crc32c) else {
            return false;
        };
        let aborted = partition.index.aborted(&batch);
        let cost_bytes = self.record_cost_bytes(LogKind::Main, record.len() as u64, &aborted);
        if self.size_bytes() + cost_bytes > self.ledger.moving_limit_bytes() {
            return false;
        }
        let moved = NewBatch {
            key,
            bytes,
            // It would hold the segment that is to go.
            may_be_held: false,
            span: batch.span,
            covers: batch.covers,
            leader_epoch: batch.leader_epoch,
            max_timestamp: i64::MIN,
            known_at: batch.known_at,
            aborted,
        };
        let Some(location) = self.write_record(&moved, LogKind::Main) else {
            return false;
        };
        if let Some(segment) = self.segment_mut(location.slot) {
            segment.since_bytes = segment.since_bytes.min(since_bytes);
        }
        if let Some(partition) = self.partitions.get_mut(&key) {
            partition.index.replace(&IndexedBatch { location, ..batch });
            if let Some((_, mark)) = partition.index.by_last_offset(batch.covers.last()) {
                survivor.mark(mark);
            }
        }
        self.left(&batch.location);
        self.appended(location.slot);
        true
    }

    /// Takes a segment out of its log, and what is left of it out of the index, and has it removed.
    pub(super) fn remove_segment(&mut self, slot: u32) {
        self.eviction.take_if(|eviction| eviction.slot == slot);
        let Some(segment) = self.segment_mut(slot) else {
            return;
        };
        let (log, size_bytes, live) = (segment.log, segment.size_bytes, segment.live_batches);
        let stage = core::mem::replace(&mut segment.stage, Stage::Removing { reader: None });
        let reader = match stage {
            Stage::Open(tail) | Stage::Sealing(tail) => self.drop_tail(tail),
            Stage::Sealed { reader } | Stage::Evicting { reader } => Some(reader),
            Stage::Removing { reader } => {
                segment.stage = Stage::Removing { reader };
                return;
            }
        };
        if let Some(segment) = self.segment_mut(slot) {
            segment.stage = Stage::Removing { reader };
        }
        self.open[log as usize].take_if(|open| *open == slot);
        self.logs[log as usize].retain(|other| *other != slot);
        self.ledger.leave(log, size_bytes);
        if live > 0 {
            self.forget_slot(slot);
        }
        self.ask_to_remove(slot);
    }

    /// Drops every entry that leads to a segment that cannot tell any more what it held.
    fn forget_slot(&mut self, slot: u32) {
        let mut keys: Vec<PartitionKey> = self.partitions.keys().copied().collect();
        keys.sort_unstable();
        for key in keys {
            self.remove_where(key, |index, removed| {
                index.remove_in_slot(slot, |batch| removed.push(*batch));
            });
        }
    }

    fn ask_to_remove(&mut self, slot: u32) {
        if let Some(segment) = self.segment(slot) {
            let segment = segment.id;
            self.jobs.push_back(Job {
                slot,
                segment,
                task: Task::Remove,
            });
        }
    }

    /// The storage has removed a segment. What readers hold of it counts on.
    fn removed(&mut self, slot: u32) {
        let Some(segment) = self.segments.get_mut(slot as usize).and_then(Option::take) else {
            return;
        };
        self.ledger.segments -= 1;
        self.free_slots.push(slot);
        let size_bytes = segment.size_bytes;
        match segment.stage {
            Stage::Removing { reader: Some(reader) } if !reader.is_last() => {
                self.departing.push(Departing::Segment { reader, size_bytes });
            }
            _ => self.ledger.free(size_bytes),
        }
    }

    /// Gives up what readers have let go of.
    pub(super) fn let_go(&mut self) {
        let ledger = &mut self.ledger;
        self.departing.retain(|departing| {
            if !departing.is_last() {
                return true;
            }
            match departing {
                Departing::Segment { size_bytes, .. } => ledger.free(*size_bytes),
                Departing::Piece(piece) => ledger.held_pieces_bytes -= piece.len() as u64,
            }
            false
        });
    }
}
