use super::*;

const LIMIT_BYTES: u64 = 1 << 20;
const BATCHES: u64 = 64;

/// A policy of which something has gone, and a main log that is full.
fn full() -> (Policy, MainLog) {
    let mut policy = Policy::new(LIMIT_BYTES);
    put_in(&mut policy, LIMIT_BYTES);
    policy.is_full();
    let main = MainLog {
        size_bytes: LIMIT_BYTES,
        oldest_since_bytes: 0,
    };
    (policy, main)
}

/// Lets time pass.
fn put_in(policy: &mut Policy, bytes: u64) {
    policy.inserted(hash(u64::MAX / 2), bytes, BATCHES);
}

/// Hashes that lie in places of their own.
fn hash(n: u64) -> u64 {
    (n << 32) | (n + 1) << 4
}

#[test]
fn the_main_log_takes_everything_until_something_has_to_go() {
    let mut policy = Policy::new(LIMIT_BYTES);
    let mut main = MainLog {
        size_bytes: 0,
        oldest_since_bytes: 0,
    };
    assert_eq!(policy.log_for(hash(1), main), LogKind::Main);
    main.size_bytes = LIMIT_BYTES / 100 * 97;
    assert_eq!(
        policy.log_for(hash(1), main),
        LogKind::Small,
        "its share is taken"
    );
    main.size_bytes = 0;
    policy.is_full();
    assert_eq!(policy.log_for(hash(1), main), LogKind::Small);
}

#[test]
fn what_comes_back_soon_enters_the_main_log_and_what_was_away_for_long_does_not() {
    let (mut policy, main) = full();
    policy.evicted(LogKind::Small, hash(1), 100);
    assert_eq!(policy.log_for(hash(1), main), LogKind::Main);
    assert_eq!(policy.log_for(hash(2), main), LogKind::Small, "it never was here");
    put_in(&mut policy, LIMIT_BYTES / 4);
    // Away for a fifth of the age, then for a third.
    assert_eq!(policy.log_for(hash(1), main), LogKind::Main);
    put_in(&mut policy, LIMIT_BYTES / 4);
    assert_eq!(policy.log_for(hash(1), main), LogKind::Small);
}

#[test]
fn a_young_main_log_lets_nothing_in() {
    let (mut policy, main) = full();
    policy.evicted(LogKind::Small, hash(1), 100);
    put_in(&mut policy, LIMIT_BYTES / 8);
    let young = MainLog {
        oldest_since_bytes: policy.now_bytes() - LIMIT_BYTES / 8,
        ..main
    };
    assert_eq!(policy.log_for(hash(1), young), LogKind::Small);
}

#[test]
fn what_went_from_the_main_log_comes_back_through_the_small_one() {
    let (mut policy, main) = full();
    policy.evicted(LogKind::Main, hash(1), 100);
    assert_eq!(policy.log_for(hash(1), main), LogKind::Small);
}

#[test]
fn the_more_comes_back_of_what_the_main_log_lost_the_sooner_others_must() {
    let (mut policy, _) = full();
    assert_eq!(policy.away_percent(), 24);
    policy.evicted(LogKind::Main, hash(1), LIMIT_BYTES);
    assert_eq!(policy.away_percent(), 40, "nothing came back");
    policy.inserted(hash(1), LIMIT_BYTES, BATCHES);
    assert_eq!(policy.away_percent(), 8, "all of it did");
    for n in 2..12 {
        policy.evicted(LogKind::Main, hash(n), LIMIT_BYTES / 16);
    }
    for n in 2..5 {
        policy.inserted(hash(n), LIMIT_BYTES / 16, BATCHES);
    }
    assert_eq!(
        policy.away_percent(),
        24 - 16 + 1,
        "three tenths of it did, but for a byte"
    );
}

#[test]
fn a_ghost_is_forgotten_after_three_limits_and_once_its_batch_is_back() {
    let (mut policy, main) = full();
    policy.evicted(LogKind::Small, hash(1), 100);
    policy.evicted(LogKind::Small, hash(2), 100);
    policy.inserted(hash(1), 100, BATCHES);
    assert_eq!(policy.log_for(hash(1), main), LogKind::Small);
    // The main log is as old as can be.
    put_in(&mut policy, 2 * LIMIT_BYTES);
    policy.clock_bytes += 100 * LIMIT_BYTES;
    policy.evicted(LogKind::Small, hash(3), 100);
    put_in(&mut policy, 3 * LIMIT_BYTES);
    assert_eq!(policy.log_for(hash(3), main), LogKind::Main);
    put_in(&mut policy, LIMIT_BYTES / 100);
    assert_eq!(policy.log_for(hash(3), main), LogKind::Small);
}

#[test]
fn the_small_log_goes_first_while_it_takes_more_than_its_share() {
    let policy = Policy::new(LIMIT_BYTES);
    assert_eq!(policy.victim(LIMIT_BYTES / 20), LogKind::Small);
    assert_eq!(policy.victim(LIMIT_BYTES / 50), LogKind::Main);
}

#[test]
fn each_move_costs_a_hit() {
    assert_eq!([0, 1, 2].map(Policy::survives), [None, Some(0), Some(1)]);
}

#[test]
fn another_limit_makes_it_forget() {
    let (mut policy, main) = full();
    policy.evicted(LogKind::Small, hash(1), 100);
    assert!(policy.size_bytes() >= 4 * 4 * BATCHES);
    policy.fit_into(LIMIT_BYTES / 2);
    assert_eq!(policy.size_bytes(), 0);
    assert_eq!(policy.log_for(hash(1), main), LogKind::Small);
}

#[test]
fn a_place_holds_the_later_ghost_and_another_fingerprint_is_another_batch() {
    let mut ghosts = Ghosts::default();
    ghosts.make_places(1);
    ghosts.add(hash(4), LogKind::Small, 0);
    assert!(ghosts.get(hash(4), 0).is_some());
    ghosts.add(hash(8), LogKind::Main, 0);
    assert_eq!(ghosts.get(hash(4), 0), None);
    let ghost = ghosts.get(hash(8), 3).map(|ghost| (ghost.log, ghost.away_ticks));
    assert_eq!(ghost, Some((LogKind::Main, 3)));
    assert_eq!(ghosts.growth_bytes(1), 0);
    assert_eq!(ghosts.growth_bytes(2), 16);
}

#[test]
fn what_moves_on_counts_as_unread_for_a_third_of_the_time() {
    let mut policy = Policy::new(LIMIT_BYTES);
    put_in(&mut policy, 900);
    assert_eq!(policy.moved_since_bytes(0), 600);
    assert_eq!(policy.moved_since_bytes(900), 900);
}
