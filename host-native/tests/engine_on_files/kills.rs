//! A process that is killed at any moment while it fills a mount point, again and again on the same one: it opens each
//! time, and whatever is served of it is what was stored.
//!
//! `KACHET_KILLS=5000 cargo test -p kachet --test engine_on_files kill` for a long run.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use kachet::core::cache::CacheSettings;
use kachet::mount::{MountOptions, MountPoint, ReadMode};

use crate::batches::{Shape, at, data, key, make, request, request_one, response_of, unbounded, unchanged};
use crate::driver::Driver;
use crate::medium::Lying;

const FOLDER: &str = "KACHET_TEST_KILLED_FOLDER";
const ROUND: &str = "KACHET_TEST_KILLED_ROUND";
const READY: &str = "it is filling";
const KILLS: u64 = 200;
/// From when it is filling to when it is killed, at most.
const LIFE_MAX: Duration = Duration::from_millis(60);
/// No life is as long.
const LIFE_BOUND: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 3;
const BATCHES: i64 = 4_000;
const HIGH_WATERMARK: i64 = 10 * BATCHES;
const LIMIT_BYTES: u64 = 4 << 20;
const SEGMENT_BYTES: u32 = 64 << 10;

fn settings() -> CacheSettings {
    unbounded(LIMIT_BYTES, Some(SEGMENT_BYTES))
}

/// The batch of this number: the same in every process.
fn batch(partition: i32, number: i64) -> Bytes {
    make(Shape {
        payload_bytes: 100 + usize::try_from(number * 7_919 % 9_000).unwrap(),
        fill: 1 + u64::try_from(partition).unwrap(),
        ..Shape::new(10 * number, 10 * number + 9)
    })
}

fn mode(round: u64) -> ReadMode {
    if round.is_multiple_of(2) {
        ReadMode::Positional
    } else {
        ReadMode::Mapped
    }
}

/// What a mount point gives back, validated; and how many segments did not end as a sealed one does.
fn restored(folder: &Path, round: u64) -> (Driver<MountPoint>, u64) {
    let mount = MountOptions::new().read_mode(mode(round)).open(folder).unwrap();
    assert_eq!(mount.opened().stray_count, 0, "{:?}", mount.opened());
    let mut driver = Driver::over(settings(), mount, Lying::default());
    let restored = driver.restart(settings()).unwrap();
    driver.settle();
    for partition in 0..PARTITIONS {
        for doubtful in driver.cache.doubtful(&request(partition, 0), at(0)) {
            let evidence = unchanged(HIGH_WATERMARK, false);
            driver.cache.validate(&doubtful, &evidence, at(0));
        }
    }
    driver.check();
    (driver, restored.scanned)
}

/// Everything that is served is what was stored. Gives how many batches are.
fn assert_right(driver: &Driver<MountPoint>, made: &mut HashMap<(i32, i64), Bytes>) -> u64 {
    let mut served = 0;
    for partition in 0..PARTITIONS {
        for run in driver.cache.covered(key(partition)) {
            for number in run.base() / 10..=run.last() / 10 {
                let Some(hit) = driver.hit(&request_one(partition, 10 * number + 3), at(0)) else {
                    continue;
                };
                let stored = made
                    .entry((partition, number))
                    .or_insert_with(|| batch(partition, number));
                assert!(hit == *stored, "batch {number} of partition {partition}");
                served += 1;
            }
        }
    }
    served
}

/// Not a test by itself: the process that is killed.
#[test]
fn a_process_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    thread::spawn(|| {
        thread::sleep(LIFE_BOUND);
        std::process::exit(3);
    });
    let round = std::env::var(ROUND).unwrap().parse().unwrap();
    let (mut driver, _) = restored(Path::new(&folder), round);
    let mut random = fastrand::Rng::with_seed(round);
    println!("\n{READY}");
    loop {
        let partition = random.i32(0..PARTITIONS);
        let first = random.i64(0..BATCHES - 20);
        for number in first..first + random.i64(1..20) {
            let answer = response_of(vec![data(partition, HIGH_WATERMARK, batch(partition, number))]);
            driver.absorb(&request(partition, 10 * number), &answer, at(0));
            let again = first + random.i64(0..20);
            if let Some(hit) = driver.hit(&request_one(partition, 10 * again), at(0)) {
                assert!(hit == batch(partition, again), "batch {again} of {partition}");
            }
        }
    }
}

fn fill_and_kill(folder: &Path, round: u64, life: Duration) {
    let program = std::env::current_exe().unwrap();
    let mut command: Command = kachet_tests::child::command(program);
    command.args(["--exact", "kills::a_process_that_is_killed", "--nocapture"]);
    command.env(FOLDER, folder).env(ROUND, round.to_string());
    command.stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let is_ready = lines.any(|line| line.is_ok_and(|line| line == READY));
    thread::sleep(life);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(
        is_ready && status.code().is_none(),
        "it ended by itself: {status}"
    );
}

#[test]
fn whenever_a_process_is_killed_its_mount_point_opens_and_gives_back_what_was_stored() {
    let kills = std::env::var("KACHET_KILLS").ok();
    let kills = kills.map_or(KILLS, |kills| kills.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(kills);
    let mut made = HashMap::new();
    let (mut served, mut torn) = (0, 0);
    for round in 0..kills {
        let life = LIFE_MAX.mul_f64(random.f64());
        fill_and_kill(folder.path(), round, life);
        let (driver, scanned) = restored(folder.path(), round + 1);
        served += assert_right(&driver, &mut made);
        torn += scanned;
    }
    println!("{kills} kills, {served} batches served and right, {torn} torn segments met");
    assert!(served > kills * 20, "{served} served");
    assert!(torn > kills / 50, "{torn} torn segments");
}
