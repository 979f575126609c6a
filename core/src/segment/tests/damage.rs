//! Every bit of a segment flipped, and whole stretches overwritten.

use super::*;

/// Recovers from damaged bytes; whatever comes back is right. Gives how many batches could be read.
fn survive(log: &Log, entries: &[DirectoryEntry], bytes: Vec<u8>) -> usize {
    let bytes = Bytes::from(bytes);
    match recover(log.segment, &bytes) {
        Ok(recovered) => check_recovered(log, entries, &recovered, &bytes),
        Err(_) => 0,
    }
}

#[test]
fn no_flipped_bit_gives_wrong_bytes_and_a_sealed_segment_loses_one_batch_at_most() {
    let sealed = Log::small(SEGMENT).sealed();
    let entries = sealed.entries();
    for bit in 0..sealed.bytes.len() * 8 {
        let mut bytes = sealed.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let read = survive(&sealed, &entries, bytes);
        let in_records = bit / 8 >= SEGMENT_HEADER_BYTES && bit / 8 < *sealed.borders.last().unwrap();
        // In the footer, the records are walked; in the header, the footer is there.
        let expected = if in_records { 4 } else { 5 };
        assert_eq!(read, expected, "bit {bit}");
    }
}

#[test]
fn no_flipped_bit_of_an_unsealed_segment_gives_wrong_bytes() {
    let log = Log::small(SEGMENT);
    let entries = log.entries();
    for bit in 0..log.bytes.len() * 8 {
        let mut bytes = log.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let read = survive(&log, &entries, bytes);
        let record = log.borders.iter().rposition(|border| *border <= bit / 8);
        // All before the damaged one are there; without the header, nothing says that it is a segment.
        assert!(read >= record.unwrap_or(0) && read < 5, "bit {bit}: {read}");
    }
}

#[test]
fn no_overwritten_or_moved_stretch_gives_wrong_bytes() {
    let sealed = Log::small(SEGMENT).sealed();
    let entries = sealed.entries();
    let other = Log::small(SegmentId(SEGMENT.0 ^ 1)).sealed();
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..20_000 {
        let mut bytes = sealed.bytes.clone();
        let length = random.usize(1..300);
        let (from, to) = (
            random.usize(..bytes.len() - length),
            random.usize(..bytes.len() - length),
        );
        match random.u8(..4) {
            0 => bytes[to..to + length].fill(random.u8(..)),
            1 => bytes.copy_within(from..from + length, to),
            2 => bytes[to..to + length].copy_from_slice(&other.bytes[to..to + length]),
            _ => random.fill(&mut bytes[to..to + length]),
        }
        survive(&sealed, &entries, bytes);
    }
}

#[test]
fn a_record_that_stands_where_another_should_is_not_taken_for_it() {
    // Two records of one size, exchanged: each is intact, at the wrong place.
    let mut log = Log::new(SEGMENT);
    for index in 0..2 {
        log.push(
            &record(0, 7, index, AbortedInBatch::None),
            batch(index, 0, 0, b"same size"),
        );
    }
    let entries = log.entries();
    let (header, records) = log.bytes.split_at(SEGMENT_HEADER_BYTES);
    let (first, second) = records.split_at(records.len() / 2);
    let footer = encode_footer(SEGMENT, &entries, CRC).unwrap();
    for footer in [&footer[..], &[]] {
        let exchanged = [header, second, first, footer].concat();
        assert_eq!(survive(&log, &entries, exchanged), 0);
    }
}

#[test]
fn a_header_and_a_batch_that_disagree_are_refused() {
    let log = Log::small(SEGMENT);
    let place = Place {
        segment: SEGMENT,
        position: 32,
    };
    for (at, field) in [(48, "last offset"), (56, "leader epoch")] {
        let mut record = log.bytes[log.borders[0]..log.borders[1]].to_vec();
        record[at] += 1;
        forge_checksum(&mut record, place);
        let view = RecordView::parse(&record, place).unwrap();
        let error = view.verify(CRC).unwrap_err().kind;
        assert!(
            matches!(error, SegmentErrorKind::Disagreement { field: found, .. } if found == field),
            "{error:?}"
        );
    }
    // A header that counts a byte behind the batch as part of it.
    let mut record = log.bytes[log.borders[0]..=log.borders[1]].to_vec();
    record[36] += 1;
    forge_checksum(&mut record, place);
    let error = RecordView::parse(&record, place)
        .unwrap()
        .verify(CRC)
        .unwrap_err()
        .kind;
    assert!(
        matches!(
            error,
            SegmentErrorKind::Disagreement {
                field: "batch length",
                ..
            }
        ),
        "{error:?}"
    );
}

/// Makes the checksum of a record without aborted transactions fit it.
fn forge_checksum(record: &mut [u8], place: Place) {
    let at = [&place.segment.0.to_le_bytes()[..], &place.position.to_le_bytes()].concat();
    let checksum = CRC.of(&record[8..RECORD_HEADER_BYTES + 21]) ^ CRC.of(&at);
    record[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// The header with a field changed and a checksum that fits.
fn forged_header(at: usize, value: u8) -> Bytes {
    let mut header = encode_segment_header(SEGMENT, CRC);
    header[at] = value;
    let checksum = CRC.of(&header[..28]);
    header[28..].copy_from_slice(&checksum.to_le_bytes());
    Bytes::copy_from_slice(&header)
}

#[test]
fn a_newer_version_is_refused_by_name_and_a_damaged_one_is_not_taken_for_it() {
    let newer = SegmentErrorKind::NewerVersion {
        version: 2,
        newest: 1,
    };
    assert_eq!(recover(SEGMENT, &forged_header(8, 2)).unwrap_err().kind, newer);
    // Even if it ends in a footer that could be read.
    let sealed = Log::small(SEGMENT).sealed();
    let bytes = [&forged_header(8, 2)[..], &sealed.bytes[32..]].concat();
    assert_eq!(recover(SEGMENT, &bytes.into()).unwrap_err().kind, newer);
    let mut damaged = encode_segment_header(SEGMENT, CRC);
    damaged[8] = 3;
    let error = check_segment_header(&damaged, SEGMENT, CRC).unwrap_err().kind;
    assert!(matches!(error, SegmentErrorKind::Checksum { .. }), "{error:?}");
}

#[test]
fn a_header_with_other_fields_is_refused_by_their_names() {
    for (at, value, name) in [
        (8, 0, "version"),
        (10, 33, "header length"),
        (16, 0, "segment id"),
    ] {
        let error = recover(SEGMENT, &forged_header(at, value)).unwrap_err().kind;
        assert!(
            matches!(error, SegmentErrorKind::Field { field, .. } if field == name),
            "{error:?}"
        );
    }
}
