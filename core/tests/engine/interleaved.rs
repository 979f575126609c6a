//! What happens to the cache while a job is under way, whose outcome is reported afterwards.

use std::collections::HashMap;

use bytes::Bytes;
use kachet_core::cache::{Absorbed, Harvest};
use kachet_core::storage::MemoryStorage;

use crate::batches::{CRC, Shape, at, data, key, make, request, request_one, response_of, unbounded};
use crate::driver::{Driver, block_on};
use crate::medium::Lying;

type Memory = Driver<MemoryStorage>;

/// Of the same size whatever its fill.
fn batch(number: i64, fill: u64) -> Bytes {
    make(Shape {
        payload_bytes: 300,
        fill,
        ..Shape::new(10 * number, 10 * number + 9)
    })
}

/// Keeps a batch if there is room at once.
fn absorb(memory: &mut Memory, number: i64, batch: &Bytes) {
    let request = request(0, 10 * number);
    let answer = response_of(vec![data(0, i64::MAX, batch.clone())]);
    for mut harvest in Harvest::gather(&request, &answer, CRC) {
        if memory.cache.absorb(&mut harvest, at(0)) == Absorbed::NeedsRoom {
            memory.cache.reject(&mut harvest);
        }
    }
}

#[test]
fn a_log_that_changes_while_batches_of_it_move_on_is_served_as_it_is_now() {
    let mut random = fastrand::Rng::with_seed(1);
    let settings = unbounded(40_000, Some(4_000));
    let mut memory: Memory = Driver::over(settings, MemoryStorage::new(), Lying::default());
    let mut log: HashMap<i64, Bytes> = HashMap::new();
    let mut changed = 0;
    for step in 0..800 {
        let number = random.i64(0..150);
        let bytes = log.entry(number).or_insert_with(|| batch(number, 1)).clone();
        absorb(&mut memory, number, &bytes);
        memory.hit(&request_one(0, 10 * random.i64(0..40)), at(0));
        while let Some(job) = memory.cache.next_job() {
            let done = block_on(job.perform(&mut memory.storage, CRC));
            let covered = memory.cache.covered(key(0));
            if let Some(run) = covered.get(random.usize(0..=covered.len())) {
                // Another batch in the place of a cached one, as after a truncation, and what was there comes back last.
                let number = run.base() / 10;
                let other = batch(number, 2 + step);
                absorb(&mut memory, number, &other);
                log.retain(|behind, _| *behind < number);
                log.insert(number, other);
                changed += 1;
            }
            memory.cache.complete(done);
            memory.check();
        }
        for number in 0..150 {
            if let Some(hit) = memory.hit(&request_one(0, 10 * number), at(0)) {
                assert_eq!(Some(&hit), log.get(&number), "batch {number}");
            }
        }
    }
    assert!(changed > 30, "{changed}");
}
