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
fn each_move_costs_a_hit_unless_a_reader_is_about_to_come_by_or_none_will() {
    let (mut policy, _) = full();
    let mut survives = |reach| [0, 1, 2].map(|hits| policy.survives(hits, reach, 1));
    for reach in [Reach::Unknown, Reach::Later] {
        assert_eq!(survives(reach), [None, Some(0), Some(1)]);
    }
    assert_eq!(survives(Reach::Soon), [Some(0), Some(0), Some(1)]);
    assert_eq!(survives(Reach::Never), [None; 3]);
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

/// A reader that goes on from `from` to `to` in steps of ten, of which nothing is cached, while ten times as many bytes are put
/// in.
fn read_on(policy: &mut Policy, readers: &mut Readers, from: i64, to: i64) {
    for offset in (from..to).step_by(10) {
        policy.fetched(readers, offset, offset + 10);
        put_in(policy, 100);
    }
}

fn main_since(since_bytes: u64) -> MainLog {
    MainLog {
        size_bytes: LIMIT_BYTES,
        oldest_since_bytes: since_bytes,
    }
}

#[test]
fn what_a_reader_reaches_before_the_main_log_has_turned_over_is_kept() {
    let (mut policy, _) = full();
    let mut readers = Readers::default();
    read_on(&mut policy, &mut readers, 0, 1_000);
    let main = main_since(policy.now_bytes() - 10_000);
    // Nine tenths of that are 9000 bytes, in which it comes 900 offsets further.
    assert_eq!(policy.reach(&readers, 1_000, main), Reach::Soon);
    assert_eq!(policy.reach(&readers, 1_880, main), Reach::Soon);
    assert_eq!(policy.reach(&readers, 1_920, main), Reach::Later);
    assert_eq!(policy.reach(&readers, 990, main), Reach::Never);
}

#[test]
fn it_takes_eight_fetches_that_go_on_to_be_a_reader() {
    let (mut policy, _) = full();
    let mut readers = Readers::default();
    read_on(&mut policy, &mut readers, 0, 80);
    let main = main_since(0);
    assert_eq!(policy.reach(&readers, 500, main), Reach::Unknown);
    read_on(&mut policy, &mut readers, 80, 100);
    assert_eq!(policy.reach(&readers, 500, main), Reach::Soon);
}

#[test]
fn hits_move_a_reader_as_well() {
    let (mut policy, _) = full();
    let mut readers = Readers::default();
    read_on(&mut policy, &mut readers, 0, 500);
    let main = main_since(policy.now_bytes() - 1_000);
    assert_eq!(policy.reach(&readers, 1_000, main), Reach::Later);
    for offset in (500..1_000).step_by(10) {
        readers.note(offset, offset + 10);
    }
    assert_eq!(policy.reach(&readers, 1_000, main), Reach::Soon);
    assert_eq!(policy.reach(&readers, 990, main), Reach::Never);
}

#[test]
fn random_reads_are_no_readers_and_push_none_out() {
    let (mut policy, main) = full();
    let mut readers = Readers::default();
    let mut random = fastrand::Rng::with_seed(1);
    let mut stray = |readers: &mut Readers, policy: &Policy| {
        let offset = 10 * random.i64(0..100_000);
        policy.fetched(readers, offset, offset + 10);
    };
    for _ in 0..1_000 {
        stray(&mut readers, &policy);
    }
    assert_eq!(policy.reach(&readers, 1 << 40, main), Reach::Unknown);
    for offset in (0..1_000).step_by(10) {
        read_on(&mut policy, &mut readers, offset, offset + 10);
        stray(&mut readers, &policy);
    }
    for _ in 0..20 {
        stray(&mut readers, &policy);
    }
    assert_eq!(policy.reach(&readers, 1_500, main), Reach::Soon);
    assert_eq!(
        policy.reach(&readers, 0, main),
        Reach::Unknown,
        "others read here than the one that is past it"
    );
}

#[test]
fn who_passes_a_random_read_leaves_nobody_behind() {
    let (mut policy, main) = full();
    let mut readers = Readers::default();
    // Twice what the reader is about to read, so that both cursors stand where it will begin.
    readers.note(90, 100);
    read_on(&mut policy, &mut readers, 0, 500);
    readers.note(590, 600);
    read_on(&mut policy, &mut readers, 500, 1_000);
    assert_eq!(policy.reach(&readers, 999, main), Reach::Never);
    assert_eq!(policy.reach(&readers, 1_000, main), Reach::Soon);
}

#[test]
fn readers_that_meet_are_two_readers() {
    let (mut policy, main) = full();
    let mut readers = Readers::default();
    read_on(&mut policy, &mut readers, 0, 500);
    read_on(&mut policy, &mut readers, 100, 500);
    readers.note(500, 510);
    readers.note(510, 520);
    assert_eq!(policy.reach(&readers, 505, main), Reach::Soon);
    readers.note(500, 510);
    assert_eq!(policy.reach(&readers, 505, main), Reach::Never);
}

#[test]
fn a_reader_that_stands_still_is_none_any_more() {
    let (mut policy, main) = full();
    let mut readers = Readers::default();
    read_on(&mut policy, &mut readers, 0, 500);
    assert_eq!(policy.reach(&readers, 600, main), Reach::Soon);
    for round in 0..4 {
        // Somebody else fetches, so that it is seen.
        put_in(&mut policy, LIMIT_BYTES / 8);
        policy.fetched(&mut readers, 100_000 + 1_000 * round, 100_010 + 1_000 * round);
    }
    assert_eq!(policy.reach(&readers, 600, main), Reach::Unknown);
}

#[test]
fn no_more_is_spared_than_what_is_put_in_pays_for() {
    let (mut policy, _) = full();
    let mut spared_bytes = 0;
    for _ in 0..LIMIT_BYTES / 1_000 {
        spared_bytes += policy.survives(0, Reach::Soon, 1_000).map_or(0, |_| 1_000);
    }
    assert!(
        spared_bytes > 0 && spared_bytes <= LIMIT_BYTES / 16,
        "{spared_bytes}"
    );
    put_in(&mut policy, 2_500);
    let again = [(); 4].map(|()| policy.survives(0, Reach::Soon, 1_000));
    assert_eq!(
        again.iter().flatten().count(),
        2 + usize::from(spared_bytes + 3_000 <= LIMIT_BYTES / 16 + 2_500)
    );
    assert_eq!(
        policy.survives(1, Reach::Soon, 1_000),
        Some(0),
        "a hit pays for itself"
    );
}

#[test]
fn readers_that_do_not_come_are_not_waited_for_until_as_much_as_the_limit_was_put_in() {
    let (mut policy, main) = full();
    let mut readers = Readers::default();
    read_on(&mut policy, &mut readers, 0, 500);
    let half_share_bytes = LIMIT_BYTES / 32;
    for _ in 0..4 {
        policy.aided(true, half_share_bytes);
        policy.aided(false, half_share_bytes);
        policy.aided(false, half_share_bytes);
        policy.aided(true, half_share_bytes);
    }
    assert_eq!(policy.reach(&readers, 500, main), Reach::Soon);
    for _ in 0..8 {
        policy.aided(false, half_share_bytes);
    }
    assert_eq!(policy.reach(&readers, 500, main), Reach::Unknown);
    let bytes_left = LIMIT_BYTES - LIMIT_BYTES / 100;
    put_in(&mut policy, bytes_left);
    read_on(&mut policy, &mut readers, 500, 520);
    assert_eq!(policy.reach(&readers, 520, main), Reach::Unknown);
    put_in(&mut policy, LIMIT_BYTES / 100);
    assert_eq!(policy.reach(&readers, 520, main), Reach::Soon);
}

#[test]
fn another_limit_waits_for_readers_again() {
    let (mut policy, main) = full();
    let mut readers = Readers::default();
    read_on(&mut policy, &mut readers, 0, 500);
    policy.aided(false, LIMIT_BYTES / 8);
    assert_eq!(policy.reach(&readers, 500, main), Reach::Unknown);
    // What is left of the old limit may be a thousand times the new one.
    policy.fit_into(LIMIT_BYTES / 1_000);
    assert_eq!(policy.reach(&readers, 500, main), Reach::Soon);
}
