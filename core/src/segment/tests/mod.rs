//! The format, its recovery from every kind of damage, and what it costs.

mod crashes;
mod damage;
mod hostile;
mod round_trip;

use alloc::vec;
use alloc::vec::Vec;

use bytes::{BufMut, Bytes, BytesMut};

use super::*;
use crate::identity::PartitionKey;
use crate::offset::OffsetSpan;
use crate::storage::conformance::block_on;
use crate::wire::{Crc32c, RecordBatch, TopicId};

const SEGMENT: SegmentId = SegmentId(0x0123_4567_89ab_cdef);
/// By the processor, so that damage campaigns are quick.
const CRC: Crc32c = Crc32c::from_fn(crc32c::crc32c);

fn key(partition: i32) -> PartitionKey {
    PartitionKey {
        topic_id: TopicId([9; 16]),
        partition,
    }
}

/// A batch of `delta` + 1 offsets from `base` on, with a payload that says which it is.
fn batch(base: i64, delta: i32, epoch: i32, payload: &[u8]) -> Bytes {
    let mut checked = BytesMut::new();
    checked.put_i16(0);
    checked.put_i32(delta);
    checked.put_i64(1_000);
    checked.put_i64(2_000);
    checked.put_i64(-1);
    checked.put_i16(-1);
    checked.put_i32(-1);
    checked.put_i32(1);
    checked.put_slice(payload);
    let mut batch = BytesMut::new();
    batch.put_i64(base);
    batch.put_i32(i32::try_from(checked.len() + 9).unwrap());
    batch.put_i32(epoch);
    batch.put_i8(2);
    batch.put_u32(CRC.of(&checked));
    batch.put_slice(&checked);
    batch.freeze()
}

fn record(partition: i32, sequence: u64, covers_base: i64, aborted: AbortedInBatch) -> Record {
    Record {
        key: key(partition),
        sequence,
        covers_base,
        aborted,
    }
}

fn some_aborted(count: i64) -> AbortedInBatch {
    let each = |index| Aborted {
        producer_id: 100 + index,
        first_offset: index,
        marker_offset: (index % 2 == 0).then_some(index + 5),
    };
    AbortedInBatch::Some((0..count).map(each).collect())
}

/// A segment as an engine writes it, and the batches that went into it.
struct Log {
    segment: SegmentId,
    bytes: Vec<u8>,
    batches: Vec<Bytes>,
    /// Where each record begins, and where the last one ends.
    borders: Vec<usize>,
}

impl Log {
    fn new(segment: SegmentId) -> Self {
        Self {
            segment,
            bytes: encode_segment_header(segment, CRC).to_vec(),
            batches: Vec::new(),
            borders: vec![SEGMENT_HEADER_BYTES],
        }
    }

    fn push(&mut self, record: &Record, batch: Bytes) {
        let place = Place {
            segment: self.segment,
            position: u32::try_from(self.bytes.len()).unwrap(),
        };
        let encoded = encode_record(place, record, RecordBatch::parse(&batch).unwrap(), CRC);
        assert_eq!(encoded.len(), record_size_bytes(&record.aborted, batch.len()));
        assert_eq!(encoded.capacity(), encoded.len());
        self.bytes.extend_from_slice(&encoded);
        self.batches.push(batch);
        self.borders.push(self.bytes.len());
    }

    fn entries(&self) -> Vec<DirectoryEntry> {
        records(self.segment, &self.bytes)
            .map(|view| view.entry())
            .collect()
    }

    fn sealed(mut self) -> Self {
        let footer = encode_footer(self.segment, &self.entries(), CRC).unwrap();
        self.bytes.extend_from_slice(&footer);
        self
    }

    /// The five batches of different partitions, sizes and states that most tests are about.
    fn small(segment: SegmentId) -> Self {
        let mut log = Self::new(segment);
        let base = segment.0.to_le_bytes();
        for (index, aborted) in [
            AbortedInBatch::None,
            AbortedInBatch::Unknown,
            some_aborted(2),
            AbortedInBatch::None,
            some_aborted(1),
        ]
        .into_iter()
        .enumerate()
        {
            let number = i64::try_from(index).unwrap();
            let payload = [&base[..], &vec![base[0]; 40 + 30 * index]].concat();
            let offset = number * 100;
            let batch = batch(offset + 3, 9, 4, &payload);
            let partition = i32::from(index % 2 == 1);
            log.push(&record(partition, 50 + index as u64, offset, aborted), batch);
        }
        log
    }
}

fn recover(segment: SegmentId, bytes: &Bytes) -> Result<Recovered, SegmentError> {
    block_on(read_directory(bytes, segment, CRC))
}

/// The batch that an entry names, as an engine reads it from a medium.
fn read_verified(segment: SegmentId, bytes: &Bytes, entry: &DirectoryEntry) -> Result<Bytes, SegmentError> {
    let range = entry.record_range();
    let (start, end) = (
        usize::try_from(range.start).unwrap(),
        usize::try_from(range.end).unwrap(),
    );
    let place = Place {
        segment,
        position: entry.position,
    };
    let expected = Expected {
        key: entry.key,
        span: entry.span,
    };
    // What recovery names lies within the segment, whatever happened to it.
    let record = bytes.slice(start..end);
    let verified = verified_batch(&record, place, &expected, CRC)?;
    assert_eq!(
        verified,
        bytes.slice(usize::try_from(entry.batch_range().start).unwrap()..end)
    );
    Ok(verified)
}

/// Whatever recovery names is what was written under that name, and reads as it or not at all. Gives how many read.
fn check_recovered(log: &Log, entries: &[DirectoryEntry], recovered: &Recovered, bytes: &Bytes) -> usize {
    let mut read = 0;
    for entry in &recovered.directory.entries {
        let index = entries
            .iter()
            .position(|written| written == entry)
            .expect("an entry that was not written");
        if let Ok(batch) = read_verified(log.segment, bytes, entry) {
            assert_eq!(batch, log.batches[index], "wrong bytes at entry {index}");
            read += 1;
        }
    }
    read
}

#[test]
fn recovery_may_be_awaited_on_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    let bytes = Bytes::new();
    is_send(&read_directory(&bytes, SEGMENT, CRC));
}

#[test]
fn bytes_on_the_medium_are_those_of_version_1() {
    let mut log = Log::new(SegmentId(0x1122_3344_5566_7788));
    log.push(&record(3, 5, 38, some_aborted(2)), batch(40, 1, 7, b"payload"));
    let log = log.sealed();
    // A program in another language wrote the same by the module's documentation. Another value is another version.
    assert_eq!(log.bytes.len(), 32 + 64 + 48 + 68 + 24 + 20 + 44 + 48 + 32);
    assert_eq!(CRC.of(&log.bytes), 0x3307_45b2);
}
