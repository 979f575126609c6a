//! How long a whole hit takes, from the bytes of a Fetch request to those of the response: decoded, planned, encoded.
//!
//! `cargo bench -p kachet-bench --bench answer`

use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use kachet_bench::filled::{TOPIC, batches, cache, lookups};
use kachet_core::cache::MemoryCache;
use kachet_core::identity::PartitionKey;
use kachet_core::time::Instant;
use kachet_core::wire::{Chunks, FetchPartition, FetchRequest, FetchTopic, TaggedFields, TopicRef};

/// With ids and tagged fields.
const VERSION: i16 = 17;

/// A request for one batch.
fn request(partition: i32, fetch_offset: i64, isolation_level: i8) -> Bytes {
    let request = FetchRequest {
        isolation_level,
        topics: vec![FetchTopic {
            topic: TopicRef::Id(TOPIC),
            partitions: vec![FetchPartition::new(partition, fetch_offset, 1)],
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    };
    let mut encoded = Chunks::new();
    request
        .encode(VERSION, &mut encoded)
        .expect("the version is spoken");
    encoded.into_bytes()
}

/// Answers a request; gives the size of the answer, in bytes, so that nothing of it can be left out.
fn answer(cache: &MemoryCache, request: &Bytes, encoded: &mut Chunks) -> usize {
    let request = FetchRequest::decode(request.clone(), VERSION).expect("it is a request");
    let plan = cache.plan(request, Instant::default());
    encoded.clear();
    let is_whole = plan.encode_response(VERSION, encoded);
    assert_eq!(is_whole, Ok(true), "every batch is held");
    encoded.size_bytes()
}

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
