//! Limits of a request (H12), and of memory (H26).

use super::*;

#[test]
fn a_hit_keeps_to_the_limits_and_gives_the_first_batch_whole() {
    let mut cache = cache_of(1 << 20);
    let batches = [batch(0, 10), batch(10, 10), batch(20, 10)];
    fill(&mut cache, 0, 100, &batches);
    let size = i32::try_from(batches[0].len()).unwrap();
    let limited = |partition_max_bytes, max_bytes| {
        let mut request = FetchRequest {
            max_bytes,
            ..request(0)
        };
        request.topics[0].partitions[0].partition_max_bytes = partition_max_bytes;
        request
    };
    let of = |count: usize| Some(join(&batches[..count]));
    assert_eq!(hit(&cache, limited(0, 0)), of(1));
    assert_eq!(hit(&cache, limited(size - 1, 1 << 20)), of(1));
    assert_eq!(hit(&cache, limited(2 * size, 1 << 20)), of(2));
    assert_eq!(hit(&cache, limited(2 * size + 1, 1 << 20)), of(2));
    assert_eq!(hit(&cache, limited(1 << 20, 3 * size - 1)), of(2));
    assert_eq!(hit(&cache, limited(1 << 20, 3 * size)), of(3));
}

#[test]
fn a_later_partition_whose_first_batch_does_not_fit_is_empty() {
    let mut cache = cache_of(1 << 20);
    let both = request_of(&[(0, 0), (1, 0)]);
    let records = [batch(0, 10), batch(0, 5)];
    let answer = response_of(vec![
        data(0, 10, records[0].clone()),
        data(1, 5, records[1].clone()),
    ]);
    absorb(&mut cache, &both, &answer);
    let max_bytes = i32::try_from(records[0].len() + records[1].len() - 1).unwrap();
    let answer = cache
        .plan(FetchRequest { max_bytes, ..both }, at(0))
        .into_response()
        .unwrap();
    let sizes: Vec<_> = answer
        .partitions()
        .map(|(_, data)| data.records_size_bytes())
        .collect();
    assert_eq!(sizes, [records[0].len(), 0]);
    assert_eq!(
        answer.topics[0].partitions[1].high_watermark, 5,
        "empty, with its watermarks"
    );
}

#[test]
fn a_merged_answer_keeps_to_the_limit_in_request_order() {
    let mut cache = cache_of(1 << 20);
    absorb(
        &mut cache,
        &request_of(&[(1, 0)]),
        &response_of(vec![data(1, 30, join(&[batch(0, 10), batch(10, 10)]))]),
    );
    let size = batch(0, 10).len();
    // Partition 0 is a miss and stands first: what upstream gives for it goes before the hit.
    let asked = FetchRequest {
        max_bytes: i32::try_from(2 * size).unwrap(),
        ..request_of(&[(0, 0), (1, 0)])
    };
    let plan = cache.plan(asked, at(0));
    assert_eq!(
        plan.upstream_request().map(|r| r.max_bytes),
        Some(i32::try_from(2 * size).unwrap())
    );
    let answer = plan.merge(response_of(vec![data(0, 30, batch(0, 10))]));
    let sizes: Vec<_> = answer
        .partitions()
        .map(|(_, data)| data.records_size_bytes())
        .collect();
    assert_eq!(sizes, [size, size]);
}

#[test]
fn the_limit_holds_at_every_step_and_the_oldest_unhit_batch_goes_first() {
    let held = (batch(0, 10).len() + BATCH_OVERHEAD_BYTES) as u64;
    let mut cache = cache_of(4 * held);
    for n in 0..4 {
        fill(&mut cache, n * 20, 1_000, &[batch(n * 20, 10)]);
        check_accounting(&cache);
    }
    assert!(hit(&cache, request(0)).is_some());
    for n in 4..7 {
        fill(&mut cache, n * 20, 1_000, &[batch(n * 20, 10)]);
        check_accounting(&cache);
    }
    assert!(
        hit(&cache, request(0)).is_some(),
        "hit before, so it had another round"
    );
    for gone in [20, 40, 60] {
        assert_eq!(hit(&cache, request(gone)), None);
    }
    let statistics = cache.statistics();
    assert_eq!(
        (statistics.inserts, statistics.evictions, statistics.batches),
        (7, 3, 4)
    );
}

#[test]
fn a_second_pass_over_more_than_fits_counts_what_it_stores() {
    // A defect of the reference: evicted keys stayed in its index, so a second pass stored without counting.
    let held = (batch(0, 10).len() + BATCH_OVERHEAD_BYTES) as u64;
    let mut cache = cache_of(3 * held);
    for _ in 0..3 {
        for n in 0..10 {
            fill(&mut cache, n * 10, 1_000, &[batch(n * 10, 10)]);
            check_accounting(&cache);
        }
    }
    assert_eq!(cache.statistics().inserts, 30);
}

#[test]
fn a_batch_larger_than_the_limit_is_refused() {
    // A defect of the reference: it was kept.
    let mut cache = cache_of(1_000);
    fill(
        &mut cache,
        0,
        100,
        &[make(Shape {
            payload_bytes: 1_000,
            ..shape(0, 10)
        })],
    );
    let statistics = cache.statistics();
    assert_eq!(
        (statistics.rejected, statistics.inserts, statistics.size_bytes),
        (1, 0, 0)
    );
}

#[test]
fn a_small_batch_does_not_keep_the_response_alive_that_it_came_in() {
    let mut cache = cache_of(1 << 20);
    let whole = join(&[batch(0, 10), batch(10, 10)]);
    fill(&mut cache, 0, 100, core::slice::from_ref(&whole));
    let served = hit(&cache, request(0)).unwrap();
    let range = whole.as_ptr_range();
    assert!(!range.contains(&served.as_ptr()));
}

#[test]
fn what_a_reader_still_holds_counts_and_blocks_new_batches() {
    let held = (batch(0, 10).len() + BATCH_OVERHEAD_BYTES) as u64;
    let mut cache = cache_of(2 * held);
    fill(&mut cache, 0, 1_000, &[batch(0, 10), batch(10, 10)]);
    let reader = cache.plan(request(0), at(0));
    fill(&mut cache, 20, 1_000, &[batch(20, 10)]);
    let statistics = cache.statistics();
    assert!(statistics.size_bytes <= statistics.limit_bytes);
    assert_eq!(
        statistics.size_bytes,
        2 * held,
        "evicted, and still held by the reader"
    );
    assert_eq!((statistics.evictions, statistics.rejected), (2, 1));
    drop(reader);
    assert_eq!(cache.statistics().size_bytes, 0);
    fill(&mut cache, 20, 1_000, &[batch(20, 10)]);
    check_accounting(&cache);
    assert!(hit(&cache, request(20)).is_some());
}

#[test]
fn a_lower_limit_takes_effect_at_once() {
    let mut cache = cache_of(1 << 20);
    for n in 0..10 {
        fill(&mut cache, n * 10, 1_000, &[batch(n * 10, 10)]);
    }
    let held = cache.statistics().size_bytes;
    cache.set_size_limit_bytes(held / 2);
    check_accounting(&cache);
    assert_eq!(cache.statistics().batches, 5);
    cache.set_size_limit_bytes(0);
    assert_eq!(cache.statistics().size_bytes, 0);
}

#[test]
fn the_queue_of_dropped_batches_does_not_grow_for_ever() {
    let mut cache = cache_of(1 << 20);
    for _ in 0..1_000 {
        fill(&mut cache, 0, 1_000, &[batch(0, 10)]);
        cache.drop_from(KEY, 0);
    }
    assert!(cache.queue.len() <= 65, "{}", cache.queue.len());
}
