//! What is served is read from the storage, and verified, once: a hit costs what its bytes cost.

use kachet_core::storage::faulty::{FaultKind, FaultRates};

use crate::batches::{at, data, key, numbered, request, request_one, response_of, unbounded};
use crate::driver::Driver;

const BATCHES: i64 = 30;
const BATCH_BYTES: usize = 1_000;

#[test]
fn a_hit_is_read_once_whether_it_can_be_had_at_once_or_not() {
    let mut disk = Driver::on_disk(unbounded(200_000, Some(8_000)), 1, FaultRates::default());
    for number in 0..BATCHES {
        let answer = response_of(vec![data(0, i64::MAX, numbered(number, BATCH_BYTES))]);
        disk.absorb(&request(0, 10 * number), &answer, at(0));
    }
    disk.cache.write_out(true);
    disk.settle();
    assert_eq!(disk.cache.covered(key(0)).len(), 1);
    for not_now_per_mille in [0, 1_000, 500] {
        disk.faults().set_per_mille(FaultKind::NotNow, not_now_per_mille);
        for number in 0..BATCHES {
            let before = disk.faults().operations();
            let hit = disk.hit(&request_one(0, 10 * number), at(0));
            assert_eq!(hit, Some(numbered(number, BATCH_BYTES)));
            assert_eq!(
                disk.faults().operations() - before,
                1,
                "batch {number}, {not_now_per_mille}"
            );
        }
        let before = disk.faults().operations();
        let all = disk.hit(&request(0, 0), at(0)).map_or(0, |hit| hit.len());
        assert_eq!(all, usize::try_from(BATCHES).unwrap() * BATCH_BYTES);
        let reads = disk.faults().operations() - before;
        assert_eq!(i64::try_from(reads), Ok(BATCHES), "{not_now_per_mille}");
    }
}
