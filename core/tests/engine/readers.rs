//! Readers on several threads hold what they were served while its segments are evicted (H26).

use bytes::Bytes;
use kachet_core::cache::{Harvest, MemoryCache};
use kachet_core::wire::FetchResponse;

use crate::batches::{CRC, at, data, numbered, request, request_one, response_of, unbounded};

const LIMIT_BYTES: u64 = 200_000;
const SEGMENT_BYTES: u32 = 8_000;
const BATCH_BYTES: usize = 1_000;

fn absorb(cache: &mut MemoryCache, number: i64) {
    let request = request(0, 10 * number);
    let answer = response_of(vec![data(0, i64::MAX, numbered(number, BATCH_BYTES))]);
    for harvest in Harvest::gather(&request, &answer, CRC) {
        cache.absorb(harvest, at(0));
    }
}

fn hit(cache: &MemoryCache, number: i64) -> Option<Bytes> {
    let plan = cache.plan(request_one(0, 10 * number), at(0));
    let answer = plan.merge(FetchResponse::default());
    let (_, data) = answer.partitions().next()?;
    data.records
        .as_ref()
        .and_then(|records| records.slices().next().cloned())
}

/// WASI has no threads.
#[cfg(not(target_family = "wasm"))]
mod on_threads {
    use std::collections::HashMap;
    use std::sync::RwLock;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::thread;

    use super::*;
    use crate::batches::key;

    const BATCHES: i64 = 600;
    const READERS: u64 = 3;
    /// Few enough that the cache has room beside their segments.
    const HELD_MAX: usize = 4;

    /// By number.
    type Held = HashMap<i64, Bytes>;

    fn assert_unchanged(held: &Held) {
        for (number, bytes) in held {
            assert_eq!(*bytes, numbered(*number, BATCH_BYTES), "batch {number}");
        }
    }

    /// Reads until it is told to stop, and gives what it holds then.
    fn read(cache: &RwLock<MemoryCache>, is_over: &AtomicBool, seed: u64) -> Held {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut held = Held::new();
        while !is_over.load(SeqCst) {
            let runs = cache.read().unwrap().covered(key(0));
            let Some(run) = runs.first() else {
                thread::yield_now();
                continue;
            };
            let number = random.i64(run.base()..=run.last()) / 10;
            let bytes = hit(&cache.read().unwrap(), number);
            assert_unchanged(&held);
            if held.len() >= HELD_MAX {
                let oldest = held.keys().copied().min();
                held.retain(|number, _| Some(*number) != oldest);
            }
            held.extend(bytes.map(|bytes| (number, bytes)));
        }
        held
    }

    #[test]
    fn what_readers_hold_stays_as_it_was_and_counts_until_they_let_go() {
        let settings = unbounded(LIMIT_BYTES, Some(SEGMENT_BYTES));
        let cache = RwLock::new(MemoryCache::new(settings, CRC));
        let is_over = AtomicBool::new(false);
        let held: Vec<Held> = thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS)
                .map(|seed| {
                    scope.spawn({
                        let (cache, is_over) = (&cache, &is_over);
                        move || read(cache, is_over, seed)
                    })
                })
                .collect();
            for number in 0..BATCHES {
                let mut cache = cache.write().unwrap();
                absorb(&mut cache, number);
                let (counted, summed) = cache.audit();
                assert_eq!(counted, summed);
                assert!(counted <= LIMIT_BYTES);
                drop(cache);
                thread::yield_now();
            }
            is_over.store(true, SeqCst);
            readers.into_iter().map(|reader| reader.join().unwrap()).collect()
        });
        let mut cache = cache.into_inner().unwrap();
        assert!(cache.statistics().evictions > 300);
        cache.clear();
        cache.set_size_limit_bytes(0);
        let distinct: Held = held
            .iter()
            .flatten()
            .map(|(number, bytes)| (*number, bytes.clone()))
            .collect();
        let held_bytes: usize = distinct.values().map(Bytes::len).sum();
        assert!(held_bytes > 0, "somebody holds something");
        assert_unchanged(&distinct);
        assert!(
            cache.statistics().size_bytes >= held_bytes as u64,
            "{held_bytes}: it counts"
        );
        drop((held, distinct));
        assert_eq!(cache.statistics().size_bytes, 0, "and now no more");
    }
}

#[test]
fn what_was_read_before_its_segment_was_sealed_counts_as_well() {
    let mut cache = MemoryCache::new(unbounded(LIMIT_BYTES, Some(SEGMENT_BYTES)), CRC);
    absorb(&mut cache, 0);
    let held = hit(&cache, 0).unwrap();
    for number in 1..20 {
        absorb(&mut cache, number);
    }
    cache.clear();
    cache.set_size_limit_bytes(0);
    assert!(cache.statistics().size_bytes >= held.len() as u64, "it counts");
    drop(held);
    assert_eq!(cache.statistics().size_bytes, 0);
}
