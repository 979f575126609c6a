//! What a cache has done. These names are the same in every output of the project.

use core::sync::atomic::{AtomicU64, Ordering};

/// A moment's figures of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// What counts against the limit, in bytes: in memory all that is held, the index and what readers still hold of
    /// evicted batches included; on another medium what lies there.
    pub size_bytes: u64,
    /// The size limit, in bytes; 0 passes everything through.
    pub limit_bytes: u64,
    /// What may be held, in bytes: the size limit, or less where the medium has turned out to be full.
    pub effective_limit_bytes: u64,
    /// Bytes of records that are in memory because the storage has not taken them yet; what a crash would lose. 0 in
    /// memory.
    pub unwritten_bytes: u64,
    /// Batches in the cache.
    pub batches: u64,
    /// Partitions that have a batch in the cache.
    pub partitions: u64,
    /// Segments in which they lie.
    pub segments: u64,
    /// Partitions that fetches asked the cache for.
    pub lookups: u64,
    /// Lookups that were answered from the cache.
    pub hits: u64,
    /// Lookups that were not.
    pub misses: u64,
    /// Batches that were put into the cache.
    pub inserts: u64,
    /// Batches that were taken out to stay under the limit.
    pub evictions: u64,
    /// Batches that were not put into the cache: larger than the limit, of a legacy format, or not yet stable.
    pub rejected: u64,
    /// Faults that the cache met and that cost a miss: corrupt batches, responses that contradict the request.
    pub errors: u64,
    /// Operations of the storage that failed.
    pub storage_errors: u64,
    /// 1 while the storage fails whatever it is to write, so that only now and then a batch is put into the cache, to find
    /// out whether it has recovered; else 0.
    pub storage_paused: u64,
    /// Fetches that were sent upstream.
    pub upstream_fetches: u64,
    /// Bytes of records that came for them.
    pub upstream_bytes: u64,
    /// Of these, those that came from replicas in the cache's own rack instead of from leaders.
    pub replica_bytes: u64,
    /// Bytes of records that came from the cache instead of from upstream.
    pub bytes_saved: u64,
}

impl Statistics {
    /// Every figure with its name, in the order of the fields.
    pub fn named(&self) -> [(&'static str, u64); 20] {
        [
            ("size_bytes", self.size_bytes),
            ("limit_bytes", self.limit_bytes),
            ("effective_limit_bytes", self.effective_limit_bytes),
            ("unwritten_bytes", self.unwritten_bytes),
            ("batches", self.batches),
            ("partitions", self.partitions),
            ("segments", self.segments),
            ("lookups", self.lookups),
            ("hits", self.hits),
            ("misses", self.misses),
            ("inserts", self.inserts),
            ("evictions", self.evictions),
            ("rejected", self.rejected),
            ("errors", self.errors),
            ("storage_errors", self.storage_errors),
            ("storage_paused", self.storage_paused),
            ("upstream_fetches", self.upstream_fetches),
            ("upstream_bytes", self.upstream_bytes),
            ("replica_bytes", self.replica_bytes),
            ("bytes_saved", self.bytes_saved),
        ]
    }
}

/// A count that shared readers may raise.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) inserts: Counter,
    pub(crate) rejected: Counter,
    pub(crate) errors: Counter,
    pub(crate) upstream_fetches: Counter,
    pub(crate) upstream_bytes: Counter,
    pub(crate) replica_bytes: Counter,
    pub(crate) bytes_saved: Counter,
}
