//! What a crash or a bad medium can leave of a small mount: cut at every byte and every sector, and with every bit of it
//! flipped. A restored cache serves what was stored or nothing, and loses nothing that lies outside the damage (H24).

use std::time::Duration;

use bytes::Bytes;
use kachet_core::cache::CacheSettings;
use kachet_core::segment::{
    AbortedInBatch, Place, RECORD_HEADER_BYTES, Record, SEGMENT_HEADER_BYTES, encode_record,
    encode_segment_header,
};
use kachet_core::storage::faulty::FaultRates;
use kachet_core::storage::{SegmentId, Storage};
use kachet_core::time::MaxStaleness;
use kachet_core::wire::RecordBatch;

use crate::batches::{
    CRC, Shape, at, data, key, make, request, request_one, response_of, unbounded, unchanged,
};
use crate::driver::{Disk, Driver, block_on};
use crate::medium::Medium;

const PARTITIONS: i32 = 2;
const SEGMENTS: i64 = 3;
const HIGH_WATERMARK: i64 = 1_000;
const SECTOR_BYTES: usize = 512;

/// A mount of three segments, each with batch n of both partitions; the last one is not sealed.
struct Mount {
    payload_bytes: usize,
    segments: Vec<(SegmentId, Vec<u8>)>,
    /// Where the second record of each segment ends.
    records_end: Vec<usize>,
}

fn batch(partition: i32, number: i64, payload_bytes: usize) -> Bytes {
    make(Shape {
        payload_bytes,
        fill: 1 + u64::try_from(partition).unwrap(),
        ..Shape::new(10 * number, 10 * number + 9)
    })
}

fn record_bytes(payload_bytes: usize) -> usize {
    RECORD_HEADER_BYTES + batch(0, 0, payload_bytes).len()
}

fn disk(medium: Medium) -> Disk {
    let settings = CacheSettings {
        max_staleness: MaxStaleness::Within(Duration::from_secs(3_600)),
        ..unbounded(1_000_000, None)
    };
    Driver::on_medium(settings, medium, 1, FaultRates::default())
}

impl Mount {
    fn new(payload_bytes: usize) -> Self {
        let segment_bytes = SEGMENT_HEADER_BYTES + 2 * record_bytes(payload_bytes);
        let settings = unbounded(1_000_000, Some(u32::try_from(segment_bytes).unwrap()));
        let mut disk = Driver::on_disk(settings, 1, FaultRates::default());
        for number in 0..SEGMENTS {
            for partition in 0..PARTITIONS {
                let batch = batch(partition, number, payload_bytes);
                let answer = response_of(vec![data(partition, HIGH_WATERMARK, batch)]);
                disk.absorb(&request(partition, 10 * number), &answer, at(0));
            }
        }
        let ids = disk.lying.segments();
        assert_eq!(ids.len(), 3);
        let mut medium = disk.storage.into_inner();
        let segments = ids.into_iter().map(|id| (id, block_on(medium.all_of(id))));
        let mut mount = Self {
            payload_bytes,
            segments: segments.collect(),
            records_end: Vec::new(),
        };
        for (number, (_, bytes)) in (0..).zip(&mount.segments) {
            let last = batch(PARTITIONS - 1, number, payload_bytes);
            let begins = bytes.windows(last.len()).position(|window| *window == *last);
            mount.records_end.push(begins.unwrap() + last.len());
        }
        let (tail, end) = (
            mount.segments.last_mut().unwrap(),
            mount.records_end.last().unwrap(),
        );
        tail.1.truncate(*end);
        mount
    }

    fn record_bytes(&self) -> usize {
        record_bytes(self.payload_bytes)
    }

    /// Restores the mount with other bytes in the place of one segment's, and reads everything. Says by segment how many
    /// of its two batches are served.
    fn restore_with(&self, segment: usize, bytes: &[u8]) -> Vec<usize> {
        let mut medium = Medium::default();
        block_on(async {
            for (index, (id, pristine)) in self.segments.iter().enumerate() {
                let bytes = if index == segment { bytes } else { pristine };
                medium.create(*id).await?;
                medium.append(*id, vec![Bytes::copy_from_slice(bytes)]).await?;
            }
            Ok::<_, kachet_core::storage::StorageError>(())
        })
        .unwrap();
        let mut disk = disk(medium);
        disk.restart(disk.cache.settings()).unwrap();
        for partition in 0..PARTITIONS {
            assert_eq!(disk.hit(&request(partition, 0), at(0)), None, "not validated");
            for doubtful in disk.cache.doubtful(&request(partition, 0), at(0)) {
                let evidence = unchanged(HIGH_WATERMARK, false);
                disk.cache.validate(&doubtful, &evidence, at(0));
            }
        }
        disk.settle();
        disk.check();
        let known = [key(0), key(1)];
        assert!(disk.cache.partitions().iter().all(|key| known.contains(key)));
        let served = |number| {
            let partitions = 0..PARTITIONS;
            partitions
                .filter(|partition| self.is_served(&disk, *partition, number))
                .count()
        };
        (0..SEGMENTS).map(served).collect()
    }

    /// Whether a batch is served; panics if anything else is in its place or behind it.
    fn is_served(&self, disk: &Disk, partition: i32, number: i64) -> bool {
        let stored: Vec<u8> = (number..SEGMENTS)
            .flat_map(|number| batch(partition, number, self.payload_bytes).to_vec())
            .collect();
        let run = disk.hit(&request(partition, 10 * number), at(0));
        if let Some(run) = &run {
            assert!(
                !run.is_empty() && stored.starts_with(run),
                "wrong bytes of batch {number} on"
            );
        }
        let inside = disk.hit(&request_one(partition, 10 * number + 4), at(0));
        assert_eq!(inside.is_some(), run.is_some());
        assert!(inside.is_none_or(|inside| stored.starts_with(&inside)));
        run.is_some()
    }

    /// How many batches of one segment are served; all that lies in others is.
    fn served_in(&self, segment: usize, bytes: &[u8]) -> usize {
        let served = self.restore_with(segment, bytes);
        let elsewhere = served.iter().sum::<usize>() - served[segment];
        assert_eq!(elsewhere, 4, "what lies in other segments");
        served[segment]
    }
}

/// One in so many bits, to go through fewer of them than all.
fn bit_step() -> usize {
    let step = std::env::var("KACHET_BIT_STEP").ok();
    step.and_then(|step| step.parse().ok()).unwrap_or(1)
}

#[test]
fn a_tail_that_is_cut_at_any_byte_loses_the_records_that_are_cut() {
    let mount = Mount::new(20);
    let tail = mount.segments.len() - 1;
    let bytes = &mount.segments[tail].1;
    let first_end = bytes.len() - mount.record_bytes();
    for cut in 0..=bytes.len() {
        let here = mount.served_in(tail, &bytes[..cut]);
        let whole = usize::from(cut >= first_end) + usize::from(cut >= bytes.len());
        assert_eq!(here, whole, "cut at {cut} of {}", bytes.len());
    }
}

#[test]
fn a_segment_that_is_cut_at_any_sector_loses_what_is_cut_whatever_lies_behind() {
    let mount = Mount::new(1_900);
    let mut images = 0;
    for segment in 0..mount.segments.len() {
        let bytes = &mount.segments[segment].1;
        let other = &mount.segments[(segment + 1) % mount.segments.len()].1;
        let first_end = mount.records_end[segment] - mount.record_bytes();
        for cut in (0..=bytes.len()).step_by(SECTOR_BYTES) {
            let zeros = vec![0; bytes.len() - cut];
            let ones = vec![0xff; bytes.len() - cut];
            let elsewhere = other.get(cut..).unwrap_or_default();
            for behind in [&[], zeros.as_slice(), ones.as_slice(), elsewhere] {
                let image = [&bytes[..cut], behind].concat();
                let here = mount.served_in(segment, &image);
                let whole = usize::from(cut >= first_end) + usize::from(cut >= mount.records_end[segment]);
                assert_eq!(here, whole, "cut at {cut} of {}", bytes.len());
                images += 1;
            }
        }
    }
    assert!(images > 80, "{images} images");
}

#[test]
fn whichever_bit_of_a_mount_is_flipped_nothing_wrong_is_served() {
    let mount = Mount::new(20);
    let tail = mount.segments.len() - 1;
    let (mut images, mut lost) = (0, 0);
    for (segment, (_, bytes)) in mount.segments.iter().enumerate() {
        for bit in (0..bytes.len() * 8).step_by(bit_step()) {
            let mut image = bytes.clone();
            image[bit / 8] ^= 1 << (bit % 8);
            let here = mount.served_in(segment, &image);
            let first_end = mount.records_end[segment] - mount.record_bytes();
            // By a footer all other records are found; without one it takes the record in front to find the next.
            let at_least = match bit / 8 {
                at if at < SEGMENT_HEADER_BYTES => 0,
                at if at >= mount.records_end[segment] => 2,
                at => usize::from(segment != tail || at >= first_end),
            };
            assert!(here >= at_least, "{here} served, bit {bit} of segment {segment}");
            images += 1;
            lost += 2 - here;
        }
    }
    assert!(
        lost > images / 4 && lost < images,
        "{lost} batches lost in {images} images"
    );
}

/// A segment that is not sealed, of batches by number and sequence, each with so much payload.
fn segment_of(id: u64, records: &[(i64, u64)], payload_bytes: usize) -> (SegmentId, Vec<u8>) {
    let id = SegmentId(id);
    let mut bytes = encode_segment_header(id, CRC).to_vec();
    for (number, sequence) in records {
        let place = Place {
            segment: id,
            position: u32::try_from(bytes.len()).unwrap(),
        };
        let record = Record {
            key: key(0),
            sequence: *sequence,
            covers_base: 10 * number,
            aborted: AbortedInBatch::Plain,
        };
        let batch = batch(0, *number, payload_bytes);
        bytes.extend(encode_record(
            place,
            &record,
            RecordBatch::parse(&batch).unwrap(),
            CRC,
        ));
    }
    (id, bytes)
}

#[test]
fn a_segment_whose_first_batch_was_stored_anew_elsewhere_keeps_the_others() {
    let mount = Mount {
        payload_bytes: 20,
        segments: vec![
            segment_of(1, &[(0, 0), (1, 5)], 20),
            segment_of(2, &[(0, 3), (2, 4)], 20),
        ],
        records_end: Vec::new(),
    };
    let pristine = mount.segments[0].1.clone();
    let served = mount.restore_with(0, &pristine);
    assert_eq!(served, [1, 1, 1]);
}

#[test]
fn of_two_batches_at_the_same_offsets_the_one_that_was_stored_last_is_served_whichever_segment_it_lies_in() {
    for (newer, older) in [(1, 2), (2, 1)] {
        let mut segments = vec![
            segment_of(newer, &[(0, 20)], 20),
            segment_of(older, &[(0, 10)], 30),
        ];
        segments.sort();
        let mount = Mount {
            payload_bytes: 20,
            segments,
            records_end: Vec::new(),
        };
        let pristine = mount.segments[0].1.clone();
        assert_eq!(mount.restore_with(0, &pristine).iter().sum::<usize>(), 1);
    }
}
