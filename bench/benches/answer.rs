//! How long a whole hit takes, from the bytes of a Fetch request to those of the response: decoded, planned, encoded.
//!
//! `cargo bench -p kachet-bench --bench answer`

use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use kachet_bench::answers::{answer, request};
use kachet_bench::filled::{batches, cache, lookups};
use kachet_core::identity::PartitionKey;
use kachet_core::wire::Chunks;

fn whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("answer");
    for count in [10_000, 1_000_000] {
        let held = batches(count, 1, 200);
        let cache = cache(&held, 8 << 30);
        for (isolation, level) in [("uncommitted", 0), ("committed", 1)] {
            let asked = lookups(&held, 1 << 16);
            let request = |(key, offset): &(PartitionKey, i64)| request(key.partition, *offset, level);
            let requests: Vec<Bytes> = asked.iter().map(request).collect();
            let mut encoded = Chunks::new();
            let mut requests = requests.iter().cycle();
            group.bench_function(BenchmarkId::new(isolation, format!("{count} batches")), |bench| {
                bench.iter(|| {
                    requests
                        .next()
                        .map(|request| answer(&cache, request, &mut encoded))
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = whole
}
criterion_main!(benches);
