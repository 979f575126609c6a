//! Bytes that nobody wrote: nothing panics, and nothing is allocated by a length that they state.

use proptest::collection;
use proptest::prelude::*;

use super::*;

/// All that reads bytes of a segment, on these.
fn read_all_ways(bytes: Vec<u8>) {
    for view in records(SEGMENT, &bytes) {
        let _ = (view.verify(CRC), view.entry(), view.record());
    }
    let bytes = Bytes::from(bytes);
    for position in [0, 32, u32::MAX] {
        let place = Place {
            segment: SEGMENT,
            position,
        };
        let expected = Expected {
            key: key(0),
            span: OffsetSpan::single(0),
        };
        assert!(verified_batch(&bytes, place, &expected, CRC).is_err());
        if let Ok(view) = RecordView::parse(&bytes, place) {
            let _ = (view.verify(CRC), view.entry());
        }
    }
    let Ok(recovered) = recover(SEGMENT, &bytes) else {
        return;
    };
    for entry in &recovered.directory.entries {
        assert!(entry.record_range().end <= bytes.len() as u64);
        let _ = read_verified(SEGMENT, &bytes, entry);
    }
}

/// Values that lengths, counts and offsets are hostile with.
fn extreme() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(60),
        Just(61),
        Just(65_535),
        Just(65_536),
        Just(u32::MAX),
        Just(u32::MAX - 1),
        Just(1 << 31),
        any::<u32>()
    ]
}

/// Makes the footer's checksum fit what stands in it now.
fn forge_footer(bytes: &mut [u8], start: usize) {
    let end = bytes.len() - 4;
    let checksum = CRC.of(&bytes[start..end]);
    bytes[end..].copy_from_slice(&checksum.to_le_bytes());
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_survived(bytes in collection::vec(any::<u8>(), 0..600)) {
        read_all_ways(bytes.clone());
        read_all_ways([&encode_segment_header(SEGMENT, CRC)[..], &bytes].concat());
    }

    #[test]
    fn hostile_fields_of_records_are_survived(
        at in prop::sample::select(vec![36_usize, 40, 44, 48, 52, 60, 64, 68]),
        value in extreme(),
        cut in 0..100_usize,
    ) {
        let log = Log::small(SEGMENT);
        let mut bytes = log.bytes;
        let field = log.borders[1] + at;
        bytes[field..field + 4].copy_from_slice(&value.to_le_bytes());
        bytes.truncate(bytes.len() - cut);
        read_all_ways(bytes);
    }

    #[test]
    fn hostile_fields_of_a_footer_with_an_intact_checksum_are_survived(
        field in 0..1000_usize,
        value in extreme(),
    ) {
        let log = Log::small(SEGMENT).sealed();
        let start = *log.borders.last().unwrap();
        let mut bytes = log.bytes;
        let footer_bytes = bytes.len() - start;
        let at = start + field % (footer_bytes / 4 - 1) * 4;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        forge_footer(&mut bytes, start);
        read_all_ways(bytes);
    }
}
