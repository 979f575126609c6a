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
    let transactional = make(Shape {
        attributes: 1 << 4,
        producer_id: 7,
        ..shape(0, 10)
    });
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 0, 100, core::slice::from_ref(&transactional));
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
        &stable(100, vec![], transactional),
    );
    let data = hit_data(&cache, committed(request(0))).unwrap();
    assert_eq!(data.aborted_transactions, Some(vec![]));
    assert_eq!(cache.statistics().batches, 1);
    check_accounting(&cache);
}

#[test]
fn committed_readers_are_served_batches_of_no_transaction_once_they_are_stable() {
    let mut cache = cache_of(1 << 20);
    let answer = PartitionData {
        last_stable_offset: 10,
        ..data(0, 100, join(&[batch(0, 10), batch(10, 10)]))
    };
    absorb(&mut cache, &request(0), &response_of(vec![answer]));
    let hit = hit_data(&cache, committed(request(0))).unwrap();
    assert_eq!(hit.aborted_transactions, Some(vec![]));
    assert_eq!(hit.records.unwrap().to_bytes(), batch(0, 10));
    assert!(hit_data(&cache, committed(request(10))).is_none(), "not stable");
}

/// A committed batch of a transaction, of epoch 0, whose marker may lie anywhere below 1 000, by the leader of an epoch.
fn decided(leader_epoch: i32) -> MemoryCache {
    let mut cache = cache_of(1 << 20);
    let batch = make(Shape {
        attributes: 1 << 4,
        producer_id: 7,
        ..shape(0, 10)
    });
    let mut request_in_epoch = committed(request(0));
    request_in_epoch.topics[0].partitions[0].current_leader_epoch = leader_epoch;
    absorb(&mut cache, &request_in_epoch, &stable(900, vec![], batch));
    assert!(hit(&cache, committed(request(0))).is_some());
    cache
}

/// What the leader of an epoch says of a log of 1 000 offsets or more.
fn elected(leader_epoch: i32, end_offset: i64, known_epoch_end: Option<i64>) -> Evidence {
    let end = |end_offset| EpochEnd { epoch: 0, end_offset };
    Evidence {
        leader_epoch,
        log_start_offset: 0,
        high_watermark: 1_000,
        is_compacted: false,
        epoch_end: end(end_offset),
        older_epoch_ends: known_epoch_end
            .map(|at| (leader_epoch - 1, end(at)))
            .into_iter()
            .collect(),
    }
}

fn validate(cache: &mut MemoryCache, evidence: &Evidence, asked_at: Instant) {
    let doubtful = Doubtful {
        key: KEY,
        topic_name: None,
        newest_cached_epoch: 0,
        older_epochs: cache.engine.partitions[&KEY].older_epochs(),
        blocks_hits: true,
    };
    cache.validate(&doubtful, evidence, asked_at);
}

#[test]
fn what_transactions_came_to_is_forgotten_when_a_new_leader_lacks_what_could_be_read() {
    for (second, is_kept) in [
        (elected(0, 1_000, None), true),
        (elected(1, 1_000, None), true),
        (elected(1, 999, None), false),
    ] {
        let mut cache = decided(-1);
        validate(&mut cache, &elected(0, 1_000, None), at(1));
        validate(&mut cache, &second, at(2));
        assert!(hit(&cache, request(0)).is_some());
        assert_eq!(
            hit(&cache, committed(request(0))).is_some(),
            is_kept,
            "{second:?}"
        );
        check_accounting(&cache);
    }
}

#[test]
fn after_clean_elections_it_is_the_last_known_epoch_that_tells() {
    // Nothing of epoch 3 is cached; epoch 0 has ended long ago.
    let mut cache = decided(3);
    validate(&mut cache, &elected(3, 10, None), at(1));
    assert!(hit(&cache, committed(request(0))).is_some());
    validate(&mut cache, &elected(4, 10, Some(1_000)), at(3));
    assert!(hit(&cache, committed(request(0))).is_some());
    validate(&mut cache, &elected(5, 10, Some(990)), at(4));
    assert!(hit(&cache, committed(request(0))).is_none());
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

#[test]
fn a_run_ends_where_the_cleaner_has_removed_the_marker_of_an_aborted_transaction() {
    let mut cache = cache_of(1 << 20);
    // Before it was compacted: producer 1 aborts 0 by a marker at 2 that the first answer did not reach.
    absorb(
        &mut cache,
        &committed(request(0)),
        &stable(
            100,
            vec![aborted(1, 0)],
            join(&[of_producer(1, 0), of_producer(2, 1)]),
        ),
    );
    // After that: the marker is gone, and producer 1 has committed 3.
    absorb(
        &mut cache,
        &committed(request(2)),
        &stable(100, vec![], join(&[of_producer(1, 3), marker(1, 4)])),
    );
    let run = |offset| {
        let data = hit_data(&cache, committed(request(offset))).unwrap();
        let records = data.records.unwrap().to_bytes();
        (records.len(), data.aborted_transactions.unwrap())
    };
    let batch_bytes = of_producer(1, 0).len();
    assert_eq!(
        run(0),
        (2 * batch_bytes, vec![aborted(1, 0)]),
        "not on to what was committed"
    );
    assert_eq!(run(2).1, vec![]);
    assert_eq!(
        hit(&cache, request(0)).unwrap().len(),
        3 * batch_bytes + marker(1, 4).len()
    );
}
