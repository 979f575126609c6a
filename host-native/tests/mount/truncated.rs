//! Segments that are cut or removed by somebody else while they are mapped and read. The reading is done in a process
//! of its own, so that one that ends by a signal fails the test and not the others.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use kachet::core::storage::{SegmentId, SegmentReader, Storage};
use kachet::mount::{MountOptions, MountReader, ReadMode};

use super::{noise, segment_path, this_test};

const FOLDER: &str = "KACHET_TEST_CUT_FOLDER";
const ROUNDS: u64 = 40;
const READERS: u64 = 3;
const RECORD_BYTES: usize = 16 << 10;
const RECORDS: u64 = 128;
const RECORD: u64 = RECORD_BYTES as u64;

/// A record that ends in its checksum.
fn record(number: u64) -> Bytes {
    let body = noise(number, RECORD_BYTES - 4);
    let checksum = crc32c::crc32c(&body).to_be_bytes();
    [&body[..], &checksum].concat().into()
}

/// What the cache does with what it reads.
fn is_intact(record: &[u8]) -> bool {
    record
        .split_last_chunk()
        .is_some_and(|(body, checksum)| crc32c::crc32c(body).to_be_bytes() == *checksum)
}

#[derive(Default)]
struct Counts {
    intact: AtomicU64,
    caught: AtomicU64,
    errors: AtomicU64,
}

/// Not a test by itself: it reads while its parent cuts and removes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_segments_are_cut() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    end_by(Duration::from_secs(60));
    let options = MountOptions::new().read_mode(ReadMode::Mapped);
    let mut mount = options.open(Path::new(&folder)).unwrap();
    let counts = Arc::new(Counts::default());
    for round in 0..ROUNDS {
        let id = SegmentId(round);
        mount.create(id).await.unwrap();
        mount
            .append(id, (0..RECORDS).map(record).collect())
            .await
            .unwrap();
        mount.seal(id).await.unwrap();
        let reader = mount.open(id).await.unwrap();
        // Longer than the parent takes.
        let is_over = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..READERS)
            .map(|seed| {
                let (reader, counts, is_over) = (reader.clone(), Arc::clone(&counts), Arc::clone(&is_over));
                tokio::spawn(read_until(reader, seed, counts, is_over))
            })
            .collect();
        // On a line of its own: the test harness has begun one.
        println!("\ncut {round}");
        let mut told = String::new();
        tokio::task::block_in_place(|| std::io::stdin().read_line(&mut told)).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        is_over.store(true, Relaxed);
        for reader in readers {
            reader.await.unwrap();
        }
        mount.remove(id).await.unwrap();
    }
    let count = |count: &AtomicU64| count.load(Relaxed);
    println!(
        "counted {} {} {}",
        count(&counts.intact),
        count(&counts.caught),
        count(&counts.errors)
    );
}

/// Ends the process, should it not have ended by then.
fn end_by(limit: Duration) {
    thread::spawn(move || {
        thread::sleep(limit);
        std::process::exit(3);
    });
}

async fn read_until(reader: MountReader, seed: u64, counts: Arc<Counts>, is_over: Arc<AtomicBool>) {
    let mut random = fastrand::Rng::with_seed(seed);
    while !is_over.load(Relaxed) {
        let number = random.u64(..RECORDS);
        let range = number * RECORD..(number + 1) * RECORD;
        let now = reader.read_now(range.clone());
        let read = match now {
            Some(read) if random.u8(..4) > 0 => read,
            _ => reader.read(range).await,
        };
        match read {
            Ok(bytes) if is_intact(&bytes) => {
                // Looked at once more, it may have gone: that is the window that the documentation names.
                counts.intact.fetch_add(1, Relaxed);
            }
            Ok(bytes) => {
                assert!(bytes.ends_with(&[0; 4]), "nothing but zeros is put there");
                counts.caught.fetch_add(1, Relaxed);
            }
            Err(_) => {
                counts.errors.fetch_add(1, Relaxed);
            }
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_file_that_is_cut_or_removed_while_it_is_mapped_costs_misses_and_not_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = this_test("truncated::a_process_whose_segments_are_cut");
    command.env(FOLDER, folder.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = kachet_tests::child::spawn_for_the_process(command).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    let mut counted = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        match words.next() {
            Some("counted") => {
                counted = Some(words.map(|word| word.parse().unwrap()).collect::<Vec<u64>>());
            }
            Some("cut") => {
                let round = words.next().unwrap().parse().unwrap();
                thread::sleep(Duration::from_micros(random.u64(..3_000)));
                damage(&segment_path(folder.path(), SegmentId(round)), &mut random);
                stdin.write_all(b"done\n").unwrap();
            }
            _ => {}
        }
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
    let [intact, caught, errors] = counted.unwrap()[..] else {
        panic!("three counts");
    };
    assert!(
        intact > 100 && caught > 5 && errors > 100,
        "{intact} intact, {caught} caught by their checksum, {errors} errors"
    );
}

/// Cuts a file once or again and again, at a page or anywhere; or removes it.
fn damage(path: &Path, random: &mut fastrand::Rng) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let mut length = RECORDS * RECORD;
    for _ in 0..random.u64(1..5) {
        length = random.u64(..=length);
        if random.bool() {
            length -= length % 4_096;
        }
        file.set_len(length).unwrap();
    }
    if random.bool() {
        fs::remove_file(path).unwrap();
    }
}
