//! Hits, misses, partial hits and merging.

use super::*;
use crate::wire::{Chunks, FETCH_VERSION_MAX, FETCH_VERSION_TOPIC_IDS};

#[test]
fn without_a_size_limit_everything_passes_through() {
    let mut cache = cache_of(0);
    fill(&mut cache, 0, 10, &[batch(0, 10)]);
    let plan = cache.plan(request(0), at(0));
    assert!(!plan.is_cacheable());
    assert_eq!(plan.upstream_request(), Some(&request(0)));
    assert_eq!(cache.statistics().batches, 0);
}

#[test]
fn the_last_offset_of_a_multi_record_batch_hits() {
    // H11, and a defect of the reference: it took the inclusive last offset delta for an exclusive one.
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 0, 20, &[batch(0, 10)]);
    for offset in 0..10 {
        assert_eq!(
            hit(&cache, request(offset)),
            Some(batch(0, 10)),
            "offset {offset}"
        );
    }
    assert_eq!(hit(&cache, request(10)), None);
}

#[test]
fn a_hit_is_the_run_of_batches_that_adjoin() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 0, 100, &[batch(0, 10), batch(10, 1), batch(11, 4)]);
    fill(&mut cache, 20, 100, &[batch(20, 5)]);
    assert_eq!(
        hit(&cache, request(0)),
        Some(join(&[batch(0, 10), batch(10, 1), batch(11, 4)]))
    );
    assert_eq!(hit(&cache, request(14)), Some(batch(11, 4)));
    assert_eq!(hit(&cache, request(15)), None);
    assert_eq!(hit(&cache, request(22)), Some(batch(20, 5)));
}

#[test]
fn a_gap_that_the_broker_showed_to_be_empty_hits_the_next_batch() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 3, 100, &[batch(5, 2), batch(20, 2)]);
    for offset in [3, 4, 5] {
        assert_eq!(
            hit(&cache, request(offset)),
            Some(join(&[batch(5, 2), batch(20, 2)]))
        );
    }
    assert_eq!(hit(&cache, request(7)), Some(batch(20, 2)));
    assert_eq!(
        hit(&cache, request(2)),
        None,
        "what lies before the fetch offset was not shown"
    );
}

#[test]
fn an_emptied_batch_of_a_compacted_topic_is_kept_and_found() {
    // A defect of the reference: it panicked at every read of one.
    let mut cache = cache_of(1 << 20);
    let emptied = make(Shape {
        records_count: 0,
        payload_bytes: 0,
        ..shape(0, 10)
    });
    fill(&mut cache, 0, 100, &[emptied.clone(), batch(10, 2)]);
    assert_eq!(hit(&cache, request(4)), Some(join(&[emptied, batch(10, 2)])));
}

#[test]
fn control_batches_are_kept_and_returned() {
    let mut cache = cache_of(1 << 20);
    let marker = make(Shape {
        attributes: 0x30,
        producer_id: 5,
        ..shape(2, 1)
    });
    fill(&mut cache, 0, 100, &[batch(0, 2), marker.clone(), batch(3, 1)]);
    assert_eq!(hit(&cache, request(2)), Some(join(&[marker, batch(3, 1)])));
}

#[test]
fn a_truncated_tail_and_a_corrupt_batch_are_not_kept() {
    let mut cache = cache_of(1 << 20);
    let tail = batch(10, 10);
    fill(&mut cache, 0, 100, &[batch(0, 10), tail.slice(..tail.len() - 1)]);
    assert_eq!(cache.statistics().batches, 1);
    assert_eq!(cache.statistics().errors, 0);
    let mut corrupt = batch(10, 10).to_vec();
    corrupt[70] ^= 1;
    fill(&mut cache, 10, 100, &[corrupt.into(), batch(20, 1)]);
    assert_eq!(
        cache.statistics().batches,
        1,
        "what follows a corrupt batch is not kept either"
    );
    assert_eq!(cache.statistics().errors, 1);
}

#[test]
fn legacy_messages_are_not_kept_and_end_the_walk() {
    let mut legacy = BytesMut::new();
    legacy.put_i64(10);
    legacy.put_i32(14);
    legacy.put_u32(0);
    legacy.put_i8(1);
    legacy.put_bytes(0, 9);
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 0, 100, &[batch(0, 10), legacy.freeze(), batch(11, 1)]);
    assert_eq!(cache.statistics().batches, 1);
    assert_eq!(cache.statistics().rejected, 1);
    assert_eq!(cache.statistics().errors, 0);
}

#[test]
fn batches_that_go_backwards_or_end_before_the_fetch_offset_are_not_kept() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 0, 100, &[batch(0, 10), batch(5, 10)]);
    assert_eq!(cache.statistics().batches, 1);
    fill(&mut cache, 50, 100, &[batch(20, 10)]);
    assert_eq!(cache.statistics().batches, 1);
    assert_eq!(cache.statistics().errors, 2);
}

#[test]
fn a_partial_hit_asks_upstream_for_the_rest_and_merges_in_request_order() {
    let mut cache = cache_of(1 << 20);
    let both = request_of(&[(0, 0), (1, 0)]);
    absorb(&mut cache, &request(0), &response(10, batch(0, 10)));
    let plan = cache.plan(both, at(0));
    let upstream = plan.upstream_request().unwrap();
    assert_eq!(
        upstream
            .partitions()
            .map(|(_, asked)| asked.partition)
            .collect::<Vec<_>>(),
        [1]
    );
    assert_eq!(upstream.max_wait_ms, 0, "the hit satisfies the client (H14)");
    let answer = plan.merge(response_of(vec![data(1, 5, batch(0, 5))]));
    let merged: Vec<_> = answer
        .partitions()
        .map(|(_, data)| (data.partition_index, data.records.clone()))
        .collect();
    assert_eq!(
        merged,
        [(0, Some(batch(0, 10).into())), (1, Some(batch(0, 5).into()))]
    );
    let statistics = cache.statistics();
    assert_eq!(
        (statistics.lookups, statistics.hits, statistics.misses),
        (2, 1, 1)
    );
    assert_eq!(statistics.bytes_saved, batch(0, 10).len() as u64);
}

#[test]
fn a_hit_below_min_bytes_waits_upstream_for_no_more_than_is_left() {
    let mut cache = cache_of(1 << 20);
    absorb(&mut cache, &request(0), &response(10, batch(0, 10)));
    let size = i32::try_from(batch(0, 10).len()).unwrap();
    let both = FetchRequest {
        min_bytes: size + 7,
        max_wait_ms: 500,
        ..request_of(&[(0, 0), (1, 0)])
    };
    let plan = cache.plan(both, at(0));
    assert_eq!(
        plan.upstream_request().map(|r| (r.min_bytes, r.max_wait_ms)),
        Some((7, 500))
    );
}

#[test]
fn upstream_partitions_are_matched_by_identity_and_failed_ones_come_last() {
    let mut cache = cache_of(1 << 20);
    absorb(&mut cache, &request(0), &response(10, batch(0, 10)));
    let plan = cache.plan(request_of(&[(2, 0), (1, 0), (0, 0), (3, 0)]), at(0));
    // Reordered, one left out, one that nobody asked for.
    let answer = plan.merge(response_of(vec![
        data(1, 5, batch(0, 5)),
        PartitionData::error(2, 3),
        data(9, 5, batch(0, 5)),
    ]));
    let order: Vec<_> = answer
        .partitions()
        .map(|(_, data)| (data.partition_index, data.error_code))
        .collect();
    assert_eq!(order, [(1, 0), (0, 0), (2, 3)]);
}

#[test]
fn partitions_that_nobody_asked_for_are_not_kept() {
    let mut cache = cache_of(1 << 20);
    let answer = response_of(vec![
        data(0, 10, batch(0, 10)),
        data(0, 10, batch(0, 9)),
        data(1, 9, batch(0, 9)),
    ]);
    absorb(&mut cache, &request(0), &answer);
    assert_eq!(hit(&cache, request(0)), Some(batch(0, 10)));
    assert_eq!(cache.statistics().partitions, 1);
    assert_eq!(cache.statistics().errors, 2);
}

#[test]
fn a_top_level_error_and_a_throttle_reach_the_client_and_keep_nothing() {
    let mut cache = cache_of(1 << 20);
    absorb(&mut cache, &request(0), &response(10, batch(0, 10)));
    let failed = FetchResponse {
        error_code: -1,
        throttle_time_ms: 9,
        ..response_of(vec![])
    };
    absorb(&mut cache, &request_of(&[(1, 0)]), &failed);
    let plan = cache.plan(request_of(&[(0, 0), (1, 0)]), at(0));
    assert_eq!(plan.merge(failed.clone()), failed);
    let throttled = FetchResponse {
        throttle_time_ms: 9,
        ..response_of(vec![data(1, 0, Bytes::new())])
    };
    let plan = cache.plan(request_of(&[(0, 0), (1, 0)]), at(0));
    assert_eq!(plan.merge(throttled).throttle_time_ms, 9);
    assert_eq!(
        cache
            .plan(request(0), at(0))
            .into_response()
            .map(|r| r.throttle_time_ms),
        Some(0),
        "H20"
    );
}

#[test]
fn emptiness_is_not_kept() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 10, 10, &[]);
    assert_eq!(cache.statistics().partitions, 0);
    assert_eq!(hit(&cache, request(10)), None);
}

#[test]
fn fetches_that_are_not_an_ordinary_consumers_pass_through() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 0, 10, &[batch(0, 10)]);
    let zero_id = |mut request: FetchRequest| {
        request.topics[0].topic = TopicRef::Id(TopicId::ZERO);
        request
    };
    let negative_partition_limit = |mut request: FetchRequest| {
        request.topics[0].partitions[0].partition_max_bytes = -1;
        request
    };
    let others = [
        FetchRequest {
            replica_id: 3,
            ..request(0)
        },
        FetchRequest {
            session_id: 9,
            session_epoch: 2,
            ..request(0)
        },
        FetchRequest {
            isolation_level: 2,
            ..request(0)
        },
        FetchRequest {
            max_bytes: -1,
            ..request(0)
        },
        request_of(&[(0, 0), (0, 5)]),
        request(-1),
        request_of(&[]),
        FetchRequest::default(),
        zero_id(request(0)),
        negative_partition_limit(request(0)),
    ];
    for other in others {
        let plan = cache.plan(other.clone(), at(0));
        assert!(!plan.is_cacheable(), "{other:?}");
        assert_eq!(plan.upstream_request(), Some(&other));
    }
    let opens_a_session = FetchRequest {
        session_epoch: 0,
        ..request(0)
    };
    assert!(hit(&cache, opens_a_session).is_some());
}

#[test]
fn a_name_hits_once_its_id_is_known_and_misses_under_another_id() {
    let by_name = |name: &'static str| {
        let mut request = request(0);
        request.topics[0].topic = TopicRef::Name(WireStr::from_static(name));
        request
    };
    let mut cache = cache_of(1 << 20);
    let orders = WireStr::from_static("orders");
    assert_eq!(
        cache.unresolved_names(by_name("orders").topics.iter().map(|t| &t.topic), at(0)),
        core::slice::from_ref(&orders)
    );
    cache.learn_topic(&orders, TOPIC, at(0));
    let mut answer = response(10, batch(0, 10));
    answer.topics[0].topic = TopicRef::Name(orders.clone());
    absorb(&mut cache, &by_name("orders"), &answer);
    assert_eq!(
        hit(&cache, by_name("orders")),
        None,
        "the name may have stood for another id when the broker answered"
    );
    absorb_as(&mut cache, &by_name("orders"), &answer, TOPIC);
    assert_eq!(hit(&cache, by_name("orders")), Some(batch(0, 10)));
    assert_eq!(
        hit(&cache, request(0)),
        Some(batch(0, 10)),
        "the same partition by id"
    );
    assert_eq!(hit(&cache, by_name("other")), None);
    // Deleted and created again (H6).
    cache.learn_topic(&orders, TopicId([8; 16]), at(1));
    assert_eq!(hit(&cache, by_name("orders")), None);
    assert_eq!(cache.statistics().batches, 0);
    // An answer that was asked for before and comes after.
    cache.learn_topic(&orders, TOPIC, at(0));
    absorb_as(&mut cache, &by_name("orders"), &answer, TopicId([8; 16]));
    assert_eq!(
        hit(&cache, request(0)),
        None,
        "the name still stands for the new id"
    );
    assert_eq!(hit(&cache, by_name("orders")), Some(batch(0, 10)));
    check_accounting(&cache);
}

#[test]
fn an_answer_is_the_same_whether_it_is_encoded_as_a_plan_or_as_a_response() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 0, 100, &[batch(0, 10), batch(10, 5)]);
    let other = request_of(&[(3, 7)]);
    absorb(&mut cache, &other, &response_of(vec![data(3, 20, batch(7, 2))]));
    let both = request_of(&[(3, 8), (0, 4)]);
    // Cleared and used again, as a host does.
    let mut of_plan = Chunks::new();
    for request in [request(3), other, both.clone(), committed(both)] {
        for version in FETCH_VERSION_TOPIC_IDS..=FETCH_VERSION_MAX {
            let plan = cache.plan(request.clone(), at(0));
            of_plan.clear();
            let encoded = plan.encode_response(version, &mut of_plan);
            let response = plan.into_response();
            assert_eq!(encoded, Ok(response.is_some()));
            let mut of_response = Chunks::new();
            if let Some(response) = response {
                response.encode(version, &mut of_response).unwrap();
            }
            assert_eq!(
                of_plan.slices().collect::<Vec<_>>().concat(),
                of_response.into_bytes()
            );
        }
    }
}

#[test]
fn what_is_peeked_at_is_neither_counted_nor_kept_for_it() {
    let mut cache = cache_of(1 << 20);
    fill(&mut cache, 0, 100, &[batch(0, 10)]);
    let key = PartitionKey {
        topic_id: TOPIC,
        partition: 0,
    };
    let marked = |cache: &MemoryCache| {
        let index = &cache.engine.partitions.get(&key).unwrap().index;
        let (_, mark) = index.get(4).unwrap();
        (mark.hits(), cache.statistics().lookups)
    };
    let before = marked(&cache);
    let asked = FetchPartition::new(0, 4, 1 << 20);
    let peeked = cache.peek(TOPIC, &asked, false, at(0));
    assert_eq!(marked(&cache), before);
    assert_eq!(peeked, cache.hit(TOPIC, &asked, false, at(0)));
    assert!(peeked.is_some());
    assert_eq!(marked(&cache), (before.0 + 1, before.1 + 1));
    assert_eq!(cache.peek(TopicId::ZERO, &asked, false, at(0)), None);
}

/// Asks in both ways, as of a moment, and gives the answer on which they agree.
fn agreed(
    cache: &MemoryCache,
    asked: &FetchPartition,
    is_committed: bool,
    now: Instant,
) -> Option<PartitionData> {
    let mut request = request(asked.fetch_offset);
    request.max_bytes = asked.partition_max_bytes;
    request.isolation_level = is_committed.into();
    request.topics[0].partitions = vec![asked.clone()];
    let response = cache.plan(request, now).into_response();
    let planned = response.map(|response| response.topics[0].partitions[0].clone());
    let direct = cache.hit(TOPIC, asked, is_committed, now);
    assert_eq!(direct, planned, "{asked:?} {is_committed}");
    direct
}

#[test]
fn a_partition_that_is_asked_for_by_itself_gets_what_a_request_for_it_gets() {
    let settings = CacheSettings {
        size_limit_bytes: 1 << 20,
        max_staleness: MaxStaleness::Within(Duration::from_millis(100)),
        ..CacheSettings::default()
    };
    let mut cache = MemoryCache::new(settings, Crc32c::PORTABLE);
    let mut answer = data(
        0,
        40,
        join(&[batch(5, 5), batch(10, 10), batch(20, 1), batch(30, 10)]),
    );
    answer.log_start_offset = 7;
    answer.last_stable_offset = 20;
    absorb(&mut cache, &request(5), &response_of(vec![answer]));
    let size_bytes = i32::try_from(batch(5, 5).len()).unwrap();
    let mut hits = 0;
    for offset in [-1, 0, 6, 7, 12, 20, 25, 30, 39, 40, i64::MAX] {
        for limit_bytes in [-1, 0, 1, size_bytes, 2 * size_bytes, 1 << 20] {
            for is_committed in [false, true] {
                for now in [0, 99, 101].map(at) {
                    let asked = FetchPartition::new(0, offset, limit_bytes);
                    hits += u32::from(agreed(&cache, &asked, is_committed, now).is_some());
                }
            }
        }
    }
    assert!(hits > 50, "{hits}");
    let other = FetchPartition::new(1, 7, 100);
    assert_eq!(agreed(&cache, &other, false, at(0)), None);
    let epoch = FetchPartition {
        current_leader_epoch: 3,
        ..FetchPartition::new(0, 7, 100)
    };
    assert_eq!(agreed(&cache, &epoch, false, at(0)), None);
    assert_eq!(cache.hit(TopicId::default(), &other, false, at(0)), None);
    let before = cache.statistics();
    cache
        .hit(TOPIC, &FetchPartition::new(0, 7, 0), false, at(0))
        .unwrap();
    cache.hit(TOPIC, &other, false, at(0));
    let after = cache.statistics();
    assert_eq!(
        (after.lookups, after.hits, after.misses),
        (before.lookups + 2, before.hits + 1, before.misses + 1)
    );
    assert_eq!(after.bytes_saved, before.bytes_saved + batch(5, 5).len() as u64);
    cache.set_size_limit_bytes(0);
    assert_eq!(
        cache.hit(TOPIC, &FetchPartition::new(0, 7, 100), false, at(0)),
        None
    );
}
