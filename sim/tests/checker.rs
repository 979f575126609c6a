//! The checker finds every rule that is broken, and a seed does the same in every run.

use kachet_sim::{Sabotage, run};

/// Seeds within which each breach is to be found.
const SEEDS: u64 = 60;

/// Whether a breach is found that nobody commits in the same seeds.
#[track_caller]
fn assert_found(sabotage: Sabotage, rule: &str) {
    let breaks = |seed: u64, sabotage| {
        let outcome = run(seed, false, sabotage);
        outcome.violations.iter().any(|violation| violation.rule == rule)
    };
    let found = (0..SEEDS).find(|seed| breaks(*seed, Some(sabotage)) && !breaks(*seed, None));
    assert!(
        found.is_some(),
        "{sabotage:?} was not found as a breach of \"{rule}\""
    );
}

#[test]
fn a_flipped_bit_is_found() {
    assert_found(Sabotage::FlipBit, "bytes");
}

#[test]
fn an_answer_that_is_served_for_ever_is_found() {
    assert_found(Sabotage::ServeForEver, "stale");
}

#[test]
fn a_missing_list_of_aborted_transactions_is_found() {
    assert_found(Sabotage::DropAborted, "committed");
}

#[test]
fn a_batch_that_is_left_out_is_found() {
    assert_found(Sabotage::SkipBatch, "shape");
}

#[test]
fn limits_that_are_not_kept_are_found() {
    assert_found(Sabotage::IgnoreLimits, "limits");
}

#[test]
fn more_memory_than_allowed_is_found() {
    assert_found(Sabotage::Swell, "size limit");
}

#[test]
fn a_request_that_is_never_answered_is_found() {
    assert_found(Sabotage::Hang, "hang");
}

#[test]
fn a_failure_without_a_cause_is_found() {
    assert_found(Sabotage::Fail, "no failure of its own");
}

#[test]
fn an_error_that_no_broker_gave_is_found() {
    assert_found(Sabotage::InventError, "no failure of its own");
}

#[test]
fn an_invented_watermark_is_found() {
    assert_found(Sabotage::InventWatermark, "watermarks");
}

#[test]
fn a_partition_that_is_left_out_is_found() {
    assert_found(Sabotage::LeaveOut, "partitions");
}

#[test]
fn the_same_fetch_twice_at_once_is_found() {
    assert_found(Sabotage::AskAlone, "single flight");
}

#[test]
fn a_task_that_never_ends_is_found() {
    assert_found(Sabotage::LeakTask, "task leak");
}

#[test]
fn a_panic_in_a_task_is_found() {
    assert_found(Sabotage::Panic, "panic");
}

#[test]
fn a_seed_does_the_same_in_every_run() {
    for seed in 0..SEEDS {
        let (first, second) = (run(seed, false, None), run(seed, false, None));
        assert_eq!(
            (first.digest, first.events),
            (second.digest, second.events),
            "seed {seed}"
        );
        assert!(first.events > 0);
    }
}
