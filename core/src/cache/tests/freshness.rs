//! What a broker no longer serves stops being served (H4–H10).

use super::*;
use crate::freshness::UNCONFIRMED_EPOCHS_LIMIT;

const BOUND: Duration = Duration::from_millis(1_000);

pub(super) fn bounded() -> MemoryCache {
    MemoryCache::new(
        CacheSettings {
            size_limit_bytes: 1 << 20,
            max_staleness: MaxStaleness::Within(BOUND),
            segment_size_bytes: None,
            compacted_max_staleness: MaxStaleness::Within(3 * BOUND),
        },
        Crc32c::PORTABLE,
    )
}

pub(super) fn is_hit(cache: &MemoryCache, offset: i64, now: Instant) -> bool {
    cache.plan(request(offset), now).into_response().is_some()
}

pub(super) fn evidence(log_start_offset: i64, high_watermark: i64) -> Evidence {
    let epoch_end = EpochEnd {
        epoch: 0,
        end_offset: high_watermark,
    };
    Evidence {
        leader_epoch: 0,
        log_start_offset,
        high_watermark,
        is_compacted: false,
        epoch_end,
        older_epoch_ends: Vec::new(),
    }
}

pub(super) fn validate(cache: &mut MemoryCache, evidence: &Evidence, asked_at: Instant) {
    let doubtful = &cache.doubtful(&request(0), Instant::from_start(Duration::MAX))[0];
    // Unless a test says otherwise, older epochs reach as far as that which it is about.
    let told = |epoch: i32| evidence.older_epoch_ends.iter().any(|(asked, _)| *asked == epoch);
    let untold = doubtful.older_epochs.iter().filter(|epoch| !told(**epoch));
    let ends = untold.map(|epoch| {
        let end = EpochEnd {
            epoch: *epoch,
            ..evidence.epoch_end
        };
        (*epoch, end)
    });
    let evidence = Evidence {
        older_epoch_ends: ends.chain(evidence.older_epoch_ends.clone()).collect(),
        ..evidence.clone()
    };
    cache.validate(doubtful, &evidence, asked_at);
}

#[test]
fn a_hit_older_than_the_bound_waits_for_validation() {
    let mut cache = bounded();
    fill(&mut cache, 0, 100, &[batch(0, 10)]);
    assert!(is_hit(&cache, 0, at(1_000)));
    assert!(!is_hit(&cache, 0, at(1_001)));
    let doubtful = cache.doubtful(&request(0), at(1_001));
    assert_eq!((doubtful.len(), doubtful[0].blocks_hits), (1, true));
    validate(&mut cache, &evidence(0, 100), at(1_002));
    assert!(is_hit(&cache, 0, at(2_002)));
    assert!(cache.doubtful(&request(0), at(1_501)).is_empty());
    let ageing = cache.doubtful(&request(0), at(1_502));
    assert_eq!(
        ageing.iter().map(|each| each.blocks_hits).collect::<Vec<_>>(),
        [false]
    );
}

#[test]
fn answers_may_be_handed_on_for_the_rest_of_the_bound_and_not_at_all_where_the_cleaner_may_come() {
    let mut cache = bounded();
    assert_eq!(cache.fresh_for(&KEY, 3, at(0)), Duration::ZERO);
    fill(&mut cache, 0, 100, &[batch(0, 10)]);
    // Until a broker has said so, the topic may be compacted.
    assert_eq!(cache.fresh_for(&KEY, 3, at(0)), Duration::ZERO);
    validate(&mut cache, &evidence(0, 100), at(500));
    assert_eq!(cache.fresh_for(&KEY, 3, at(500)), BOUND);
    assert_eq!(cache.fresh_for(&KEY, 3, at(1_200)), Duration::from_millis(300));
    assert_eq!(cache.fresh_for(&KEY, 3, at(9_000)), Duration::ZERO);
    // What is not cached, and what was deleted.
    assert_eq!(cache.fresh_for(&KEY, 10, at(500)), Duration::ZERO);
    validate(&mut cache, &evidence(5, 100), at(8_000));
    assert_eq!(cache.fresh_for(&KEY, 4, at(8_000)), Duration::ZERO);
    assert_eq!(cache.fresh_for(&KEY, 5, at(8_000)), BOUND);
    let compacted = Evidence {
        is_compacted: true,
        ..evidence(0, 100)
    };
    validate(&mut cache, &compacted, at(9_000));
    assert_eq!(cache.fresh_for(&KEY, 5, at(9_000)), Duration::ZERO);
}

#[test]
fn an_answer_to_a_miss_does_not_validate_what_was_cached_before() {
    let mut cache = bounded();
    fill(&mut cache, 0, 100, &[batch(0, 10)]);
    absorb_at(&mut cache, &request(10), &response(100, batch(10, 10)), at(900));
    assert!(!is_hit(&cache, 0, at(1_001)));
}

#[test]
fn an_answer_that_was_asked_for_before_the_last_validation_shortens_it() {
    let mut cache = bounded();
    fill(&mut cache, 0, 100, &[batch(0, 10)]);
    validate(&mut cache, &evidence(0, 100), at(800));
    absorb_at(&mut cache, &request(10), &response(100, batch(10, 10)), at(300));
    assert!(is_hit(&cache, 0, at(1_300)));
    assert!(!is_hit(&cache, 0, at(1_301)));
}

#[test]
fn a_bound_of_zero_asks_before_every_hit() {
    let mut cache = MemoryCache::new(
        CacheSettings {
            size_limit_bytes: 1 << 20,
            max_staleness: MaxStaleness::Within(Duration::ZERO),
            ..CacheSettings::default()
        },
        Crc32c::PORTABLE,
    );
    fill(&mut cache, 0, 100, &[batch(0, 10)]);
    assert!(!is_hit(&cache, 0, at(5)));
    validate(&mut cache, &evidence(0, 100), at(6));
    assert!(is_hit(&cache, 0, at(5)), "validated after the request arrived");
    assert!(!is_hit(&cache, 0, at(7)));
}

#[test]
fn below_the_log_start_nothing_is_served_but_the_batch_it_lies_in() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 0, 100, &[batch(0, 10), batch(10, 10)]);
    let moved = response_of(vec![PartitionData {
        log_start_offset: 15,
        ..data(0, 100, batch(20, 10))
    }]);
    absorb(&mut cache, &request(20), &moved);
    assert_eq!(hit(&cache, request(9)), None);
    assert_eq!(hit(&cache, request(14)), None);
    assert_eq!(
        hit(&cache, request(15)),
        Some(join(&[batch(10, 10), batch(20, 10)]))
    );
    assert_eq!(cache.statistics().batches, 2);
    check_accounting(&cache);
}

#[test]
fn validation_drops_what_retention_took() {
    let mut cache = bounded();
    fill(&mut cache, 0, 100, &[batch(0, 10), batch(10, 10)]);
    validate(&mut cache, &evidence(10, 100), at(10));
    assert!(!is_hit(&cache, 0, at(10)));
    assert!(is_hit(&cache, 10, at(10)));
}

#[test]
fn a_high_watermark_that_went_back_drops_what_lies_beyond() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 0, 30, &[batch(0, 10), batch(10, 10), batch(20, 10)]);
    absorb(&mut cache, &request(15), &response(15, Bytes::new()));
    assert_eq!(hit(&cache, request(0)), Some(batch(0, 10)));
    assert_eq!(hit(&cache, request(10)), None);
    check_accounting(&cache);
}

#[test]
fn another_epoch_at_a_cached_offset_drops_everything_from_there_on() {
    let mut cache = cache_of(1 << 20);
    fill(
        &mut cache,
        0,
        40,
        &[batch(0, 10), batch(10, 10), batch(20, 10), batch(30, 10)],
    );
    let elected = make(Shape {
        epoch: 1,
        fill: 9,
        ..shape(12, 3)
    });
    fill(&mut cache, 12, 40, core::slice::from_ref(&elected));
    assert_eq!(hit(&cache, request(0)), Some(batch(0, 10)));
    assert_eq!(hit(&cache, request(10)), None);
    assert_eq!(hit(&cache, request(12)), Some(elected));
    assert_eq!(hit(&cache, request(20)), None);
    assert_eq!(hit(&cache, request(30)), None);
    check_accounting(&cache);
}

#[test]
fn a_newer_epoch_in_front_of_cached_batches_of_an_older_one_drops_them() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 30, 50, &[batch(30, 10)]);
    fill(
        &mut cache,
        0,
        50,
        &[make(Shape {
            epoch: 2,
            ..shape(0, 10)
        })],
    );
    assert_eq!(hit(&cache, request(30)), None, "along a log epochs never fall");
    fill(
        &mut cache,
        20,
        50,
        &[make(Shape {
            epoch: 1,
            ..shape(20, 10)
        })],
    );
    assert_eq!(hit(&cache, request(0)), None);
    assert!(hit(&cache, request(20)).is_some(), "the newest answer stands");
    check_accounting(&cache);
}

#[test]
fn compaction_rewrites_are_replaced_by_the_newest_answer() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 0, 100, &[batch(0, 10), batch(10, 10), batch(20, 10)]);
    let cleaned = make(Shape {
        records_count: 3,
        payload_bytes: 30,
        ..shape(0, 10)
    });
    // The batch at 10 is gone altogether.
    fill(&mut cache, 0, 100, &[cleaned.clone(), batch(20, 10)]);
    assert_eq!(hit(&cache, request(0)), Some(join(&[cleaned, batch(20, 10)])));
    assert_eq!(hit(&cache, request(15)), Some(batch(20, 10)));
    assert_eq!(cache.statistics().batches, 2);
    check_accounting(&cache);
}

#[test]
fn the_same_answer_again_keeps_what_is_cached_and_joins_what_it_covers() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 8, 100, &[batch(10, 10)]);
    fill(&mut cache, 0, 100, &[batch(0, 5), batch(10, 10), batch(20, 10)]);
    assert_eq!(cache.statistics().inserts, 3);
    assert_eq!(
        hit(&cache, request(5)),
        Some(join(&[batch(10, 10), batch(20, 10)]))
    );
    assert_eq!(cache.covered(KEY), [OffsetSpan::new(0, 29).unwrap()]);
    check_accounting(&cache);
}

#[test]
fn validation_finds_a_truncation_by_the_end_of_the_epoch() {
    let epoch = |epoch, base| {
        make(Shape {
            epoch,
            ..shape(base, 10)
        })
    };
    let cached = || {
        let mut cache = bounded();
        fill(&mut cache, 0, 100, &[epoch(1, 0), epoch(1, 10), epoch(3, 20)]);
        cache
    };
    let answers = |epoch, end_offset| Evidence {
        leader_epoch: 5,
        log_start_offset: 0,
        high_watermark: 100,
        is_compacted: false,
        epoch_end: EpochEnd { epoch, end_offset },
        older_epoch_ends: Vec::new(),
    };
    // The log of the new leader, and how far the cache is still right.
    for (answer, right_up_to) in [
        (answers(3, 30), 30),
        (answers(3, 25), 20),
        (answers(1, 20), 20),
        (answers(1, 40), 20),
        (answers(1, 15), 10),
        (answers(0, 5), 0),
        (answers(-1, -1), 0),
    ] {
        let mut cache = cached();
        validate(&mut cache, &answer, at(10));
        let hits: Vec<i64> = [0, 10, 20]
            .into_iter()
            .filter(|offset| is_hit(&cache, *offset, at(10)))
            .collect();
        let right: Vec<i64> = (0..right_up_to).step_by(10).collect();
        assert_eq!(hits, right, "{answer:?}");
        check_accounting(&cache);
    }
}

#[test]
fn every_epoch_that_has_come_since_the_last_validation_is_asked_for() {
    let of_epoch = |epoch, base| {
        make(Shape {
            epoch,
            ..shape(base, 10)
        })
    };
    let mut cache = bounded();
    let told = [of_epoch(1, 0), of_epoch(2, 10), of_epoch(4, 20), of_epoch(6, 30)];
    fill(&mut cache, 0, 100, &told);
    let older_epochs = |cache: &MemoryCache| {
        let doubtful = cache.doubtful(&request(0), Instant::from_start(Duration::MAX));
        doubtful[0].older_epochs.clone()
    };
    assert_eq!(older_epochs(&cache), [1, 2, 4]);
    let answer = |ends: [(i32, i32, i64); 3]| Evidence {
        leader_epoch: 8,
        epoch_end: EpochEnd {
            epoch: 6,
            end_offset: 100,
        },
        older_epoch_ends: ends
            .into_iter()
            .map(|(asked, epoch, end_offset)| (asked, EpochEnd { epoch, end_offset }))
            .collect(),
        ..evidence(0, 100)
    };
    let mut all_stand = cache;
    validate(
        &mut all_stand,
        &answer([(1, 1, 10), (2, 2, 20), (4, 4, 30)]),
        at(1),
    );
    assert!(
        [0, 10, 20, 30]
            .iter()
            .all(|offset| is_hit(&all_stand, *offset, at(1)))
    );
    assert_eq!(
        older_epochs(&all_stand),
        [8],
        "all but the leader's own stand by it"
    );
    // A leader that was deposed before the last election may have told of epoch 2, and its log was cut.
    for ends in [
        [(1, 1, 10), (2, 1, 10), (4, 4, 30)],
        [(1, 1, 10), (2, 2, 12), (4, 4, 30)],
    ] {
        let mut cache = bounded();
        fill(&mut cache, 0, 100, &told);
        validate(&mut cache, &answer(ends), at(1));
        assert!(is_hit(&cache, 0, at(1)));
        assert!(!is_hit(&cache, 10, at(1)), "{ends:?}");
        check_accounting(&cache);
    }
}

#[test]
fn what_is_of_one_epoch_too_many_is_kept_after_the_next_validation() {
    let mut cache = bounded();
    let limit = i64::try_from(UNCONFIRMED_EPOCHS_LIMIT).unwrap();
    let of_epoch = |epoch: i64| {
        make(Shape {
            epoch: i32::try_from(epoch).unwrap(),
            ..shape(10 * epoch, 10)
        })
    };
    let told: Vec<Bytes> = (0..=limit).map(of_epoch).collect();
    fill(&mut cache, 0, 1_000, &told);
    assert_eq!(cache.statistics().rejected, 1);
    assert!(
        !is_hit(&cache, 0, at(0)),
        "a validation makes room for more epochs"
    );
    let stands = Evidence {
        leader_epoch: 99,
        ..evidence(0, 1_000)
    };
    let epoch_end = EpochEnd {
        epoch: 98,
        end_offset: 1_000,
    };
    validate(&mut cache, &Evidence { epoch_end, ..stands }, at(1));
    assert!(is_hit(&cache, 0, at(1)));
    fill(&mut cache, 10 * limit, 1_000, &told[told.len() - 1..]);
    assert!(is_hit(&cache, 10 * limit, at(1)));
    check_accounting(&cache);
}

#[test]
fn epochs_that_the_client_names_are_the_brokers_to_judge_unless_known() {
    let mut cache = bounded();
    fill(
        &mut cache,
        0,
        100,
        &[
            make(Shape {
                epoch: 4,
                ..shape(0, 10)
            }),
            make(Shape {
                epoch: 5,
                ..shape(10, 10)
            }),
        ],
    );
    let named = |offset, current, last_fetched| {
        let mut request = request(offset);
        let asked = &mut request.topics[0].partitions[0];
        (asked.current_leader_epoch, asked.last_fetched_epoch) = (current, last_fetched);
        request
    };
    assert!(
        hit(&cache, named(0, 5, -1)).is_none(),
        "H9: no epoch is known yet"
    );
    assert!(
        hit(&cache, named(0, 4, -1)).is_none(),
        "H9: neither is that of a batch the leader's"
    );
    validate(
        &mut cache,
        &Evidence {
            leader_epoch: 5,
            ..evidence_of_epoch(5)
        },
        at(1),
    );
    assert!(hit(&cache, named(0, 5, -1)).is_some());
    assert!(hit(&cache, named(0, 4, -1)).is_none(), "fenced");
    assert!(hit(&cache, named(0, 6, -1)).is_none(), "unknown");
    // H8: the epoch of the last record must reach up to the fetch offset.
    assert!(hit(&cache, named(10, -1, 4)).is_some());
    assert!(hit(&cache, named(10, -1, 5)).is_some());
    assert!(hit(&cache, named(10, -1, 3)).is_none());
    assert!(hit(&cache, named(5, -1, 5)).is_none());
}

#[test]
fn an_epoch_in_which_a_broker_has_answered_is_known_and_no_older_one_is() {
    let mut cache = bounded();
    let old = make(Shape {
        epoch: 4,
        ..shape(0, 10)
    });
    let named = |epoch| {
        let mut request = request(0);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        request
    };
    absorb(&mut cache, &named(6), &response(100, old));
    assert!(hit(&cache, named(6)).is_some());
    assert!(
        hit(&cache, named(4)).is_none(),
        "fenced, though its batch is cached (H9)"
    );
    assert!(hit(&cache, named(7)).is_none(), "unknown");
    assert!(hit(&cache, named(-1)).is_some());
}

fn evidence_of_epoch(epoch: i32) -> Evidence {
    Evidence {
        epoch_end: EpochEnd {
            epoch,
            end_offset: 100,
        },
        ..evidence(0, 100)
    }
}

#[test]
fn watermarks_are_the_last_that_were_reported() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 0, 10, &[batch(0, 10)]);
    fill(&mut cache, 10, 25, &[batch(10, 10)]);
    let data = hit_data(&cache, request(0)).unwrap();
    assert_eq!(
        (
            data.high_watermark,
            data.last_stable_offset,
            data.log_start_offset
        ),
        (25, 25, 0)
    );
    assert_eq!((data.error_code, data.preferred_read_replica), (0, -1));
}

/// H7, H10: from Fetch v11 on followers answer, with watermarks that trail the leader's.
#[test]
fn a_followers_older_watermarks_drop_and_replace_nothing() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 0, 20, &[batch(0, 10), batch(10, 10)]);
    let by_follower = |cache: &mut MemoryCache, high_watermark, records: &[Bytes]| {
        let answer = response(high_watermark, join(records));
        for mut harvest in Harvest::gather(&request(0), &answer, Crc32c::PORTABLE) {
            harvest.mark_of_follower();
            cache.absorb(harvest, at(0));
        }
    };
    by_follower(&mut cache, 10, &[batch(0, 10)]);
    let data = hit_data(&cache, request(10)).expect("the leader had told of it");
    assert_eq!((data.high_watermark, data.last_stable_offset), (20, 20));
    // What is newer is news from a follower, too.
    by_follower(&mut cache, 30, &[]);
    assert_eq!(hit_data(&cache, request(10)).unwrap().high_watermark, 30);
    check_accounting(&cache);
}

/// H2: an election may have cut off the markers of what was committed. That a follower has got somewhere does not make
/// stable again what a leader had said to be.
#[test]
fn a_followers_answer_does_not_bring_back_what_was_stable_before_an_election() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 0, 30, &[batch(0, 10), batch(10, 10), batch(20, 10)]);
    assert!(hit(&cache, committed(request(0))).is_some());
    let elected = make(Shape {
        epoch: 1,
        ..shape(20, 10)
    });
    fill(&mut cache, 20, 30, &[elected]);
    assert_eq!(hit(&cache, committed(request(0))), None);
    for mut harvest in Harvest::gather(&request(0), &response(5, Bytes::new()), Crc32c::PORTABLE) {
        harvest.mark_of_follower();
        cache.absorb(harvest, at(0));
    }
    assert_eq!(hit(&cache, committed(request(0))), None);
    assert!(hit(&cache, request(0)).is_some());
    check_accounting(&cache);
}

/// H7, H10: answers to requests that were under way together come in any order.
#[test]
fn the_older_watermarks_of_an_answer_that_was_overtaken_drop_and_replace_nothing() {
    let mut cache = cache_of(1 << 20);
    let (tail, front) = (join(&[batch(10, 10), batch(20, 10)]), batch(0, 10));
    let all = join(&[front.clone(), tail.clone()]);
    absorb_at(&mut cache, &request(10), &response(30, tail), at(6));
    absorb_at(&mut cache, &request(0), &response(20, front), at(5));
    assert_eq!(hit(&cache, request(0)), Some(all));
    let data = hit_data(&cache, request(0)).unwrap();
    assert_eq!((data.high_watermark, data.last_stable_offset), (30, 30));
    // Whoever asks from then on is told what is so.
    absorb_at(&mut cache, &request(25), &response(25, Bytes::new()), at(7));
    assert_eq!(hit_data(&cache, request(20)), None);
    check_accounting(&cache);
}

#[test]
fn another_cluster_empties_the_cache() {
    let mut cache = cache_of(1 << 20);
    cache.identify_cluster(&WireStr::from_static("a"));
    fill(&mut cache, 0, 10, &[batch(0, 10)]);
    cache.identify_cluster(&WireStr::from_static("a"));
    assert!(hit(&cache, request(0)).is_some());
    cache.identify_cluster(&WireStr::from_static("b"));
    assert!(hit(&cache, request(0)).is_none());
    check_accounting(&cache);
}
