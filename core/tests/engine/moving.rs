//! Batches that move on when their segment goes, and reads that fail.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use kachet_core::segment::RECORD_HEADER_BYTES;
use kachet_core::storage::faulty::{FaultKind, FaultRates};
use kachet_core::storage::{SegmentId, SegmentReader, Storage, StorageError, StoredSegment};

use crate::batches::{Shape, at, data, make, request, request_one, response_of, unbounded, unchanged};
use crate::driver::{Disk, Driver};
use crate::medium::Medium;

const HIGH_WATERMARK: i64 = 1_000_000;

fn disk() -> Disk {
    Driver::on_disk(unbounded(60_000, Some(4_000)), 3, FaultRates::default())
}

/// Most of a batch that is so small are the bytes that Kafka's own checksum leaves out.
fn batch(number: i64) -> Bytes {
    make(Shape {
        payload_bytes: 1,
        ..Shape::new(10 * number, 10 * number + 9)
    })
}

fn insert<S: Storage>(disk: &mut Driver<S>, number: i64) {
    let answer = response_of(vec![data(0, HIGH_WATERMARK, batch(number))]);
    disk.absorb(&request(0, 10 * number), &answer, at(0));
}

fn is_hit<S: Storage>(disk: &Driver<S>, number: i64) -> bool {
    let hit = disk.hit(&request_one(0, 10 * number), at(0));
    assert!(hit.is_none() || hit == Some(batch(number)), "batch {number}");
    hit.is_some()
}

/// A medium that gives single records with another leader epoch than they were stored with, and all else as it is.
#[derive(Debug, Default)]
struct Forging {
    inner: Medium,
    is_on: Arc<AtomicBool>,
}

#[derive(Clone, Debug)]
struct ForgingReader {
    inner: Bytes,
    is_on: Arc<AtomicBool>,
}

impl Storage for Forging {
    type Reader = ForgingReader;

    async fn list(&mut self) -> Result<Vec<StoredSegment>, StorageError> {
        self.inner.list().await
    }

    async fn create(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.inner.create(segment).await
    }

    async fn append(&mut self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.inner.append(segment, pieces).await
    }

    async fn seal(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.inner.seal(segment).await
    }

    async fn open(&mut self, segment: SegmentId) -> Result<ForgingReader, StorageError> {
        Ok(ForgingReader {
            inner: self.inner.open(segment).await?,
            is_on: Arc::clone(&self.is_on),
        })
    }

    async fn remove(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.inner.remove(segment).await
    }
}

impl SegmentReader for ForgingReader {
    const MAY_CORRUPT: bool = true;

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn read_now(&self, range: Range<u64>) -> Option<Result<Bytes, StorageError>> {
        let read = self.inner.read_now(range)?;
        let is_record = |bytes: &Bytes| bytes.len() == RECORD_HEADER_BYTES + batch(0).len();
        Some(read.map(|bytes| {
            if !is_record(&bytes) || !self.is_on.load(Ordering::Relaxed) {
                return bytes;
            }
            let mut forged = bytes.to_vec();
            // Behind the base offset and the length. Kafka's own checksum leaves it out.
            forged[RECORD_HEADER_BYTES + 15] ^= 1;
            forged.into()
        }))
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.read_now(range).unwrap()
    }

    fn is_last(&self) -> bool {
        self.inner.is_last()
    }
}

/// Fills a disk with batches of which every second is read, so that segments do not move on as they are, then makes room
/// by as many again. Gives how many of those that were read are left.
fn moved(is_forging: bool) -> usize {
    let storage = Forging::default();
    let (is_on, lying) = (Arc::clone(&storage.is_on), storage.inner.lying.clone());
    let mut disk = Driver::over(unbounded(100_000, Some(4_000)), storage, lying);
    for number in 0..400 {
        insert(&mut disk, number);
    }
    let read = || (0..400).step_by(2);
    assert!(read().all(|number| is_hit(&disk, number)));
    is_on.store(is_forging, Ordering::Relaxed);
    for number in 400..800 {
        insert(&mut disk, number);
    }
    is_on.store(false, Ordering::Relaxed);
    read().filter(|number| is_hit(&disk, *number)).count()
}

#[test]
fn what_moves_on_is_verified_before_it_gets_a_new_checksum() {
    let honest = moved(false);
    assert!(honest > 150, "{honest} are left");
    // Whatever is served is asserted to be right.
    let forged = moved(true);
    assert!(forged + 20 < honest, "{forged} of {honest}");
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
