//! How long it takes to get from (partition, offset) to the bytes of the batch that holds it, beside what a service
//! would put together from general caches.
//!
//! `cargo bench -p kachet-bench --bench lookup`

use std::sync::RwLock;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use crossbeam_utils::sync::ShardedLock;
use kachet_bench::filled::{batches, cache, lookups};
use kachet_bench::holders::{self, Borrowed, Guarded, Holder, Lookups, Owned, Sharded, on_threads};

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
    let batches = holders::held(&held);
    bench_holder(
        criterion,
        &name,
        "quick_cache + BTreeMap",
        &*holders::quick_cache(&held, &batches),
        &asked,
    );
    bench_holder(
        criterion,
        &name,
        "moka + BTreeMap",
        &*holders::moka(&held, &batches),
        &asked,
    );
    bench_holder(
        criterion,
        &name,
        "foyer + BTreeMap",
        &*holders::foyer(&held, &batches),
        &asked,
    );
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
