//! Does one piece of a hot path a number of times, for callgrind to count the instructions: `cargo xtask instructions` runs it
//! twice, with other numbers of calls, and takes the difference, which leaves out what comes before the first call.
//!
//! `instructions` prints the names of the pieces; `instructions NAME CALLS` does one.

use std::hint::black_box;
use std::process::ExitCode;

use bytes::{BufMut, Bytes, BytesMut};
use kachet_core::cache::{Harvest, MemoryCache};
use kachet_core::time::Instant;
use kachet_core::wire::{BatchEntry, Batches, Chunks, FetchResponse, RecordBatch, RecordBytes};
use kachet_workload::answers::{VERSION, answer, request};
use kachet_workload::filled::{BatchAt, CRC32C, answer as fetched, batches, cache, lookups, settings};

type Piece = fn(u32);

/// Inserts before those that are counted.
const WARMING: u32 = 4_096;
/// As many as the longer run has.
const INSERTS_MAX: u32 = WARMING + 8_192;

/// Each with what it does once.
const PIECES: [(&str, Piece); 6] = [
    ("lookup", lookup),
    ("answer", whole_answer),
    ("absorb", absorb),
    ("evict", evict),
    ("walk", walk),
    ("records", records),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let piece = |name: &str| PIECES.iter().find(|(piece, _)| *piece == name);
    match arguments.as_slice() {
        [] => PIECES.iter().for_each(|(name, _)| println!("{name}")),
        [name, calls] => match (piece(name), calls.parse()) {
            (Some((_, piece)), Ok(calls)) => piece(calls),
            _ => return ExitCode::FAILURE,
        },
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

/// One batch by its offset, of ten thousand.
fn lookup(calls: u32) {
    let held = batches(10_000, 1, 100);
    let cache = cache(&held, 1 << 30);
    let asked = lookups(&held, 1 << 10);
    for (key, offset) in asked.iter().cycle().take(calls as usize) {
        black_box(cache.batch_slice(key, *offset));
    }
}

/// One batch, from the request's bytes to the response's, of ten thousand.
fn whole_answer(calls: u32) {
    let held = batches(10_000, 1, 100);
    let cache = cache(&held, 1 << 30);
    let asked = lookups(&held, 1 << 10);
    let requests = asked
        .iter()
        .map(|(key, offset)| request(key.partition, *offset, 1));
    let requests: Vec<Bytes> = requests.collect();
    let mut encoded = Chunks::new();
    for request in requests.iter().cycle().take(calls as usize) {
        black_box(answer(&cache, request, &mut encoded));
    }
}

/// One batch of a kibibyte is kept, with its checksum, where there is room. What comes again is a batch behind the last one.
fn absorb(calls: u32) {
    insert(calls, 1 << 30);
}

/// The same where there is no room, so that others go.
fn evict(calls: u32) {
    insert(calls, 1 << 20);
}

fn insert(calls: u32, limit_bytes: u64) {
    // As many whatever the calls, so that their making is not in the difference.
    let answers = (0..INSERTS_MAX).filter_map(|number| {
        let batch = BatchAt {
            partition: 0,
            base: i64::from(number),
            records: 1,
            size_bytes: 1 << 10,
        };
        fetched(&[batch], i64::MAX)
    });
    let answers: Vec<_> = answers.collect();
    let mut cache = MemoryCache::new(settings(limit_bytes), CRC32C);
    // So many before the first call that the limit is felt.
    for (request, response) in answers.iter().take((WARMING + calls) as usize) {
        for harvest in Harvest::gather(request, response, CRC32C) {
            cache.absorb(harvest, Instant::default());
        }
    }
    black_box(cache.statistics());
}

/// A response of eight batches is decoded, its batches are found and their checksums computed.
fn walk(calls: u32) {
    let Some((_, response)) = fetched(&batches(8, 1, 1_000), i64::MAX) else {
        return;
    };
    let mut encoded = Chunks::new();
    if response.encode(VERSION, &mut encoded).is_err() {
        return;
    }
    let body = encoded.into_bytes();
    for _ in 0..calls {
        let Ok(response) = FetchResponse::decode(black_box(&body).clone(), VERSION) else {
            return;
        };
        for (_, data) in response.partitions() {
            for slice in data.records.iter().flat_map(RecordBytes::slices) {
                for entry in Batches::new(slice) {
                    if let Ok(BatchEntry::Batch(batch)) = entry {
                        let _ = black_box(batch.verify(CRC32C));
                    }
                }
            }
        }
    }
}

/// The records of a batch of 64 are gone through, uncompressed.
fn records(calls: u32) {
    let batch = batch_of_records(64);
    for _ in 0..calls {
        let Ok(parsed) = RecordBatch::parse(black_box(&batch)) else {
            return;
        };
        for record in parsed.records(parsed.payload()) {
            let _ = black_box(record);
        }
    }
}

/// A batch whose records are as long as a byte of a variable length can say.
fn batch_of_records(count: u8) -> Bytes {
    let mut records = BytesMut::new();
    for number in 0..count {
        // Attributes, timestamp, offset, a key of one byte, a value of 48, no headers; lengths and deltas are zigzag.
        let record = 3 + 2 + 1 + 48 + 1;
        records.put_u8(2 * record);
        records.put_slice(&[0, 0]);
        // Two bytes from 64 on, where zigzag passes 127.
        records.put_u8(2 * number);
        records.put_slice(&[2, b'k', 2 * 48]);
        records.put_bytes(b'v', 48);
        records.put_u8(0);
    }
    let mut batch = BytesMut::new();
    batch.put_i64(0);
    batch.put_i32(49 + i32::try_from(records.len()).unwrap_or(i32::MAX));
    batch.put_i32(0);
    batch.put_u8(2);
    batch.put_bytes(0, 4 + 2);
    batch.put_i32(i32::from(count) - 1);
    batch.put_bytes(0, 8 + 8);
    batch.put_i64(-1);
    batch.put_i16(-1);
    batch.put_i32(-1);
    batch.put_i32(i32::from(count));
    batch.put_slice(&records);
    batch.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_are_there_to_be_gone_through() {
        let batch = batch_of_records(64);
        let parsed = RecordBatch::parse(&batch).expect("it is a batch");
        let found: Vec<_> = parsed
            .records(parsed.payload())
            .collect::<Result<_, _>>()
            .expect("they are records");
        assert_eq!(found.len(), 64);
        assert!(
            found
                .iter()
                .all(|record| record.value.is_some_and(|value| value.len() == 48))
        );
    }

    #[test]
    fn every_piece_can_be_done() {
        for (_, piece) in PIECES {
            piece(3);
        }
    }
}
