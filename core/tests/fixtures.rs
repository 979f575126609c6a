//! What a real Apache Kafka 4.4.0 was asked and answered, in every version from 4 to 18: it decodes to what
//! kafka-protocol reads in it, encodes to the same bytes, and means what the broker was made to mean.

#[path = "support/decompressor.rs"]
mod decompressor;
#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/witness.rs"]
mod witness;

use std::collections::BTreeSet;
use std::fs;

use bytes::Bytes;
use decompressor::decompress_by_reference;
use fixture::{Fixture, fixtures, folder};
use kachet_core::wire::codec::{Codec, decompress};
use kachet_core::wire::{
    AbortedTransaction, BatchEntry, Batches, ControlRecord, Crc32c, FETCH_VERSION_TOPIC_IDS, FetchRequest,
    FetchResponse, PartitionData, Record, RecordBatch, RecordBytes, TaggedFields, TopicRef,
};
use kafka_protocol::records::{Compression, Record as KafkaRecord, RecordBatchDecoder};

const LIMIT_BYTES: usize = 1 << 20;

/// A fixture with both messages decoded.
struct Exchange {
    name: String,
    version: i16,
    request: FetchRequest,
    response: FetchResponse,
}

/// Every fixture of one case, decoded.
fn exchanges(case: &str) -> Vec<Exchange> {
    let of_case = fixtures().into_iter().filter(|fixture| fixture.case == case);
    let decode = |fixture: Fixture| Exchange {
        name: fixture.name(),
        version: fixture.version,
        request: FetchRequest::decode(fixture.request, fixture.version).unwrap(),
        response: FetchResponse::decode(fixture.response, fixture.version).unwrap(),
    };
    of_case.map(decode).collect()
}

impl Exchange {
    /// The partitions of the response, which are as many as expected.
    fn partitions<const N: usize>(&self) -> [&PartitionData; N] {
        let all: Vec<_> = self
            .response
            .partitions()
            .map(|(_, partition)| partition)
            .collect();
        all.try_into()
            .unwrap_or_else(|all: Vec<_>| panic!("{}: {} partitions", self.name, all.len()))
    }
}

/// The batches of a partition, in order, and the truncated tail.
fn batches(records: &[u8]) -> (Vec<RecordBatch<'_>>, &[u8]) {
    let mut walk = Batches::new(records);
    let mut found = Vec::new();
    for entry in &mut walk {
        match entry.unwrap() {
            BatchEntry::Batch(batch) => found.push(batch),
            BatchEntry::Legacy(legacy) => panic!("{legacy:?}"),
        }
    }
    (found, walk.rest())
}

fn records_of(partition: &PartitionData) -> Bytes {
    partition.records.as_ref().unwrap().to_bytes()
}

#[test]
fn every_version_has_every_case_and_no_file_is_left_out() {
    let mut expected = BTreeSet::new();
    for fixture in fixtures() {
        expected.insert(format!("{}.request", fixture.name()));
        expected.insert(format!("{}.response", fixture.name()));
    }
    let there: BTreeSet<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, expected);
    // Five cases everywhere, and from v7, v9 and v12 on one more each.
    assert_eq!(expected.len(), 2 * (5 * 15 + 12 + 10 + 7));
}

#[test]
fn requests_decode_to_what_kafka_protocol_reads_and_encode_to_the_same_bytes() {
    for fixture in fixtures() {
        let (name, version) = (fixture.name(), fixture.version);
        let ours = FetchRequest::decode(fixture.request.clone(), version).unwrap();
        let theirs = witness::decode(&fixture.request, version);
        assert_eq!(witness::request(&ours), theirs, "{name}");
        assert_eq!(witness::encode_request(&ours, version), fixture.request, "{name}");
    }
}

#[test]
fn responses_decode_to_what_kafka_protocol_reads_and_encode_to_the_same_bytes() {
    for fixture in fixtures() {
        let (name, version) = (fixture.name(), fixture.version);
        let ours = FetchResponse::decode(fixture.response.clone(), version).unwrap();
        let theirs = witness::decode(&fixture.response, version);
        assert_eq!(witness::response(&ours), theirs, "{name}");
        assert_eq!(
            witness::encode_response(&ours, version),
            fixture.response,
            "{name}"
        );
    }
}

#[test]
fn topics_are_named_before_v13_and_have_ids_from_then_on() {
    for fixture in fixtures() {
        let (name, version) = (fixture.name(), fixture.version);
        let request = FetchRequest::decode(fixture.request, version).unwrap();
        let response = FetchResponse::decode(fixture.response, version).unwrap();
        let asked = request.topics.iter().map(|topic| &topic.topic);
        for topic in asked.chain(response.topics.iter().map(|topic| &topic.topic)) {
            match topic {
                TopicRef::Name(_) => assert!(version < FETCH_VERSION_TOPIC_IDS, "{name}"),
                TopicRef::Id(id) => assert!(version >= FETCH_VERSION_TOPIC_IDS && !id.is_zero(), "{name}"),
            }
        }
    }
}

#[test]
fn every_whole_batch_has_a_valid_checksum() {
    let mut count = 0;
    for fixture in fixtures() {
        let response = FetchResponse::decode(fixture.response.clone(), fixture.version).unwrap();
        for (_, partition) in response.partitions() {
            let records = records_of(partition);
            for batch in batches(&records).0 {
                batch.verify(Crc32c::PORTABLE).unwrap();
                assert_eq!(batch.crc(), crc32c::crc32c(&batch.as_bytes()[21..]));
                count += 1;
            }
        }
    }
    // Codecs, transactions, truncated and errors in every version, and one in each session.
    assert_eq!(count, 15 * (6 + 5 + 1 + 1) + 12);
}

#[test]
fn records_are_shared_with_the_response_that_they_came_in() {
    for fixture in fixtures() {
        let response = FetchResponse::decode(fixture.response.clone(), fixture.version).unwrap();
        let whole = fixture.response.as_ptr_range();
        for (_, partition) in response.partitions() {
            for slice in partition.records.iter().flat_map(RecordBytes::slices) {
                let part = slice.as_ptr_range();
                assert!(
                    whole.start <= part.start && part.end <= whole.end,
                    "{}",
                    fixture.name()
                );
            }
        }
    }
}

/// One record in a form that both can be brought into.
type Plain = (
    i64,
    i64,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<(Vec<u8>, Option<Vec<u8>>)>,
);

fn plain(ours: &Record<'_>) -> Plain {
    let headers = ours.headers.iter();
    (
        ours.offset,
        ours.timestamp,
        ours.key.map(<[u8]>::to_vec),
        ours.value.map(<[u8]>::to_vec),
        headers
            .map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)))
            .collect(),
    )
}

fn plain_witness(theirs: &KafkaRecord) -> Plain {
    let headers = theirs.headers.iter();
    (
        theirs.offset,
        theirs.timestamp,
        theirs.key.as_ref().map(|key| key.to_vec()),
        theirs.value.as_ref().map(|value| value.to_vec()),
        headers
            .map(|(key, value)| {
                (
                    key.as_bytes().to_vec(),
                    value.as_ref().map(|value| value.to_vec()),
                )
            })
            .collect(),
    )
}

/// The records of a batch as Kachet reads them and as kafka-protocol does, which uses the reference
/// implementation of each codec.
fn read_both_ways(batch: &RecordBatch<'_>) -> (Vec<Plain>, Vec<Plain>) {
    let decompressed = decompress(batch.codec().unwrap(), batch.payload(), LIMIT_BYTES).unwrap();
    let ours = batch.records(&decompressed).map(|record| plain(&record.unwrap()));

    let mut bytes = Bytes::copy_from_slice(batch.as_bytes());
    let unpack = |packed: &mut Bytes, codec| Ok(decompress_by_reference(codec, packed));
    let theirs = RecordBatchDecoder::decode_with_custom_compression(&mut bytes, Some(unpack)).unwrap();
    assert!(bytes.is_empty());
    (ours.collect(), theirs.records.iter().map(plain_witness).collect())
}

#[test]
#[cfg_attr(
    not(all(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd")),
    ignore = "reads every codec"
)]
fn batches_of_every_codec_hold_the_records_that_kafka_protocol_reads() {
    for exchange in exchanges("codecs") {
        let name = &exchange.name;
        let [first, second] = exchange.partitions();
        let data = records_of(first);
        let (found, rest) = batches(&data);
        assert_eq!(rest, b"", "{name}");
        let codecs: Vec<_> = found.iter().map(|batch| batch.codec().unwrap()).collect();
        assert_eq!(
            codecs,
            [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd],
            "{name}"
        );
        let (mut keys, mut values) = (BTreeSet::new(), BTreeSet::new());
        for (batch, seed) in found.iter().zip(1_i64..) {
            let (ours, theirs) = read_both_ways(batch);
            assert_eq!(ours, theirs, "{name}");
            let offsets: Vec<_> = ours.iter().map(|record| record.0).collect();
            let base = 3 * (seed - 1);
            assert_eq!(offsets, [base, base + 1, base + 2], "{name}");
            assert_eq!(
                (batch.base_offset(), batch.last_offset()),
                (base, base + 2),
                "{name}"
            );
            assert_eq!(
                batch.max_timestamp(),
                ours.iter().map(|record| record.1).max().unwrap()
            );
            assert!(
                ours.iter().any(|record| !record.4.is_empty()),
                "{name}: no headers"
            );
            keys.extend(ours.iter().map(|record| record.2.clone()));
            values.extend(ours.into_iter().map(|record| record.3));
        }
        // Nulls and others, and not the same in every batch.
        assert!(keys.contains(&None) && keys.len() > 5, "{name}: {keys:?}");
        assert!(values.contains(&None) && values.len() > 5, "{name}: {values:?}");
        // The offset 1 of the other partition lies inside a batch, which comes whole (H11).
        let data = records_of(second);
        let (found, rest) = batches(&data);
        let spans: Vec<_> = found
            .iter()
            .map(|batch| (batch.base_offset(), batch.last_offset()))
            .collect();
        assert_eq!(
            (spans.as_slice(), rest),
            ([(0, 1)].as_slice(), b"".as_slice()),
            "{name}"
        );
        let (ours, theirs) = read_both_ways(&found[0]);
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn the_batch_headers_are_those_that_kafka_protocol_reads() {
    for case in ["codecs", "transactions", "session"] {
        for exchange in exchanges(case) {
            for (_, partition) in exchange.response.partitions() {
                let mut data = records_of(partition);
                let ours = data.clone();
                let theirs = RecordBatchDecoder::decode_batch_info(&mut data).unwrap();
                let (ours, _) = batches(&ours);
                assert_eq!(ours.len(), theirs.len(), "{}", exchange.name);
                for (batch, theirs) in ours.iter().zip(&theirs) {
                    assert_eq!(batch.base_offset(), theirs.min_offset);
                    assert_eq!(batch.base_timestamp(), theirs.min_timestamp);
                    assert_eq!(batch.records_count(), theirs.record_count);
                    assert_eq!(batch.partition_leader_epoch(), theirs.partition_leader_epoch);
                    assert_eq!(batch.producer_id(), theirs.producer_id);
                    assert_eq!(batch.producer_epoch(), theirs.producer_epoch);
                    assert_eq!(batch.base_sequence(), theirs.base_sequence);
                    assert_eq!(batch.is_transactional(), theirs.transactional);
                    assert_eq!(batch.is_control(), theirs.control);
                    assert_eq!(
                        batch.codec().unwrap() == Codec::None,
                        theirs.compression == Compression::None
                    );
                }
            }
        }
    }
}

#[test]
fn a_truncated_response_ends_in_a_tail_that_is_no_batch() {
    for exchange in exchanges("truncated") {
        let name = &exchange.name;
        let [partition] = exchange.partitions();
        let [(_, asked)] = exchange
            .request
            .partitions()
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        let limit = usize::try_from(asked.partition_max_bytes).unwrap();
        assert_eq!(partition.records_size_bytes(), limit, "{name}");
        let data = records_of(partition);
        let (found, rest) = batches(&data);
        assert_eq!(found.len(), 1, "{name}");
        assert_eq!((found[0].base_offset(), found[0].last_offset()), (0, 1), "{name}");
        assert!(!rest.is_empty(), "{name}");
        assert_eq!(found[0].size_bytes() + rest.len(), limit, "{name}");
        // More of the log follows than came.
        assert_eq!(partition.high_watermark, 6, "{name}");
    }
}

#[test]
fn transactions_come_with_their_markers_and_the_aborted_ones_are_listed() {
    for exchange in exchanges("transactions") {
        let name = &exchange.name;
        assert_eq!(exchange.request.isolation_level, 1, "{name}");
        let [first, second] = exchange.partitions();
        let data = records_of(first);
        let (found, _) = batches(&data);
        let control: Vec<_> = found.iter().map(RecordBatch::is_control).collect();
        assert_eq!(control, [true, false, true, false, true], "{name}");
        assert!(found.iter().all(RecordBatch::is_transactional), "{name}");

        let markers = found.iter().filter(|batch| batch.is_control());
        let kinds: Vec<_> = markers.clone().map(marker).collect();
        let (abort, commit) = (Some(ControlRecord::Abort), Some(ControlRecord::Commit));
        assert_eq!(kinds, [commit, abort, abort], "{name}");
        let offsets: Vec<_> = markers.map(RecordBatch::base_offset).collect();
        assert_eq!(offsets, [2, 5, 7], "{name}");

        let aborted = |of: &RecordBatch<'_>| AbortedTransaction {
            producer_id: of.producer_id(),
            first_offset: of.base_offset(),
            unknown_tags: TaggedFields::default(),
        };
        let expected = vec![aborted(&found[1]), aborted(&found[3])];
        assert_eq!(first.aborted_transactions, Some(expected), "{name}");
        assert_eq!((first.high_watermark, first.last_stable_offset), (8, 8), "{name}");

        // Without an error, committed reads get an empty list, not null (H2).
        assert_eq!(second.aborted_transactions, Some(vec![]), "{name}");
        assert!(second.records.as_ref().unwrap().is_empty(), "{name}");
    }
}

/// What the one record of a control batch says.
fn marker(batch: &RecordBatch<'_>) -> Option<ControlRecord> {
    let records: Vec<_> = batch.records(batch.payload()).map(Result::unwrap).collect();
    assert_eq!(records.len(), 1);
    ControlRecord::from_key(records[0].key.unwrap())
}

/// Asserts that a partition gives nothing but an error, in the shape that Apache Kafka 4.4.0 gives it.
fn assert_error(
    name: &str,
    partition: &PartitionData,
    error_code: i16,
    aborted: Option<&[AbortedTransaction]>,
) {
    assert_eq!(partition.error_code, error_code, "{name}");
    let watermarks = [
        partition.high_watermark,
        partition.last_stable_offset,
        partition.log_start_offset,
    ];
    assert_eq!(watermarks, [-1; 3], "{name}, error {error_code}");
    assert_eq!(partition.preferred_read_replica, -1, "{name}, error {error_code}");
    assert_eq!(
        partition.records.as_ref().map(RecordBytes::size_bytes),
        Some(0),
        "{name}"
    );
    assert_eq!(
        partition.aborted_transactions.as_deref(),
        aborted,
        "{name}, error {error_code}"
    );
}

#[test]
fn errors_have_the_shapes_of_the_broker() {
    for exchange in exchanges("errors") {
        let name = &exchange.name;
        let [out_of_range, present, first_absent, second_absent] = exchange.partitions();
        let indexes = exchange
            .response
            .partitions()
            .map(|(_, partition)| partition.partition_index);
        let by_id = exchange.version >= FETCH_VERSION_TOPIC_IDS;
        // Those with errors 3 and 100 come last, though the absent topic was asked for first.
        assert_eq!(indexes.collect::<Vec<_>>(), [0, 1, 0, 7], "{name}");
        assert_error(name, out_of_range, 1, None);
        assert_error(name, first_absent, if by_id { 100 } else { 3 }, Some(&[]));
        assert_error(name, second_absent, 3, Some(&[]));

        assert_eq!((present.error_code, present.high_watermark), (0, 2), "{name}");
        assert_eq!(
            present.aborted_transactions, None,
            "{name}: uncommitted reads carry null"
        );
        assert_eq!(batches(&records_of(present)).0.len(), 1, "{name}");
    }
}

#[test]
fn the_end_of_the_log_is_empty_and_no_error() {
    for exchange in exchanges("end") {
        let name = &exchange.name;
        let [partition] = exchange.partitions();
        assert_eq!(
            (partition.error_code, partition.high_watermark),
            (0, 15),
            "{name}"
        );
        assert_eq!(partition.last_stable_offset, 15, "{name}");
        let log_start_offset = if exchange.version >= 5 { 0 } else { -1 };
        assert_eq!(partition.log_start_offset, log_start_offset, "{name}");
        assert_eq!(
            partition.records.as_ref().map(RecordBytes::is_empty),
            Some(true),
            "{name}"
        );
    }
}

#[test]
fn a_fetch_session_is_opened_where_one_is_asked_for_and_nowhere_else() {
    for exchange in exchanges("session") {
        assert_eq!(exchange.request.session_epoch, 0, "{}", exchange.name);
        assert!(exchange.response.session_id > 0, "{}", exchange.name);
        let [partition] = exchange.partitions();
        assert_eq!(batches(&records_of(partition)).0.len(), 1, "{}", exchange.name);
    }
    for case in ["codecs", "end", "errors"] {
        for exchange in exchanges(case) {
            assert_eq!(exchange.response.session_id, 0, "{}", exchange.name);
        }
    }
}

#[test]
fn fenced_and_unknown_epochs_name_the_leader_from_v16_on() {
    for exchange in exchanges("epochs") {
        let name = &exchange.name;
        let [fenced, unknown] = exchange.partitions();
        assert_error(name, fenced, 74, None);
        assert_error(name, unknown, 75, None);
        // Only the error 74 carries the leader, and only from v16 on (KIP-951).
        assert_eq!(unknown.current_leader, None, "{name}");
        if exchange.version < 16 {
            assert_eq!(fenced.current_leader, None, "{name}");
            assert_eq!(exchange.response.node_endpoints, [], "{name}");
            continue;
        }
        let leader = fenced.current_leader.as_ref().unwrap();
        let [node] = exchange.response.node_endpoints.as_slice() else {
            panic!("{name}: {:?}", exchange.response.node_endpoints);
        };
        assert_eq!(leader.leader_id, node.node_id, "{name}");
        assert!(leader.leader_epoch > 0, "{name}");
        assert!(!node.host.as_str().is_empty() && node.port > 0, "{name}");
    }
}

#[test]
fn a_client_with_another_history_is_told_where_it_diverges() {
    for exchange in exchanges("diverging") {
        let name = &exchange.name;
        let [partition] = exchange.partitions();
        assert_eq!(partition.error_code, 0, "{name}");
        let diverging = partition.diverging_epoch.as_ref().unwrap();
        assert_eq!((diverging.epoch, diverging.end_offset), (0, 15), "{name}");
        assert_eq!(
            partition.records.as_ref().map(RecordBytes::is_empty),
            Some(true),
            "{name}"
        );
    }
}
