//! Which partitions of a fetch the cache answers, and what is left to ask upstream.

use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::SmallVec;

use super::Cache;
use super::cold::{ColdRead, Warmed};
use super::positions::Positions;
use crate::engine::Partition;
use crate::freshness::PartitionState;
use crate::identity::PartitionKey;
use crate::index::{HitMark, IndexedBatch};
use crate::segment::Place;
use crate::storage::SegmentReader;
use crate::time::{Instant, MaxStaleness};
use crate::transactions::AbortedInRun;
use crate::wire::{
    FetchPartition, FetchRequest, FetchTopic, PartitionData, RecordBytes, TaggedFields, TopicId, TopicRef,
};

/// Isolation levels as they stand in requests.
const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;

/// The most record bytes of one answer, whatever the client allows; a broker's default for `fetch.max.bytes`.
const RESPONSE_LIMIT_BYTES: usize = 55 * 1024 * 1024;

/// What the cache answers of a fetch, and what is to be asked upstream.
///
/// Flat, because hits are large: moving them from one part into the next took longer than looking them up.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) outcome: Outcome,
    /// What is asked for, in request order; nothing unless there are hits.
    pub(super) topics: Vec<FetchTopic>,
    /// For each partition of these its answer, or `None` for one that is asked upstream. Room for one, which is what a
    /// random reader asks for, lies in the plan itself.
    pub(super) hits: Hits,
    pub(super) limits: Limits,
    /// What to ask upstream; `None` if the cache answers everything.
    pub(super) upstream: Option<FetchRequest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The fetch is none of the cache's business: it goes upstream as it is and nothing is kept.
    PassThrough,
    /// Nothing is cached; the answer is upstream's, and is kept.
    Miss,
    /// Some or all partitions are cached.
    Hits,
}

pub(super) type Hits = SmallVec<[Option<PartitionData>; 1]>;

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_bytes: usize,
}

impl Limits {
    /// Of a request that allows so many bytes.
    fn of(max_bytes: i32) -> Self {
        let max_bytes = usize::try_from(max_bytes).unwrap_or(0);
        Self {
            max_bytes: max_bytes.min(RESPONSE_LIMIT_BYTES),
        }
    }
}

impl Plan {
    /// All of it goes upstream.
    fn without_hits(outcome: Outcome, upstream: FetchRequest) -> Self {
        Self {
            outcome,
            topics: Vec::new(),
            hits: Hits::new(),
            limits: Limits::of(upstream.max_bytes),
            upstream: Some(upstream),
        }
    }

    /// What to ask upstream; `None` if the cache answers everything.
    pub fn upstream_request(&self) -> Option<&FetchRequest> {
        self.upstream.as_ref()
    }

    /// Whether upstream's answer is to be kept.
    pub fn is_cacheable(&self) -> bool {
        self.outcome != Outcome::PassThrough
    }

    /// Whether the cache answers anything.
    pub fn has_hits(&self) -> bool {
        self.outcome == Outcome::Hits
    }

    /// What the cache answers, in request order: the topic, the offset that was asked for, and the answer before it is cut
    /// to what the response has room for.
    pub fn hits(&self) -> impl Iterator<Item = (&TopicRef, i64, &PartitionData)> {
        let asked = self.topics.iter().flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(move |asked| (&topic.topic, asked.fetch_offset))
        });
        asked
            .zip(&self.hits)
            .filter_map(|((topic, fetch_offset), hit)| Some((topic, fetch_offset, hit.as_ref()?)))
    }
}

impl<R: SegmentReader> Cache<R> {
    /// Looks every partition of the request up. Takes the request, because what is not cached of it goes
    /// upstream as it came.
    pub fn plan(&self, request: FetchRequest, now: Instant) -> Plan {
        self.plan_with(request, now, &Warmed::default())
    }

    /// Like [`Self::plan`], with what was read for it from a storage that had to be waited for.
    pub fn plan_with(&self, request: FetchRequest, now: Instant, warmed: &Warmed) -> Plan {
        self.look_up(request, now, warmed, true)
    }

    /// Like [`Self::plan`], for what an earlier plan has counted: the rest of a request, looked up once more before it
    /// goes upstream, because others may have brought it meanwhile.
    pub fn replan(&self, request: FetchRequest, now: Instant) -> Plan {
        self.look_up(request, now, &Warmed::default(), false)
    }

    fn look_up(&self, request: FetchRequest, now: Instant, warmed: &Warmed, counts: bool) -> Plan {
        if self.is_off() || !is_ordinary_consumer_fetch(&request) {
            return Plan::without_hits(Outcome::PassThrough, request);
        }
        let mut hits = Hits::new();
        let reads = Reads::Planned {
            warmed,
            marks_hits: true,
        };
        let walk = self.walk(&request, now, reads, |hit| hits.push(hit));
        if counts {
            self.count_lookups(hits.len() as u64, walk.hits, walk.hit_bytes as u64);
        }
        if walk.hits == 0 {
            return Plan::without_hits(Outcome::Miss, sessionless(request));
        }
        let (topics, upstream) = match walk.bytes_before_miss {
            None => (request.topics, None),
            Some(before) => {
                let topics = request.topics.clone();
                (topics, Some(rest_of(request, &hits, &walk, before)))
            }
        };
        Plan {
            outcome: Outcome::Hits,
            topics,
            hits,
            limits: walk.limits,
            upstream,
        }
    }

    /// Notes what would have to be read for [`Self::plan_with`], and keeps what can be had at once.
    pub(super) fn look(
        &self,
        request: &FetchRequest,
        now: Instant,
        warmed: &mut Warmed,
        cold: &mut Vec<ColdRead<R>>,
    ) {
        if !self.is_off() && is_ordinary_consumer_fetch(request) {
            self.walk(request, now, Reads::Noted { warmed, cold }, drop);
        }
    }

    /// What [`Self::plan`] answers to an ordinary fetch of one partition, for hosts in which no client's request is to be
    /// answered; `None` if it is not cached. The limit of the request is that of the partition.
    pub fn hit(
        &self,
        topic_id: TopicId,
        asked: &FetchPartition,
        committed: bool,
        now: Instant,
    ) -> Option<PartitionData> {
        if !self.is_ordinary(topic_id, asked) {
            return None;
        }
        let hit = self.single(topic_id, asked, committed, now, true);
        let hit_bytes = hit.as_ref().map_or(0, PartitionData::records_size_bytes);
        self.count_lookups(1, hit.is_some().into(), hit_bytes as u64);
        hit
    }

    /// Like [`Self::hit`] for what no reader asks, such as a snapshot: nothing is counted, and what is given is no more likely
    /// to stay for it.
    pub fn peek(
        &self,
        topic_id: TopicId,
        asked: &FetchPartition,
        committed: bool,
        now: Instant,
    ) -> Option<PartitionData> {
        if !self.is_ordinary(topic_id, asked) {
            return None;
        }
        self.single(topic_id, asked, committed, now, false)
    }

    /// Whether [`is_ordinary_consumer_fetch`] would say so of a fetch of this partition, and anything is kept at all.
    fn is_ordinary(&self, topic_id: TopicId, asked: &FetchPartition) -> bool {
        asked.partition_max_bytes >= 0 && asked.fetch_offset >= 0 && !topic_id.is_zero() && !self.is_off()
    }

    fn single(
        &self,
        topic_id: TopicId,
        asked: &FetchPartition,
        committed: bool,
        now: Instant,
        marks_hits: bool,
    ) -> Option<PartitionData> {
        let warmed = &Warmed::default();
        let reads = Reads::Planned { warmed, marks_hits };
        let mut walk = self.begin(asked.partition_max_bytes, committed, now, reads);
        walk.hit(&TopicRef::Id(topic_id), asked)
    }

    fn begin<'a>(
        &'a self,
        max_bytes: i32,
        committed: bool,
        now: Instant,
        reads: Reads<'a, R>,
    ) -> Walk<'a, R> {
        Walk {
            cache: self,
            now,
            reads,
            committed,
            walked: Walked {
                limits: Limits::of(max_bytes),
                hit_bytes: 0,
                hits: 0,
                bytes_before_miss: None,
            },
        }
    }

    /// Gives an answer or its absence for each partition, in request order.
    fn walk(
        &self,
        request: &FetchRequest,
        now: Instant,
        reads: Reads<'_, R>,
        mut give: impl FnMut(Option<PartitionData>),
    ) -> Walked {
        let committed = request.isolation_level == READ_COMMITTED;
        let mut walk = self.begin(request.max_bytes, committed, now, reads);
        for (topic, asked) in request.partitions() {
            give(walk.hit(topic, asked));
        }
        walk.walked
    }

    /// Threads share these counts, so that nothing is added to one that stays as it is.
    fn count_lookups(&self, lookups: u64, hits: u64, hit_bytes: u64) {
        if hits > 0 {
            self.counters.hits.add(hits);
            self.counters.bytes_saved.add(hit_bytes);
        }
        if hits < lookups {
            self.counters.misses.add(lookups - hits);
        }
    }
}

/// Whether a fetch is a consumer's and of a kind that the cache understands. Replicas (H8), fetches within a
/// session that we never opened (H15), limits and isolation levels that do not exist (H12), zero topic ids (H28)
/// and partitions named twice are the broker's to answer.
fn is_ordinary_consumer_fetch(request: &FetchRequest) -> bool {
    let consumer = request.replica_id < 0
        && request
            .replica_state
            .as_ref()
            .is_none_or(|state| state.replica_id < 0);
    let sessionless = request.session_id == 0
        && matches!(request.session_epoch, -1 | 0)
        && request.forgotten_topics.is_empty();
    let limits = request.max_bytes >= 0 && request.min_bytes >= 0 && request.max_wait_ms >= 0;
    let isolation = matches!(request.isolation_level, READ_UNCOMMITTED | READ_COMMITTED);
    let zero_id = |topic: &FetchTopic| matches!(topic.topic, TopicRef::Id(id) if id.is_zero());
    consumer
        && sessionless
        && limits
        && isolation
        && !request.topics.iter().any(zero_id)
        && request
            .partitions()
            .all(|(_, asked)| asked.partition_max_bytes >= 0 && asked.fetch_offset >= 0)
        && request.partitions().next().is_some()
        && !names_one_twice(request)
}

fn names_one_twice(request: &FetchRequest) -> bool {
    let single = |topics: &[FetchTopic]| matches!(topics, [topic] if topic.partitions.len() <= 1);
    if single(&request.topics) {
        return false;
    }
    Positions::of(
        request
            .partitions()
            .map(|(topic, asked)| (topic, asked.partition)),
    )
    .has_twice()
}

/// Upstream never opens a session for us (H15).
fn sessionless(mut request: FetchRequest) -> FetchRequest {
    (request.session_id, request.session_epoch) = (0, -1);
    request
}

/// What is left to ask upstream: the request without the partitions that the cache answers, and with what the limits leave.
fn rest_of(request: FetchRequest, hits: &Hits, walk: &Walked, bytes_before_miss: usize) -> FetchRequest {
    let mut rest = only_misses(sessionless(request), hits);
    let left_bytes = walk.limits.max_bytes.saturating_sub(bytes_before_miss);
    rest.max_bytes = i32::try_from(left_bytes).unwrap_or(i32::MAX);
    let min_bytes = usize::try_from(rest.min_bytes).unwrap_or(0);
    if walk.hit_bytes >= min_bytes {
        // The hits satisfy the client: a partition at its tail must not hold them back (H14).
        (rest.min_bytes, rest.max_wait_ms) = (0, 0);
    } else {
        rest.min_bytes = i32::try_from(min_bytes - walk.hit_bytes).unwrap_or(i32::MAX);
    }
    rest
}

fn only_misses(mut request: FetchRequest, hits: &Hits) -> FetchRequest {
    let mut is_hit = hits.iter().map(Option::is_some);
    for topic in &mut request.topics {
        topic.partitions.retain(|_| is_hit.next() == Some(false));
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    request
}

/// What becomes of reads.
enum Reads<'a, R> {
    /// What was read before is used, and what has to be waited for is a miss.
    Planned {
        warmed: &'a Warmed,
        /// Whether a batch that is given is more likely to stay for it.
        marks_hits: bool,
    },
    /// It is noted what has to be waited for. What can be had at once is kept, so that it is read and verified once only.
    Noted {
        warmed: &'a mut Warmed,
        cold: &'a mut Vec<ColdRead<R>>,
    },
}

impl<R> Reads<'_, R> {
    fn warmed(&self) -> &Warmed {
        match self {
            Self::Planned { warmed, .. } => warmed,
            Self::Noted { warmed, .. } => warmed,
        }
    }
}

/// A walk over a request's partitions, in their order (H12).
struct Walk<'a, R> {
    cache: &'a Cache<R>,
    now: Instant,
    reads: Reads<'a, R>,
    committed: bool,
    walked: Walked,
}

/// What a walk has come by.
#[derive(Clone, Copy)]
struct Walked {
    limits: Limits,
    hit_bytes: usize,
    hits: u64,
    /// Bytes of the hits that stand before the first miss; `None` while there is no miss.
    bytes_before_miss: Option<usize>,
}

impl<R: SegmentReader> Walk<'_, R> {
    /// The answer of the next partition, if it is cached.
    fn hit(&mut self, topic: &TopicRef, asked: &FetchPartition) -> Option<PartitionData> {
        let hit = self.partition(topic, asked);
        let walked = &mut self.walked;
        match &hit {
            Some(data) => {
                walked.hits += 1;
                walked.hit_bytes += data.records_size_bytes();
            }
            None => {
                walked.bytes_before_miss.get_or_insert(walked.hit_bytes);
            }
        }
        hit
    }

    fn partition(&mut self, topic: &TopicRef, asked: &FetchPartition) -> Option<PartitionData> {
        let cache = self.cache;
        let key = cache.key(topic, asked.partition, self.now)?;
        let partition = cache.engine.partitions.get(&key)?;
        let validated_at = partition.state.validated_at?;
        if !cache.settings.max_staleness.allows(validated_at, self.now) {
            return None;
        }
        let left = self.walked.limits.max_bytes.saturating_sub(self.walked.hit_bytes);
        let limit = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(left);
        let reader = Reader {
            asked,
            limit_bytes: limit,
            first: self.walked.hit_bytes == 0,
            committed: self.committed,
            compacted_max_staleness: cache.settings.compacted_max_staleness(),
            now: self.now,
            is_real: matches!(self.reads, Reads::Planned { marks_hits: true, .. }),
        };
        reader.answer(partition, |batch, mark| self.read(&key, batch, mark))
    }

    /// The bytes of a batch; where they have to be waited for and were not yet, takes note of that.
    fn read(&mut self, key: &PartitionKey, batch: &IndexedBatch, mark: &HitMark) -> Read {
        let engine = &self.cache.engine;
        if matches!(self.reads, Reads::Planned { marks_hits: true, .. }) {
            mark.hit();
        }
        let stored = R::MAY_CORRUPT.then(|| engine.reader(batch)).flatten();
        let position = batch.location.position;
        let place = stored.map(|(segment, _)| Place { segment, position });
        if let Some(bytes) = place.and_then(|place| self.reads.warmed().get(&place)) {
            return Read::Now(bytes.clone());
        }
        if let Some(bytes) = engine.batch_now(key, batch, mark) {
            if let (Reads::Noted { warmed, .. }, Some(place)) = (&mut self.reads, place) {
                warmed.insert((place, bytes.clone()));
            }
            return Read::Now(bytes);
        }
        if mark.is_faulty() {
            self.cache.counters.errors.add(1);
            return Read::Not;
        }
        let (Reads::Noted { cold, .. }, Some(place), Some((_, reader))) = (&mut self.reads, place, stored)
        else {
            return Read::Not;
        };
        cold.push(ColdRead {
            key: *key,
            batch: *batch,
            place,
            reader: reader.clone(),
        });
        Read::Later
    }
}

/// What comes of reading a batch.
enum Read {
    Now(Bytes),
    /// It has to be waited for.
    Later,
    /// The storage does not give it back.
    Not,
}

/// Who reads a partition, and how much of it.
struct Reader<'a> {
    asked: &'a FetchPartition,
    limit_bytes: usize,
    /// No partition before it gave anything, so that its first batch comes whole whatever the limit says.
    first: bool,
    committed: bool,
    compacted_max_staleness: MaxStaleness,
    now: Instant,
    /// Whether it goes on behind what it is given.
    is_real: bool,
}

impl Reader<'_> {
    /// Whether a batch may be served to this reader.
    fn may_see(&self, state: &PartitionState, batch: &IndexedBatch) -> bool {
        // H1, H2: readers of committed data get what is stable and of which all transactions are known.
        let stable = batch.span.last() < state.stable_below && batch.location.aborted.is_known();
        // H5: the cleaner may have rewritten what was fetched longer ago.
        let as_it_was = !state.is_compacted
            || self
                .compacted_max_staleness
                .allows_known(batch.known_at.instant(), self.now);
        (stable || !self.committed) && as_it_was
    }

    /// The answer from the cache to a fetch of this partition, if it has one.
    fn answer(
        &self,
        partition: &Partition,
        mut read: impl FnMut(&IndexedBatch, &HitMark) -> Read,
    ) -> Option<PartitionData> {
        let (state, asked) = (&partition.state, self.asked);
        let known_epoch = asked.current_leader_epoch < 0 || asked.current_leader_epoch == state.told_epoch;
        // Below the log start and with another leader epoch than the known one (H9) the broker answers.
        if asked.fetch_offset < state.log_start_offset || !known_epoch || !agrees_on_epoch(partition, asked) {
            return None;
        }
        let mut records = RecordBytes::empty();
        let mut size_bytes = 0;
        let mut aborted = AbortedInRun::default();
        let mut last_offset = None;
        let mut is_complete = true;
        let mut run = partition.index.run(asked.fetch_offset);
        // What is full is not asked for more, which would only be looked at in vain.
        while size_bytes == 0 || size_bytes < self.limit_bytes {
            let Some((batch, mark)) = run.next() else { break };
            if mark.is_faulty() || !self.may_see(state, &batch) {
                break;
            }
            let with_this_bytes = size_bytes + batch.location.batch_bytes as usize;
            if with_this_bytes > self.limit_bytes && !(self.first && size_bytes == 0) {
                // It is a hit even where nothing fits: empty is what a broker answers then, too.
                last_offset.get_or_insert(asked.fetch_offset);
                break;
            }
            let in_batch = self.committed.then(|| partition.index.aborted(&batch));
            if in_batch
                .as_ref()
                .is_some_and(|next| !aborted.may_go_on_with(next))
            {
                break;
            }
            let bytes = match read(&batch, mark) {
                Read::Now(bytes) => Some(bytes),
                Read::Later => None,
                Read::Not => break,
            };
            if let Some(in_batch) = in_batch {
                aborted.push(in_batch, bytes.as_deref());
            }
            match bytes {
                Some(bytes) => records.push(bytes),
                None => is_complete = false,
            }
            size_bytes = with_this_bytes;
            last_offset = Some(batch.span.last());
        }
        let beyond = last_offset.filter(|_| is_complete)?.saturating_add(1);
        if self.is_real && size_bytes > 0 {
            partition.readers.note(asked.fetch_offset, beyond);
        }
        let stable_beyond = if self.committed { beyond } else { -1 };
        Some(PartitionData {
            high_watermark: state.high_watermark.max(beyond),
            last_stable_offset: state.last_stable_offset.max(stable_beyond),
            log_start_offset: state.log_start_offset,
            aborted_transactions: self.committed.then(|| aborted.list(asked.fetch_offset)),
            records: Some(records),
            unknown_tags: TaggedFields::default(),
            ..PartitionData::error(asked.partition, 0)
        })
    }
}

/// A consumer that names the epoch of its last record gets a hit only where the cache knows that the epoch
/// reaches up to the fetch offset (H8).
fn agrees_on_epoch(partition: &Partition, asked: &FetchPartition) -> bool {
    let epoch = asked.last_fetched_epoch;
    if epoch < 0 {
        return true;
    }
    let here = partition.index.get(asked.fetch_offset).map(|(batch, _)| batch);
    let before = partition.index.ending_before(asked.fetch_offset);
    here.into_iter()
        .chain(before)
        .any(|batch| batch.leader_epoch == epoch)
}
