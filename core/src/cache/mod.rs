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
//! asks upstream, has the storage do what [`Cache::next_job`] names, and revalidates what [`Cache::doubtful`] names.

mod absorb;
mod cold;
mod coverage;
mod invalidate;
mod memory;
mod merge;
#[cfg(feature = "names")]
mod names;
mod plan;
mod positions;
mod restore;
#[cfg(test)]
mod tests;
#[cfg(not(feature = "names"))]
mod unnamed;

use alloc::vec::Vec;
use core::time::Duration;

pub use self::absorb::{Absorbed, Harvest};
pub use self::cold::{ColdRead, ReadFault, Warmed};
pub use self::coverage::{CoveredPart, KnownOffsets};
pub use self::memory::MemoryCache;
pub use self::merge::ResponseRoom;
pub use self::plan::Plan;
pub use self::restore::{RestoreError, Restored};
pub use crate::engine::{Done, Job};
pub use crate::freshness::{EpochEnd, Evidence};
use bytes::Bytes;

#[cfg(feature = "names")]
use self::names::Names;
#[cfg(not(feature = "names"))]
use self::unnamed::Names;
use crate::engine::Engine;
use crate::identity::PartitionKey;
use crate::offset::OffsetSpan;
use crate::statistics::{Counters, Statistics};
use crate::storage::SegmentReader;
use crate::time::{Instant, MaxStaleness};
use crate::wire::{Crc32c, RecordBatch, TopicRef, WireStr};

/// How a cache behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// The most that may be held, in bytes: in memory everything, index included; on another medium what lies there.
    /// 0 passes every fetch through.
    pub size_limit_bytes: u64,
    /// How large segments become, in bytes; a batch that is larger has one of its own. `None` for a 256th of the
    /// limit, at most a mebibyte in memory and 64 elsewhere, or a 16 384th where the limit is so large. One of them
    /// is kept free for batches that move, and in memory one for sealing.
    pub segment_size_bytes: Option<u32>,
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
            segment_size_bytes: None,
            max_staleness: MaxStaleness::default(),
            compacted_max_staleness: MaxStaleness::Within(Duration::from_secs(60)),
        }
    }
}

/// A read-through cache of the Fetch responses of one cluster, over a storage whose segments `R` reads.
///
/// What the storage has to do comes out of [`Self::next_job`]. [`MemoryCache`] is one over memory, which does its
/// jobs by itself.
#[derive(Debug)]
pub struct Cache<R> {
    settings: CacheSettings,
    cluster_id: Option<WireStr>,
    engine: Engine<R>,
    names: Names,
    counters: Counters,
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
    /// Other epochs to ask OffsetForLeaderEpoch for, as far as they are below that of the leader: of batches that no
    /// leader has confirmed yet, and of the leaders that are known.
    pub older_epochs: Vec<i32>,
    /// Whether hits have to wait for the answer; otherwise it may come in the background.
    pub blocks_hits: bool,
}

impl<R: SegmentReader> Cache<R> {
    /// An empty cache.
    pub fn new(settings: CacheSettings, crc32c: Crc32c) -> Self {
        Self {
            settings,
            cluster_id: None,
            engine: Engine::new(settings.size_limit_bytes, settings.segment_size_bytes, crc32c),
            names: Names::default(),
            counters: Counters::default(),
        }
    }

    /// How it behaves.
    pub fn settings(&self) -> CacheSettings {
        self.settings
    }

    /// How large segments become, in bytes. A batch that is larger has one of its own.
    pub fn segment_size_bytes(&self) -> u64 {
        self.engine.segment_size_bytes()
    }

    /// Whether it only passes through.
    pub fn is_off(&self) -> bool {
        self.settings.size_limit_bytes == 0
    }

    /// Changes the size limit. What is over a lower one goes with the jobs that come next; memory that readers hold
    /// goes when they let go.
    pub fn set_size_limit_bytes(&mut self, size_limit_bytes: u64) {
        self.settings.size_limit_bytes = size_limit_bytes;
        self.engine.set_limit_bytes(size_limit_bytes);
    }

    /// The next thing that the storage has to do, if there is any. One job at a time; the outcome goes to
    /// [`Self::complete`].
    pub fn next_job(&mut self) -> Option<Job<R>> {
        self.engine.next_job()
    }

    /// Whether [`Self::next_job`] may give one.
    pub fn has_jobs(&self) -> bool {
        self.engine.has_jobs()
    }

    /// Whether there are jobs, or some that were handed out and are not [completed](Self::complete).
    pub fn is_busy(&self) -> bool {
        self.engine.is_busy()
    }

    /// What is in memory only because the storage has not taken it yet, in bytes; 0 where the storage is memory.
    pub fn unwritten_bytes(&self) -> u64 {
        self.engine.unwritten_bytes()
    }

    /// Makes jobs that write what is in memory only. `closes`: what is written is complete for now, as at the end of a
    /// process, so that it need not be walked when it is opened again.
    pub fn write_out(&mut self, closes: bool) {
        self.engine.write_out(closes);
    }

    /// Takes over what came of a job.
    pub fn complete(&mut self, done: Done<R>) {
        self.engine.complete(done);
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

    /// Counts a fetch that the host sends upstream.
    pub fn count_upstream_fetch(&self) {
        self.counters.upstream_fetches.add(1);
    }

    /// Counts the bytes of records that came for one.
    pub fn count_upstream_bytes(&self, bytes: u64) {
        self.counters.upstream_bytes.add(bytes);
    }

    /// Counts those of them that came from a replica in the host's own rack.
    pub fn count_replica_bytes(&self, bytes: u64) {
        self.counters.replica_bytes.add(bytes);
    }

    /// The figures of this moment.
    pub fn statistics(&self) -> Statistics {
        let (hits, misses) = (self.counters.hits.get(), self.counters.misses.get());
        Statistics {
            size_bytes: self.engine.held_bytes(),
            limit_bytes: self.settings.size_limit_bytes,
            effective_limit_bytes: self.engine.effective_limit_bytes(),
            unwritten_bytes: self.engine.unwritten_bytes(),
            batches: self.engine.batches(),
            partitions: self.engine.partitions.len() as u64,
            segments: self.engine.segments(),
            lookups: hits + misses,
            hits,
            misses,
            inserts: self.counters.inserts.get(),
            evictions: self.engine.evictions,
            rejected: self.counters.rejected.get(),
            errors: self.counters.errors.get(),
            storage_errors: self.engine.storage_errors,
            storage_paused: self.engine.is_storage_paused().into(),
            upstream_fetches: self.counters.upstream_fetches.get(),
            upstream_bytes: self.counters.upstream_bytes.get(),
            replica_bytes: self.counters.replica_bytes.get(),
            bytes_saved: self.counters.bytes_saved.get(),
        }
    }

    /// What counts against the limit, in bytes, by the running account and summed up anew over everything that is held.
    /// The two are equal; this is for tests of that.
    pub fn audit(&self) -> (u64, u64) {
        (self.engine.size_bytes(), self.engine.resum_bytes())
    }

    /// The partitions of which anything is cached, in order.
    pub fn partitions(&self) -> Vec<PartitionKey> {
        let mut keys: Vec<PartitionKey> = self.engine.partitions.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    /// For how long what has been served at an offset at this moment may be served on without asking: the rest of the
    /// staleness bound, zero where that is not known, the offset is no longer cached, or the cleaner may rewrite the log
    /// (H5). `Duration::MAX` where the bound is forever.
    pub fn fresh_for(&self, key: &PartitionKey, offset: i64, now: Instant) -> Duration {
        let MaxStaleness::Within(bound) = self.settings.max_staleness else {
            return Duration::MAX;
        };
        let Some(partition) = self.engine.partitions.get(key) else {
            return Duration::ZERO;
        };
        let state = &partition.state;
        // It may have been truncated or deleted since.
        let still_stands = offset >= state.log_start_offset && partition.index.get(offset).is_some();
        match state.validated_at {
            Some(validated_at) if still_stands && !state.is_compacted => {
                bound.saturating_sub(now.since(validated_at))
            }
            _ => Duration::ZERO,
        }
    }

    /// The key of a partition that a request names; `None` for the zero id (H28) and for a name whose id is not known.
    fn key(&self, topic: &TopicRef, partition: i32, now: Instant) -> Option<PartitionKey> {
        let topic_id = match topic {
            TopicRef::Id(id) => Some(*id).filter(|id| !id.is_zero()),
            TopicRef::Name(name) => self.names.current(name, now, self.settings.max_staleness),
        };
        topic_id.map(|topic_id| PartitionKey { topic_id, partition })
    }

    /// Which offsets of a partition are cached, as runs in ascending order.
    pub fn covered(&self, key: PartitionKey) -> Vec<OffsetSpan> {
        self.engine
            .partitions
            .get(&key)
            .map(|partition| partition.index.covered())
            .unwrap_or_default()
    }

    /// When a broker was last asked for, or about, what is cached of a partition: what is served of it is no older. `None`
    /// if nothing is cached of it or none of that may be served before it has been validated.
    pub fn validated_at(&self, key: &PartitionKey) -> Option<Instant> {
        self.engine.partitions.get(key)?.state.validated_at
    }

    /// The cached batch that answers a fetch at `offset`: the one that holds it, or the next behind a gap. Gives what
    /// lies there whatever its age, and counts nothing but a hit of the batch; what may be served to whom, only
    /// [`Self::plan`] judges.
    pub fn batch(&self, key: &PartitionKey, offset: i64) -> Option<Bytes> {
        let (batch, mark) = self.engine.partitions.get(key)?.index.get(offset)?;
        if mark.is_faulty() {
            return None;
        }
        let bytes = self.engine.batch_now(key, &batch, mark)?;
        mark.hit();
        Some(bytes)
    }

    /// Like [`Self::batch`], without taking a share of the memory: where the batch lies in memory as it is.
    pub fn batch_slice(&self, key: &PartitionKey, offset: i64) -> Option<&[u8]> {
        let (location, mark) = self.engine.partitions.get(key)?.index.locate(offset)?;
        let slice = self.engine.batch_slice(&location)?;
        mark.hit();
        Some(slice)
    }

    /// The first cached batch of a partition that holds a record at or after `timestamp`, in milliseconds since 1970,
    /// as far as can be told without waiting. The broker may have an earlier one that is not cached; there is
    /// none if everything from the log start on is [covered](Self::covered).
    pub fn first_since(&self, key: &PartitionKey, timestamp: i64) -> Option<OffsetSpan> {
        let partition = self.engine.partitions.get(key)?;
        let holds = |batch: &crate::index::IndexedBatch| {
            let (_, mark) = partition.index.by_last_offset(batch.covers.last())?;
            let bytes = self.engine.batch_now(key, batch, mark)?;
            let max_timestamp = RecordBatch::parse(&bytes).ok()?.max_timestamp();
            (max_timestamp >= timestamp).then_some(batch.span)
        };
        partition.index.since(timestamp).find_map(|batch| holds(&batch))
    }
}
