//! What readers of committed data get (H1, H2).

use super::*;

fn aborted(producer_id: i64, first_offset: i64) -> AbortedTransaction {
    AbortedTransaction {
        producer_id,
        first_offset,
        unknown_tags: TaggedFields::default(),
    }
}

fn of_producer(producer_id: i64, base: i64) -> Bytes {
    make(Shape {
        attributes: 0x10,
        producer_id,
        ..shape(base, 1)
    })
}

fn marker(producer_id: i64, base: i64) -> Bytes {
    make(Shape {
        attributes: 0x30,
        producer_id,
        ..shape(base, 1)
    })
}

/// An answer for committed data.
fn stable(last_stable_offset: i64, aborted: Vec<AbortedTransaction>, records: Bytes) -> FetchResponse {
    let data = data(0, 1_000, records);
    response_of(vec![PartitionData {
        last_stable_offset,
        aborted_transactions: Some(aborted),
        ..data
    }])
}

#[test]
fn committed_readers_are_not_served_from_an_answer_that_is_silent_on_transactions() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 0, 100, &[batch(0, 10)]);
    assert!(hit(&cache, request(0)).is_some());
    assert_eq!(
        hit_data(&cache, request(0)).unwrap().aborted_transactions,
        None,
        "unknown, not none"
    );
    assert!(hit(&cache, committed(request(0))).is_none());
    absorb(
        &mut cache,
        &committed(request(0)),
        &stable(100, vec![], batch(0, 10)),
    );
    let data = hit_data(&cache, committed(request(0))).unwrap();
    assert_eq!(data.aborted_transactions, Some(vec![]));
    assert_eq!(cache.statistics().batches, 1);
    check_accounting(&cache);
}

#[test]
fn committed_readers_get_nothing_from_the_last_stable_offset_on() {
    let mut cache = cache_of(1 << 20);
    let batches = [batch(0, 10), batch(10, 10)];
    absorb(
        &mut cache,
        &committed(request(0)),
        &stable(15, vec![], join(&batches)),
    );
    assert_eq!(hit(&cache, committed(request(0))), Some(batches[0].clone()));
    assert_eq!(
        hit(&cache, committed(request(10))),
        None,
        "the stable offset lies inside"
    );
    assert_eq!(
        hit(&cache, request(0)),
        Some(join(&batches)),
        "uncommitted readers get both"
    );
    absorb(
        &mut cache,
        &committed(request(20)),
        &stable(20, vec![], Bytes::new()),
    );
    assert_eq!(hit(&cache, committed(request(10))), Some(batches[1].clone()));
}

#[test]
fn every_sub_range_carries_exactly_the_transactions_that_touch_it() {
    let mut cache = cache_of(1 << 20);
    // Producer 1 aborts 0 and 2 by the marker 4; producer 2 aborts 1 by the marker 6; producer 3 commits 3 by 5;
    // producer 1 aborts 7, whose marker 8 comes in a later answer.
    let first = [
        of_producer(1, 0),
        of_producer(2, 1),
        of_producer(1, 2),
        of_producer(3, 3),
        marker(1, 4),
        marker(3, 5),
        marker(2, 6),
        of_producer(1, 7),
    ];
    let listed = vec![aborted(1, 0), aborted(2, 1), aborted(1, 7)];
    absorb(
        &mut cache,
        &committed(request(0)),
        &stable(100, listed, join(&first)),
    );
    let later = [marker(1, 8), batch(9, 1)];
    absorb(
        &mut cache,
        &committed(request(8)),
        &stable(100, vec![aborted(1, 7)], join(&later)),
    );
    let listed_from = |offset| {
        hit_data(&cache, committed(request(offset)))
            .unwrap()
            .aborted_transactions
            .unwrap()
    };
    for (offset, expected) in [
        (0, vec![aborted(1, 0), aborted(2, 1), aborted(1, 7)]),
        (4, vec![aborted(1, 0), aborted(2, 1), aborted(1, 7)]),
        (5, vec![aborted(2, 1), aborted(1, 7)]),
        (6, vec![aborted(2, 1), aborted(1, 7)]),
        (7, vec![aborted(1, 7)]),
        (8, vec![aborted(1, 7)]),
        (9, vec![]),
    ] {
        assert_eq!(listed_from(offset), expected, "from {offset}");
    }
    // A run that ends early names no transaction that begins behind it.
    let mut short = committed(request(0));
    short.topics[0].partitions[0].partition_max_bytes = 0;
    assert_eq!(
        hit_data(&cache, short).unwrap().aborted_transactions,
        Some(vec![aborted(1, 0)])
    );
    check_accounting(&cache);
}
