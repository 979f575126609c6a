//! A cache whose limit is larger than the disk.

use kachet::mount::MountPoint;
use kachet_tests::small_file_system::SmallFileSystem;

use crate::batches::{at, data, numbered, request, request_one, response_of, unbounded};
use crate::driver::Driver;
use crate::medium::Lying;

const DISK_BYTES: usize = 8 << 20;
const BATCH_BYTES: usize = 16 << 10;
const HIGH_WATERMARK: i64 = 1_000_000;

type OnDisk = Driver<MountPoint>;

fn insert(cache: &mut OnDisk, number: i64) {
    let answer = response_of(vec![data(0, HIGH_WATERMARK, numbered(number, BATCH_BYTES))]);
    cache.absorb(&request(0, 10 * number), &answer, at(0));
}

fn hits(cache: &OnDisk, numbers: core::ops::Range<i64>) -> usize {
    let mut hits = 0;
    for number in numbers {
        let hit = cache.hit(&request_one(0, 10 * number), at(0));
        assert!(
            hit.is_none() || hit == Some(numbered(number, BATCH_BYTES)),
            "batch {number}"
        );
        hits += usize::from(hit.is_some());
    }
    hits
}

#[test]
fn a_cache_on_a_full_disk_makes_do_with_what_there_is_and_takes_more_once_there_is_more() {
    let Some(small) = SmallFileSystem::mounted(DISK_BYTES) else {
        return;
    };
    let mount = MountPoint::open(small.path().join("mount")).unwrap();
    let settings = unbounded(64 << 20, Some(256 << 10));
    let mut cache = Driver::over(settings, mount, Lying::default());
    for number in 0..2_000 {
        insert(&mut cache, number);
    }
    let full = cache.cache.statistics();
    assert!(full.storage_errors > 0, "{full:?}");
    assert!(full.effective_limit_bytes < DISK_BYTES as u64, "{full:?}");
    assert_eq!(full.storage_paused, 0, "{full:?}");
    let held = hits(&cache, 0..2_000);
    assert!(held > 200, "{held} batches are held");
    // Another program takes the rest of the disk, and what the cache gives up for its next segment.
    small.fill();
    for number in 2_000..2_500 {
        insert(&mut cache, number);
    }
    hits(&cache, 0..2_500);
    small.clear().unwrap();
    let before = cache.cache.statistics().effective_limit_bytes;
    for number in 2_500..4_000 {
        insert(&mut cache, number);
    }
    let after = cache.cache.statistics();
    assert!(
        after.effective_limit_bytes >= before && after.storage_paused == 0,
        "{after:?}"
    );
    let held = hits(&cache, 0..4_000);
    assert!(held > 200, "{held} batches are held");
}
