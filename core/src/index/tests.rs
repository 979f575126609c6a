//! The index against a naive model: the same operations on a sorted list.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::time::Instant;

/// What the model keeps of a batch, by its last offset.
type Model = BTreeMap<i64, IndexedBatch>;

#[derive(Clone, Debug)]
enum Step {
    /// Covered gap, length, epoch, from here on.
    Insert(i64, u32, u32, i32),
    Remove(i64),
    RemoveFrom(i64),
    RemoveBelow(i64),
    RemoveSlot(u32),
    Get(i64),
}

fn batch(base: i64, gap: u32, length: u32, epoch: i32) -> Option<IndexedBatch> {
    let last = base.checked_add(i64::from(length))?;
    Some(IndexedBatch {
        span: OffsetSpan::new(base, last)?,
        covers: OffsetSpan::new(base.saturating_sub(i64::from(gap)), last)?,
        leader_epoch: epoch,
        known_at: Instant::from_start(Duration::from_secs(u64::from(length % 100))).into(),
        location: Location {
            slot: length % 5,
            position: gap,
            batch_bytes: length,
            aborted: AbortedState::Known { count: 0 },
        },
    })
}

/// The batch as the index may know it: a gap that is too long for it is cut.
fn agrees(found: &IndexedBatch, expected: &IndexedBatch) -> bool {
    let cut = IndexedBatch {
        covers: found.covers,
        ..*expected
    };
    *found == cut
        && expected.covers.contains(found.covers.base())
        && found.covers.last() == expected.covers.last()
}

fn check(index: &PartitionIndex, model: &Model) {
    assert_eq!(index.len(), model.len());
    assert_eq!(index.is_empty(), model.is_empty());
    let all: Vec<IndexedBatch> = index.iter().collect();
    assert_eq!(all.len(), model.len());
    for (found, expected) in all.iter().zip(model.values()) {
        assert!(agrees(found, expected), "{found:?} {expected:?}");
    }
    let newest = model.values().next_back().map_or(-1, |batch| batch.leader_epoch);
    assert_eq!(index.newest_epoch(), newest);
    for (chunk, last) in index.chunks.iter().zip(&index.lasts) {
        assert_eq!(chunk.last_offset(), Some(*last));
        assert!(chunk.len() <= CHUNK_ENTRIES);
    }
}

fn model_get(model: &Model, offset: i64) -> Option<&IndexedBatch> {
    let (_, batch) = model.range(offset..).next()?;
    batch.covers.contains(offset).then_some(batch)
}

fn run(steps: &[Step]) {
    let (mut index, mut model) = (PartitionIndex::default(), Model::new());
    for step in steps {
        match *step {
            Step::Insert(base, gap, length, epoch) => {
                let Some(batch) = batch(base, gap, length, epoch) else {
                    continue;
                };
                let overlaps = model
                    .range(batch.covers.base()..)
                    .next()
                    .is_some_and(|(_, known)| known.covers.overlaps(batch.covers));
                let found = index.first_overlap(batch.covers);
                assert!(!overlaps || found.is_some() || has_cut_gaps(&index, &model));
                if found.is_some() || overlaps {
                    continue;
                }
                assert!(index.insert(&batch, 0, &AbortedInBatch::None));
                model.insert(batch.covers.last(), batch);
            }
            Step::Remove(offset) => {
                let last = model.range(offset..).next().map_or(offset, |(last, _)| *last);
                let (removed, expected) = (index.remove(last), model.remove(&last));
                assert_eq!(removed.is_some(), expected.is_some());
            }
            Step::RemoveFrom(offset) => {
                let mut removed = Vec::new();
                index.remove_from(offset, |batch| removed.push(*batch));
                let expected: Vec<_> = model.split_off(&offset).into_values().collect();
                assert_eq!(removed.len(), expected.len());
                assert!(removed.iter().zip(&expected).all(|(a, b)| agrees(a, b)));
            }
            Step::RemoveBelow(offset) => {
                let mut removed = Vec::new();
                index.remove_below(offset, |batch| removed.push(*batch));
                let kept = model.split_off(&offset);
                let expected: Vec<_> = core::mem::replace(&mut model, kept).into_values().collect();
                assert_eq!(removed.len(), expected.len());
                assert!(removed.iter().zip(&expected).all(|(a, b)| agrees(a, b)));
            }
            Step::RemoveSlot(slot) => {
                let mut removed = 0;
                index.remove_in_slot(slot, |_| removed += 1);
                let before = model.len();
                model.retain(|_, batch| batch.location.slot != slot);
                assert_eq!(removed, before - model.len());
            }
            Step::Get(offset) => {
                let found = index.get(offset).map(|(batch, _)| batch);
                let located = index.locate(offset).map(|(location, _)| location);
                assert_eq!(located, found.map(|batch| batch.location));
                match (found, model_get(&model, offset)) {
                    (Some(found), Some(expected)) => assert!(agrees(&found, expected)),
                    (None, None) => {}
                    (None, Some(_)) => assert!(has_cut_gaps(&index, &model)),
                    (Some(found), None) => panic!("{found:?} at {offset}"),
                }
                let exact = index.by_last_offset(offset).is_some();
                assert_eq!(exact, model.contains_key(&offset));
                let before = offset.checked_sub(1).and_then(|before| model.get(&before));
                assert_eq!(index.ending_before(offset).is_some(), before.is_some());
            }
        }
    }
    check(&index, &model);
}

/// Gaps of more than 32 bits are the one thing in which the index may know less.
fn has_cut_gaps(index: &PartitionIndex, model: &Model) -> bool {
    index
        .iter()
        .zip(model.values())
        .any(|(a, b)| a.covers != b.covers)
}

/// Offsets that are dense, sparse, and at both ends of the range.
fn offsets() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => 0..5_000_i64,
        1 => prop_oneof![Just(0), Just(i64::MAX), Just(i64::MAX - 1), Just(i64::from(u32::MAX)), Just(1_i64 << 33)],
        1 => 0..i64::MAX,
        1 => (0..64_u32).prop_map(|bits| i64::MAX >> bits),
    ]
}

fn lengths() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 0..20_u32, 1 => 0..=i32::MAX.unsigned_abs()]
}

fn steps() -> impl Strategy<Value = Step> {
    let gap = || prop_oneof![6 => Just(0_u32), 2 => 0..30_u32, 1 => any::<u32>()];
    prop_oneof![
        30 => (offsets(), gap(), lengths(), 0..4_i32).prop_map(|(at, gap, len, epoch)| Step::Insert(at, gap, len, epoch)),
        4 => offsets().prop_map(Step::Remove),
        1 => offsets().prop_map(Step::RemoveFrom),
        1 => (0..3_000_i64).prop_map(Step::RemoveBelow),
        1 => (0..5_u32).prop_map(Step::RemoveSlot),
        10 => offsets().prop_map(Step::Get),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_a_sorted_list(steps in prop::collection::vec(steps(), 1..1_500)) {
        run(&steps);
    }
}

/// An index of `count` batches of ten offsets each, put in by the given order.
fn filled(order: impl Iterator<Item = i64>) -> PartitionIndex {
    let mut index = PartitionIndex::default();
    for n in order {
        let batch = batch(n * 10, 0, 9, 0).unwrap();
        assert!(index.insert(&batch, 0, &AbortedInBatch::None));
    }
    index
}

/// What the index takes for each batch, in bytes.
#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn bytes_per_batch(index: &PartitionIndex) -> f64 {
    let chunks: usize = index.chunks.iter().map(|chunk| chunk.heap_bytes()).sum();
    let directory = 2 * index.lasts.capacity() * size_of::<i64>()
        + index.chunks.capacity() * size_of::<Box<Chunk>>()
        + index.chunks.len() * size_of::<Chunk>();
    (chunks + directory) as f64 / index.len() as f64
}

#[test]
fn takes_no_more_than_48_bytes_a_batch_in_whatever_order_they_come() {
    let count = 100_000;
    // A multiplication by an odd number visits everything once.
    let scattered = |n: i64| (n * 7_919) % count;
    for (name, index) in [
        ("in order", filled(0..count)),
        ("backwards", filled((0..count).rev())),
        ("scattered", filled((0..count).map(scattered))),
    ] {
        let bytes = bytes_per_batch(&index);
        assert!(bytes <= 48.0, "{name}: {bytes:.1} bytes a batch");
        for n in (0..count).step_by(97) {
            assert_eq!(index.get(n * 10 + 9).unwrap().0.span.base(), n * 10);
        }
    }
}

#[test]
fn a_shrinking_index_gives_memory_back() {
    let mut index = filled(0..100_000);
    for n in 0..100_000 {
        if n % 100 != 0 {
            assert!(index.remove(n * 10 + 9).is_some());
        }
    }
    assert_eq!(index.len(), 1_000);
    assert!(bytes_per_batch(&index) < 250.0, "{}", bytes_per_batch(&index));
}

#[test]
fn times_are_rounded_down_to_a_sixteenth_of_a_second() {
    for nanos in [0, 1, 62_499_999, 62_500_000, 999_999_999, 5_000_000_001, u64::MAX] {
        let at = Instant::from_start(Duration::from_nanos(nanos));
        let mut known = batch(0, 0, 5, 0).unwrap();
        known.known_at = at.into();
        let mut index = PartitionIndex::default();
        index.insert(&known, 0, &AbortedInBatch::None);
        let kept = index.get(0).unwrap().0.known_at.instant().unwrap();
        assert!(kept <= at && at.since(kept) < Duration::from_nanos(62_500_001) || nanos == u64::MAX);
        assert!(kept <= at);
    }
}

#[test]
fn a_search_by_time_skips_what_is_older() {
    let mut index = PartitionIndex::default();
    for n in 0..1_000 {
        let batch = batch(n * 10, 0, 9, 0).unwrap();
        index.insert(&batch, n, &AbortedInBatch::None);
    }
    let first = index.since(500).next().unwrap();
    assert!(
        first.span.base() <= 5_000 && first.span.base() > 5_000 - 10 * 64,
        "{first:?}"
    );
    assert_eq!(index.since(1_000).next(), None);
}

#[test]
fn epochs_that_fall_along_the_log_are_contradictions() {
    let mut index = PartitionIndex::default();
    for (base, epoch) in [(0, 1), (10, 1), (20, 3), (30, 3)] {
        index.insert(&batch(base, 0, 9, epoch).unwrap(), 0, &AbortedInBatch::None);
    }
    let span = |base, last| OffsetSpan::new(base, last).unwrap();
    assert_eq!(index.contradicts_epoch(span(40, 49), 3), None);
    assert_eq!(index.contradicts_epoch(span(40, 49), 2), Some(20));
    assert_eq!(index.contradicts_epoch(span(10, 19), 2), None);
    assert_eq!(index.contradicts_epoch(span(10, 19), 4), Some(20));
    assert_eq!(index.contradicts_epoch(span(10, 19), 0), Some(0));
    assert_eq!(index.first_of_newer_epoch(1), Some((20, 3)));
    assert_eq!(index.first_of_newer_epoch(0), Some((0, 1)));
    assert_eq!(index.first_of_newer_epoch(3), None);
    assert_eq!(index.covered(), vec![span(0, 39)]);
}

#[test]
fn runs_in_parts_are_the_runs_at_once() {
    let mut index = PartitionIndex::default();
    // Runs of seven batches of ten offsets, over several chunks.
    for number in (0..300_i64).filter(|number| number % 8 != 7) {
        index.insert(&batch(number * 10, 0, 9, 0).unwrap(), 0, &AbortedInBatch::None);
    }
    let all = index.covered();
    assert_eq!((all.len(), all[1]), (38, OffsetSpan::new(80, 149).unwrap()));
    for batches_max in [1, 6, 7, 64, 100, 1_000] {
        let (mut joined, mut from, mut batches) = (Vec::<OffsetSpan>::new(), Some(i64::MIN), 0);
        while let Some(offset) = from {
            let part = index.covered_from(offset, batches_max);
            assert!(part.batches <= batches_max);
            batches += part.batches;
            for run in part.runs {
                match joined.last_mut().filter(|last| last.last() + 1 == run.base()) {
                    Some(last) => *last = OffsetSpan::new(last.base(), run.last()).unwrap(),
                    None => joined.push(run),
                }
            }
            from = part.next;
        }
        assert_eq!((&joined, batches), (&all, index.len()), "{batches_max} at a time");
    }
    // From the batch on that holds the offset, or is next behind it.
    assert_eq!(index.covered_from(75, 1).runs, [OffsetSpan::new(80, 89).unwrap()]);
    assert_eq!(index.covered_from(85, 1).runs, [OffsetSpan::new(80, 89).unwrap()]);
}
