//! How long it takes to get from (partition, offset) to the bytes of the batch that holds it, beside what a service
//! would put together from general caches: a map of ranges for each partition, and behind it the cache.
//!
//! `cargo bench -p kachet-bench --bench lookup`

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use crossbeam_utils::sync::ShardedLock;
use foyer_memory::{CacheBuilder, CacheProperties, S3FifoConfig};
use hashbrown::DefaultHashBuilder;
use kachet_bench::filled::{BatchAt, batches, cache, key, lookups};
use kachet_core::cache::MemoryCache;
use kachet_core::identity::PartitionKey;

type Lookups = [(PartitionKey, i64)];
/// How a peer names a batch: by partition and base offset.
type Exact = (PartitionKey, i64);

/// Which base offset an offset belongs to, by partition and last offset.
struct Ranges(hashbrown::HashMap<PartitionKey, RwLock<BTreeMap<i64, i64>>>);

impl Ranges {
    fn new(batches: &[BatchAt]) -> Self {
        let mut ranges = hashbrown::HashMap::<_, RwLock<BTreeMap<_, _>>>::new();
        for batch in batches {
            let of_partition = ranges.entry(key(batch.partition)).or_default();
            of_partition.get_mut().unwrap().insert(batch.last(), batch.base);
        }
        Self(ranges)
    }

    fn base(&self, key: &PartitionKey, offset: i64) -> Option<i64> {
        let ranges = self.0.get(key)?.read().unwrap();
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
trait Holder: Sync {
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
struct Borrowed<'a>(&'a MemoryCache);
/// A share of the batch, which outlives the cache.
struct Owned<'a>(&'a MemoryCache);
/// A share of the batch, from a cache that many threads read and write.
struct Guarded<'a>(&'a RwLock<MemoryCache>);
/// The same behind a lock of which each thread takes a part of its own to read.
struct Sharded<'a>(&'a ShardedLock<MemoryCache>);

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
        let cache = self.0.read().unwrap();
        cache.batch(key, offset).expect("every batch is held").len()
    }
}

impl Holder for Sharded<'_> {
    fn size_bytes(&self, key: &PartitionKey, offset: i64) -> usize {
        let cache = self.0.read().unwrap();
        cache.batch(key, offset).expect("every batch is held").len()
    }
}

/// The time that `iterations` lookups take on each of `threads` threads.
fn on_threads(holder: &dyn Holder, lookups: &Lookups, threads: usize, iterations: u64) -> Duration {
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
            .map(|other| other.join().unwrap())
            .fold(own, Duration::max)
    })
}

fn bench_holder(criterion: &mut Criterion, group: &str, name: &str, holder: &dyn Holder, lookups: &Lookups) {
    let mut group = criterion.benchmark_group(group);
    for threads in [1, 2] {
        group.bench_with_input(
            BenchmarkId::new(name, format!("{threads} threads")),
            &threads,
            |bench, threads| {
                bench.iter_custom(|iterations| on_threads(holder, lookups, *threads, iterations));
            },
        );
    }
}

fn compare(criterion: &mut Criterion, count: usize, partitions: i32, size_bytes: usize) {
    let held = batches(count, partitions, size_bytes);
    let asked = lookups(&held, 1 << 20);
    let name = format!("lookup/{count} batches, {partitions} partitions");
    let bytes = |batch: &BatchAt| (((key(batch.partition)), batch.base), batch.bytes());
    {
        let cache = cache(&held, 8 << 30);
        bench_holder(criterion, &name, "kachet, borrowed", &Borrowed(&cache), &asked);
        bench_holder(criterion, &name, "kachet, owned", &Owned(&cache), &asked);
        let locked = RwLock::new(cache);
        bench_holder(
            criterion,
            &name,
            "kachet, owned, locked",
            &Guarded(&locked),
            &asked,
        );
        let sharded = ShardedLock::new(locked.into_inner().unwrap());
        bench_holder(
            criterion,
            &name,
            "kachet, owned, sharded",
            &Sharded(&sharded),
            &asked,
        );
    }
    {
        let exactly = quick_cache::sync::Cache::with(
            2 * count,
            2 * count as u64,
            quick_cache::UnitWeighter,
            DefaultHashBuilder::default(),
            quick_cache::sync::DefaultLifecycle::default(),
        );
        held.iter()
            .map(bytes)
            .for_each(|(exact, batch)| exactly.insert(exact, batch));
        let ranges = Ranges::new(&held);
        bench_holder(
            criterion,
            &name,
            "quick_cache + BTreeMap",
            &ByRange { ranges, exactly },
            &asked,
        );
    }
    {
        let exactly = moka::sync::Cache::builder()
            .max_capacity(2 * count as u64)
            .build_with_hasher(DefaultHashBuilder::default());
        held.iter()
            .map(bytes)
            .for_each(|(exact, batch)| exactly.insert(exact, batch));
        exactly.run_pending_tasks();
        let ranges = Ranges::new(&held);
        bench_holder(
            criterion,
            &name,
            "moka + BTreeMap",
            &ByRange { ranges, exactly },
            &asked,
        );
    }
    {
        let exactly: FoyerCache = CacheBuilder::new(2 * count)
            .with_eviction_config(S3FifoConfig::default())
            .with_hash_builder(DefaultHashBuilder::default())
            .build();
        for (exact, batch) in held.iter().map(bytes) {
            exactly.insert(exact, batch);
        }
        let ranges = Ranges::new(&held);
        bench_holder(
            criterion,
            &name,
            "foyer + BTreeMap",
            &ByRange { ranges, exactly },
            &asked,
        );
    }
}

fn lookup(criterion: &mut Criterion) {
    compare(criterion, 10_000, 1, 2_000);
    compare(criterion, 10_000, 100, 2_000);
    compare(criterion, 1_000_000, 1, 200);
    compare(criterion, 1_000_000, 1_000, 200);
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = lookup
}
criterion_main!(benches);
