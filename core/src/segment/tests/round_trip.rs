//! What is written is what is read, whatever it is.

use proptest::collection;
use proptest::prelude::*;

use super::*;

fn aborted() -> impl Strategy<Value = AbortedInBatch> {
    let offset = any::<i64>();
    let marker = prop_oneof![Just(None), (i64::MIN + 1..=i64::MAX).prop_map(Some)];
    let one = (any::<i64>(), offset, marker).prop_map(|(producer_id, first_offset, marker_offset)| Aborted {
        producer_id,
        first_offset,
        marker_offset,
    });
    prop_oneof![
        Just(AbortedInBatch::Unknown),
        Just(AbortedInBatch::Plain),
        Just(AbortedInBatch::None),
        collection::vec(one, 1..20).prop_map(|list| AbortedInBatch::Some(list.into())),
    ]
}

fn extreme_offset() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), Just(i64::MAX), 0..1000_i64, 0..=i64::MAX]
}

prop_compose! {
    fn one()(
        base in extreme_offset(),
        delta in prop_oneof![Just(0), Just(i32::MAX), 0..100_i32],
        gap in prop_oneof![Just(0), Just(i64::MAX), 0..1000_i64],
        epoch in any::<i32>(),
        topic in any::<[u8; 16]>(),
        partition in any::<i32>(),
        sequence in any::<u64>(),
        aborted in aborted(),
        payload in collection::vec(any::<u8>(), 0..200),
    ) -> (Record, Bytes) {
        let delta = if base.checked_add(delta.into()).is_some() { delta } else { 0 };
        let record = Record {
            key: PartitionKey { topic_id: TopicId(topic), partition },
            sequence,
            covers_base: base.saturating_sub(gap),
            aborted,
        };
        (record, batch(base, delta, epoch, &payload))
    }
}

fn log_of(records: &[(Record, Bytes)]) -> Log {
    let mut log = Log::new(SEGMENT);
    for (record, batch) in records {
        log.push(record, batch.clone());
    }
    log
}

proptest! {
    #[test]
    fn records_are_read_as_they_were_written(all in collection::vec(one(), 0..8)) {
        let log = log_of(&all);
        let views: Vec<_> = records(SEGMENT, &log.bytes).collect();
        prop_assert_eq!(views.len(), all.len());
        for (view, (record, batch)) in views.iter().zip(&all) {
            prop_assert!(view.verify(CRC).is_ok());
            prop_assert_eq!(&view.record(), record);
            prop_assert_eq!(view.batch(), batch);
            let parsed = RecordBatch::parse(batch).unwrap();
            prop_assert_eq!(view.span(), parsed.span());
            prop_assert_eq!(view.covers().base(), record.covers_base);
            prop_assert_eq!(view.leader_epoch(), parsed.partition_leader_epoch());
        }
    }

    #[test]
    fn a_scan_finds_what_was_written(all in collection::vec(one(), 0..8)) {
        let log = log_of(&all);
        let entries = log.entries();
        let bytes = Bytes::from(log.bytes.clone());
        let recovered = recover(SEGMENT, &bytes).unwrap();
        let scanned = Recovery::Scanned { intact: all.len() as u64, corrupt: 0, torn_at: None };
        prop_assert_eq!(recovered.recovery, scanned);
        prop_assert_eq!(&recovered.directory.entries, &entries);
        prop_assert_eq!(check_recovered(&log, &entries, &recovered, &bytes), all.len());
    }

    #[test]
    fn a_footer_names_what_was_written(mut all in collection::vec(one(), 0..8), first in any::<u32>()) {
        for (record, _) in &mut all {
            // What lies closer together than a footer can tell apart is the next test's.
            record.sequence = u64::from(first) << 32 | record.sequence >> 32;
        }
        let log = log_of(&all);
        let entries = log.entries();
        let log = log.sealed();
        let bytes = Bytes::from(log.bytes.clone());
        let recovered = recover(SEGMENT, &bytes).unwrap();
        prop_assert_eq!(recovered.recovery, Recovery::Sealed);
        prop_assert_eq!(&recovered.directory.entries, &entries);
        prop_assert_eq!(check_recovered(&log, &entries, &recovered, &bytes), all.len());
    }
}

#[test]
fn a_footer_is_not_written_for_sequences_far_apart() {
    let mut log = Log::new(SEGMENT);
    for offset in 0..2 {
        log.push(
            &record(0, 1, offset, AbortedInBatch::None),
            batch(offset, 0, 0, b""),
        );
    }
    let mut entries = log.entries();
    entries[1].sequence = 1 + u64::from(u32::MAX);
    assert!(encode_footer(SEGMENT, &entries, CRC).is_some());
    entries[1].sequence += 1;
    assert_eq!(encode_footer(SEGMENT, &entries, CRC), None);
}

#[test]
fn what_the_footer_leaves_out_stays_dropped() {
    let log = Log::small(SEGMENT);
    let mut entries = log.entries();
    entries.remove(1);
    let footer = encode_footer(SEGMENT, &entries, CRC).unwrap();
    let bytes = Bytes::from([&log.bytes[..], &footer].concat());
    assert_eq!(recover(SEGMENT, &bytes).unwrap().directory.entries, entries);
}

#[test]
fn a_batch_with_more_aborted_transactions_than_a_record_carries_is_kept_without_them() {
    let limit = i64::try_from(ABORTED_PER_RECORD_MAX).unwrap();
    let mut log = Log::new(SEGMENT);
    log.push(&record(0, 1, 0, some_aborted(limit)), batch(0, 0, 0, b""));
    log.push(&record(0, 2, 0, some_aborted(limit + 1)), batch(1, 0, 0, b""));
    let log = log.sealed();
    let bytes = Bytes::from(log.bytes.clone());
    let entries = recover(SEGMENT, &bytes).unwrap().directory.entries;
    assert_eq!(entries[0].aborted, some_aborted(limit));
    assert_eq!(entries[1].aborted, AbortedInBatch::Unknown);
    for (entry, batch) in entries.iter().zip(&log.batches) {
        assert_eq!(read_verified(SEGMENT, &bytes, entry).as_ref(), Ok(batch));
    }
}

#[test]
fn a_record_is_refused_at_another_place_and_for_another_batch() {
    let log = Log::small(SEGMENT);
    let bytes = Bytes::from(log.bytes.clone());
    let (first, second) = (&log.entries()[0], &log.entries()[1]);
    let record = bytes.slice(log.borders[0]..log.borders[1]);
    let read = |record: &Bytes, segment, position, key, span| {
        let (place, expected) = (Place { segment, position }, Expected { key, span });
        verified_batch(record, place, &expected, CRC).map_err(|error| error.kind)
    };
    let at = first.position;
    assert_eq!(
        read(&record, SEGMENT, at, first.key, first.span).as_ref(),
        Ok(&log.batches[0])
    );
    for (segment, position) in [
        (SEGMENT, at + 1),
        (SegmentId(SEGMENT.0 + 1), at),
        (SegmentId(0), at),
    ] {
        let refused = read(&record, segment, position, first.key, first.span);
        assert!(
            matches!(refused, Err(SegmentErrorKind::Checksum { .. })),
            "{refused:?}"
        );
    }
    for (key, span) in [(second.key, first.span), (first.key, second.span)] {
        let refused = read(&record, SEGMENT, at, key, span);
        assert!(
            matches!(refused, Err(SegmentErrorKind::OtherBatch { .. })),
            "{refused:?}"
        );
    }
    let longer = bytes.slice(log.borders[0]..=log.borders[1]);
    let refused = read(&longer, SEGMENT, at, first.key, first.span);
    assert!(
        matches!(refused, Err(SegmentErrorKind::Length { .. })),
        "{refused:?}"
    );
}

#[test]
fn all_that_is_added_to_batches_of_16_kib_is_at_most_one_per_cent() {
    let mut log = Log::new(SEGMENT);
    let mut payload_bytes = 0;
    for index in 0..500 {
        let batch = batch(index, 0, 0, &[7; 16 * 1024 - 61]);
        payload_bytes += batch.len();
        let partition = i32::try_from(index % 50).unwrap();
        log.push(&record(partition, 0, index, AbortedInBatch::None), batch);
    }
    let share: usize = log
        .entries()
        .iter()
        .map(|entry| footer_share_bytes_max(&entry.aborted))
        .sum();
    let before_footer = log.bytes.len();
    let log = log.sealed();
    assert!(log.bytes.len() - before_footer <= FOOTER_FIXED_BYTES + share);
    let added = log.bytes.len() - payload_bytes;
    assert!(added * 100 <= payload_bytes, "{added} bytes on {payload_bytes}");
}

#[test]
fn errors_say_where_and_what() {
    use alloc::string::ToString;
    let log = Log::small(SegmentId(1));
    let mut bytes = log.bytes.clone();
    bytes[log.borders[1] + 16] ^= 1;
    let place = Place {
        segment: SegmentId(1),
        position: u32::try_from(log.borders[1]).unwrap(),
    };
    let view = RecordView::parse(&bytes[log.borders[1]..], place).unwrap();
    let words = view.verify(CRC).unwrap_err().to_string();
    let beginning = "segment 0000000000000001 at byte 205: the checksum of the record is 0x";
    assert!(words.starts_with(beginning), "{words}");
}
