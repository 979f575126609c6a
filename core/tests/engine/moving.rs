//! Batches that move on when their segment goes, and reads that fail.

use kachet_core::storage::faulty::{FaultKind, FaultRates};

use crate::batches::{Shape, at, data, make, request, request_one, response_of, unbounded, unchanged};
use crate::driver::{Disk, Driver};

const HIGH_WATERMARK: i64 = 1_000_000;

fn disk() -> Disk {
    Driver::on_disk(unbounded(60_000, Some(4_000)), 3, FaultRates::default())
}

/// Most of a batch that is so small are the bytes that Kafka's own checksum leaves out.
fn batch(number: i64) -> bytes::Bytes {
    make(Shape {
        payload_bytes: 1,
        ..Shape::new(10 * number, 10 * number + 9)
    })
}

fn insert(disk: &mut Disk, number: i64) {
    let answer = response_of(vec![data(0, HIGH_WATERMARK, batch(number))]);
    disk.absorb(&request(0, 10 * number), &answer, at(0));
}

fn is_hit(disk: &Disk, number: i64) -> bool {
    let hit = disk.hit(&request_one(0, 10 * number), at(0));
    assert!(hit.is_none() || hit == Some(batch(number)), "batch {number}");
    hit.is_some()
}

/// Fills a disk with batches of which every second is read, so that segments do not move on as they are, then makes room
/// by three times as many. Gives how many of the first are left.
fn moved(flips_per_mille: u32) -> usize {
    let mut disk = disk();
    let first = 200;
    for number in 0..first {
        insert(&mut disk, number);
    }
    for _ in 0..2 {
        assert!((0..first).step_by(2).all(|number| is_hit(&disk, number)));
    }
    disk.faults().set_per_mille(FaultKind::BitFlip, flips_per_mille);
    for number in first..4 * first {
        insert(&mut disk, number);
    }
    disk.faults().set_per_mille(FaultKind::BitFlip, 0);
    (0..first).filter(|number| is_hit(&disk, *number)).count()
}

#[test]
fn what_moves_on_is_verified_before_it_gets_a_new_checksum() {
    let without_faults = moved(0);
    assert!(without_faults > 50, "{without_faults} moved on");
    // Whatever is served is asserted to be right, a bit that was flipped in the leader epoch included.
    let with_faults = moved(1_000);
    assert!(with_faults < without_faults, "{with_faults} of {without_faults}");
}

#[test]
fn a_batch_that_could_not_be_read_is_a_miss_from_then_on() {
    let mut disk = disk();
    for number in 0..200 {
        insert(&mut disk, number);
    }
    disk.faults().set_per_mille(FaultKind::NotNow, 1_000);
    disk.faults().set_per_mille(FaultKind::Error, 1_000);
    assert!(!is_hit(&disk, 20));
    disk.faults().switch(false);
    let cold = disk.cache.cold_reads(
        &request_one(0, 200),
        at(0),
        &disk.warm(&request_one(0, 200), at(0)),
    );
    assert_eq!(cold.len(), 0, "it is not read again");
    assert!(!is_hit(&disk, 20));
    insert(&mut disk, 20);
    assert!(
        !is_hit(&disk, 20),
        "whether it is the same batch nobody could say"
    );
    for doubtful in disk.cache.doubtful(&request(0, 0), at(0)) {
        disk.cache
            .validate(&doubtful, &unchanged(HIGH_WATERMARK, false), at(0));
    }
    assert!(is_hit(&disk, 20), "what a broker gives anew is");
}
