//! Damaged and hostile record data: each batch is read or refused, and whatever its checksum covers cannot
//! change unseen.

#[path = "support/damage.rs"]
mod damage;
#[allow(dead_code, reason = "requests hold no batches")]
#[path = "support/fixture.rs"]
mod fixture;

use std::error::Error;

use damage::{changes, prefixes};
use fixture::fixtures;
use kachet_core::wire::codec::{Codec, decompress};
use kachet_core::wire::{
    BATCH_HEADER_BYTES, BatchEntry, BatchError, Batches, ControlRecord, Crc32c, DecodeError, DecodeErrorKind,
    FetchResponse, RecordBatch,
};

/// Above what the captured batches hold, and small enough that a damaged one costs little.
const LIMIT_BYTES: usize = 16 * 1024;

/// The batches of every codec and of transactions, markers included, as the newest version carries them.
fn captured_batches() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for fixture in fixtures() {
        if fixture.version == 18 && matches!(fixture.case, "codecs" | "transactions") {
            let response = FetchResponse::decode(fixture.response, 18).unwrap();
            for (_, partition) in response.partitions() {
                let records = partition.records.as_ref().unwrap().to_bytes();
                let batches = Batches::new(&records).map(|entry| match entry.unwrap() {
                    BatchEntry::Batch(batch) => batch.as_bytes().to_vec(),
                    BatchEntry::Legacy(legacy) => panic!("{legacy:?}"),
                });
                found.extend(batches);
            }
        }
    }
    assert_eq!(found.len(), 11);
    found
}

/// The first of them, uncompressed: three records.
fn plain_batch() -> Vec<u8> {
    captured_batches().swap_remove(0)
}

/// Reads all there is in a batch, whatever its checksum says; the error that ended it.
fn read(batch: &RecordBatch<'_>) -> Result<(), Box<dyn Error>> {
    let records = decompress(batch.codec()?, batch.payload(), LIMIT_BYTES)?;
    let mut failed = None;
    for record in batch.records(&records) {
        assert!(failed.is_none(), "goes on after an error");
        match record {
            Ok(record) => {
                assert_eq!(record.headers.iter().count(), record.headers.len());
                let _ = record.key.map(ControlRecord::from_key);
            }
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Walks record data and reads everything in it.
fn survive(data: &[u8]) {
    let mut walk = Batches::new(data);
    let (mut walked, mut failed) = (0, false);
    for entry in &mut walk {
        assert!(!failed, "goes on after an error");
        match entry {
            Ok(BatchEntry::Batch(batch)) => {
                walked += batch.size_bytes();
                let _ = batch.verify(Crc32c::PORTABLE);
                let _ = read(&batch);
            }
            Ok(BatchEntry::Legacy(legacy)) => walked += legacy.bytes.len(),
            Err(_) => failed = true,
        }
    }
    assert!(walk.next().is_none());
    assert_eq!(walk.at_byte(), walked);
    assert_eq!(walk.rest(), &data[walked..]);
}

#[test]
#[cfg_attr(
    not(all(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd")),
    ignore = "reads every codec"
)]
fn captured_batches_are_whole_and_read_to_the_end() {
    for bytes in captured_batches() {
        let batch = RecordBatch::parse(&bytes).unwrap();
        assert_eq!(batch.size_bytes(), bytes.len());
        batch.verify(Crc32c::PORTABLE).unwrap();
        read(&batch).unwrap();
    }
}

#[test]
fn no_prefix_of_a_batch_is_a_batch() {
    for bytes in captured_batches() {
        for prefix in prefixes(&bytes) {
            let needed_bytes = if prefix.len() < 12 {
                BATCH_HEADER_BYTES
            } else {
                bytes.len()
            };
            let expected = BatchError::Incomplete {
                at_byte: 0,
                needed_bytes,
                available_bytes: prefix.len(),
            };
            assert_eq!(RecordBatch::parse(prefix), Err(expected));
            let mut walk = Batches::new(prefix);
            assert!(walk.next().is_none());
            assert_eq!(walk.rest(), prefix);
        }
    }
}

#[test]
fn a_changed_byte_is_seen_by_the_checksum_or_lies_where_it_does_not_reach() {
    let mut seen_by_checksum = 0;
    for bytes in captured_batches() {
        changes(&bytes, |changed, at| {
            survive(changed);
            let parsed = RecordBatch::parse(changed);
            if let Ok(batch) = &parsed {
                assert!(
                    batch.base_offset() >= 0 && batch.records_count() >= 0,
                    "byte {at}: {batch:?}"
                );
                assert!(batch.base_offset() <= batch.last_offset(), "byte {at}: {batch:?}");
            }
            match (at, parsed) {
                // Base offset and leader epoch are not covered (H24); a negative base is refused.
                (0..8 | 12..16, Ok(batch)) => batch.verify(Crc32c::PORTABLE).unwrap(),
                (0, Err(BatchError::Header { field, value, .. })) => {
                    assert_eq!((field, value < 0), ("baseOffset", true));
                }
                (8..12, Err(BatchError::Length { .. } | BatchError::Incomplete { .. }))
                | (16, Err(BatchError::Magic { .. } | BatchError::Length { .. })) => {}
                (23, Err(BatchError::Header { field, value, .. })) => {
                    assert_eq!((field, value < 0), ("lastOffsetDelta", true));
                }
                (57, Err(BatchError::Header { field, value, .. })) => {
                    assert_eq!((field, value < 0), ("recordsCount", true));
                }
                (8..12 | 17.., Ok(batch)) => {
                    let error = batch.verify(Crc32c::PORTABLE).unwrap_err();
                    assert!(
                        matches!(error, BatchError::Checksum { stored, computed, .. } if stored != computed)
                    );
                    seen_by_checksum += 1;
                }
                (at, other) => panic!("byte {at}: {other:?}"),
            }
        });
    }
    assert!(seen_by_checksum > 10_000, "{seen_by_checksum}");
}

/// Here the damage comes before the checksum is made, so that nothing but the reader stands in its way.
#[test]
fn records_may_hold_anything_at_all() {
    let bytes = plain_batch();
    let (header, payload) = bytes.split_at(BATCH_HEADER_BYTES);
    let batch = RecordBatch::parse(&bytes).unwrap();
    let (mut whole, mut refused) = (0, 0);
    for at in 0..payload.len() {
        for value in 0..=u8::MAX {
            let mut changed = payload.to_vec();
            changed[at] = value;
            let failed = batch.records(&changed).any(|record| record.is_err());
            *(if failed { &mut refused } else { &mut whole }) += 1;
        }
    }
    assert!(
        whole > 10_000 && refused > 5_000,
        "{whole} whole, {refused} refused"
    );
    for prefix in prefixes(payload) {
        assert!(batch.records(prefix).any(|record| record.is_err()));
    }
    assert_eq!(header.len() + payload.len(), batch.size_bytes());
}

/// A batch that states `count` records and holds `payload`, with a valid checksum.
fn batch_of(count: i32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = plain_batch()[..BATCH_HEADER_BYTES].to_vec();
    bytes.extend_from_slice(payload);
    let length = i32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The error of the first record that is wrong.
fn record_error(count: i32, payload: &[u8]) -> BatchError {
    let bytes = batch_of(count, payload);
    let batch = RecordBatch::parse(&bytes).unwrap();
    batch.verify(Crc32c::PORTABLE).unwrap();
    let mut records = batch.records(batch.payload());
    let error = records.find_map(Result::err).unwrap();
    assert!(records.next().is_none(), "goes on after {error}");
    error
}

/// A record without key, value and headers.
const EMPTY_RECORD: [u8; 7] = [12, 0, 0, 0, 1, 1, 0];

#[test]
fn a_record_is_refused_with_its_index_its_field_and_its_byte() {
    let wrong = |payload: &[u8], index, field, at_byte, kind| {
        let expected = BatchError::Record {
            index,
            source: DecodeError { field, at_byte, kind },
        };
        assert_eq!(record_error(i32::MAX, payload), expected, "{payload:02x?}");
    };
    let end = |needed_bytes, available_bytes| DecodeErrorKind::UnexpectedEnd {
        needed_bytes,
        available_bytes,
    };
    // Zigzag: 1 is −1, 3 is −2, 2 is 1.
    wrong(&[], 0, "length", 0, end(1, 0));
    wrong(&EMPTY_RECORD, 1, "length", 7, end(1, 0));
    wrong(&[2], 0, "length", 0, end(1, 0));
    wrong(&[1], 0, "length", 0, DecodeErrorKind::UnexpectedNull);
    wrong(
        &[3],
        0,
        "length",
        0,
        DecodeErrorKind::NegativeLength { length: -2 },
    );
    wrong(&[0xff; 11], 0, "length", 0, DecodeErrorKind::VarintTooLong);
    // i64::MAX and i64::MIN as lengths.
    let (most, least) = (
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0],
        [0xff; 9],
    );
    let most = [[0xfe].as_slice(), &most[1..8], &[0xff, 0x01]].concat();
    wrong(
        &most,
        0,
        "length",
        0,
        end(usize::try_from(i64::MAX).unwrap_or(usize::MAX), 0),
    );
    let least = [least.as_slice(), &[0x01]].concat();
    wrong(
        &least,
        0,
        "length",
        0,
        DecodeErrorKind::NegativeLength { length: i64::MIN },
    );
    wrong(&[0], 0, "attributes", 1, end(1, 0));
    wrong(&[2, 0], 0, "timestampDelta", 2, end(1, 0));
    wrong(&[4, 0, 0], 0, "offsetDelta", 3, end(1, 0));
    wrong(
        &[8, 0, 0, 0, 3],
        0,
        "key",
        4,
        DecodeErrorKind::NegativeLength { length: -2 },
    );
    wrong(&[8, 0, 0, 0, 2], 0, "key", 4, end(1, 0));
    wrong(&[10, 0, 0, 0, 1, 2], 0, "value", 5, end(1, 0));
    wrong(
        &[12, 0, 0, 0, 1, 1, 1],
        0,
        "headers",
        6,
        DecodeErrorKind::UnexpectedNull,
    );
    wrong(&[12, 0, 0, 0, 1, 1, 2], 0, "headers", 6, end(1, 0));
    wrong(
        &[14, 0, 0, 0, 1, 1, 2, 1],
        0,
        "header key",
        7,
        DecodeErrorKind::UnexpectedNull,
    );
    wrong(&[14, 0, 0, 0, 1, 1, 2, 0], 0, "header value", 8, end(1, 0));
    wrong(
        &[14, 0, 0, 0, 1, 1, 0, 0],
        0,
        "record",
        7,
        DecodeErrorKind::TrailingBytes { count: 1 },
    );
    // The length of one record does not let it read into the next.
    let two = [[10, 0, 0, 0, 1, 2].as_slice(), &EMPTY_RECORD].concat();
    wrong(&two, 0, "value", 5, end(1, 0));
}

#[test]
fn a_batch_holds_as_many_records_as_it_states() {
    let three = EMPTY_RECORD.repeat(3);
    let bytes = batch_of(3, &three);
    let batch = RecordBatch::parse(&bytes).unwrap();
    assert_eq!(batch.records(batch.payload()).map(Result::unwrap).count(), 3);
    let too_many = BatchError::RecordCount {
        stated: 2,
        bytes_left: 7,
    };
    assert_eq!(record_error(2, &three), too_many);
    let too_many = BatchError::RecordCount {
        stated: 0,
        bytes_left: 21,
    };
    assert_eq!(record_error(0, &three), too_many);
    assert!(matches!(
        record_error(4, &three),
        BatchError::Record { index: 3, .. }
    ));
    // An emptied batch (H5).
    let bytes = batch_of(0, &[]);
    let batch = RecordBatch::parse(&bytes).unwrap();
    assert_eq!(batch.records(batch.payload()).count(), 0);
}

#[test]
fn offsets_that_run_over_are_refused_in_the_header_and_wrap_in_a_record() {
    let mut bytes = batch_of(1, &[&[30, 0, 0], [0xff; 9].as_slice(), &[1, 1, 1, 0]].concat());
    bytes[..8].copy_from_slice(&i64::MAX.to_be_bytes());
    let error = RecordBatch::parse(&bytes).unwrap_err();
    let (at_byte, field, value) = (0, "lastOffsetDelta", 2);
    assert_eq!(
        error,
        BatchError::Header {
            at_byte,
            field,
            value
        }
    );
    bytes[23..27].copy_from_slice(&0_i32.to_be_bytes());
    let batch = RecordBatch::parse(&bytes).unwrap();
    assert_eq!((batch.base_offset(), batch.last_offset()), (i64::MAX, i64::MAX));
    let record = batch.records(batch.payload()).next().unwrap().unwrap();
    assert_eq!(record.offset, i64::MAX.wrapping_add(i64::MIN));
}

#[test]
fn lengths_and_magics_that_no_batch_has_end_the_walk() {
    let good = plain_batch();
    let second_at = good.len();
    for magic in [-1_i8, 3, i8::MAX, i8::MIN] {
        let mut bytes = good.repeat(3);
        bytes[second_at + 16] = magic.to_be_bytes()[0];
        let mut walk = Batches::new(&bytes);
        assert!(matches!(walk.next(), Some(Ok(BatchEntry::Batch(_)))));
        let at_byte = second_at;
        assert_eq!(walk.next(), Some(Err(BatchError::Magic { at_byte, magic })));
        assert_eq!(walk.next(), None);
        assert_eq!(walk.at_byte(), second_at);
    }
    for (magic, minimum) in [(0, 14), (1, 14), (2, 49)] {
        for length in [i32::MIN, -12, -1, 0, minimum - 1] {
            let mut bytes = good.repeat(2);
            bytes[second_at + 16] = magic;
            bytes[second_at + 8..second_at + 12].copy_from_slice(&length.to_be_bytes());
            let at_byte = second_at;
            let expected = BatchError::Length {
                at_byte,
                length,
                minimum,
            };
            assert_eq!(Batches::new(&bytes).nth(1), Some(Err(expected)));
        }
        // The greatest length is a truncated tail, whose bytes are the rest.
        let mut bytes = good.repeat(2);
        bytes[second_at + 16] = magic;
        bytes[second_at + 8..second_at + 12].copy_from_slice(&i32::MAX.to_be_bytes());
        let mut walk = Batches::new(&bytes);
        assert_eq!(walk.by_ref().map(Result::unwrap).count(), 1);
        assert_eq!(walk.rest().len(), good.len());
    }
}

#[test]
fn the_beginning_of_a_batch_says_how_much_of_it_is_missing() {
    // Before the magic byte the length is unchecked: a small one says nothing.
    for length in [i32::MIN, -1, 0, 3] {
        let bytes = [[0; 8].as_slice(), &length.to_be_bytes(), &[0; 4]].concat();
        let expected = BatchError::Incomplete {
            at_byte: 0,
            needed_bytes: BATCH_HEADER_BYTES,
            available_bytes: 16,
        };
        assert_eq!(RecordBatch::parse(&bytes), Err(expected), "{length}");
    }
}

#[test]
fn messages_of_older_formats_are_recognised_and_refused_as_batches() {
    for magic in [0_i8, 1] {
        let mut message = vec![0; 12 + 14];
        message[..8].copy_from_slice(&77_i64.to_be_bytes());
        message[8..12].copy_from_slice(&14_i32.to_be_bytes());
        message[16] = magic.to_be_bytes()[0];
        let data = [message.clone(), plain_batch(), message.clone()].concat();
        let entries: Vec<_> = Batches::new(&data).map(Result::unwrap).collect();
        let offsets = entries.iter().map(|entry| match entry {
            BatchEntry::Legacy(legacy) => (legacy.magic, legacy.offset, legacy.bytes.len()),
            BatchEntry::Batch(batch) => (2, batch.base_offset(), batch.size_bytes()),
        });
        let expected = [(magic, 77, 26), (2, 0, plain_batch().len()), (magic, 77, 26)];
        assert_eq!(offsets.collect::<Vec<_>>(), expected);
        let at_byte = 0;
        assert_eq!(
            RecordBatch::parse(&message),
            Err(BatchError::Magic { at_byte, magic })
        );
    }
}

#[test]
fn compressed_batches_of_every_codec_are_among_those_damaged() {
    let codecs: Vec<_> = captured_batches()
        .iter()
        .map(|bytes| RecordBatch::parse(bytes).unwrap().codec().unwrap())
        .collect();
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        assert!(codecs.contains(&codec), "{codec}");
    }
}
