//! Index, logs and bytes under one authority: what is cached, where it lies, what it takes, and what goes.
//!
//! ```text
//! insert ─▶ open segment ──full──▶ sealing ──stored──▶ sealed ──oldest──▶ evicting ──▶ removing ─▶ gone
//!             (pieces in memory)                       (reader)            │ hit batches
//!                 ▲                                                        │ move on
//!                 └────────────────────────────────────────────────────────┘
//! ```
//!
//! What a storage has to do comes out as [`Job`]s and is reported back; nothing here waits. Bytes count from the moment
//! a record is made until its segment is removed and the last reader of it has let go (H26).

mod adopt;
mod evict;
mod jobs;
mod ledger;
mod segments;
mod writing;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use self::evict::Eviction;
pub use self::jobs::{Done, Job};
use self::ledger::{Ledger, PARTITION_BYTES};
use self::segments::{SEGMENT_BYTES, Segment, Stage};
use self::writing::WriteHealth;
use crate::eviction::{LogKind, MainLog, Policy, Reach, Readers, batch_hash};
use crate::freshness::PartitionState;
use crate::identity::PartitionKey;
use crate::index::{BATCH_INDEX_BYTES, HitMark, IndexedBatch, KnownAt, Location, PartitionIndex};
use crate::offset::OffsetSpan;
use crate::segment::{DirectoryEntry, Place, Record, footer_share_bytes_max, record_size_bytes};
use crate::storage::{SegmentId, SegmentReader};
use crate::transactions::AbortedInBatch;
use crate::wire::{Crc32c, RecordBatch};

/// Keys come from brokers, and from clients only where a broker knows them, so a hash without a secret will do; and the
/// same input gives the same behaviour.
pub(crate) type Partitions = HashMap<PartitionKey, Partition, FixedState>;

/// What is cached and known of a partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) index: PartitionIndex,
    pub(crate) state: PartitionState,
    pub(crate) readers: Readers,
}

/// A batch that is to be kept.
#[derive(Clone, Debug)]
pub(crate) struct NewBatch {
    pub(crate) key: PartitionKey,
    /// The batch, which may be a slice of something larger.
    pub(crate) bytes: Bytes,
    /// Whether it may be written from where it lies, which holds all of that until it is written. In memory it is copied
    /// all the same: there it stays.
    pub(crate) may_be_held: bool,
    pub(crate) span: OffsetSpan,
    pub(crate) covers: OffsetSpan,
    pub(crate) leader_epoch: i32,
    pub(crate) max_timestamp: i64,
    pub(crate) known_at: KnownAt,
    pub(crate) aborted: AbortedInBatch,
}

/// What became of a batch that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    Kept,
    /// There may be room once the jobs are done.
    NeedsRoom,
    /// It is larger than what there can be room for, or everything else is held by readers.
    Refused,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Engine<R> {
    pub(crate) partitions: Partitions,
    /// By slot, which index entries name. A slot is used again once its segment is gone.
    segments: Vec<Option<Segment<R>>>,
    free_slots: Vec<u32>,
    /// The segments of each log from the oldest on, but for the open ones.
    logs: [VecDeque<u32>; 2],
    open: [Option<u32>; 2],
    policy: Policy,
    ledger: Ledger,
    jobs: VecDeque<Job<R>>,
    /// Jobs that were handed out and are not reported yet.
    jobs_under_way: usize,
    write_health: WriteHealth,
    /// One segment at a time.
    eviction: Option<Eviction>,
    /// Segments that the storage has failed to remove, the longest ago first.
    stuck: VecDeque<u32>,
    /// How many of them are to be tried again while the cache is over its limit: each once, until something changes, so
    /// that a storage that removes nothing is not asked for ever.
    stuck_retries: usize,
    /// What no entry leads to any more and readers still hold.
    departing: Vec<Departing<R>>,
    crc32c: Crc32c,
    next_segment: u64,
    next_sequence: u64,
    /// Batches that were taken out to stay under the limit.
    pub(crate) evictions: u64,
    /// Jobs that failed.
    pub(crate) storage_errors: u64,
}

/// Bytes that count until their last reader has let go.
#[derive(Debug)]
enum Departing<R> {
    Segment { reader: R, size_bytes: u64 },
    Piece(Bytes),
}

impl<R: SegmentReader> Departing<R> {
    fn is_last(&self) -> bool {
        match self {
            Self::Segment { reader, .. } => reader.is_last(),
            Self::Piece(piece) => piece.is_unique(),
        }
    }
}

impl<R: SegmentReader> Engine<R> {
    pub(crate) fn new(limit_bytes: u64, segment_size_bytes: Option<u32>, crc32c: Crc32c) -> Self {
        Self {
            partitions: Partitions::default(),
            segments: Vec::new(),
            free_slots: Vec::new(),
            logs: [VecDeque::new(), VecDeque::new()],
            open: [None; 2],
            policy: Policy::new(limit_bytes),
            ledger: Ledger::new(limit_bytes, segment_size_bytes, !R::MAY_CORRUPT),
            jobs: VecDeque::new(),
            jobs_under_way: 0,
            write_health: WriteHealth::default(),
            eviction: None,
            stuck: VecDeque::new(),
            stuck_retries: 0,
            departing: Vec::new(),
            crc32c,
            next_segment: 1,
            next_sequence: 0,
            evictions: 0,
            storage_errors: 0,
        }
    }

    pub(crate) fn batches(&self) -> u64 {
        self.ledger.batches
    }

    pub(crate) fn segment_size_bytes(&self) -> u64 {
        self.ledger.segment_size_bytes()
    }

    pub(crate) fn segments(&self) -> u64 {
        self.ledger.segments
    }

    /// What counts against the limit, in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.ledger.size_bytes(self.partitions.len(), &self.policy)
    }

    /// The same, without what readers have let go of and the cache has not looked at since.
    pub(crate) fn held_bytes(&self) -> u64 {
        let let_go = self.departing.iter().filter(|departing| departing.is_last());
        let let_go_bytes: u64 = let_go
            .map(|departing| match departing {
                Departing::Segment { size_bytes, .. } => *size_bytes,
                Departing::Piece(piece) => piece.len() as u64,
            })
            .sum();
        self.size_bytes().saturating_sub(let_go_bytes)
    }

    /// The limit, or what the medium has turned out to hold.
    pub(crate) fn effective_limit_bytes(&self) -> u64 {
        self.ledger.effective_limit_bytes()
    }

    /// What is in memory because the storage has not taken it yet; nothing where the storage is memory.
    pub(crate) fn unwritten_bytes(&self) -> u64 {
        self.ledger.unwritten_bytes()
    }

    /// Whether the storage fails whatever it is to write.
    pub(crate) fn is_storage_paused(&self) -> bool {
        self.write_health.is_paused()
    }

    /// Forgets which batches were evicted.
    pub(crate) fn forget_evicted(&mut self) {
        self.policy.fit_into(self.ledger.limit_bytes);
    }

    /// Changes the limit. What is over a lower one goes with the next jobs.
    pub(crate) fn set_limit_bytes(&mut self, limit_bytes: u64) {
        self.ledger.limit_bytes = limit_bytes;
        self.policy.fit_into(limit_bytes);
        self.stuck_retries = self.stuck.len();
        // Whoever sets it may know that the medium has room again, or is well.
        self.ledger.expect_room();
        self.write_health = WriteHealth::default();
    }

    fn segment(&self, slot: u32) -> Option<&Segment<R>> {
        self.segments.get(slot as usize)?.as_ref()
    }

    fn segment_mut(&mut self, slot: u32) -> Option<&mut Segment<R>> {
        self.segments.get_mut(slot as usize)?.as_mut()
    }

    /// Keeps a batch. What overlaps it must have been dropped.
    pub(crate) fn insert(&mut self, new: &NewBatch, state: impl FnOnce() -> PartitionState) -> Inserted {
        let hash = batch_hash(&new.key, new.span.last());
        let main = self.main_log();
        let is_awaited = self.reach(&new.key, new.span, main) == Reach::Soon;
        let log = if is_awaited {
            LogKind::Main
        } else {
            self.policy.log_for(hash, main)
        };
        let needed_bytes = self.cost_bytes(new, log);
        if !self.ledger.can_ever_hold(needed_bytes) || self.write_health.lets_go() {
            return Inserted::Refused;
        }
        if !self.ledger.may_wait(new.bytes.len() as u64) && self.is_busy() {
            return Inserted::NeedsRoom;
        }
        if !self.has_room(needed_bytes) {
            return if self.begin_eviction(true) {
                Inserted::NeedsRoom
            } else {
                Inserted::Refused
            };
        }
        if !self.admit(new, log, state) {
            return Inserted::Refused;
        }
        if is_awaited && let Some((_, mark)) = self.entry(&new.key, new.span.last()) {
            mark.mark_awaited();
        }
        self.policy
            .inserted(hash, new.bytes.len() as u64, self.ledger.batches);
        Inserted::Kept
    }

    /// Whether a reader is about to come by a batch.
    fn reach(&self, key: &PartitionKey, span: OffsetSpan, main: MainLog) -> Reach {
        let partition = self.partitions.get(key);
        partition.map_or(Reach::Unknown, |partition| {
            self.policy.reach(&partition.readers, span.base(), main)
        })
    }

    /// Notes that a broker was asked for the offsets from `from` up to `next`.
    pub(crate) fn fetched(&mut self, key: &PartitionKey, from: i64, next: i64) {
        if let Some(partition) = self.partitions.get_mut(key) {
            self.policy.fetched(&mut partition.readers, from, next);
        }
    }

    /// How the main log stands.
    fn main_log(&self) -> MainLog {
        let slots = self.logs[LogKind::Main as usize].front();
        let oldest = slots.copied().or(self.open[LogKind::Main as usize]);
        let segment = oldest.and_then(|slot| self.segment(slot));
        MainLog {
            size_bytes: self.ledger.log_bytes(LogKind::Main),
            oldest_since_bytes: segment.map_or(0, |segment| segment.since_bytes),
        }
    }

    /// What keeping a batch adds to the size, in bytes.
    fn cost_bytes(&self, new: &NewBatch, log: LogKind) -> u64 {
        let record_bytes = record_size_bytes(&new.aborted, new.bytes.len()) as u64;
        let is_new = !self.partitions.contains_key(&new.key);
        self.record_cost_bytes(log, record_bytes, &new.aborted)
            + self.ledger.memory_only(
                BATCH_INDEX_BYTES as u64
                    + new.aborted.state().size_bytes()
                    + u64::from(is_new) * PARTITION_BYTES
                    + self.policy.growth_bytes(self.ledger.batches + 1),
            )
    }

    /// What a record takes in a log, a new segment for it included, in bytes.
    fn record_cost_bytes(&self, log: LogKind, record_bytes: u64, aborted: &AbortedInBatch) -> u64 {
        let segment_bytes = self.ledger.head_bytes() + self.ledger.memory_only(SEGMENT_BYTES);
        let opens = self.open_with_room(log, record_bytes).is_none();
        let footer_bytes = footer_share_bytes_max(aborted) as u64;
        self.ledger.stored_bytes(record_bytes, footer_bytes) + u64::from(opens) * segment_bytes
    }

    /// Whether `needed_bytes` fit under the limit, beside what is kept free for moving and sealing.
    fn has_room(&mut self, needed_bytes: u64) -> bool {
        let has = |engine: &Self| engine.size_bytes() + needed_bytes <= engine.ledger.admission_limit_bytes();
        if !has(self) {
            self.let_go();
        }
        has(self)
    }

    /// Puts a batch for which there is room into a log and into the index.
    fn admit(&mut self, new: &NewBatch, log: LogKind, state: impl FnOnce() -> PartitionState) -> bool {
        let Some(location) = self.write_record(new, log) else {
            return false;
        };
        let partition = self.partitions.entry(new.key).or_insert_with(|| Partition {
            index: PartitionIndex::default(),
            state: state(),
            readers: Readers::default(),
        });
        let batch = indexed(new, location);
        if partition.index.insert(&batch, new.max_timestamp, &new.aborted) {
            self.ledger.batch_in(location.aborted);
            self.appended(location.slot);
            true
        } else {
            self.left(&location);
            self.forget_if_empty(new.key);
            false
        }
    }

    /// Appends a record to the open segment of a log. Once the index leads to it, [`Self::appended`] is to be told.
    fn write_record(&mut self, new: &NewBatch, log: LogKind) -> Option<Location> {
        let batch = RecordBatch::parse(&new.bytes).ok()?;
        let batch_bytes = u32::try_from(new.bytes.len()).ok()?;
        let record_bytes = record_size_bytes(&new.aborted, new.bytes.len()) as u64;
        let slot = self.slot_for(log, record_bytes);
        let (sequence, crc32c) = (self.next_sequence, self.crc32c);
        let added_bytes = self
            .ledger
            .stored_bytes(record_bytes, footer_share_bytes_max(&new.aborted) as u64);
        let segment = self.segment_mut(slot)?;
        let position = u32::try_from(segment.end_bytes).ok()?;
        let id = segment.id;
        let Stage::Open(tail) = &mut segment.stage else {
            return None;
        };
        let record = Record {
            key: new.key,
            sequence,
            covers_base: new.covers.base(),
            aborted: new.aborted.clone(),
        };
        let place = Place {
            segment: id,
            position,
        };
        let is_held = R::MAY_CORRUPT && new.may_be_held;
        let pieces_bytes = tail.push_record(place, &record, batch, is_held.then_some(&new.bytes), crc32c)?;
        if R::MAY_CORRUPT {
            tail.will_name(directory_entry(new, sequence, position, batch_bytes));
        }
        segment.end_bytes += record_bytes;
        segment.live_bytes += record_bytes;
        segment.live_batches += 1;
        segment.size_bytes += added_bytes;
        self.ledger.grow(log, added_bytes);
        self.ledger.will_write(pieces_bytes);
        self.next_sequence += 1;
        Some(Location {
            slot,
            position,
            batch_bytes,
            aborted: new.aborted.state(),
        })
    }

    fn open_with_room(&self, log: LogKind, record_bytes: u64) -> Option<u32> {
        let slot = self.open[log as usize]?;
        let segment = self.segment(slot)?;
        (segment.end_bytes + record_bytes <= self.ledger.segment_size_bytes()).then_some(slot)
    }

    /// The open segment of a log, or a new one if the record does not fit into it.
    fn slot_for(&mut self, log: LogKind, record_bytes: u64) -> u32 {
        if let Some(slot) = self.open_with_room(log, record_bytes) {
            return slot;
        }
        self.seal(log);
        let id = SegmentId(self.next_segment);
        self.next_segment += 1;
        let segment = Segment::new(id, log, self.ledger.head_bytes(), self.policy.now_bytes());
        self.ledger.grow(log, segment.size_bytes);
        let slot = self.place(segment);
        self.open[log as usize] = Some(slot);
        slot
    }

    /// Gives a segment a place in the table.
    fn place(&mut self, segment: Segment<R>) -> u32 {
        self.ledger.segments += 1;
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.segments.push(None);
            // A segment takes more than a hundred bytes, so memory ends long before slots do.
            u32::try_from(self.segments.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(place) = self.segments.get_mut(slot as usize) {
            *place = Some(segment);
        }
        slot
    }

    /// Exchanges what the index knows of a batch that stays where it lies; its hits stay as well.
    pub(crate) fn replace(&mut self, key: PartitionKey, batch: &IndexedBatch) {
        if let Some(partition) = self.partitions.get_mut(&key) {
            partition.index.replace(batch);
        }
    }

    /// What the index says of a batch.
    fn entry(&self, key: &PartitionKey, last_offset: i64) -> Option<(IndexedBatch, &HitMark)> {
        self.partitions.get(key)?.index.by_last_offset(last_offset)
    }

    /// Drops a batch.
    pub(crate) fn remove(&mut self, key: PartitionKey, last_offset: i64) -> Option<IndexedBatch> {
        let partition = self.partitions.get_mut(&key)?;
        let batch = partition.index.remove(last_offset)?;
        self.gone(&batch);
        self.forget_if_empty(key);
        Some(batch)
    }

    /// Drops what a closure takes out of the index of a partition.
    pub(crate) fn remove_where(
        &mut self,
        key: PartitionKey,
        take_out: impl FnOnce(&mut PartitionIndex, &mut Vec<IndexedBatch>),
    ) {
        let Some(partition) = self.partitions.get_mut(&key) else {
            return;
        };
        let mut removed = Vec::new();
        take_out(&mut partition.index, &mut removed);
        for batch in &removed {
            self.gone(batch);
        }
        self.forget_if_empty(key);
    }

    fn forget_if_empty(&mut self, key: PartitionKey) {
        if self
            .partitions
            .get(&key)
            .is_some_and(|partition| partition.index.is_empty())
        {
            self.partitions.remove(&key);
        }
    }

    /// Forgets which transactions of a partition are aborted: its log was cut, maybe in front of their markers.
    pub(crate) fn forget_aborted(&mut self, key: PartitionKey) {
        let Some(partition) = self.partitions.get_mut(&key) else {
            return;
        };
        partition.state.stable_below = -1;
        let ledger = &mut self.ledger;
        partition
            .index
            .forget_aborted(|before| ledger.aborted_out(before));
    }

    /// Accounts for an entry that has left the index.
    fn gone(&mut self, batch: &IndexedBatch) {
        self.ledger.batch_out(batch.location.aborted);
        self.left(&batch.location);
    }

    /// Accounts for a record that nothing leads to any more. A segment without any other goes at once.
    fn left(&mut self, location: &Location) {
        let slot = location.slot;
        let Some(segment) = self.segment_mut(slot) else {
            return;
        };
        segment.live_batches = segment.live_batches.saturating_sub(1);
        segment.live_bytes = segment.live_bytes.saturating_sub(location.record_bytes());
        if segment.live_batches > 0 {
            return;
        }
        match segment.stage {
            Stage::Open(_) => self.discard_open(slot),
            Stage::Sealed { .. } => self.remove_segment(slot),
            Stage::Sealing(_) | Stage::Evicting { .. } | Stage::Removing { .. } => {}
        }
    }

    /// The batch at a location, if it can be had without waiting and is what was stored. One that is not is marked, so
    /// that it counts as a miss from then on (H23, H24).
    pub(crate) fn batch_now(
        &self,
        key: &PartitionKey,
        batch: &IndexedBatch,
        mark: &HitMark,
    ) -> Option<Bytes> {
        let read = self
            .segment(batch.location.slot)?
            .batch_now(key, batch, self.crc32c)?;
        if read.is_err() {
            mark.mark_faulty();
        }
        read.ok()
    }

    /// Which segment a batch lies in, and its reader once the storage holds it.
    pub(crate) fn reader(&self, batch: &IndexedBatch) -> Option<(SegmentId, &R)> {
        let segment = self.segment(batch.location.slot)?;
        Some((segment.id, segment.reader()?))
    }

    /// What [`Self::size_bytes`] counts, summed up anew.
    pub(crate) fn resum_bytes(&self) -> u64 {
        let of_batch = |batch: IndexedBatch| BATCH_INDEX_BYTES as u64 + batch.location.aborted.size_bytes();
        let of_partition =
            |partition: &Partition| PARTITION_BYTES + partition.index.iter().map(of_batch).sum::<u64>();
        let index_bytes = self.partitions.values().map(of_partition).sum::<u64>() + self.policy.size_bytes();
        let segments = self.segments.iter().flatten();
        let (count, segment_bytes) = segments.fold((0, 0), |(count, bytes), segment| {
            (count + 1, bytes + segment.held_bytes())
        });
        let departing = self.departing.iter().map(|departing| match departing {
            Departing::Segment { size_bytes, .. } => *size_bytes,
            Departing::Piece(piece) => piece.len() as u64,
        });
        segment_bytes + departing.sum::<u64>() + self.ledger.memory_only(index_bytes + count * SEGMENT_BYTES)
    }

    /// The batch at a location, if it lies in memory as it is.
    pub(crate) fn batch_slice(&self, location: &Location) -> Option<&[u8]> {
        self.segment(location.slot)?.batch_slice(location)
    }
}

fn directory_entry(new: &NewBatch, sequence: u64, position: u32, batch_bytes: u32) -> DirectoryEntry {
    DirectoryEntry {
        key: new.key,
        sequence,
        position,
        batch_bytes,
        span: new.span,
        covers: new.covers,
        leader_epoch: new.leader_epoch,
        aborted: new.aborted.clone(),
    }
}

fn indexed(new: &NewBatch, location: Location) -> IndexedBatch {
    IndexedBatch {
        span: new.span,
        covers: new.covers,
        leader_epoch: new.leader_epoch,
        known_at: new.known_at,
        location,
    }
}
