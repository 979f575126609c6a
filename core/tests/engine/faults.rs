//! A storage that fails in every way at once: no wrong byte, no job without end, the limit holds, and once the faults are
//! over the cache is as good as new (H23).

use kachet_core::storage::faulty::{FaultKind, FaultRates};
use proptest::prelude::*;

use crate::batches::{Shape, at, data, key, make, numbered, request, request_one, response_of, unbounded};
use crate::driver::{Disk, Driver};
use crate::naive::{Rules, Run, config, settings, steps};

fn rate() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 2 => 1..50_u32, 2 => 50..400_u32, 1 => Just(1_000)]
}

fn rates() -> impl Strategy<Value = FaultRates> {
    (rate(), rate(), rate(), rate(), rate(), rate(), rate(), rate()).prop_map(|rates| FaultRates {
        error_per_mille: rates.0,
        full_per_mille: rates.1,
        torn_append_per_mille: rates.2,
        short_read_per_mille: rates.3,
        bit_flip_per_mille: rates.4,
        bad_sector_per_mille: rates.5,
        delay_per_mille: rates.6,
        not_now_per_mille: rates.7,
    })
}

/// A cache that has seen faults gives everything back, and then works as any other.
fn assert_recovered(disk: &mut Disk) {
    disk.faults().switch(false);
    let limit = disk.cache.settings().size_limit_bytes;
    disk.set_limit(0, false);
    assert_eq!(disk.cache.statistics().size_bytes, 0, "everything goes");
    assert_eq!(disk.lying.segments(), []);
    disk.set_limit(limit, false);
    for number in 0..200 {
        let batch = numbered(number, 300);
        let answer = response_of(vec![data(9, 10_000, batch.clone())]);
        disk.absorb(&request(9, 10 * number), &answer, at(20_000));
        assert_eq!(disk.hit(&request_one(9, 10 * number), at(20_000)), Some(batch));
    }
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn a_storage_that_fails_costs_misses_and_nothing_else(
        segment in prop_oneof![Just(None), Just(Some(700)), Just(Some(5_000))],
        limit in prop_oneof![Just(12_000), Just(30_000), Just(90_000)],
        seed in any::<u64>(),
        rates in rates(),
        steps in steps(120),
    ) {
        let disk = Driver::on_disk(settings(limit, segment), seed, rates);
        let mut run = Run::new(disk, Rules { is_strict: false, may_fail: true });
        for step in &steps {
            run.step(step);
        }
        run.release();
        assert_recovered(&mut run.driver);
    }
}

fn fill(disk: &mut Disk, numbers: core::ops::Range<i64>) {
    for number in numbers {
        let answer = response_of(vec![data(0, 100_000, numbered(number, 500))]);
        disk.absorb(&request(0, 10 * number), &answer, at(0));
    }
}

#[test]
fn a_segment_that_could_not_be_removed_goes_once_it_can_be() {
    let mut disk = Driver::on_disk(unbounded(20_000, Some(2_000)), 1, FaultRates::default());
    fill(&mut disk, 0..30);
    disk.faults().set_per_mille(FaultKind::Error, 1_000);
    disk.cache.forget_partition(key(0));
    disk.settle();
    assert_ne!(disk.lying.segments(), [], "nothing can be removed");
    disk.faults().switch(false);
    disk.set_limit(0, false);
    assert_eq!(disk.lying.segments(), [], "and now it can be");
    assert_eq!(disk.cache.statistics().size_bytes, 0);
}

#[test]
fn a_batch_of_another_epoch_replaces_one_that_the_storage_does_not_give_back() {
    let rates = FaultRates {
        not_now_per_mille: 1_000,
        ..FaultRates::default()
    };
    let mut disk = Disk::on_disk(unbounded(100_000, Some(4_000)), 1, rates);
    let batch = |base, epoch| {
        make(Shape {
            epoch,
            payload_bytes: 3_000,
            ..Shape::new(base, base + 9)
        })
    };
    for base in [0, 10, 20, 30, 40] {
        let answer = response_of(vec![data(0, i64::MAX, batch(base, 1))]);
        disk.absorb(&request(0, base), &answer, at(0));
    }
    // The same offsets and the same size, by another leader: what follows is of the log before it.
    let answer = response_of(vec![data(0, i64::MAX, batch(0, 2))]);
    disk.absorb(&request(0, 0), &answer, at(0));
    assert_eq!(disk.hit(&request(0, 0), at(0)), Some(batch(0, 2)));
    assert_eq!(disk.cache.statistics().batches, 1);
}
