//! What a crash leaves behind.

use super::*;
use crate::storage::faulty::{FaultRates, Faults, FaultyStorage};
use crate::storage::{MemoryStorage, SegmentReader, Storage};

/// A segment that was cut at `at`, with `behind` after it, gives exactly the records before the cut.
fn check_cut(log: &Log, at: usize, behind: &[u8]) {
    let bytes = Bytes::from([&log.bytes[..at], behind].concat());
    let whole = log.borders.iter().rposition(|border| *border <= at).unwrap();
    let recovered = recover(log.segment, &bytes).unwrap();
    let Recovery::Scanned {
        intact,
        corrupt,
        torn_at,
    } = recovered.recovery
    else {
        panic!("cut at {at}: there is no footer");
    };
    assert_eq!(intact, whole as u64, "cut at {at}");
    // With something in the place of what is missing, a torn record looks like one with a damaged batch.
    assert!(
        corrupt == 0 || corrupt == 1 && behind.len() > 1,
        "cut at {at}: {corrupt}"
    );
    let is_torn = bytes.len() != log.borders[whole];
    assert!(torn_at.is_some() || corrupt == 1 || !is_torn, "cut at {at}");
    assert!(torn_at.is_none_or(|torn_at| torn_at >= log.borders[whole] as u64));
    let read = check_recovered(log, &log.entries(), &recovered, &bytes);
    assert_eq!(read, whole, "cut at {at}");
}

#[test]
fn a_log_that_is_cut_at_any_byte_gives_the_records_before_the_cut() {
    let log = Log::small(SEGMENT);
    for at in SEGMENT_HEADER_BYTES..=log.bytes.len() {
        check_cut(&log, at, &[]);
    }
}

#[test]
fn a_log_that_is_cut_at_any_sector_with_anything_behind_gives_the_records_before_the_cut() {
    let mut log = Log::new(SEGMENT);
    // The same offsets and sizes under another number: what a recycled block holds.
    let mut older = Log::new(SegmentId(SEGMENT.0 - 1));
    for index in 0..6_i64 {
        let size = 1500 + 700 * usize::try_from(index).unwrap();
        for (log, fill) in [(&mut log, 1), (&mut older, 2)] {
            let record = record(0, index.unsigned_abs(), index, AbortedInBatch::None);
            log.push(&record, batch(index, 0, 0, &vec![fill; size]));
        }
    }
    assert_eq!(log.borders, older.borders);
    let older_at = |at: usize| older.bytes[at..].to_vec();
    for at in (512..log.bytes.len()).step_by(512) {
        check_cut(&log, at, &[]);
        check_cut(&log, at, &[0; 4096]);
        check_cut(&log, at, &[0xff; 4096]);
        check_cut(&log, at, &older_at(at));
    }
    // Cut between records, so that an older record begins just where the next would.
    for &at in &log.borders {
        check_cut(&log, at, &older_at(at));
        check_cut(&log, at, &log.bytes[..at]);
    }
}

#[test]
fn a_sealed_segment_that_is_cut_at_any_byte_is_scanned_and_loses_no_record_before_the_cut() {
    let sealed = Log::small(SEGMENT).sealed();
    for at in *sealed.borders.last().unwrap()..sealed.bytes.len() {
        check_cut(&sealed, at, &[]);
    }
    for at in 0..SEGMENT_HEADER_BYTES {
        let cut = Bytes::copy_from_slice(&sealed.bytes[..at]);
        assert!(recover(SEGMENT, &cut).is_err(), "cut at {at}");
    }
    // A footer with something behind it is not at the end any more.
    check_cut(&sealed, sealed.bytes.len(), &[0]);
}

#[test]
fn a_damaged_batch_hides_none_of_those_behind_it_and_a_damaged_header_does() {
    let log = Log::small(SEGMENT);
    let entries = log.entries();
    let damaged = |at: usize| {
        let mut bytes = log.bytes.clone();
        bytes[at] ^= 0x10;
        let bytes = Bytes::from(bytes);
        let recovered = recover(SEGMENT, &bytes).unwrap();
        check_recovered(&log, &entries, &recovered, &bytes);
        recovered.recovery
    };
    let in_batch = Recovery::Scanned {
        intact: 4,
        corrupt: 1,
        torn_at: None,
    };
    assert_eq!(damaged(log.borders[2] - 1), in_batch);
    let in_header = Recovery::Scanned {
        intact: 1,
        corrupt: 0,
        torn_at: Some(log.borders[1] as u64),
    };
    assert_eq!(damaged(log.borders[1] + 20), in_header);
}

#[test]
fn records_larger_than_the_blocks_of_a_scan_are_found() {
    let mut log = Log::new(SEGMENT);
    for (index, size) in [900_000, 300_000, 3_000_000, 10, 1 << 20, 70_000]
        .into_iter()
        .enumerate()
    {
        let offset = i64::try_from(index).unwrap();
        log.push(
            &record(0, 0, offset, AbortedInBatch::None),
            batch(offset, 0, 0, &vec![3; size]),
        );
    }
    check_cut(&log, log.bytes.len(), &[]);
    check_cut(&log, log.bytes.len() - 1, &[]);
    check_cut(&log, log.bytes.len() - 1, &[0; 2]);
}

/// Writes three segments of which the last is not sealed, crashes, and checks what is found.
async fn crash_and_recover(seed: u64) -> usize {
    let mut storage = FaultyStorage::new(MemoryStorage::new(), Faults::new(seed, FaultRates::default()));
    let logs = [1, 2, 3].map(|id| Log::small(SegmentId(id)));
    for log in &logs {
        storage.create(log.segment).await.unwrap();
        for piece in log.bytes.chunks(100) {
            storage
                .append(log.segment, vec![Bytes::copy_from_slice(piece)])
                .await
                .unwrap();
        }
        if log.segment != SegmentId(3) {
            storage.seal(log.segment).await.unwrap();
        }
    }
    storage.crash().await.unwrap();
    let mut read = 0;
    for log in &logs {
        let reader = storage.open(log.segment).await.unwrap();
        let bytes = reader.read(0..reader.size_bytes()).await.unwrap();
        let recovered = read_directory(&reader, log.segment, CRC).await;
        if log.segment != SegmentId(3) {
            assert_eq!(bytes, log.bytes);
            assert_eq!(recovered.as_ref().unwrap().directory.entries, log.entries());
        }
        // Not even its header may be left.
        if let Ok(recovered) = recovered {
            read += check_recovered(log, &log.entries(), &recovered, &bytes);
        }
    }
    read
}

#[test]
fn whatever_a_crash_leaves_of_an_unsealed_segment_gives_no_wrong_bytes() {
    let read: Vec<usize> = (0..500).map(|seed| block_on(crash_and_recover(seed))).collect();
    assert_eq!(
        read.iter().min(),
        Some(&10),
        "what was sealed is there after every crash"
    );
    assert_eq!(
        read.iter().max(),
        Some(&15),
        "and up to all but the record that was torn"
    );
}

#[test]
fn storage_errors_are_told_from_damage() {
    let log = Log::small(SEGMENT).sealed();
    let faults = Faults::new(1, FaultRates::default());
    let mut storage = FaultyStorage::new(MemoryStorage::new(), faults.clone());
    let reader = block_on(async {
        storage.create(SEGMENT).await?;
        storage
            .append(SEGMENT, vec![Bytes::from(log.bytes.clone())])
            .await?;
        storage.open(SEGMENT).await
    });
    let reader = reader.unwrap();
    for nth in 0..3 {
        faults.fail_once(nth);
        let error = block_on(read_directory(&reader, SEGMENT, CRC)).unwrap_err();
        assert!(matches!(error.kind, SegmentErrorKind::Storage(_)), "{error}");
    }
    faults.cancel();
    assert!(block_on(read_directory(&reader, SEGMENT, CRC)).is_ok());
    faults.set_per_mille(crate::storage::faulty::FaultKind::ShortRead, 1000);
    let error = block_on(read_directory(&reader, SEGMENT, CRC)).unwrap_err();
    assert!(
        matches!(error.kind, SegmentErrorKind::ReadLength { .. }),
        "{error}"
    );
}

/// What faults of a medium leave readable: right bytes, or an error. Gives how many batches were read.
async fn read_from_bad_medium(log: &Log, entries: &[DirectoryEntry], seed: u64) -> usize {
    let rates = FaultRates {
        error_per_mille: 20,
        torn_append_per_mille: 20,
        short_read_per_mille: 20,
        bit_flip_per_mille: 100,
        bad_sector_per_mille: 100,
        delay_per_mille: 100,
        ..FaultRates::default()
    };
    let mut storage = FaultyStorage::new(MemoryStorage::new(), Faults::new(seed, rates));
    let _ = storage.create(SEGMENT).await;
    for piece in log.bytes.chunks(600) {
        // An engine gives the segment up after an error; what is left is read as after a crash.
        let appended = storage.append(SEGMENT, vec![Bytes::copy_from_slice(piece)]).await;
        if appended.is_err() {
            break;
        }
    }
    let Ok(reader) = storage.open(SEGMENT).await else {
        return 0;
    };
    let Ok(recovered) = read_directory(&reader, SEGMENT, CRC).await else {
        return 0;
    };
    let mut read = 0;
    for entry in &recovered.directory.entries {
        let index = entries
            .iter()
            .position(|written| written == entry)
            .expect("was written");
        let place = Place {
            segment: SEGMENT,
            position: entry.position,
        };
        let expected = Expected {
            key: entry.key,
            span: entry.span,
        };
        let Ok(record) = reader.read(entry.record_range()).await else {
            continue;
        };
        if let Ok(batch) = verified_batch(&record, place, &expected, CRC) {
            assert_eq!(batch, log.batches[index], "seed {seed}");
            read += 1;
        }
    }
    read
}

#[test]
fn a_medium_with_every_fault_gives_right_bytes_or_none() {
    let log = Log::small(SEGMENT).sealed();
    let entries = log.entries();
    let read = (0..2000).map(|seed| block_on(read_from_bad_medium(&log, &entries, seed)));
    let counts: Vec<usize> = read.collect();
    assert!(counts.contains(&0) && counts.contains(&5));
}
