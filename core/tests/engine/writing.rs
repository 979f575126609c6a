//! Segments that are larger than what is written at once, and storages that take no more.

use bytes::Bytes;
use kachet_core::cache::Absorbed;
use kachet_core::cache::Harvest;
use kachet_core::storage::faulty::{FaultKind, FaultRates};

use crate::batches::{
    CRC, at, committed, data, numbered, request, request_one, response_of, unbounded, unchanged,
};
use crate::driver::{Disk, Driver, block_on};

const BATCH_BYTES: usize = 16 << 10;
const MEBIBYTE: u64 = 1 << 20;
const HIGH_WATERMARK: i64 = 1_000_000;

fn disk(limit_bytes: u64, segment_bytes: u64) -> Disk {
    let settings = unbounded(limit_bytes, Some(u32::try_from(segment_bytes).unwrap()));
    Driver::on_disk(settings, 1, FaultRates::default())
}

fn insert(disk: &mut Disk, number: i64) {
    let answer = response_of(vec![data(0, HIGH_WATERMARK, numbered(number, BATCH_BYTES))]);
    disk.absorb(&request(0, 10 * number), &answer, at(0));
}

fn is_hit(disk: &Disk, number: i64) -> bool {
    let hit = disk.hit(&request_one(0, 10 * number), at(0));
    assert!(
        hit.is_none() || hit == Some(numbered(number, BATCH_BYTES)),
        "batch {number}"
    );
    hit.is_some()
}

/// How many of the first batches a cache gives after a restart.
fn hits_after_restart(disk: &mut Disk, numbers: i64) -> (usize, u64) {
    let restored = disk.restart(disk.cache.settings()).unwrap();
    for doubtful in disk.cache.doubtful(&request(0, 0), at(0)) {
        disk.cache
            .validate(&doubtful, &unchanged(HIGH_WATERMARK, false), at(0));
    }
    disk.settle();
    let hits = (0..numbers).filter(|number| is_hit(disk, *number)).count();
    (hits, restored.scanned)
}

#[test]
fn a_segment_is_written_as_it_grows_and_read_from_where_it_lies() {
    let mut disk = disk(256 * MEBIBYTE, 8 * MEBIBYTE);
    let in_segment = i64::try_from(8 * MEBIBYTE).unwrap() / i64::try_from(BATCH_BYTES).unwrap();
    let numbers = in_segment + 200;
    for number in 0..numbers {
        insert(&mut disk, number);
        let unwritten_bytes = disk.cache.statistics().unwritten_bytes;
        assert!(
            unwritten_bytes < MEBIBYTE + 2 * BATCH_BYTES as u64,
            "{unwritten_bytes}"
        );
    }
    assert_eq!(disk.cache.statistics().segments, 2);
    assert!((0..numbers).all(|number| is_hit(&disk, number)));
    // The process ends here: no more is lost than what was not written, and what is not sealed is walked.
    let (hits, scanned) = hits_after_restart(&mut disk, numbers);
    let lost = usize::try_from(numbers).unwrap() - hits;
    assert!(lost > 0 && lost <= 65, "{lost} lost");
    assert_eq!(scanned, 1);
}

/// H26: what waits to be written holds no more memory than twice its size.
#[test]
fn a_response_is_held_until_it_is_written_if_most_of_it_is_new_and_copied_out_of_otherwise() {
    let numbers = |from: i64| (from..from + 8).flat_map(|number| numbered(number, BATCH_BYTES));
    for (known, is_held) in [(0, true), (4, true), (5, false), (8, false)] {
        let mut disk = disk(256 * MEBIBYTE, 8 * MEBIBYTE);
        for number in 0..known {
            insert(&mut disk, number);
        }
        disk.cache.write_out(false);
        disk.settle();
        let records = Bytes::from(numbers(0).collect::<Vec<_>>());
        let answer = response_of(vec![data(0, HIGH_WATERMARK, records.clone())]);
        for mut harvest in Harvest::gather(&request(0, 0), &answer, CRC) {
            assert_eq!(disk.cache.absorb(&mut harvest, at(0)), Absorbed::Complete);
        }
        drop(answer);
        assert_eq!(!records.is_unique(), is_held, "{known} of 8 were known");
        assert!((0..8).all(|number| is_hit(&disk, number)), "before it is written");
        disk.cache.write_out(false);
        disk.settle();
        assert!(records.is_unique(), "it is written");
        assert!((0..8).all(|number| is_hit(&disk, number)));
        assert_eq!(hits_after_restart(&mut disk, 8).0, 8);
    }
}

/// What may hold more than it is worth: one of many partitions, and a response so small that hosts read several at once.
#[test]
fn a_share_of_a_response_and_a_small_one_are_copied_out_of() {
    for (batch_bytes, partitions, is_held) in [
        (BATCH_BYTES, 1, true),
        (BATCH_BYTES, 3, false),
        (BATCH_BYTES - 1, 1, false),
    ] {
        let mut disk = disk(256 * MEBIBYTE, 8 * MEBIBYTE);
        let records = Bytes::from(numbered(0, batch_bytes).to_vec());
        let of_partition = |partition| data(partition, HIGH_WATERMARK, records.clone());
        let answer = response_of((0..partitions).map(of_partition).collect());
        for mut harvest in Harvest::gather(&request(0, 0), &answer, CRC) {
            assert_eq!(disk.cache.absorb(&mut harvest, at(0)), Absorbed::Complete);
        }
        drop(answer);
        assert_eq!(
            !records.is_unique(),
            is_held,
            "{batch_bytes} B in {partitions} partitions"
        );
        assert!(disk.hit(&request_one(0, 0), at(0)).is_some());
    }
}

#[test]
fn what_was_written_out_at_the_end_is_all_there_and_need_not_be_walked() {
    let mut disk = disk(256 * MEBIBYTE, 8 * MEBIBYTE);
    for number in 0..100 {
        insert(&mut disk, number);
    }
    disk.cache.write_out(false);
    disk.settle();
    assert_eq!(disk.cache.statistics().unwritten_bytes, 0);
    assert_eq!(disk.cache.statistics().segments, 1, "and it is still open");
    insert(&mut disk, 100);
    disk.cache.write_out(true);
    disk.settle();
    assert_eq!(hits_after_restart(&mut disk, 101), (101, 0));
}

#[test]
fn a_segment_that_loses_its_last_batch_while_it_is_written_is_removed() {
    let mut disk = disk(256 * MEBIBYTE, 8 * MEBIBYTE);
    for number in 0..100 {
        insert(&mut disk, number);
    }
    assert_eq!(disk.lying.segments().len(), 1);
    for number in 100..200 {
        let answer = response_of(vec![data(0, HIGH_WATERMARK, numbered(number, BATCH_BYTES))]);
        for mut harvest in Harvest::gather(&request(0, 10 * number), &answer, CRC) {
            assert_eq!(disk.cache.absorb(&mut harvest, at(0)), Absorbed::Complete);
        }
    }
    let job = disk.cache.next_job().expect("a mebibyte has come together");
    disk.cache.clear();
    let done = block_on(job.perform(&mut disk.storage, CRC));
    disk.cache.complete(done);
    disk.settle();
    disk.check();
    assert_eq!(disk.lying.segments(), []);
    assert_eq!(disk.cache.statistics().unwritten_bytes, 0);
}

#[test]
fn inserts_wait_when_too_much_is_to_be_written() {
    let mut disk = disk(256 * MEBIBYTE, 8 * MEBIBYTE);
    let mut waiting = None;
    for number in 0..4_000 {
        let answer = response_of(vec![data(0, HIGH_WATERMARK, numbered(number, BATCH_BYTES))]);
        for mut harvest in Harvest::gather(&request(0, 10 * number), &answer, CRC) {
            if disk.cache.absorb(&mut harvest, at(0)) == Absorbed::NeedsRoom {
                waiting.get_or_insert((number, harvest));
            }
        }
        if waiting.is_some() {
            break;
        }
    }
    let (number, mut harvest) = waiting.expect("no storage is so fast");
    let unwritten_bytes = disk.cache.statistics().unwritten_bytes;
    assert!(
        (31 * MEBIBYTE..=32 * MEBIBYTE).contains(&unwritten_bytes),
        "{unwritten_bytes}"
    );
    disk.settle();
    assert_eq!(disk.cache.absorb(&mut harvest, at(0)), Absorbed::Complete);
    assert!((0..=number).all(|number| is_hit(&disk, number)));
}

#[test]
fn a_medium_that_is_full_makes_the_limit_smaller_until_it_has_room_again() {
    let mut disk = disk(64 * MEBIBYTE, MEBIBYTE);
    for number in 0..3_000 {
        insert(&mut disk, number);
    }
    let statistics = disk.cache.statistics();
    assert_eq!(statistics.effective_limit_bytes, 64 * MEBIBYTE);
    assert!(statistics.size_bytes > 40 * MEBIBYTE);
    disk.faults().fail_with(FaultKind::Full);
    disk.faults().fail_once(0);
    let mut number = 3_000;
    while disk.cache.statistics().storage_errors == 0 {
        insert(&mut disk, number);
        number += 1;
    }
    let full = disk.cache.statistics();
    assert!(full.effective_limit_bytes < statistics.size_bytes, "{full:?}");
    assert!(full.size_bytes <= full.effective_limit_bytes, "{full:?}");
    disk.faults().cancel();
    for _ in 0..12_000 {
        insert(&mut disk, number);
        number += 1;
    }
    let recovered = disk.cache.statistics();
    assert!(recovered.effective_limit_bytes >= 64 * MEBIBYTE, "{recovered:?}");
    assert!(recovered.size_bytes > full.size_bytes, "{recovered:?}");
}

#[test]
fn a_storage_that_takes_nothing_is_left_alone_and_tried_again_until_it_does() {
    let mut disk = disk(64 * MEBIBYTE, MEBIBYTE);
    disk.faults().fail_from(0);
    let before = disk.faults().operations();
    for number in 0..20_000 {
        insert(&mut disk, number);
    }
    let failing = disk.cache.statistics();
    assert_eq!(failing.storage_paused, 1);
    let tried = disk.faults().operations() - before;
    assert!((5..100).contains(&tried), "{tried} operations");
    disk.faults().cancel();
    let mut more = 0;
    while disk.cache.statistics().storage_paused == 1 {
        insert(&mut disk, 20_000 + more);
        more += 1;
        assert!(more < 70_000);
    }
    insert(&mut disk, 99_000);
    assert!(is_hit(&disk, 99_000));
}

#[test]
fn where_nothing_is_ever_asked_what_was_stored_is_served_at_once_after_a_restart() {
    let mut disk = disk(64 * MEBIBYTE, MEBIBYTE);
    for number in 0..100 {
        insert(&mut disk, number);
    }
    disk.cache.write_out(true);
    disk.settle();
    disk.restart(disk.cache.settings()).unwrap();
    for number in 0..100 {
        assert!(is_hit(&disk, number));
        let committed = disk.hit(&committed(request_one(0, 10 * number)), at(0));
        assert_eq!(committed, Some(numbered(number, BATCH_BYTES)));
    }
}
