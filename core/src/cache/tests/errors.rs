//! Errors are not kept (H13), and drop what they put in doubt (H6, H7).

use super::*;

#[test]
fn errors_are_not_kept_and_have_their_consequences() {
    let two = || {
        let mut cache = cache_of(1 << 20);
        let both = request_of(&[(0, 0), (1, 0)]);
        let answer = response_of(vec![data(0, 10, batch(0, 10)), data(1, 10, batch(0, 10))]);
        absorb(&mut cache, &both, &answer);
        cache
    };
    let after = |error_code| {
        let mut cache = two();
        absorb(
            &mut cache,
            &request(50),
            &response_of(vec![PartitionData::error(0, error_code)]),
        );
        check_accounting(&cache);
        let hit_of = |index| {
            cache
                .plan(request_of(&[(index, 0)]), at(0))
                .into_response()
                .is_some()
        };
        (hit_of(0), hit_of(1), cache.statistics().batches)
    };
    assert_eq!(after(1), (false, true, 2), "out of range: validate first");
    assert_eq!(after(6), (false, true, 2), "another leader: validate first");
    assert_eq!(after(74), (false, true, 2));
    assert_eq!(
        after(3),
        (false, true, 1),
        "the topic lives: it was asked for by id"
    );
    assert_eq!(after(100), (false, false, 0), "the topic is gone");
    assert_eq!(after(103), (false, false, 0));
    assert_eq!(
        after(29),
        (true, true, 2),
        "one client's missing right says nothing of the data"
    );
}

#[test]
fn a_partition_that_is_unknown_by_name_puts_all_of_its_topic_in_doubt() {
    let mut cache = cache_of(1 << 20);
    let both = request_of(&[(0, 0), (1, 0)]);
    let answer = response_of(vec![data(0, 10, batch(0, 10)), data(1, 10, batch(0, 10))]);
    absorb(&mut cache, &both, &answer);
    let name = WireStr::from_static("orders");
    cache.learn_topic(&name, TOPIC, at(0));
    let by_name = |mut request: FetchRequest| {
        request.topics[0].topic = TopicRef::Name(name.clone());
        request
    };
    let mut refused = response_of(vec![PartitionData::error(0, 3)]);
    refused.topics[0].topic = TopicRef::Name(name.clone());
    absorb(&mut cache, &by_name(request(50)), &refused);
    assert_eq!(cache.statistics().batches, 1);
    let plan = cache.plan(request_of(&[(1, 0)]), at(0));
    assert!(plan.into_response().is_none(), "it may be the topic that is gone");
    check_accounting(&cache);
}
