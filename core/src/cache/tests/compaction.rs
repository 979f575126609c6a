//! What the cleaner may have rewritten has an age bound of its own (H5).

use super::freshness::{bounded, evidence, is_hit, validate};
use super::*;

#[test]
fn batches_of_a_compacted_topic_are_fetched_anew_after_a_bound_of_their_own() {
    let compacted = |is_compacted| Evidence {
        is_compacted,
        ..evidence(0, 100)
    };
    let mut cache = bounded();
    fill(&mut cache, 0, 100, &[batch(0, 10)]);
    absorb_at(&mut cache, &request(10), &response(100, batch(10, 10)), at(2_000));
    validate(&mut cache, &compacted(true), at(3_000));
    assert!(is_hit(&cache, 0, at(3_000)), "fetched 3 bounds ago");
    validate(&mut cache, &compacted(true), at(3_001));
    assert!(!is_hit(&cache, 0, at(3_001)));
    assert!(is_hit(&cache, 10, at(3_001)), "fetched later");
    // The same batch again: it has not been rewritten, and counts as new.
    absorb_at(&mut cache, &request(0), &response(100, batch(0, 10)), at(3_001));
    assert!(is_hit(&cache, 0, at(3_001)));
    assert_eq!(cache.statistics().inserts, 2);
    // Where the policy is delete there is no such bound.
    validate(&mut cache, &compacted(false), at(9_000));
    assert!(is_hit(&cache, 0, at(9_000)));
}

#[test]
fn a_gap_of_a_compacted_topic_is_no_younger_than_the_answer_that_showed_it() {
    let mut cache = bounded();
    absorb_at(&mut cache, &request(5), &response(100, batch(10, 10)), at(1_000));
    // From another replica, or after a change, there may be something in front of it.
    absorb_at(&mut cache, &request(10), &response(100, batch(10, 10)), at(3_500));
    let stands = Evidence {
        is_compacted: true,
        ..evidence(0, 100)
    };
    let doubtful = cache.doubtful(&request(10), at(4_000));
    cache.validate(&doubtful[0], &stands, at(4_000));
    assert!(is_hit(&cache, 10, at(4_001)));
    assert!(!is_hit(&cache, 5, at(4_001)));
    // An answer that was overtaken vouches for nothing that a newer one does not.
    absorb_at(&mut cache, &request(5), &response(100, batch(10, 10)), at(3_400));
    cache.validate(&doubtful[0], &stands, at(4_000));
    assert!(is_hit(&cache, 10, at(4_001)));
    assert!(!is_hit(&cache, 5, at(4_001)));
}

#[test]
fn where_nothing_is_compacted_a_gap_that_was_shown_once_stays_covered() {
    let mut cache = bounded();
    absorb(&mut cache, &request(5), &response(100, batch(10, 10)));
    validate(&mut cache, &evidence(0, 100), at(1));
    absorb(&mut cache, &request(10), &response(100, batch(10, 10)));
    assert!(is_hit(&cache, 5, at(1)));
    absorb(&mut cache, &request(2), &response(100, batch(10, 10)));
    assert!(is_hit(&cache, 2, at(1)));
    assert_eq!(cache.statistics().inserts, 1);
    check_accounting(&cache);
}
