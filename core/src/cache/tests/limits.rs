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
fn a_hit_behind_a_miss_keeps_its_first_batch_whole_only_if_the_miss_gave_nothing() {
    let mut cache = cache_of(1 << 20);
    absorb(
        &mut cache,
        &request_of(&[(1, 0)]),
        &response_of(vec![data(1, 30, batch(0, 10))]),
    );
    let mut asked = request_of(&[(0, 0), (1, 0)]);
    asked.topics[0].partitions[1].partition_max_bytes = 1;
    let sizes = |upstream: Bytes| {
        let plan = cache.plan(asked.clone(), at(0));
        let answer = plan.merge(response_of(vec![data(0, 30, upstream)]));
        let sizes = answer.partitions().map(|(_, data)| data.records_size_bytes());
        sizes.collect::<Vec<_>>()
    };
    let size = batch(0, 10).len();
    assert_eq!(sizes(batch(0, 10)), [size, 0]);
    assert_eq!(sizes(Bytes::new()), [0, size]);
}

#[test]
fn a_miss_behind_a_hit_is_cut_to_its_own_limit() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 0, 100, &[batch(0, 10)]);
    let mut asked = request_of(&[(0, 0), (1, 0)]);
    asked.topics[0].partitions[1].partition_max_bytes = 1;
    // Upstream was asked for partition 1 alone, so that it gives its first batch whole.
    let answer = cache
        .plan(asked, at(0))
        .merge(response_of(vec![data(1, 30, batch(0, 10))]));
    let sizes = answer.partitions().map(|(_, data)| data.records_size_bytes());
    assert_eq!(sizes.collect::<Vec<_>>(), [batch(0, 10).len(), 0]);
}

/// A batch of about a kibibyte.
fn large(base: i64) -> Bytes {
    make(Shape {
        payload_bytes: 1_000,
        ..shape(base, 10)
    })
}

#[test]
fn the_limit_holds_at_every_step_and_what_is_hit_outlives_what_is_not() {
    let mut cache = cache_of(40_000);
    for n in 0..500 {
        fill(&mut cache, n * 20, 100_000, &[large(n * 20)]);
        check_accounting(&cache);
        if n % 8 == 0 {
            assert_eq!(hit(&cache, request(0)), Some(large(0)), "after {n} batches");
        }
    }
    let statistics = cache.statistics();
    assert_eq!(statistics.inserts, 500);
    assert_eq!(statistics.evictions + statistics.batches, 500);
    assert!(statistics.batches >= 25, "{statistics:?}");
    assert_eq!(hit(&cache, request(200 * 20)), None);
}

#[test]
fn a_second_pass_over_more_than_fits_counts_what_it_stores() {
    // A defect of the reference: evicted keys stayed in its index, so a second pass stored without counting.
    let mut cache = cache_of(20_000);
    for _ in 0..3 {
        for n in 0..100 {
            fill(&mut cache, n * 10, 1_000, &[large(n * 10)]);
            check_accounting(&cache);
        }
    }
    let statistics = cache.statistics();
    assert_eq!(statistics.inserts, statistics.evictions + statistics.batches);
}

#[test]
fn small_batches_share_segments_and_large_ones_have_one_of_their_own() {
    let mut cache = cache_of(1 << 20);
    for n in 0..1_000 {
        fill(&mut cache, n * 10, 100_000, &[batch(n * 10, 10)]);
    }
    check_accounting(&cache);
    let before = cache.statistics();
    assert_eq!(before.batches, 1_000);
    assert!(before.segments < 80, "{before:?}");
    let huge = make(Shape {
        payload_bytes: 100_000,
        ..shape(50_000, 10)
    });
    fill(&mut cache, 50_000, 100_000, core::slice::from_ref(&huge));
    check_accounting(&cache);
    assert_eq!(hit(&cache, request(50_001)), Some(huge));
}

#[test]
fn a_batch_larger_than_the_limit_is_refused() {
    // A defect of the reference: it was kept.
    let mut cache = cache_of(1_000);
    fill(&mut cache, 0, 100, &[large(0)]);
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
fn what_readers_still_hold_counts_and_blocks_new_batches() {
    let mut cache = cache_of(20_000);
    let mut readers = Vec::new();
    for n in 0..100 {
        fill(&mut cache, n * 20, 100_000, &[large(n * 20)]);
        check_accounting(&cache);
        readers.extend(hit(&cache, request(n * 20)));
    }
    assert!(readers.len() < 20, "what was refused could not be read");
    let statistics = cache.statistics();
    assert!(statistics.rejected > 80, "{statistics:?}");
    for (n, held) in readers.iter().enumerate() {
        let base = i64::from_be_bytes(*held.first_chunk().unwrap());
        assert_eq!(*held, large(base), "reader {n} holds what it was given");
    }
    drop(readers);
    assert!(cache.statistics().size_bytes < 20_000 / 2 || cache.statistics().batches > 0);
    for n in 0..100 {
        fill(&mut cache, n * 20, 100_000, &[large(n * 20)]);
        check_accounting(&cache);
    }
    assert_eq!(hit(&cache, request(99 * 20)), Some(large(99 * 20)));
}

#[test]
fn a_lower_limit_takes_effect_at_once() {
    let mut cache = cache_of(1 << 20);
    for n in 0..100 {
        fill(&mut cache, n * 10, 1_000, &[large(n * 10)]);
    }
    let held = cache.statistics().size_bytes;
    cache.set_size_limit_bytes(held / 2);
    check_accounting(&cache);
    let batches = cache.statistics().batches;
    assert!((30..=50).contains(&batches), "{batches}");
    cache.set_size_limit_bytes(0);
    assert_eq!(cache.statistics().size_bytes, 0);
    check_accounting(&cache);
}

#[test]
fn dropped_batches_take_nothing() {
    let mut cache = cache_of(1 << 20);
    for n in 0..10_000 {
        fill(&mut cache, 0, 1_000, &[large(0), large(10)]);
        if n % 3 == 0 {
            cache.drop_from(KEY, 10);
        }
        cache.drop_from(KEY, 0);
        check_accounting(&cache);
        assert!(cache.statistics().size_bytes < 1_024, "{:?}", cache.statistics());
    }
    assert_eq!(
        (cache.statistics().segments, cache.statistics().evictions),
        (0, 0)
    );
}
