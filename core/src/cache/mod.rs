//! The cache: plan a fetch, absorb what upstream answered, merge the two. Here the rules of a correct cache of
//! Fetch responses meet.
//!
//! ```text
//! request ──plan──▶ all cached? ──yes──▶ answer
//!                       │ no
//!                       ▼
//!            Plan::upstream_request ──(host: transport)──▶ response ──Harvest──▶ absorb
//!                                                             │
//!                                                             └──Plan::merge──▶ answer
//! ```
//!
//! The core has no clock, no lock and no I/O: the host passes `now`, guards the cache (planning takes `&self`),
//! asks upstream, and revalidates what [`Cache::doubtful`] names.

mod absorb;
mod invalidate;
mod merge;
mod plan;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::time::Duration;

use hashbrown::HashMap;

pub use absorb::Harvest;
pub use plan::Plan;

use crate::eviction::{EvictionQueue, Queued};
use crate::freshness::PartitionState;
use crate::identity::PartitionKey;
use crate::index::{CachedBatch, PartitionIndex};
use crate::memory::MemoryMeter;
use crate::offset::OffsetSpan;
use crate::statistics::{Counters, Statistics};
use crate::time::{Instant, MaxStaleness};
use crate::wire::{TopicId, TopicRef, WireStr};

pub use crate::freshness::{EpochEnd, Evidence};

/// Memory of a batch beside its bytes: its place in the index and in the queue, and the two allocations that carry it.
/// The last summand makes up for spare room in B-tree nodes, the queue and the allocator: with it, the resident memory of
/// a million batches of 200 bytes is what is counted (measured with glibc's allocator).
const BATCH_OVERHEAD_BYTES: usize = size_of::<CachedBatch>() + 2 * size_of::<Queued>() + 160;

/// Topic names that are remembered at most; beyond it the oldest answer is asked again.
const ALIASES_LIMIT: usize = 16 * 1024;

/// How a cache behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// The most memory that cached batches may hold, in bytes. 0 passes every fetch through.
    pub size_limit_bytes: u64,
    /// How old what is known of a partition may be when a hit is served from it.
    pub max_staleness: MaxStaleness,
    /// How long ago a batch of a compacted topic may have been fetched when it is served. No question to a broker
    /// short of a fetch tells what the cleaner has rewritten, so this bounds how long a removed record lives on (H5).
    pub compacted_max_staleness: MaxStaleness,
}

impl CacheSettings {
    /// Where nothing is ever asked, nothing is asked about compaction either.
    fn compacted_max_staleness(&self) -> MaxStaleness {
        match self.max_staleness {
            MaxStaleness::Forever => MaxStaleness::Forever,
            MaxStaleness::Within(_) => self.compacted_max_staleness,
        }
    }
}

impl Default for CacheSettings {
    /// No memory, so that everything passes through; one second of staleness, one minute for what the cleaner rewrites.
    fn default() -> Self {
        Self {
            size_limit_bytes: 0,
            max_staleness: MaxStaleness::default(),
            compacted_max_staleness: MaxStaleness::Within(Duration::from_secs(60)),
        }
    }
}

/// A read-through cache of the Fetch responses of one cluster, in memory.
#[derive(Debug, Default)]
pub struct Cache {
    settings: CacheSettings,
    cluster_id: Option<WireStr>,
    partitions: HashMap<PartitionKey, Partition>,
    /// Topic ids by name, for Fetch versions that name topics, and when each was learned.
    aliases: HashMap<WireStr, Alias>,
    queue: EvictionQueue,
    memory: MemoryMeter,
    counters: Counters,
    batches: u64,
    next_sequence: u64,
}

#[derive(Debug)]
struct Partition {
    index: PartitionIndex,
    state: PartitionState,
}

#[derive(Clone, Copy, Debug)]
struct Alias {
    topic_id: TopicId,
    learned_at: Instant,
}

/// A partition of which the cache holds batches and of which it should hear whether they still stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubtful {
    /// The partition.
    pub key: PartitionKey,
    /// The topic's name, where a fetch has named it.
    pub topic_name: Option<WireStr>,
    /// The newest leader epoch among the cached batches: what to ask OffsetForLeaderEpoch for.
    pub newest_cached_epoch: i32,
    /// Whether hits have to wait for the answer; otherwise it may come in the background.
    pub blocks_hits: bool,
}

impl Cache {
    /// An empty cache.
    pub fn new(settings: CacheSettings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// How it behaves.
    pub fn settings(&self) -> CacheSettings {
        self.settings
    }

    /// Whether it only passes through.
    pub fn is_off(&self) -> bool {
        self.settings.size_limit_bytes == 0
    }

    /// Changes the size limit. A lower one takes effect at once, except for memory that readers still hold.
    pub fn set_size_limit_bytes(&mut self, size_limit_bytes: u64) {
        self.settings.size_limit_bytes = size_limit_bytes;
        while self.memory.held_bytes() > size_limit_bytes && self.evict_one().is_some() {}
    }

    /// Says which cluster is upstream. Another one than before empties the cache (H6).
    pub fn identify_cluster(&mut self, cluster_id: &WireStr) {
        if self.cluster_id.as_ref() == Some(cluster_id) {
            return;
        }
        if self.cluster_id.is_some() {
            self.clear();
        }
        self.cluster_id = Some(cluster_id.detached());
    }

    /// The names in `topics` whose id is unknown or was learned too long ago.
    pub fn unresolved_names<'r>(
        &self,
        topics: impl Iterator<Item = &'r TopicRef>,
        now: Instant,
    ) -> Vec<WireStr> {
        let unresolved = |topic: &'r TopicRef| match topic {
            TopicRef::Name(name) if self.topic_id_of(name, now).is_none() => Some(name.clone()),
            _ => None,
        };
        topics.filter_map(unresolved).collect()
    }

    /// Says which id a topic name stands for. Another one than before drops what was cached of the old one (H6).
    pub fn learn_topic(&mut self, name: &WireStr, topic_id: TopicId, asked_at: Instant) {
        if topic_id.is_zero() {
            return self.forget_name(name);
        }
        let alias = Alias {
            topic_id,
            learned_at: asked_at,
        };
        if let Some(known) = self.aliases.get_mut(name) {
            let before = core::mem::replace(known, alias);
            if before.topic_id != topic_id {
                self.forget_topic(before.topic_id);
            }
            return;
        }
        if self.aliases.len() >= ALIASES_LIMIT
            && let Some(oldest) = self.aliases.iter().min_by_key(|(_, alias)| alias.learned_at)
        {
            let oldest = oldest.0.clone();
            self.aliases.remove(&oldest);
        }
        self.aliases.insert(name.detached(), alias);
    }

    /// Says that no topic of this name exists, and drops what was cached of it.
    pub fn forget_name(&mut self, name: &WireStr) {
        if let Some(alias) = self.aliases.remove(name) {
            self.forget_topic(alias.topic_id);
        }
    }

    fn topic_id_of(&self, name: &WireStr, now: Instant) -> Option<TopicId> {
        let alias = self.aliases.get(name)?;
        self.settings
            .max_staleness
            .allows(alias.learned_at, now)
            .then_some(alias.topic_id)
    }

    /// The key of a partition that a request names; `None` for the zero id (H28) and for a name whose id is
    /// not known.
    fn key(&self, topic: &TopicRef, partition: i32, now: Instant) -> Option<PartitionKey> {
        let topic_id = match topic {
            TopicRef::Id(id) => Some(*id).filter(|id| !id.is_zero()),
            TopicRef::Name(name) => self.topic_id_of(name, now),
        };
        topic_id.map(|topic_id| PartitionKey { topic_id, partition })
    }

    /// Counts a fetch that the host sends upstream.
    pub fn count_upstream_fetch(&self) {
        self.counters.upstream_fetches.add(1);
    }

    /// The figures of this moment.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            size_bytes: self.memory.held_bytes(),
            limit_bytes: self.settings.size_limit_bytes,
            batches: self.batches,
            partitions: self.partitions.len() as u64,
            lookups: self.counters.lookups.get(),
            hits: self.counters.hits.get(),
            misses: self.counters.misses.get(),
            inserts: self.counters.inserts.get(),
            evictions: self.counters.evictions.get(),
            rejected: self.counters.rejected.get(),
            errors: self.counters.errors.get(),
            upstream_fetches: self.counters.upstream_fetches.get(),
            bytes_saved: self.counters.bytes_saved.get(),
        }
    }

    /// Which offsets of a partition are cached, as runs in ascending order.
    pub fn covered(&self, key: PartitionKey) -> Vec<OffsetSpan> {
        self.partitions
            .get(&key)
            .map(|partition| partition.index.covered())
            .unwrap_or_default()
    }

    /// Takes the batch out that is next to go. `None` if the cache is empty.
    fn evict_one(&mut self) -> Option<usize> {
        // Each round either takes a batch out, forgets one that is gone, or clears a hit bit; no hit can come
        // in between, because this borrows the cache exclusively. So two rounds of the queue are the bound.
        for _ in 0..=2 * self.queue.len() {
            let next = self.queue.pop()?;
            let Some(partition) = self.partitions.get_mut(&next.key) else {
                continue;
            };
            let Some(batch) = partition.index.by_last_offset(next.last_offset) else {
                continue;
            };
            if batch.sequence != next.sequence {
                continue;
            }
            if batch.was_hit.swap(false, core::sync::atomic::Ordering::Relaxed) {
                self.queue.push(next);
                continue;
            }
            let size_bytes = batch.bytes.len();
            partition.index.remove(next.last_offset);
            self.batches -= 1;
            if partition.index.is_empty() {
                self.partitions.remove(&next.key);
            }
            self.counters.evictions.add(1);
            return Some(size_bytes);
        }
        None
    }
}
