//! Keeps what upstream answered: checked, copied out of the response, under the limit.

use alloc::vec::Vec;
use core::sync::atomic::AtomicBool;

use bytes::Bytes;
use hashbrown::HashMap;

use super::{BATCH_OVERHEAD_BYTES, Cache, Partition};
use crate::eviction::Queued;
use crate::freshness::PartitionState;
use crate::identity::PartitionKey;
use crate::index::{CachedBatch, PartitionIndex};
use crate::offset::OffsetSpan;
use crate::time::Instant;
use crate::transactions::{AbortedInBatch, touching, with_markers};
use crate::wire::{
    BatchEntry, Batches, Crc32c, FetchRequest, FetchResponse, PartitionData, RecordBatch, RecordBytes,
    TopicId, TopicRef,
};

const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const FENCED_LEADER_EPOCH: i16 = 74;
const UNKNOWN_LEADER_EPOCH: i16 = 75;
const UNKNOWN_TOPIC_ID: i16 = 100;
const INCONSISTENT_TOPIC_ID: i16 = 103;

/// What one partition of a response gives to the cache: batches that are whole and whose checksums are right.
/// Made without the cache, so that the work of it holds nobody up.
#[derive(Clone, Debug)]
pub struct Harvest {
    topic: TopicRef,
    /// What the partition said, without its records.
    data: PartitionData,
    batches: Vec<Gathered>,
    rejected: u64,
    errors: u64,
}

#[derive(Clone, Debug)]
struct Gathered {
    bytes: Bytes,
    span: OffsetSpan,
    covers: OffsetSpan,
    leader_epoch: i32,
    aborted: AbortedInBatch,
}

impl Harvest {
    /// What a response gives, partition by partition. Partitions that were not asked for, and second mentions,
    /// give an error count and nothing else (H22).
    pub fn gather(request: &FetchRequest, response: &FetchResponse, crc32c: Crc32c) -> Vec<Self> {
        if response.error_code != 0 {
            return Vec::new();
        }
        let asked = request
            .partitions()
            .map(|(topic, asked)| ((topic, asked.partition), asked.fetch_offset));
        let mut fetch_offsets: HashMap<_, _> = asked.collect();
        let mut harvests = Vec::new();
        for (topic, data) in response.partitions() {
            let fetch_offset = fetch_offsets.remove(&(topic, data.partition_index));
            harvests.push(Self::of_partition(topic, data, fetch_offset, crc32c));
        }
        harvests
    }

    fn of_partition(
        topic: &TopicRef,
        data: &PartitionData,
        fetch_offset: Option<i64>,
        crc32c: Crc32c,
    ) -> Self {
        let mut harvest = Self {
            topic: topic.clone(),
            data: PartitionData {
                records: None,
                ..data.clone()
            },
            batches: Vec::new(),
            rejected: 0,
            errors: 0,
        };
        match (fetch_offset, &data.records) {
            // A follower's redirect and a diverging epoch exclude data (H16, H8).
            (Some(fetch_offset), Some(records)) if data.error_code == 0 && data.diverging_epoch.is_none() => {
                harvest.gather_batches(records, fetch_offset, crc32c);
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
                aborted: match &aborted {
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

impl Cache {
    /// Keeps a harvest. `asked_at` is the moment before the request was sent, so that the answer is not taken
    /// to be newer than it can be.
    pub fn absorb(&mut self, harvest: Harvest, asked_at: Instant) {
        self.counters.errors.add(harvest.errors);
        self.counters.rejected.add(harvest.rejected);
        let Some((topic_id, identified_at)) = self.identity(&harvest.topic) else {
            return;
        };
        let key = PartitionKey {
            topic_id,
            partition: harvest.data.partition_index,
        };
        if harvest.data.error_code != 0 || harvest.data.diverging_epoch.is_some() {
            return self.heed(key, harvest.data.error_code);
        }
        let known_at = identified_at.map_or(asked_at, |at| at.min(asked_at));
        self.learn(key, &harvest.data, known_at);
        for batch in harvest.batches {
            self.keep(key, batch, &harvest.data, known_at);
        }
    }

    /// The id of a topic and, where a name stands for it, when that was learned. However long ago that is: what
    /// is kept under it counts as no newer.
    fn identity(&self, topic: &TopicRef) -> Option<(TopicId, Option<Instant>)> {
        match topic {
            TopicRef::Name(name) => self
                .aliases
                .get(name)
                .map(|alias| (alias.topic_id, Some(alias.learned_at))),
            TopicRef::Id(id) => (!id.is_zero()).then_some((*id, None)),
        }
    }

    /// Draws the consequences of an error. None of them is kept (H13).
    fn heed(&mut self, key: PartitionKey, error_code: i16) {
        match error_code {
            UNKNOWN_TOPIC_ID | INCONSISTENT_TOPIC_ID => self.forget_topic(key.topic_id),
            UNKNOWN_TOPIC_OR_PARTITION => {
                self.forget_partition(key);
                self.doubt_topic(key.topic_id);
            }
            // Out of range says that the log begins later or ends earlier than a client thought, and not
            // which: what is cached has to be validated before it is served again. 0 is a diverging epoch.
            0 | OFFSET_OUT_OF_RANGE | NOT_LEADER_OR_FOLLOWER | FENCED_LEADER_EPOCH | UNKNOWN_LEADER_EPOCH => {
                self.doubt(key);
            }
            _ => {}
        }
    }

    fn learn(&mut self, key: PartitionKey, data: &PartitionData, known_at: Instant) {
        let Some(partition) = self.partitions.get_mut(&key) else {
            return;
        };
        let truncated_at = partition.state.learn(data, known_at);
        let log_start_offset = partition.state.log_start_offset;
        if let Some(offset) = truncated_at {
            self.drop_from(key, offset);
        }
        self.drop_below(key, log_start_offset);
    }

    fn keep(&mut self, key: PartitionKey, mut batch: Gathered, data: &PartitionData, known_at: Instant) {
        if self.refresh(key, &mut batch, known_at) {
            return;
        }
        let held_bytes = batch.bytes.len() + BATCH_OVERHEAD_BYTES + batch.aborted.size_bytes();
        if !self.make_room(held_bytes) {
            self.counters.rejected.add(1);
            return;
        }
        let partition = self.partitions.entry(key).or_insert_with(|| {
            let mut state = PartitionState::new(known_at);
            state.learn(data, known_at);
            Partition {
                index: PartitionIndex::default(),
                state,
            }
        });
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let last_offset = batch.covers.last();
        partition.index.insert(CachedBatch {
            bytes: self.memory.hold(&batch.bytes, held_bytes - batch.bytes.len()),
            span: batch.span,
            covers: batch.covers,
            leader_epoch: batch.leader_epoch,
            aborted: batch.aborted,
            known_at,
            sequence,
            was_hit: AtomicBool::new(false),
        });
        self.queue.push(Queued {
            key,
            last_offset,
            sequence,
        });
        self.batches += 1;
        self.counters.inserts.add(1);
    }

    /// If the same batch is cached already and the new answer knows no more, nothing has to be kept. Otherwise
    /// drops what the new answer replaces, and what contradicts it: another epoch or other bytes at a cached
    /// offset, or a batch where there is none now, and all that follows it (H5, H7).
    fn refresh(&mut self, key: PartitionKey, batch: &mut Gathered, known_at: Instant) -> bool {
        let Some(partition) = self.partitions.get_mut(&key) else {
            return false;
        };
        let contradiction = partition.index.contradicts_epoch(batch.span, batch.leader_epoch);
        let overlap = partition.index.first_overlap(batch.covers);
        let changed = overlap
            .filter(|known| known.span != batch.span || known.bytes != batch.bytes)
            .map(|known| known.span.base().min(batch.span.base()));
        if let Some(offset) = contradiction.into_iter().chain(changed).min() {
            // Whatever overlaps the new batch begins at that offset or behind it.
            self.drop_from(key, offset);
            return false;
        }
        let Some(known) = overlap else { return false };
        let last_offset = known.covers.last();
        let base = known.covers.base().min(batch.covers.base());
        batch.covers = OffsetSpan::new(base, last_offset).unwrap_or(batch.covers);
        if known.aborted == AbortedInBatch::Unknown && batch.aborted != AbortedInBatch::Unknown {
            partition.index.remove(last_offset);
            self.batches -= 1;
            return false;
        }
        if let Some(known) = partition.index.get_mut(last_offset) {
            known.covers = batch.covers;
            known.known_at = known.known_at.max(known_at);
        }
        true
    }

    /// Reserves memory before it is taken: evicts until `needed_bytes` fit under the limit. What readers still
    /// hold of evicted batches counts, so at most about twice as much is evicted as is needed; if they hold on,
    /// the new batch is not kept.
    fn make_room(&mut self, needed_bytes: usize) -> bool {
        let limit_bytes = self.settings.size_limit_bytes;
        let needed = needed_bytes as u64;
        if needed > limit_bytes {
            return false;
        }
        let mut evicted_bytes = 0;
        while self.memory.held_bytes() > limit_bytes - needed {
            if evicted_bytes > 2 * needed_bytes {
                return false;
            }
            match self.evict_one() {
                Some(size_bytes) => evicted_bytes += size_bytes + BATCH_OVERHEAD_BYTES,
                None => return false,
            }
        }
        true
    }
}
