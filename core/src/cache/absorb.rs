//! Keeps what upstream answered: checked, under the limit, and in memory copied out of the response.
//!
//! What goes to a medium is written from where it lies in the response, if at least half of the response is and that is
//! large: what waits to be written then holds no more than twice its size in memory. Else it is copied out as well (H26).

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Cache;
use super::positions::Positions;
use crate::engine::{Inserted, NewBatch};
use crate::freshness::{PartitionState, UNCONFIRMED_EPOCHS_LIMIT};
use crate::identity::PartitionKey;
use crate::index::{HitMark, IndexedBatch, KnownAt};
use crate::offset::OffsetSpan;
use crate::storage::SegmentReader;
use crate::time::{Instant, MaxStaleness};
use crate::transactions::{AbortedInBatch, touching, with_markers};
use crate::wire::{
    BatchEntry, Batches, Crc32c, FetchPartition, FetchRequest, FetchResponse, PartitionData, RecordBatch,
    RecordBytes, TopicId, TopicRef,
};

const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const FENCED_LEADER_EPOCH: i16 = 74;
const UNKNOWN_LEADER_EPOCH: i16 = 75;
const UNKNOWN_TOPIC_ID: i16 = 100;
const INCONSISTENT_TOPIC_ID: i16 = 103;

/// A response with fewer bytes of records may share its memory with others, as a host reads several at once.
const HELD_RESPONSE_BYTES_MIN: u64 = 16 << 10;

/// What one partition of a response gives to the cache: batches that are whole and whose checksums are right.
/// Made without the cache, so that the work of it holds nobody up.
#[derive(Clone, Debug)]
pub struct Harvest {
    topic: TopicRef,
    /// What the partition said, without its records.
    data: PartitionData,
    /// The leader epoch that the request named, and in which it was answered therefore (KIP-320); −1 if it named none.
    leader_epoch: i32,
    /// Whether a follower said so, whose watermarks may be older than those that are known (H7, H10).
    is_of_follower: bool,
    /// The next one is the last of them.
    batches: Vec<Gathered>,
    /// The records of the whole response, in bytes: what a slice of it holds in memory.
    response_bytes: u64,
    rejected: u64,
    errors: u64,
    progress: Progress,
}

#[derive(Clone, Debug)]
struct Gathered {
    bytes: Bytes,
    span: OffsetSpan,
    covers: OffsetSpan,
    leader_epoch: i32,
    max_timestamp: i64,
    aborted: AbortedInBatch,
}

/// How far a harvest is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Nothing of it is looked at yet.
    Untouched,
    /// What the partition says is learned. The batch that is next has been waiting for room so many times.
    Learned { waited: u64, may_be_held: bool },
}

/// How far a harvest was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Absorbed {
    /// All of it, as far as it is fit to be kept.
    Complete,
    /// The rest needs room: have the jobs done that [`Cache::next_job`] gives, then go on, or [`Cache::reject`] it.
    NeedsRoom,
}

impl Harvest {
    /// The topic as the request named it, or the one that was [identified](Self::identify).
    pub fn topic(&self) -> &TopicRef {
        &self.topic
    }

    /// Says which topic it is of. Necessary where a request has named topics: of such an answer nothing is kept
    /// otherwise. To be called only if the broker that answered said that the name stood for this id before the request
    /// was sent, and says so still after the answer has come (H6).
    pub fn identify(&mut self, topic_id: TopicId) {
        self.topic = TopicRef::Id(topic_id);
    }

    /// Which partition of the topic it is of.
    pub fn partition(&self) -> i32 {
        self.data.partition_index
    }

    /// Says that a follower has answered: its watermarks trail those of the leader, so that a lower one is no truncation
    /// (H7) and replaces nothing (H10). Whether the log was truncated is then found out by the next validation.
    pub fn mark_of_follower(&mut self) {
        self.is_of_follower = true;
    }

    /// What a response gives, partition by partition. Partitions that were not asked for, and second mentions,
    /// give an error count and nothing else (H22).
    pub fn gather(request: &FetchRequest, response: &FetchResponse, crc32c: Crc32c) -> Vec<Self> {
        if response.error_code != 0 {
            return Vec::new();
        }
        let positions = Positions::of(
            request
                .partitions()
                .map(|(topic, asked)| (topic, asked.partition)),
        );
        let mut asked: Vec<_> = request.partitions().map(|(_, asked)| Some(asked)).collect();
        let records = response
            .partitions()
            .map(|(_, data)| data.records_size_bytes() as u64);
        let response_bytes = records.sum();
        let mut harvests = Vec::new();
        for (topic, data) in response.partitions() {
            let position = positions.find(topic, data.partition_index);
            let asked = position.and_then(|position| asked.get_mut(position)?.take());
            let mut harvest = Self::of_partition(topic, data, asked, crc32c);
            harvest.response_bytes = response_bytes;
            harvests.push(harvest);
        }
        harvests
    }

    fn of_partition(
        topic: &TopicRef,
        data: &PartitionData,
        asked: Option<&FetchPartition>,
        crc32c: Crc32c,
    ) -> Self {
        let mut harvest = Self {
            topic: topic.clone(),
            data: PartitionData {
                records: None,
                ..data.clone()
            },
            leader_epoch: asked.map_or(-1, |asked| asked.current_leader_epoch),
            is_of_follower: false,
            batches: Vec::new(),
            response_bytes: 0,
            rejected: 0,
            errors: 0,
            progress: Progress::Untouched,
        };
        match (asked, &data.records) {
            // A follower's redirect and a diverging epoch exclude data (H16, H8).
            (Some(asked), Some(records)) if data.error_code == 0 && data.diverging_epoch.is_none() => {
                harvest.gather_batches(records, asked.fetch_offset, crc32c);
                harvest.batches.reverse();
            }
            (None, _) => harvest.errors += 1,
            _ => {}
        }
        harvest
    }

    fn gather_batches(&mut self, records: &RecordBytes, fetch_offset: i64, crc32c: Crc32c) {
        let bytes = records.to_bytes();
        let batches = self.whole_batches(&bytes, crc32c);
        let aborted = self
            .data
            .aborted_transactions
            .as_ref()
            .map(|listed| with_markers(listed, &batches));
        let mut next = fetch_offset;
        for batch in &batches {
            let span = batch.span();
            // The first batch may begin below the fetch offset; each other begins behind the one before it.
            let in_order = span.last() >= next && (span.base() >= next || next == fetch_offset);
            let Some(covers) = OffsetSpan::new(next.min(span.base()), span.last()).filter(|_| in_order)
            else {
                self.errors += 1;
                return;
            };
            // What is not replicated yet is not for consumers; a broker that sends it is in a state of change.
            if span.last() >= self.data.high_watermark {
                self.rejected += 1;
                return;
            }
            self.batches.push(Gathered {
                bytes: bytes.slice_ref(batch.as_bytes()),
                span,
                covers,
                leader_epoch: batch.partition_leader_epoch(),
                max_timestamp: batch.max_timestamp(),
                aborted: match &aborted {
                    // Nothing is said of what is not stable yet: once it is, it is fetched again by those who care.
                    _ if !batch.is_transactional() && span.last() < self.data.last_stable_offset => {
                        AbortedInBatch::Plain
                    }
                    Some(aborted) => touching(aborted, covers),
                    None => AbortedInBatch::Unknown,
                },
            });
            let Some(behind) = span.last().checked_add(1) else {
                return;
            };
            next = behind;
        }
    }

    /// The batches up to the first that is corrupt or of a legacy format, or the truncated tail.
    fn whole_batches<'a>(&mut self, bytes: &'a [u8], crc32c: Crc32c) -> Vec<RecordBatch<'a>> {
        let mut batches = Vec::new();
        for entry in Batches::new(bytes) {
            match entry {
                Ok(BatchEntry::Batch(batch)) if batch.verify(crc32c).is_ok() => batches.push(batch),
                Ok(BatchEntry::Legacy(_)) => {
                    self.rejected += 1;
                    break;
                }
                Ok(BatchEntry::Batch(_)) | Err(_) => {
                    self.errors += 1;
                    break;
                }
            }
        }
        batches
    }
}

impl<R: SegmentReader> Cache<R> {
    /// Keeps a harvest, or as much of it as there is room for now. `asked_at` is the moment before the request was sent,
    /// so that the answer is not taken to be newer than it can be.
    pub fn absorb(&mut self, harvest: &mut Harvest, asked_at: Instant) -> Absorbed {
        let Some(key) = self.key_of(harvest) else {
            self.reject(harvest);
            return Absorbed::Complete;
        };
        if harvest.progress == Progress::Untouched {
            self.counters.errors.add(harvest.errors);
            self.counters.rejected.add(harvest.rejected);
            if harvest.data.error_code != 0 || harvest.data.diverging_epoch.is_some() {
                self.heed(key, harvest);
            } else {
                self.learn(key, harvest, asked_at);
                // The first batch stands last.
                if let (Some(first), Some(last)) = (harvest.batches.last(), harvest.batches.first()) {
                    let next = last.span.last().saturating_add(1);
                    self.engine.fetched(&key, first.covers.base(), next);
                }
            }
            harvest.progress = Progress::Learned {
                waited: 0,
                may_be_held: self.may_be_held(&key, harvest),
            };
        }
        while let Some(batch) = harvest.batches.pop() {
            if self.keep(key, &batch, harvest, asked_at) == Inserted::NeedsRoom {
                harvest.batches.push(batch);
                if !self.waits_on(harvest) {
                    continue;
                }
                return Absorbed::NeedsRoom;
            }
            if let Progress::Learned { waited, .. } = &mut harvest.progress {
                *waited = 0;
            }
        }
        Absorbed::Complete
    }

    /// Whether the response has its memory for itself, and at least half of it is new here.
    fn may_be_held(&self, key: &PartitionKey, harvest: &Harvest) -> bool {
        if !R::MAY_CORRUPT || harvest.response_bytes < HELD_RESPONSE_BYTES_MIN {
            return false;
        }
        let partition = self.engine.partitions.get(key);
        let is_new = |batch: &&Gathered| {
            partition.is_none_or(|partition| partition.index.first_overlap(batch.covers).is_none())
        };
        let new = harvest.batches.iter().filter(is_new);
        let new_bytes: u64 = new.map(|batch| batch.bytes.len() as u64).sum();
        2 * new_bytes >= harvest.response_bytes
    }

    /// Whose a harvest is. Of one that no id was given to only an error is heeded, which drops no more than it should
    /// whichever topic it is of.
    fn key_of(&self, harvest: &Harvest) -> Option<PartitionKey> {
        let topic_id = match &harvest.topic {
            TopicRef::Id(id) => Some(*id).filter(|id| !id.is_zero()),
            TopicRef::Name(name) if harvest.data.error_code != 0 => self.names.topic_id(name),
            TopicRef::Name(_) => None,
        };
        let partition = harvest.data.partition_index;
        topic_id.map(|topic_id| PartitionKey { topic_id, partition })
    }

    /// Lets the rest of a harvest go.
    pub fn reject(&mut self, harvest: &mut Harvest) {
        self.counters.rejected.add(harvest.batches.len() as u64);
        harvest.batches.clear();
    }

    /// Whether the next batch may wait for room once more. A round frees a segment or takes away a hit of each batch in
    /// one, of which there are three, so that this many are enough if readers let go at all; else the batch is let go.
    fn waits_on(&mut self, harvest: &mut Harvest) -> bool {
        let Progress::Learned { waited, .. } = &mut harvest.progress else {
            return true;
        };
        *waited += 1;
        let may_wait = *waited <= 16 + 5 * self.engine.segments();
        if !may_wait {
            *waited = 0;
            harvest.batches.pop();
            self.counters.rejected.add(1);
        }
        may_wait
    }

    /// Draws the consequences of an error. None of them is kept (H13).
    fn heed(&mut self, key: PartitionKey, harvest: &Harvest) {
        match harvest.data.error_code {
            UNKNOWN_TOPIC_ID | INCONSISTENT_TOPIC_ID => self.forget_topic(key.topic_id),
            UNKNOWN_TOPIC_OR_PARTITION => {
                self.forget_partition(key);
                // By id a topic that is gone is answered otherwise: this one lives, and lacks the partition.
                if matches!(harvest.topic, TopicRef::Name(_)) {
                    self.doubt_topic(key.topic_id);
                }
            }
            // Out of range says that the log begins later or ends earlier than a client thought, and not
            // which: what is cached has to be validated before it is served again. 0 is a diverging epoch.
            0 | OFFSET_OUT_OF_RANGE | NOT_LEADER_OR_FOLLOWER | FENCED_LEADER_EPOCH | UNKNOWN_LEADER_EPOCH => {
                self.doubt(key);
            }
            _ => {}
        }
    }

    fn learn(&mut self, key: PartitionKey, harvest: &Harvest, known_at: Instant) {
        let Some(partition) = self.engine.partitions.get_mut(&key) else {
            return;
        };
        let truncated_at = if harvest.is_of_follower {
            partition
                .state
                .learn_of_follower(&harvest.data, harvest.leader_epoch, known_at);
            None
        } else {
            partition
                .state
                .learn(&harvest.data, harvest.leader_epoch, known_at)
        };
        let log_start_offset = partition.state.log_start_offset;
        if let Some(offset) = truncated_at {
            self.engine.forget_aborted(key);
            self.drop_from(key, offset);
        }
        self.drop_below(key, log_start_offset);
    }

    fn keep(
        &mut self,
        key: PartitionKey,
        batch: &Gathered,
        harvest: &Harvest,
        known_at: Instant,
    ) -> Inserted {
        let (data, leader_epoch) = (&harvest.data, harvest.leader_epoch);
        if !self.is_fit(key, batch, known_at) {
            self.counters.rejected.add(1);
            return Inserted::Kept;
        }
        let (covers, known_state) = match self.refresh(key, batch, known_at) {
            Refreshed::Known => return Inserted::Kept,
            Refreshed::New(covers) => (covers, None),
            Refreshed::Instead(covers, state) => (covers, Some(state)),
        };
        let new = NewBatch {
            key,
            bytes: batch.bytes.clone(),
            may_be_held: matches!(
                harvest.progress,
                Progress::Learned {
                    may_be_held: true,
                    ..
                }
            ),
            span: batch.span,
            covers,
            leader_epoch: batch.leader_epoch,
            max_timestamp: batch.max_timestamp,
            known_at: known_at.into(),
            aborted: batch.aborted.clone(),
        };
        let new_state = || {
            let mut state = PartitionState::new(known_at, leader_epoch.max(batch.leader_epoch));
            state.learn(data, leader_epoch, known_at);
            state.note_epoch(batch.leader_epoch, known_at, UNCONFIRMED_EPOCHS_LIMIT);
            state
        };
        let state = || known_state.map_or_else(new_state, |state| *state);
        let inserted = self.engine.insert(&new, state);
        match inserted {
            Inserted::Kept => self.counters.inserts.add(1),
            Inserted::Refused => self.counters.rejected.add(1),
            Inserted::NeedsRoom => {}
        }
        inserted
    }

    /// Whether no election is known to have cut a batch off, and it can be found out whether one has (H7).
    fn is_fit(&mut self, key: PartitionKey, batch: &Gathered, known_at: Instant) -> bool {
        let is_never_asked = self.settings.max_staleness == MaxStaleness::Forever;
        let Some(partition) = self.engine.partitions.get_mut(&key) else {
            return true;
        };
        let state = &mut partition.state;
        if state.is_cut_off(batch.leader_epoch, batch.span.last()) {
            return false;
        }
        let can_be_asked = state.note_epoch(batch.leader_epoch, known_at, UNCONFIRMED_EPOCHS_LIMIT);
        if !can_be_asked && !is_never_asked {
            // With a validation there is room for more.
            self.doubt(key);
        }
        can_be_asked || is_never_asked
    }

    /// If the same batch is cached already and the new answer knows no more, nothing has to be kept. Otherwise
    /// drops what the new answer replaces, and what contradicts it: another epoch or other bytes at a cached
    /// offset, or a batch where there is none now, and all that follows it (H5, H7).
    fn refresh(&mut self, key: PartitionKey, batch: &Gathered, known_at: Instant) -> Refreshed {
        let new = Refreshed::New(batch.covers);
        let Some(partition) = self.engine.partitions.get(&key) else {
            return new;
        };
        let contradiction = partition.index.contradicts_epoch(batch.span, batch.leader_epoch);
        let overlap = partition.index.first_overlap(batch.covers);
        let same = overlap.map(|(known, mark)| self.compare(&key, &known, mark, batch));
        let overlap = overlap.map(|(known, _)| known);
        let changed = overlap
            .filter(|_| same == Some(Sameness::Other))
            .map(|known| known.span.base().min(batch.span.base()));
        if let Some(offset) = contradiction.into_iter().chain(changed).min() {
            // Whatever overlaps the new batch begins at that offset or behind it.
            self.engine.forget_aborted(key);
            self.drop_from(key, offset);
            return new;
        }
        let Some(known) = overlap else { return new };
        let covers = match (
            partition.state.is_compacted,
            KnownAt::from(known_at) >= known.known_at,
        ) {
            // The cleaner makes gaps, and another replica may not have it: each answer vouches for its own.
            (true, true) => batch.covers,
            (true, false) => known.covers,
            (false, _) => {
                let base = known.covers.base().min(batch.covers.base());
                OffsetSpan::new(base, known.covers.last()).unwrap_or(batch.covers)
            }
        };
        let knows_more = !known.location.aborted.is_known() && batch.aborted.state().is_known();
        if same == Some(Sameness::Untold) {
            // What lies behind it may be of another log as well.
            self.doubt(key);
        }
        if knows_more || same == Some(Sameness::Untold) {
            let state = self.engine.partitions.get(&key).map(|known| known.state.clone());
            self.engine.remove(key, known.covers.last());
            return state.map_or(new, |state| Refreshed::Instead(covers, state.into()));
        }
        let refreshed = IndexedBatch {
            covers,
            known_at: known.known_at.max(known_at.into()),
            ..known
        };
        self.engine.replace(key, &refreshed);
        Refreshed::Known
    }

    fn compare(
        &self,
        key: &PartitionKey,
        known: &IndexedBatch,
        mark: &HitMark,
        batch: &Gathered,
    ) -> Sameness {
        if known.span != batch.span
            || known.leader_epoch != batch.leader_epoch
            || known.location.batch_bytes as usize != batch.bytes.len()
        {
            return Sameness::Other;
        }
        let same = |bytes: &[u8]| {
            if *bytes == *batch.bytes {
                Sameness::Same
            } else {
                Sameness::Other
            }
        };
        if mark.is_faulty() {
            return Sameness::Untold;
        }
        if let Some(slice) = self.engine.batch_slice(&known.location) {
            return same(slice);
        }
        let bytes = self.engine.batch_now(key, known, mark);
        bytes.map_or(Sameness::Untold, |bytes| same(&bytes))
    }
}

enum Refreshed {
    /// The batch is cached already.
    Known,
    /// It is to be kept, and answers these offsets.
    New(OffsetSpan),
    /// It is to be kept in the place of the same batch, of which less was known. What is known of the partition stays, even
    /// if there was no other batch of it.
    Instead(OffsetSpan, Box<PartitionState>),
}

/// Whether a cached batch is the one that a broker gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sameness {
    Same,
    Other,
    /// The storage does not say, or not now.
    Untold,
}
