//! Damaged and hostile messages: each decodes or errs, says where, and takes memory in proportion to its size.
//! Damaged batches are in `malformed_batches.rs`.

#[path = "support/allocations.rs"]
mod allocations;
#[path = "support/body.rs"]
mod body;
#[path = "support/damage.rs"]
mod damage;
#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/place.rs"]
mod place;

use allocations::{Counting, peak_bytes};
use body::{Body, request_head};
use bytes::Bytes;
use damage::{changes, prefixes};
use fixture::{Fixture, fixtures};
use kachet_core::wire::DecodeErrorKind::{
    InvalidUtf8, NegativeLength, StringTooLong, TagLength, TagOrder, TooManyTags, TrailingBytes,
    UnexpectedEnd, UnexpectedNull, VarintTooLong,
};
use kachet_core::wire::{
    BatchEntry, Batches, Crc32c, DecodeError, DecodeErrorKind, FetchRequest, FetchResponse, RecordBytes,
};
use place::{Place, arrays, strings, tag_sections};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What decoding may hold for each byte of input.
///
/// Measured on inputs made to be costly: 53.7 on 64-bit (see
/// `the_costliest_messages_stay_within_the_bound`). An empty topic takes 3 bytes on the wire and 80 in memory,
/// and an unknown tag 2 and 40; the rest is what outer arrays claim while inner ones are read.
const HELD_BYTES_PER_INPUT_BYTE: usize = 48;
/// What decoding may hold whatever the input: room for 64 unknown tags, once.
const HELD_BYTES_BASE: usize = 4 * 1024;

/// One version for each layout that differs in more than one field.
const VERSIONS: [i16; 7] = [4, 7, 11, 12, 13, 16, 18];

/// Decodes, and asserts the bound on memory.
fn decode<T>(
    input: &[u8],
    version: i16,
    decode: fn(Bytes, i16) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let body = Bytes::copy_from_slice(input);
    let (peak, result) = peak_bytes(|| decode(body, version));
    let bound = HELD_BYTES_PER_INPUT_BYTE * input.len() + HELD_BYTES_BASE;
    assert!(
        peak <= bound,
        "v{version}: {peak} bytes for {} of input",
        input.len()
    );
    result
}

/// What a request may do to us. Gives whether it decoded.
fn survive_request(input: &[u8], version: i16) -> bool {
    decode(input, version, FetchRequest::decode).is_ok()
}

/// What a response may do to us, and its record data after it. Gives whether it decoded.
fn survive_response(input: &[u8], version: i16) -> bool {
    let Ok(response) = decode(input, version, FetchResponse::decode) else {
        return false;
    };
    for (_, partition) in response.partitions() {
        let records = partition.records.as_ref().map(RecordBytes::to_bytes);
        survive_record_data(&records.unwrap_or_default());
    }
    true
}

fn survive_record_data(data: &[u8]) {
    for entry in Batches::new(data) {
        let batch = match entry {
            Ok(BatchEntry::Batch(batch)) => batch,
            Ok(BatchEntry::Legacy(_)) => continue,
            Err(_) => break,
        };
        let _ = batch.verify(Crc32c::PORTABLE);
        // Compressed ones too, as if they were not: the damage is in what is read, not in what it was.
        for record in batch.records(batch.payload()) {
            let Ok(record) = record else { break };
            assert_eq!(record.headers.iter().count(), record.headers.len());
        }
    }
}

fn representative() -> impl Iterator<Item = Fixture> {
    fixtures()
        .into_iter()
        .filter(|fixture| VERSIONS.contains(&fixture.version))
}

#[test]
fn no_prefix_of_a_captured_message_decodes() {
    for fixture in representative() {
        // Nothing can be missing at the end: both stop with the last of their fields.
        for prefix in prefixes(&fixture.request) {
            assert!(!survive_request(prefix, fixture.version), "{}", fixture.name());
        }
        for prefix in prefixes(&fixture.response) {
            assert!(!survive_response(prefix, fixture.version), "{}", fixture.name());
        }
    }
}

#[test]
fn every_byte_of_a_captured_request_may_change() {
    let (mut decoded, mut refused) = (0, 0);
    for fixture in representative() {
        changes(&fixture.request, |changed, _| {
            let ok = survive_request(changed, fixture.version);
            *(if ok { &mut decoded } else { &mut refused }) += 1;
        });
    }
    assert!(
        decoded > 10_000 && refused > 10_000,
        "{decoded} decoded, {refused} refused"
    );
}

#[test]
fn every_byte_of_a_captured_response_may_change() {
    let (mut decoded, mut refused) = (0, 0);
    for fixture in representative() {
        changes(&fixture.response, |changed, _| {
            let ok = survive_response(changed, fixture.version);
            *(if ok { &mut decoded } else { &mut refused }) += 1;
        });
    }
    assert!(
        decoded > 10_000 && refused > 10_000,
        "{decoded} decoded, {refused} refused"
    );
}

/// `count` unknown tagged fields without a value, two bytes each.
fn empty_tags(count: u32) -> Body {
    Body::new().tags(
        (100 - count..100)
            .map(|tag| (tag, b"".as_slice()))
            .collect::<Vec<_>>(),
    )
}

/// As many copies of `element` as `size_bytes` hold.
fn repeated(element: &Body, size_bytes: usize) -> Vec<u8> {
    element.0.repeat(size_bytes / element.0.len())
}

/// An array of flexible versions that claims the most elements of `element_min_bytes` that may follow.
fn greedy_array(elements: &[u8], element_min_bytes: usize) -> Body {
    let claimed = u32::try_from(elements.len() / element_min_bytes).unwrap();
    Body::new().uvarint(claimed + 1).bytes(elements)
}

/// A message and the version to decode it as.
type Costly = (Body, i16);

/// Costly messages of about `size_bytes`: (requests, responses).
fn costly(size_bytes: usize) -> (Vec<Costly>, Vec<Costly>) {
    let (mut requests, mut responses) = (Vec::new(), Vec::new());
    for tags in 0..=64 {
        // Topics with an empty name or a zero id, without partitions, with tags; more claimed than there are.
        for (version, name_bytes, name) in [(12, 1, 1_u8), (13, 16, 0)] {
            let topic = Body::new()
                .bytes(&vec![name; name_bytes])
                .bytes(&[1])
                .bytes(&empty_tags(tags).0);
            let topics = greedy_array(&repeated(&topic, size_bytes), name_bytes + 2);
            requests.push((request_head(version).bytes(&topics.0), version));
            responses.push((Body::new().zeros(10).bytes(&topics.0), version));
        }
        // Topics claimed, in the first one partitions claimed, in the first one aborted transactions claimed.
        let aborted = Body::new().zeros(16).bytes(&empty_tags(tags).0);
        let aborted = greedy_array(&repeated(&aborted, size_bytes), 16);
        let partition = Body::new().zeros(30).bytes(&aborted.0);
        let partitions = Body::new().bytes(&[1]).bytes(&greedy_array(&partition.0, 37).0);
        let topics = greedy_array(&partitions.0, 3);
        responses.push((Body::new().zeros(10).bytes(&topics.0), 12));
        // Topics claimed, in the first one partitions claimed and given.
        let partition = Body::new().zeros(32).bytes(&empty_tags(tags).0);
        let partitions = Body::new()
            .bytes(&[1])
            .bytes(&greedy_array(&repeated(&partition, size_bytes), 16).0);
        requests.push((request_head(12).bytes(&greedy_array(&partitions.0, 3).0), 12));
        // Node endpoints inside their tag.
        let node = Body::new()
            .zeros(4)
            .bytes(&[1])
            .zeros(5)
            .bytes(&empty_tags(tags).0);
        let nodes = greedy_array(&repeated(&node, size_bytes), 11);
        responses.push((
            Body::new().zeros(10).bytes(&[1]).tags([(0, nodes.0.as_slice())]),
            16,
        ));
    }
    (requests, responses)
}

#[test]
fn the_costliest_messages_stay_within_the_bound() {
    for size_bytes in [200, 1_000, 60_000] {
        let (requests, responses) = costly(size_bytes);
        let mut held_most = (0, 1);
        let mut note = |peak: usize, input: &Body| {
            assert!(
                peak <= HELD_BYTES_PER_INPUT_BYTE * input.0.len() + HELD_BYTES_BASE,
                "{peak} bytes for {} of input",
                input.0.len()
            );
            // Where addresses have 32 bits, products are larger than those.
            if peak as u64 * held_most.1 as u64 > held_most.0 as u64 * input.0.len() as u64 {
                held_most = (peak, input.0.len());
            }
        };
        for (input, version) in requests {
            let body = Bytes::from(input.0.clone());
            note(
                peak_bytes(|| FetchRequest::decode(body, version).is_err()).0,
                &input,
            );
        }
        for (input, version) in responses {
            let body = Bytes::from(input.0.clone());
            note(
                peak_bytes(|| FetchResponse::decode(body, version).is_err()).0,
                &input,
            );
        }
        // The bound is near the truth, so that a change for the worse is seen.
        let (peak, input) = held_most;
        if cfg!(target_pointer_width = "64") && size_bytes > 10_000 {
            assert!(
                peak >= (HELD_BYTES_PER_INPUT_BYTE - 4) * input,
                "{peak} bytes for {input} of input"
            );
        }
    }
}

/// What decoding gives when `tail` stands at a place of a message that is right up to there.
fn error_at(place: &Place, tail: &[u8]) -> Option<DecodeError> {
    let input = place.input(tail);
    if place.response {
        decode(&input, place.version, FetchResponse::decode).err()
    } else {
        decode(&input, place.version, FetchRequest::decode).err()
    }
}

/// Asserts what is found, where it is found counted from the place on.
fn assert_error(place: &Place, tail: &[u8], offset: usize, kind: DecodeErrorKind) {
    let expected = DecodeError {
        field: place.field,
        at_byte: place.at_byte(tail) + offset,
        kind,
    };
    let tail_begins = &tail[..tail.len().min(12)];
    assert_eq!(
        error_at(place, tail),
        Some(expected),
        "v{}, {tail_begins:02x?}",
        place.version
    );
}

/// Longer than any array or string needs for one more element, shorter than what is claimed.
const FOLLOWS: [u8; 1_000] = [0; 1_000];

/// A length or count as the version writes it, and the bytes that it takes. Flexible ones are one greater.
fn length(place: &Place, classic: &[u8], flexible: u32) -> (Vec<u8>, usize) {
    let bytes = if place.is_flexible() {
        Body::new().uvarint(flexible).0
    } else {
        classic.to_vec()
    };
    let length = bytes.len();
    ([bytes, FOLLOWS.to_vec()].concat(), length)
}

#[test]
fn an_array_that_claims_more_than_follows_is_refused_at_once() {
    for (place, element_min_bytes) in arrays() {
        let (tail, count_bytes) = length(&place, &i32::MAX.to_be_bytes(), u32::MAX);
        let claimed = if place.is_flexible() {
            u32::MAX as usize - 1
        } else {
            i32::MAX as usize
        };
        let kind = UnexpectedEnd {
            // Where addresses have 32 bits, that is more than there are numbers.
            needed_bytes: claimed.saturating_mul(element_min_bytes),
            available_bytes: FOLLOWS.len(),
        };
        assert_error(&place, &tail, count_bytes, kind);

        // One element more than there is room for.
        let claimed = FOLLOWS.len() / element_min_bytes + 1;
        let count = i32::try_from(claimed).unwrap();
        let (tail, count_bytes) = length(&place, &count.to_be_bytes(), count.cast_unsigned() + 1);
        let kind = UnexpectedEnd {
            needed_bytes: claimed * element_min_bytes,
            available_bytes: FOLLOWS.len(),
        };
        assert_error(&place, &tail, count_bytes, kind);
    }
}

#[test]
fn an_array_has_no_negative_count_and_none_but_the_aborted_transactions_is_null() {
    for (place, _) in arrays() {
        if !place.is_flexible() {
            for count in [-2, i32::MIN] {
                let tail = [count.to_be_bytes().as_slice(), &FOLLOWS].concat();
                assert_error(&place, &tail, 0, NegativeLength { length: count.into() });
            }
        }
        let (tail, _) = length(&place, &(-1_i32).to_be_bytes(), 0);
        if place.field == "AbortedTransactions" {
            let error = error_at(&place, &tail).expect("the zeros that follow are no end of a message");
            assert_ne!(error.field, place.field, "v{}", place.version);
        } else {
            assert_error(&place, &tail, 0, UnexpectedNull);
        }
    }
}

#[test]
fn a_string_that_claims_more_than_follows_is_refused() {
    for (place, nullable) in strings() {
        let (tail, length_bytes) = length(&place, &i16::MAX.to_be_bytes(), 0x8000);
        let kind = UnexpectedEnd {
            needed_bytes: 0x7fff,
            available_bytes: FOLLOWS.len(),
        };
        assert_error(&place, &tail, length_bytes, kind);
        if place.is_flexible() {
            for (stated, length) in [(0x8001, 0x8000), (u32::MAX, u32::MAX as usize - 1)] {
                let tail = [Body::new().uvarint(stated).0, FOLLOWS.to_vec()].concat();
                let limit_bytes = 0x7fff;
                assert_error(&place, &tail, 0, StringTooLong { length, limit_bytes });
            }
        } else {
            let tail = [(-2_i16).to_be_bytes().as_slice(), &FOLLOWS].concat();
            assert_error(&place, &tail, 0, NegativeLength { length: -2 });
        }
        if !nullable {
            let (tail, _) = length(&place, &(-1_i16).to_be_bytes(), 0);
            assert_error(&place, &tail, 0, UnexpectedNull);
        }
        // A lone continuation byte, an overlong slash, a surrogate.
        for bytes in [b"\x80\0\0", b"\xc0\xaf\0", b"\xed\xa0\x80"] {
            let (head, length_bytes) = length(&place, &3_i16.to_be_bytes(), 4);
            let tail = [&head[..length_bytes], bytes, &FOLLOWS].concat();
            assert_error(&place, &tail, 0, InvalidUtf8);
        }
    }
}

#[test]
fn records_that_claim_more_than_follows_are_refused() {
    for place in [
        Place::records(4),
        Place::records(11),
        Place::records(12),
        Place::records(18),
    ] {
        let (tail, length_bytes) = length(&place, &i32::MAX.to_be_bytes(), u32::MAX);
        let needed_bytes = if place.is_flexible() {
            u32::MAX as usize - 1
        } else {
            i32::MAX as usize
        };
        let available_bytes = FOLLOWS.len();
        assert_error(
            &place,
            &tail,
            length_bytes,
            UnexpectedEnd {
                needed_bytes,
                available_bytes,
            },
        );
        if !place.is_flexible() {
            let tail = [i32::MIN.to_be_bytes().as_slice(), &FOLLOWS].concat();
            assert_error(
                &place,
                &tail,
                0,
                NegativeLength {
                    length: i32::MIN.into(),
                },
            );
        }
    }
}

#[test]
fn a_section_of_tagged_fields_is_bounded_and_in_order() {
    let after_count = |tail: &Body| Body::new().uvarint(u32::MAX).bytes(&tail.0).0;
    for place in tag_sections() {
        // 2^32 − 1 fields and nothing behind.
        let end = UnexpectedEnd {
            needed_bytes: 1,
            available_bytes: 0,
        };
        assert_error(&place, &after_count(&Body::new()), 5, end);
        // The 65th unknown one.
        let many = (100..200).fold(Body::new(), |body, tag| body.uvarint(tag).uvarint(0));
        let first_64 = (100..164).fold(Body::new(), |body, tag| body.uvarint(tag).uvarint(0));
        assert_error(
            &place,
            &after_count(&many),
            5 + first_64.0.len(),
            TooManyTags { limit: 64 },
        );
        // Repeated and falling.
        let highest = Body::new().uvarint(u32::MAX).uvarint(0);
        let twice = highest.clone().bytes(&highest.0);
        assert_error(
            &place,
            &after_count(&twice),
            5 + highest.0.len(),
            TagOrder { tag: u32::MAX },
        );
        let falling = Body::new().uvarint(101).uvarint(0).uvarint(100).uvarint(0);
        assert_error(&place, &after_count(&falling), 5 + 2, TagOrder { tag: 100 });
        // A value longer than all that is left.
        let long = Body::new().uvarint(100).uvarint(u32::MAX);
        let end = UnexpectedEnd {
            needed_bytes: u32::MAX as usize,
            available_bytes: 0,
        };
        assert_error(&place, &after_count(&long), 5 + 1 + 5, end);
    }
}

/// Fields of v12 that stand on the top level of a message.
const OUTSIDE_OF_ARRAYS: [&str; 6] = [
    "Topics",
    "ForgottenTopicsData",
    "RackId",
    "FetchRequest tags",
    "Responses",
    "FetchResponse tags",
];

#[test]
fn variable_length_integers_that_do_not_end_are_refused() {
    let endless = [0xff; 100];
    // Five bytes that end, but beyond 32 bits.
    let too_great = [[0xff, 0xff, 0xff, 0xff, 0x1f].as_slice(), &FOLLOWS].concat();
    let flexible_arrays = arrays()
        .into_iter()
        .map(|(place, _)| place)
        .filter(Place::is_flexible);
    let flexible_strings = strings()
        .into_iter()
        .map(|(place, _)| place)
        .filter(Place::is_flexible);
    for place in flexible_arrays.chain(flexible_strings).chain(tag_sections()) {
        assert_error(&place, &endless, 0, VarintTooLong);
        assert_error(&place, &too_great, 0, VarintTooLong);
        // In an array, one that is cut is refused already for what its elements need.
        let in_an_array = !OUTSIDE_OF_ARRAYS.contains(&place.field) || place.version != 12;
        for length in 0..if in_an_array { 0 } else { 5 } {
            let cut = UnexpectedEnd {
                needed_bytes: length + 1,
                available_bytes: length,
            };
            assert_error(&place, &endless[..length], 0, cut);
        }
    }
    for place in tag_sections() {
        // Of a tag, and of a length.
        assert_error(&place, &[&[1], endless.as_slice()].concat(), 1, VarintTooLong);
        assert_error(
            &place,
            &[&[1, 100], endless.as_slice()].concat(),
            2,
            VarintTooLong,
        );
    }
}

#[test]
fn a_known_tagged_field_fills_what_it_states() {
    // A directory id of 17 bytes, and a high watermark of 7.
    let mut sections = tag_sections().into_iter();
    let section = sections
        .find(|place| place.field == "FetchPartition tags" && place.version == 18)
        .unwrap();
    let long = Body::new().tags([(0, [0; 17].as_slice())]).0;
    let kind = TagLength {
        stated_bytes: 17,
        used_bytes: 16,
    };
    assert_error(&section, &long, 3 + 16, kind);
    let short = Body::new().tags([(1, [0; 7].as_slice())]).0;
    let error = error_at(&section, &short).unwrap();
    assert_eq!(error.field, "HighWatermark");
    assert_eq!(error.at_byte, section.at_byte(&short) + 3);
    assert_eq!(
        error.kind,
        UnexpectedEnd {
            needed_bytes: 8,
            available_bytes: 7
        }
    );
}

#[test]
fn errors_say_which_field_at_which_byte() {
    let request = |version: i16, tail: &[u8]| {
        let body = request_head(version).bytes(tail);
        FetchRequest::decode(body.0.into(), version)
            .unwrap_err()
            .to_string()
    };
    let response = |version, body: &[u8]| {
        FetchResponse::decode(Bytes::copy_from_slice(body), version)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(request(4, &[]), "Topics at byte 17: needs 4 bytes, 0 are left");
    let needed_bytes = usize::try_from(6_442_450_941_u64).unwrap_or(usize::MAX);
    assert_eq!(
        request(4, &i32::MAX.to_be_bytes()),
        format!("Topics at byte 21: needs {needed_bytes} bytes, 0 are left")
    );
    assert_eq!(
        request(4, &[0xff; 4]),
        "Topics at byte 17: is null where the schema allows none"
    );
    assert_eq!(
        request(7, &[0xff, 0xff, 0xff, 0xfe]),
        "Topics at byte 25: length -2 is negative"
    );
    assert_eq!(
        request(12, &[0xff; 5]),
        "Topics at byte 25: variable-length integer does not end"
    );
    assert_eq!(request(12, &[2, 2, 0xff, 1, 0]), "Topic at byte 26: is not UTF-8");
    assert_eq!(
        request(12, &[1, 1, 0x81, 0x80, 0x02]),
        "RackId at byte 27: takes 32768 bytes, a string takes at most 32767"
    );
    assert_eq!(
        request(15, &[1, 1, 1, 2, 1, 12, 0, 0, 0, 0]),
        "FetchRequest tags at byte 27: needs 12 bytes, 4 are left"
    );
    assert_eq!(
        response(7, &[0; 9]),
        "SessionId at byte 6: needs 4 bytes, 3 are left"
    );
    assert_eq!(
        response(4, &[0; 10]),
        "FetchResponse at byte 8: 2 bytes are left over"
    );
    assert_eq!(
        FetchResponse::decode(Bytes::new(), 3).unwrap_err().to_string(),
        "FetchResponse at byte 0: version 3 is not spoken here (4 to 18 are)"
    );
    let left_over = FetchResponse::decode(Bytes::from_static(&[0; 9]), 4).unwrap_err();
    assert_eq!(left_over.kind, TrailingBytes { count: 1 });
}
