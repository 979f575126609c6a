//! Readers that read a partition from its beginning to its end, one behind the other.

use alloc::format;
use alloc::string::String;

use super::*;

const BATCHES: i64 = 2_000;
const LAG: i64 = 150;
/// As much as 250 batches take, and what the cache takes beside them.
const LIMIT_BYTES: u64 = 300_000;

/// A fetch that has room for one batch.
fn step(offset: i64) -> FetchRequest {
    let mut request = request(offset);
    request.topics[0].partitions[0].partition_max_bytes = 1;
    request
}

/// Reads a batch of one record. Says whether it was cached.
fn read(cache: &mut MemoryCache, offset: i64) -> bool {
    if hit(cache, step(offset)).is_some() {
        return true;
    }
    let batch = make(Shape {
        payload_bytes: 1_000,
        ..shape(offset, 1)
    });
    fill(cache, offset, BATCHES, &[batch]);
    false
}

#[test]
fn the_second_reader_finds_what_the_first_one_left_for_it() {
    let mut cache = cache_of(LIMIT_BYTES);
    let mut hits = 0;
    for offset in 0..BATCHES {
        assert!(!read(&mut cache, offset), "nobody was here before");
        if let Some(behind) = offset.checked_sub(LAG).filter(|behind| *behind >= 0) {
            hits += i64::from(read(&mut cache, behind));
        }
        check_accounting(&cache);
    }
    let read = BATCHES - LAG;
    assert!(hits > read * 9 / 10, "{hits} of {read}");
    let judged = !format!("{cache:?}").contains("aid_balance_bytes: 0,");
    assert!(judged, "that it was kept with success is noted");
}

fn readers(cache: &MemoryCache) -> String {
    format!("{:?}", cache.engine.partitions[&KEY].readers)
}

#[test]
fn a_hit_tells_where_a_reader_is_and_a_peek_does_not() {
    let mut cache = cache_of(LIMIT_BYTES);
    for offset in 0..20 {
        read(&mut cache, offset);
    }
    let before = readers(&cache);
    let asked = FetchPartition::new(0, 3, 1);
    assert!(cache.peek(TOPIC, &asked, false, at(0)).is_some());
    assert_eq!(readers(&cache), before);
    assert!(cache.batch(&KEY, 3).is_some());
    assert_eq!(readers(&cache), before, "a look-up is no reader");
    assert!(cache.hit(TOPIC, &asked, false, at(0)).is_some());
    assert_ne!(readers(&cache), before);
}
