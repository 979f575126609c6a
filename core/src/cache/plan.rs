//! Which partitions of a fetch the cache answers, and what is left to ask upstream.

use alloc::vec::Vec;
use core::mem;

use hashbrown::HashSet;

use super::{Cache, Partition};
use crate::freshness::PartitionState;
use crate::index::CachedBatch;
use crate::time::{Instant, MaxStaleness};
use crate::transactions::{AbortedInBatch, list_for_run};
use crate::wire::{
    FetchPartition, FetchRequest, FetchTopic, FetchableTopic, PartitionData, RecordBytes, TaggedFields,
    TopicRef,
};

/// Isolation levels as they stand in requests.
const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;

/// The most record bytes of one answer, whatever the client allows; a broker's default for `fetch.max.bytes`.
const RESPONSE_LIMIT_BYTES: usize = 55 * 1024 * 1024;

/// What the cache answers of a fetch, and what is to be asked upstream.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) outcome: Outcome,
    /// What to ask upstream; `None` if the cache answers everything.
    pub(super) upstream: Option<FetchRequest>,
}

#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// The fetch is none of the cache's business: it goes upstream as it is and nothing is kept.
    PassThrough,
    /// Nothing is cached; the answer is upstream's, and is kept.
    Miss,
    /// Some or all partitions are cached, in request order.
    Hits(Vec<PlannedTopic>, Limits),
}

/// A topic of the request; each partition with its answer, or `None` for one that is asked upstream.
#[derive(Clone, Debug)]
pub(super) struct PlannedTopic {
    pub(super) topic: TopicRef,
    pub(super) partitions: Vec<(i32, Option<PartitionData>)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_bytes: usize,
}

impl Plan {
    /// What to ask upstream; `None` if the cache answers everything.
    pub fn upstream_request(&self) -> Option<&FetchRequest> {
        self.upstream.as_ref()
    }

    /// Whether upstream's answer is to be kept.
    pub fn is_cacheable(&self) -> bool {
        !matches!(self.outcome, Outcome::PassThrough)
    }
}

impl Cache {
    /// Looks every partition of the request up. Takes the request, because what is not cached of it goes
    /// upstream as it came.
    pub fn plan(&self, request: FetchRequest, now: Instant) -> Plan {
        let lookups = request.partitions().count();
        let plan = self.replan(request, now);
        if plan.is_cacheable() {
            self.count(&plan, lookups);
        }
        plan
    }

    /// Like [`Self::plan`], for what an earlier plan has counted: the rest of a request, looked up once more before it
    /// goes upstream, because others may have brought it meanwhile.
    pub fn replan(&self, request: FetchRequest, now: Instant) -> Plan {
        if self.is_off() || !is_ordinary_consumer_fetch(&request) {
            return Plan {
                outcome: Outcome::PassThrough,
                upstream: Some(request),
            };
        }
        let limits = Limits {
            max_bytes: usize::try_from(request.max_bytes)
                .unwrap_or(0)
                .min(RESPONSE_LIMIT_BYTES),
        };
        let mut walk = Walk {
            cache: self,
            now,
            limits,
            hit_bytes: 0,
            hits: 0,
            bytes_before_miss: None,
        };
        let committed = request.isolation_level == READ_COMMITTED;
        let planned: Vec<PlannedTopic> = request
            .topics
            .iter()
            .map(|topic| walk.topic(topic, committed))
            .collect();
        let (hits, hit_bytes, bytes_before_miss) = (walk.hits, walk.hit_bytes, walk.bytes_before_miss);
        if hits == 0 {
            return Plan {
                outcome: Outcome::Miss,
                upstream: Some(sessionless(request)),
            };
        }
        let upstream = bytes_before_miss.map(|before| {
            let mut rest = only_misses(sessionless(request), &planned);
            rest.max_bytes = i32::try_from(limits.max_bytes.saturating_sub(before)).unwrap_or(i32::MAX);
            let min_bytes = usize::try_from(rest.min_bytes).unwrap_or(0);
            if hit_bytes >= min_bytes {
                // The hits satisfy the client: a partition at its tail must not hold them back (H14).
                (rest.min_bytes, rest.max_wait_ms) = (0, 0);
            } else {
                rest.min_bytes = i32::try_from(min_bytes - hit_bytes).unwrap_or(i32::MAX);
            }
            rest
        });
        Plan {
            outcome: Outcome::Hits(planned, limits),
            upstream,
        }
    }

    fn count(&self, plan: &Plan, lookups: usize) {
        let lookups = lookups as u64;
        let answers = match &plan.outcome {
            Outcome::Hits(topics, _) => topics.as_slice(),
            Outcome::Miss | Outcome::PassThrough => &[],
        };
        let answers = answers
            .iter()
            .flat_map(|topic| &topic.partitions)
            .filter_map(|(_, hit)| hit.as_ref());
        let (hits, hit_bytes) = answers.fold((0, 0), |(hits, bytes), data| {
            (hits + 1, bytes + data.records_size_bytes())
        });
        self.counters.lookups.add(lookups);
        self.counters.hits.add(hits);
        self.counters.misses.add(lookups - hits);
        self.counters.bytes_saved.add(hit_bytes as u64);
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
    let mut seen = HashSet::new();
    !request
        .partitions()
        .all(|(topic, asked)| seen.insert((topic, asked.partition)))
}

/// Upstream never opens a session for us (H15).
fn sessionless(mut request: FetchRequest) -> FetchRequest {
    (request.session_id, request.session_epoch) = (0, -1);
    request
}

/// The request without the partitions that the cache answers.
fn only_misses(mut request: FetchRequest, planned: &[PlannedTopic]) -> FetchRequest {
    for (topic, planned) in request.topics.iter_mut().zip(planned) {
        let partitions = mem::take(&mut topic.partitions)
            .into_iter()
            .zip(&planned.partitions);
        topic.partitions = partitions
            .filter(|(_, (_, hit))| hit.is_none())
            .map(|(asked, _)| asked)
            .collect();
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    request
}

/// The state of the walk over a request's partitions, in their order (H12).
struct Walk<'a> {
    cache: &'a Cache,
    now: Instant,
    limits: Limits,
    hit_bytes: usize,
    hits: u64,
    /// Bytes of the hits that stand before the first miss; `None` while there is no miss.
    bytes_before_miss: Option<usize>,
}

impl Walk<'_> {
    fn topic(&mut self, topic: &FetchTopic, committed: bool) -> PlannedTopic {
        let partitions = topic.partitions.iter().map(|asked| {
            let hit = self.partition(&topic.topic, asked, committed);
            match &hit {
                Some(data) => {
                    self.hits += 1;
                    self.hit_bytes += data.records_size_bytes();
                }
                None => {
                    self.bytes_before_miss.get_or_insert(self.hit_bytes);
                }
            }
            (asked.partition, hit)
        });
        let partitions = partitions.collect();
        PlannedTopic {
            topic: topic.topic.clone(),
            partitions,
        }
    }

    fn partition(&self, topic: &TopicRef, asked: &FetchPartition, committed: bool) -> Option<PartitionData> {
        let key = self.cache.key(topic, asked.partition, self.now)?;
        let partition = self.cache.partitions.get(&key)?;
        let validated_at = partition.state.validated_at?;
        if !self.cache.settings.max_staleness.allows(validated_at, self.now) {
            return None;
        }
        let left = self.limits.max_bytes.saturating_sub(self.hit_bytes);
        let limit = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(left);
        partition.answer(&Reader {
            asked,
            limit_bytes: limit,
            first: self.hit_bytes == 0,
            committed,
            compacted_max_staleness: self.cache.settings.compacted_max_staleness(),
            now: self.now,
        })
    }
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
}

impl Reader<'_> {
    /// Whether a batch may be served to this reader.
    fn may_see(&self, state: &PartitionState, batch: &CachedBatch) -> bool {
        // H1, H2: readers of committed data get what is stable and of which all transactions are known.
        let stable = batch.span.last() < state.stable_below && batch.aborted != AbortedInBatch::Unknown;
        // H5: the cleaner may have rewritten what was fetched longer ago.
        let as_it_was = !state.is_compacted || self.compacted_max_staleness.allows(batch.known_at, self.now);
        (stable || !self.committed) && as_it_was
    }
}

impl Partition {
    /// The answer from the cache to a fetch of this partition, if it has one.
    fn answer(&self, reader: &Reader<'_>) -> Option<PartitionData> {
        let state = &self.state;
        let &Reader {
            asked,
            limit_bytes,
            first,
            committed,
            ..
        } = reader;
        let known_epoch = asked.current_leader_epoch < 0 || asked.current_leader_epoch == state.leader_epoch;
        // Below the log start and with another leader epoch than the known one (H9) the broker answers.
        if asked.fetch_offset < state.log_start_offset || !known_epoch || !self.agrees_on_epoch(asked) {
            return None;
        }
        let mut records = RecordBytes::empty();
        let mut size_bytes = 0;
        let mut run = Vec::new();
        let mut last_offset = None;
        for batch in self
            .index
            .run(asked.fetch_offset)
            .take_while(|batch| reader.may_see(state, batch))
        {
            let with_this_bytes = size_bytes + batch.bytes.len();
            let fits = with_this_bytes <= limit_bytes || (first && size_bytes == 0);
            if last_offset.is_none() {
                // It is a hit even where nothing fits: empty is what a broker answers then, too.
                last_offset = Some(asked.fetch_offset);
            }
            if !fits {
                break;
            }
            batch.mark_hit();
            records.push(batch.bytes.clone());
            size_bytes = with_this_bytes;
            last_offset = Some(batch.span.last());
            if committed {
                run.push(&batch.aborted);
            }
        }
        let beyond = last_offset?.saturating_add(1);
        Some(PartitionData {
            high_watermark: state.high_watermark.max(beyond),
            last_stable_offset: state.last_stable_offset.max(if committed { beyond } else { -1 }),
            log_start_offset: state.log_start_offset,
            aborted_transactions: committed.then(|| list_for_run(run.into_iter(), asked.fetch_offset)),
            records: Some(records),
            unknown_tags: TaggedFields::default(),
            ..PartitionData::error(asked.partition, 0)
        })
    }

    /// A consumer that names the epoch of its last record gets a hit only where the cache knows that the epoch
    /// reaches up to the fetch offset (H8).
    fn agrees_on_epoch(&self, asked: &FetchPartition) -> bool {
        let epoch = asked.last_fetched_epoch;
        let here = self.index.get(asked.fetch_offset);
        let before = self.index.ending_before(asked.fetch_offset);
        epoch < 0
            || here
                .into_iter()
                .chain(before)
                .any(|batch| batch.leader_epoch == epoch)
    }
}

impl From<PlannedTopic> for FetchableTopic {
    /// Gives only the partitions that the cache answers.
    fn from(planned: PlannedTopic) -> Self {
        Self {
            topic: planned.topic,
            partitions: planned
                .partitions
                .into_iter()
                .filter_map(|(_, hit)| hit)
                .collect(),
            unknown_tags: TaggedFields::default(),
        }
    }
}
