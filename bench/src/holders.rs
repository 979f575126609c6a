//! What is asked for a batch by partition and offset: the cache, and what a service would put together from general
//! caches: a map of ranges for each partition, and behind it the cache.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_utils::sync::ShardedLock;
use foyer_memory::{CacheBuilder, CacheProperties, S3FifoConfig};
use hashbrown::DefaultHashBuilder;
use kachet_core::cache::MemoryCache;
use kachet_core::identity::PartitionKey;

use crate::filled::{BatchAt, key};

/// Offsets to look up, each with its partition.
pub type Lookups = [(PartitionKey, i64)];
/// How a peer names a batch: by partition and base offset.
type Exact = (PartitionKey, i64);

/// Which base offset an offset belongs to, by partition and last offset.
struct Ranges(hashbrown::HashMap<PartitionKey, RwLock<BTreeMap<i64, i64>>>);

impl Ranges {
    fn new(batches: &[BatchAt]) -> Self {
        let mut ranges = hashbrown::HashMap::<_, RwLock<BTreeMap<_, _>>>::new();
        for batch in batches {
            let of_partition = ranges.entry(key(batch.partition)).or_default();
            of_partition
                .get_mut()
                .expect("no thread has panicked")
                .insert(batch.last(), batch.base);
        }
        Self(ranges)
    }

    fn base(&self, key: &PartitionKey, offset: i64) -> Option<i64> {
        let ranges = self.0.get(key)?.read().expect("no thread has panicked");
        let (_, base) = ranges.range(offset..).next()?;
        (*base <= offset).then_some(*base)
    }
}

/// A general cache behind a map of ranges.
trait Exactly: Sync {
    fn get(&self, exact: &Exact) -> Option<Bytes>;
}

struct ByRange<C> {
    ranges: Ranges,
    exactly: C,
}

/// Anything that is asked for a batch.
pub trait Holder: Sync {
    /// Size of the batch, in bytes, so that nothing of the lookup can be left out.
    fn size_bytes(&self, key: &PartitionKey, offset: i64) -> usize;
}

impl<C: Exactly> Holder for ByRange<C> {
    fn size_bytes(&self, key: &PartitionKey, offset: i64) -> usize {
        let base = self.ranges.base(key, offset).expect("every offset is held");
        self.exactly
            .get(&(*key, base))
            .expect("every batch is held")
            .len()
    }
}

impl Exactly for quick_cache::sync::Cache<Exact, Bytes, quick_cache::UnitWeighter, DefaultHashBuilder> {
    fn get(&self, exact: &Exact) -> Option<Bytes> {
        Self::get(self, exact)
    }
}

impl Exactly for moka::sync::Cache<Exact, Bytes, DefaultHashBuilder> {
    fn get(&self, exact: &Exact) -> Option<Bytes> {
        Self::get(self, exact)
    }
}

type FoyerCache = foyer_memory::Cache<Exact, Bytes, DefaultHashBuilder, CacheProperties>;

impl Exactly for FoyerCache {
    fn get(&self, exact: &Exact) -> Option<Bytes> {
        Self::get(self, exact).map(|entry| entry.value().clone())
    }
}

/// The batch where it lies in memory.
pub struct Borrowed<'a>(pub &'a MemoryCache);
/// A share of the batch, which outlives the cache.
pub struct Owned<'a>(pub &'a MemoryCache);
/// A share of the batch, from a cache that many threads read and write.
pub struct Guarded<'a>(pub &'a RwLock<MemoryCache>);
/// The same behind a lock of which each thread takes a part of its own to read.
pub struct Sharded<'a>(pub &'a ShardedLock<MemoryCache>);

impl Holder for Borrowed<'_> {
    fn size_bytes(&self, key: &PartitionKey, offset: i64) -> usize {
        self.0
            .batch_slice(key, offset)
            .expect("every batch is held")
            .len()
    }
}

impl Holder for Owned<'_> {
    fn size_bytes(&self, key: &PartitionKey, offset: i64) -> usize {
        self.0.batch(key, offset).expect("every batch is held").len()
    }
}

impl Holder for Guarded<'_> {
    fn size_bytes(&self, key: &PartitionKey, offset: i64) -> usize {
        let cache = self.0.read().expect("no thread has panicked");
        cache.batch(key, offset).expect("every batch is held").len()
    }
}

impl Holder for Sharded<'_> {
    fn size_bytes(&self, key: &PartitionKey, offset: i64) -> usize {
        let cache = self.0.read().expect("no thread has panicked");
        cache.batch(key, offset).expect("every batch is held").len()
    }
}

/// The time that `iterations` lookups take on each of `threads` threads.
///
/// # Panics
/// If a batch is not held.
pub fn on_threads(holder: &dyn Holder, lookups: &Lookups, threads: usize, iterations: u64) -> Duration {
    let ready = AtomicUsize::new(0);
    let work = |thread: usize| {
        let from = lookups.len() / 2 * thread;
        ready.fetch_add(1, Ordering::SeqCst);
        while ready.load(Ordering::SeqCst) < threads {
            std::hint::spin_loop();
        }
        let begin = Instant::now();
        let (mut at, mut sum) = (from, 0);
        for _ in 0..iterations {
            let (key, offset) = &lookups[at];
            sum += holder.size_bytes(key, *offset);
            at += 1;
            if at == lookups.len() {
                at = 0;
            }
        }
        black_box(sum);
        begin.elapsed()
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|thread| scope.spawn(move || work(thread)))
            .collect();
        let own = work(0);
        others
            .into_iter()
            .map(|other| other.join().expect("no thread has panicked"))
            .fold(own, Duration::max)
    })
}

/// The batches in a map for each partition, and no limit.
struct Mapped(hashbrown::HashMap<PartitionKey, RwLock<ByLastOffset>>);

/// The base offset and the batch by its last offset.
type ByLastOffset = BTreeMap<i64, (i64, Bytes)>;

impl Holder for Mapped {
    fn size_bytes(&self, key: &PartitionKey, offset: i64) -> usize {
        let of_partition = self.0.get(key).expect("every partition is held").read();
        let of_partition = of_partition.expect("no thread has panicked");
        let (_, (base, batch)) = of_partition.range(offset..).next().expect("every batch is held");
        assert!(*base <= offset, "every offset is held");
        batch.clone().len()
    }
}

/// Batches by what names them, without ranges, order and limit, which answers only for their first offsets.
struct Named(hashbrown::HashMap<Exact, Bytes>);

impl Holder for Named {
    fn size_bytes(&self, key: &PartitionKey, base: i64) -> usize {
        self.0
            .get(&(*key, base))
            .expect("every batch is held")
            .clone()
            .len()
    }
}

/// A batch, by what a peer calls it.
pub type Held = (PartitionKey, i64, Bytes);

/// The batches, made once and shared by all who hold them.
pub fn held(batches: &[BatchAt]) -> Vec<Held> {
    batches
        .iter()
        .map(|batch| (key(batch.partition), batch.base, batch.bytes()))
        .collect()
}

/// Anything that holds batches.
pub type AnyHolder = Box<dyn Holder>;

/// `quick_cache`, with room for twice as much.
pub fn quick_cache(batches: &[BatchAt], held: &[Held]) -> AnyHolder {
    let exactly = quick_cache::sync::Cache::with(
        2 * held.len(),
        2 * held.len() as u64,
        quick_cache::UnitWeighter,
        DefaultHashBuilder::default(),
        quick_cache::sync::DefaultLifecycle::default(),
    );
    for (key, base, batch) in held {
        exactly.insert((*key, *base), batch.clone());
    }
    let ranges = Ranges::new(batches);
    Box::new(ByRange { ranges, exactly })
}

/// moka, with room for twice as much.
pub fn moka(batches: &[BatchAt], held: &[Held]) -> AnyHolder {
    let exactly = moka::sync::Cache::builder()
        .max_capacity(2 * held.len() as u64)
        .build_with_hasher(DefaultHashBuilder::default());
    for (key, base, batch) in held {
        exactly.insert((*key, *base), batch.clone());
    }
    exactly.run_pending_tasks();
    let ranges = Ranges::new(batches);
    Box::new(ByRange { ranges, exactly })
}

/// foyer in memory, with S3-FIFO and room for twice as much.
pub fn foyer(batches: &[BatchAt], held: &[Held]) -> AnyHolder {
    let exactly: FoyerCache = CacheBuilder::new(2 * held.len())
        .with_eviction_config(S3FifoConfig::default())
        .with_hash_builder(DefaultHashBuilder::default())
        .build();
    for (key, base, batch) in held {
        exactly.insert((*key, *base), batch.clone());
    }
    let ranges = Ranges::new(batches);
    Box::new(ByRange { ranges, exactly })
}

/// A plain map for each partition.
///
/// # Panics
/// Never: nobody else has the locks as yet.
pub fn btree_map(batches: &[BatchAt], held: &[Held]) -> AnyHolder {
    let mut maps = hashbrown::HashMap::<_, RwLock<BTreeMap<_, _>>>::new();
    for (batch, (key, base, bytes)) in batches.iter().zip(held) {
        let of_partition = maps.entry(*key).or_default().get_mut();
        let of_partition = of_partition.expect("no thread has panicked");
        of_partition.insert(batch.last(), (*base, bytes.clone()));
    }
    Box::new(Mapped(maps))
}

/// A hash map, which is asked for first offsets.
pub fn hash_map(_: &[BatchAt], held: &[Held]) -> AnyHolder {
    let batches = held
        .iter()
        .map(|(key, base, batch)| ((*key, *base), batch.clone()));
    Box::new(Named(batches.collect()))
}
