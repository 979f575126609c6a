use super::*;
use crate::storage::MemoryStorage;
use crate::storage::conformance::block_on;

const ID: SegmentId = SegmentId(4);
const SIZE: usize = 100_000;

fn faulty(seed: u64, rates: FaultRates) -> FaultyStorage<MemoryStorage> {
    FaultyStorage::new(MemoryStorage::new(), Faults::new(seed, rates))
}

fn bytes() -> Bytes {
    vec![0x55; SIZE].into()
}

/// A reader of a sealed segment that was written without faults, which are on from then on.
fn reader(seed: u64, rates: FaultRates) -> (FaultyReader<Bytes>, Faults) {
    let mut storage = faulty(seed, rates);
    let faults = storage.faults().clone();
    faults.switch(false);
    let reader = block_on(async {
        storage.create(ID).await?;
        storage.append(ID, vec![bytes()]).await?;
        storage.seal(ID).await?;
        storage.open(ID).await
    });
    faults.switch(true);
    (reader.unwrap(), faults)
}

fn read(reader: &FaultyReader<Bytes>, range: Range<u64>) -> Bytes {
    block_on(reader.read(range)).unwrap()
}

fn differing_bits(read: &[u8]) -> u32 {
    read.iter().map(|byte| (byte ^ 0x55).count_ones()).sum()
}

#[test]
fn a_flipped_bit_is_in_what_is_read_and_not_below() {
    let rates = FaultRates {
        bit_flip_per_mille: 1000,
        ..FaultRates::default()
    };
    let (reader, faults) = reader(1, rates);
    for _ in 0..100 {
        assert_eq!(differing_bits(&read(&reader, 10..2000)), 1);
        assert_eq!(differing_bits(&reader.read_now(0..1).unwrap().unwrap()), 1);
    }
    assert!(read(&reader, 5..5).is_empty());
    assert_eq!(faults.injected(FaultKind::BitFlip), 200);
    faults.set_per_mille(FaultKind::BitFlip, 0);
    assert_eq!(read(&reader, 0..SIZE as u64), bytes());
}

#[test]
fn a_bad_sector_is_bad_in_the_same_place_until_it_is_lifted() {
    let rates = FaultRates {
        bad_sector_per_mille: 100,
        ..FaultRates::default()
    };
    let (reader, faults) = reader(1, rates);
    let whole = read(&reader, 0..SIZE as u64);
    let bad = differing_bits(&whole);
    assert!((5..60).contains(&bad), "{bad} of 196 sectors");
    let piecewise = (0..SIZE as u64)
        .step_by(777)
        .map(|from| read(&reader, from..(from + 777).min(SIZE as u64)));
    assert_eq!(piecewise.collect::<Vec<_>>().concat(), whole);
    faults.switch(false);
    assert_eq!(read(&reader, 0..SIZE as u64), bytes());
}

#[test]
fn a_short_read_gives_a_beginning() {
    let rates = FaultRates {
        short_read_per_mille: 1000,
        ..FaultRates::default()
    };
    let (reader, _) = reader(1, rates);
    for _ in 0..100 {
        let read = read(&reader, 10..30);
        assert!(read.len() < 20 && differing_bits(&read) == 0);
    }
}

#[test]
fn nothing_can_be_had_without_waiting_if_that_is_asked_for() {
    let rates = FaultRates {
        not_now_per_mille: 1000,
        ..FaultRates::default()
    };
    let (reader, _) = reader(1, rates);
    assert!(reader.read_now(0..10).is_none());
    assert_eq!(differing_bits(&read(&reader, 0..10)), 0);
}

#[test]
fn a_torn_append_leaves_a_beginning_and_a_full_medium_nothing() {
    let torn = FaultRates {
        torn_append_per_mille: 1000,
        ..FaultRates::default()
    };
    let full = FaultRates {
        full_per_mille: 1000,
        ..FaultRates::default()
    };
    for seed in 0..50 {
        let mut storage = faulty(seed, torn);
        let pieces = vec![
            Bytes::from_static(b"abc"),
            Bytes::new(),
            Bytes::from_static(b"defgh"),
        ];
        let (appended, left) = block_on(async {
            storage.create(ID).await.unwrap();
            let appended = storage.append(ID, pieces).await;
            (appended, storage.into_inner().open(ID).await.unwrap())
        });
        assert_eq!(appended, Err(injected(Operation::Append, Some(ID))));
        assert!(b"abcdefgh".starts_with(&left));
    }
    let created = block_on(faulty(0, full).create(ID)).unwrap_err();
    assert_eq!(
        (created.kind, created.segment),
        (StorageErrorKind::Full, Some(ID))
    );
}

#[test]
fn the_operation_that_was_counted_to_fails_alone_or_with_all_behind_it() {
    for fail_from in [false, true] {
        let mut storage = faulty(0, FaultRates::default());
        let faults = storage.faults().clone();
        if fail_from {
            faults.fail_from(3);
        } else {
            faults.fail_once(3);
        }
        let outcomes: Vec<bool> = (0..6).map(|_| block_on(storage.list()).is_ok()).collect();
        assert_eq!(outcomes, [true, true, true, false, !fail_from, !fail_from]);
        assert_eq!(faults.operations(), 6);
        assert_eq!(faults.injected(FaultKind::Error), if fail_from { 3 } else { 1 });
        faults.cancel();
        assert!(block_on(storage.list()).is_ok());
    }
}

#[test]
fn the_operation_that_was_counted_to_fails_in_the_way_that_was_named() {
    let (reader, faults) = reader(0, FaultRates::default());
    faults.fail_with(FaultKind::BitFlip);
    faults.fail_once(1);
    let differing = [(); 3].map(|()| differing_bits(&read(&reader, 0..2000)));
    assert_eq!(differing, [0, 1, 0]);
    faults.fail_with(FaultKind::ShortRead);
    faults.fail_from(1);
    let lengths = [(); 3].map(|()| read(&reader, 0..2000).len());
    assert!(
        lengths[0] == 2000 && lengths[1] < 2000 && lengths[2] < 2000,
        "{lengths:?}"
    );
    assert_eq!(faults.injected(FaultKind::Error), 0);
}

#[test]
fn a_delayed_operation_is_pending_for_a_while_and_wakes_its_task() {
    use core::pin::pin;
    use core::task::{Context, Waker};

    let rates = FaultRates {
        delay_per_mille: 1000,
        ..FaultRates::default()
    };
    let mut storage = faulty(0, rates);
    let mut listing = pin!(storage.list());
    let mut context = Context::from_waker(Waker::noop());
    let mut polls = 1;
    while listing.as_mut().poll(&mut context).is_pending() {
        polls += 1;
    }
    assert!((2..=1 + DELAY_POLLS_MAX).contains(&polls), "{polls}");
}

#[test]
fn the_same_seed_gives_the_same_faults_at_about_the_rates_that_were_asked_for() {
    let outcomes = |seed| {
        let rates = FaultRates {
            error_per_mille: 200,
            delay_per_mille: 100,
            ..FaultRates::default()
        };
        let mut storage = faulty(seed, rates);
        let outcomes: Vec<bool> = (0..2000).map(|_| block_on(storage.list()).is_ok()).collect();
        (outcomes, storage.faults().injected(FaultKind::Error))
    };
    assert_eq!(outcomes(7), outcomes(7));
    assert_ne!(outcomes(7), outcomes(8));
    let (_, errors) = outcomes(7);
    assert!((300..500).contains(&errors), "{errors} of 2000");
}

#[test]
fn a_crash_leaves_what_was_sealed_and_a_beginning_of_what_was_not() {
    let mut longest = 0;
    for seed in 0..100 {
        let mut storage = faulty(seed, FaultRates::default());
        let (sealed, unsealed) = block_on(async {
            for id in [ID, SegmentId(5)] {
                storage.create(id).await?;
                storage.append(id, vec![bytes()]).await?;
            }
            storage.seal(ID).await?;
            storage.crash().await?;
            Ok::<_, StorageError>((storage.open(ID).await?, storage.open(SegmentId(5)).await?))
        })
        .unwrap();
        assert_eq!(sealed.inner, bytes());
        longest = longest.max(unsealed.size_bytes());
        assert!(unsealed.size_bytes() <= SIZE as u64 + GARBAGE_BYTES_MAX);
    }
    assert!(longest > SIZE as u64 / 2);
}
