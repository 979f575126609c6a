//! Random messages of every version against kafka-protocol, in both directions, and the few that it cannot
//! represent against ourselves.

#[path = "support/body.rs"]
mod body;
#[path = "support/messages.rs"]
mod messages;
#[path = "support/witness.rs"]
mod witness;

use std::fmt::Debug;

use body::{Body, request_head};
use bytes::{Bytes, BytesMut};
use kachet_core::wire::{
    Chunks, DecodeError, DecodeErrorKind, EpochEndOffset, FETCH_VERSION_MAX, FETCH_VERSION_MIN,
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopic, LeaderIdAndEpoch, PartitionData,
    RecordBytes, ReplicaState, SnapshotId, TaggedFields, TopicId, TopicRef, WireStr,
};
use kafka_protocol::messages as kafka;
use kafka_protocol::protocol::Encodable;
use messages::{request, response, tagged_fields, versions};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, proptest};
use proptest::{prop_assert, prop_assert_eq};

/// Encodes with kafka-protocol.
fn encode_by_witness<T: Encodable + Debug>(message: &T, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    message
        .encode(&mut out, version)
        .unwrap_or_else(|why| panic!("v{version}: {why}: {message:?}"));
    out.freeze()
}

proptest! {
    // No file of failures beside the tests: a failing case is printed, and becomes a test of its own.
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_reads_the_same_at_both_ends(
        (version, ours) in versions().prop_flat_map(|version| (Just(version), request(version))),
    ) {
        let sent = witness::encode_request(&ours, version);
        let theirs: kafka::FetchRequest = witness::decode(&sent, version);
        prop_assert_eq!(&witness::request(&ours), &theirs);
        let back = encode_by_witness(&theirs, version);
        prop_assert_eq!(&back, &sent);
        prop_assert_eq!(FetchRequest::decode(back, version), Ok(ours));
    }

    #[test]
    fn a_response_reads_the_same_at_both_ends(
        (version, ours) in versions().prop_flat_map(|version| (Just(version), response(version))),
    ) {
        let sent = witness::encode_response(&ours, version);
        let theirs: kafka::FetchResponse = witness::decode(&sent, version);
        prop_assert_eq!(&witness::response(&ours), &theirs);
        let back = encode_by_witness(&theirs, version);
        prop_assert_eq!(&back, &sent);
        prop_assert_eq!(FetchResponse::decode(back, version), Ok(ours));
    }

    #[test]
    fn the_slices_of_a_response_are_the_response_and_its_records_are_shared(
        (version, ours) in versions().prop_flat_map(|version| (Just(version), response(version))),
    ) {
        let mut out = Chunks::new();
        ours.encode(version, &mut out).unwrap();
        let size_bytes = out.size_bytes();
        let slices = out.into_slices();
        prop_assert!(slices.iter().all(|slice| !slice.is_empty()));
        prop_assert_eq!(slices.iter().map(Bytes::len).sum::<usize>(), size_bytes);
        prop_assert_eq!(slices.concat(), witness::encode_response(&ours, version));
        let records = ours.partitions().filter_map(|(_, partition)| partition.records.as_ref());
        for slice in records.flat_map(RecordBytes::slices) {
            prop_assert!(slices.iter().any(|sent| sent.as_ptr() == slice.as_ptr() && sent.len() == slice.len()));
        }
    }

    #[test]
    fn bytes_behind_a_request_are_ignored_and_behind_a_response_refused(
        (version, ours, answer) in versions()
            .prop_flat_map(|version| (Just(version), request(version), response(version))),
        more in proptest::collection::vec(any::<u8>(), 1..20),
    ) {
        let asked = [witness::encode_request(&ours, version), more.clone().into()].concat();
        prop_assert_eq!(FetchRequest::decode(asked.into(), version), Ok(ours));

        let answered = witness::encode_response(&answer, version);
        let error = DecodeError {
            field: "FetchResponse",
            at_byte: answered.len(),
            kind: DecodeErrorKind::TrailingBytes { count: more.len() },
        };
        let answered = [answered, more.into()].concat();
        prop_assert_eq!(FetchResponse::decode(answered.into(), version), Err(error));
    }
}

#[test]
fn versions_that_are_not_spoken_are_refused_in_both_directions() {
    for version in [
        i16::MIN,
        -1,
        0,
        FETCH_VERSION_MIN - 1,
        FETCH_VERSION_MAX + 1,
        i16::MAX,
    ] {
        let error = |field| DecodeError {
            field,
            at_byte: 0,
            kind: DecodeErrorKind::UnsupportedVersion { version },
        };
        let mut out = Chunks::new();
        let request = FetchRequest::default();
        assert_eq!(request.encode(version, &mut out), Err(error("FetchRequest")));
        let response = FetchResponse::default();
        assert_eq!(response.encode(version, &mut out), Err(error("FetchResponse")));
        assert_eq!(out.size_bytes(), 0);
        let body = Bytes::from_static(&[0; 64]);
        assert_eq!(
            FetchRequest::decode(body.clone(), version),
            Err(error("FetchRequest"))
        );
        assert_eq!(FetchResponse::decode(body, version), Err(error("FetchResponse")));
    }
}

fn assert_request_returns(request: &FetchRequest, version: i16) {
    let body = witness::encode_request(request, version);
    assert_eq!(
        FetchRequest::decode(body, version).as_ref(),
        Ok(request),
        "v{version}"
    );
}

fn assert_response_returns(response: &FetchResponse, version: i16) {
    let body = witness::encode_response(response, version);
    assert_eq!(
        FetchResponse::decode(body, version).as_ref(),
        Ok(response),
        "v{version}"
    );
}

fn request_of(partition: FetchPartition) -> FetchRequest {
    let topic = FetchTopic {
        topic: TopicRef::Id(TopicId([7; 16])),
        partitions: vec![partition],
        unknown_tags: TaggedFields::default(),
    };
    FetchRequest {
        topics: vec![topic],
        ..FetchRequest::default()
    }
}

fn response_of(partition: PartitionData) -> FetchResponse {
    let topic = FetchableTopic {
        topic: TopicRef::Id(TopicId([7; 16])),
        partitions: vec![partition],
        unknown_tags: TaggedFields::default(),
    };
    FetchResponse {
        topics: vec![topic],
        ..FetchResponse::default()
    }
}

/// kafka-protocol has no `Option` here: it neither tells the two apart nor writes the value.
#[test]
fn tagged_fields_that_are_present_with_the_default_stay_present() {
    let unknown_tags = TaggedFields::default;
    let mut request = request_of(FetchPartition {
        replica_directory_id: Some(TopicId::ZERO),
        high_watermark: Some(i64::MAX),
        ..FetchPartition::new(0, 0, 0)
    });
    request.replica_state = Some(ReplicaState {
        replica_id: -1,
        replica_epoch: -1,
        unknown_tags: unknown_tags(),
    });
    request.cluster_id = Some(WireStr::default());
    assert_request_returns(&request, 18);

    let partition = PartitionData {
        diverging_epoch: Some(EpochEndOffset {
            epoch: -1,
            end_offset: -1,
            unknown_tags: unknown_tags(),
        }),
        current_leader: Some(LeaderIdAndEpoch {
            leader_id: -1,
            leader_epoch: -1,
            unknown_tags: unknown_tags(),
        }),
        snapshot_id: Some(SnapshotId {
            end_offset: -1,
            epoch: -1,
            unknown_tags: unknown_tags(),
        }),
        ..PartitionData::error(3, 0)
    };
    assert_response_returns(&response_of(partition), 13);
}

/// kafka-protocol keeps tags as `i32` and drops those beyond it.
#[test]
fn the_highest_tags_are_kept() {
    let tags = tagged_fields([
        (0x7fff_ffff, b"a".as_slice()),
        (0x8000_0000, b"b"),
        (u32::MAX, b""),
    ]);
    let request = FetchRequest {
        unknown_tags: tags.clone(),
        ..FetchRequest::default()
    };
    assert_request_returns(&request, 12);
    let response = FetchResponse {
        unknown_tags: tags,
        ..FetchResponse::default()
    };
    assert_response_returns(&response, 18);
}

/// kafka-protocol refuses a tag that a later version defines; Kafka itself keeps it as unknown.
#[test]
fn tags_of_later_versions_are_unknown_ones_and_are_written_back_in_order() {
    let tail = |tags: &[(u32, &'static [u8])]| {
        let body = request_head(14).bytes(&[1, 1, 1]).tags(tags.to_vec());
        Bytes::from(body.0)
    };
    let body = tail(&[
        (0, b"\x03id"),
        (1, b"\0\0\0\x01\0\0\0\0\0\0\0\x02\0"),
        (9, b"nine"),
    ]);
    let request = FetchRequest::decode(body.clone(), 14).unwrap();
    assert_eq!(request.cluster_id, WireStr::copy_from("id"));
    assert_eq!(request.replica_state, None);
    assert_eq!(tags_of(&request.unknown_tags), [1, 9]);
    assert_eq!(witness::encode_request(&request, 14), body);

    // A partition with what v17 and v18 define.
    for (version, unknown) in [(16, [0, 1, 9].as_slice()), (17, &[1, 9]), (18, &[9])] {
        let tags: [(u32, &[u8]); 3] = [(0, &[5; 16]), (1, &[0, 0, 0, 0, 0, 0, 0, 3]), (9, b"nine")];
        let partition = Body::new().zeros(32).tags(tags);
        let topics = Body::new()
            .bytes(&[2])
            .zeros(16)
            .bytes(&[2])
            .bytes(&partition.0)
            .bytes(&[0]);
        let body: Bytes = request_head(version).bytes(&topics.0).bytes(&[1, 1, 0]).0.into();
        let request = FetchRequest::decode(body.clone(), version).unwrap();
        let partition = &request.topics[0].partitions[0];
        assert_eq!(tags_of(&partition.unknown_tags), unknown, "v{version}");
        assert_eq!(
            partition.replica_directory_id.is_some(),
            version >= 17,
            "v{version}"
        );
        assert_eq!(
            partition.high_watermark,
            (version >= 18).then_some(3),
            "v{version}"
        );
        assert_eq!(witness::encode_request(&request, version), body, "v{version}");
    }

    // What became the endpoints in v16.
    for version in [12, 15] {
        let body: Bytes = Body::new()
            .zeros(10)
            .bytes(&[1])
            .tags([(0, b"any".as_slice())])
            .0
            .into();
        let response = FetchResponse::decode(body.clone(), version).unwrap();
        assert_eq!(tags_of(&response.unknown_tags), [0], "v{version}");
        assert_eq!(witness::encode_response(&response, version), body, "v{version}");
    }
}

fn tags_of(fields: &TaggedFields) -> Vec<u32> {
    fields.as_slice().iter().map(|field| field.tag).collect()
}

#[test]
fn null_in_the_tag_of_the_cluster_id_means_absent() {
    let body = request_head(15).bytes(&[1, 1, 1]).tags([(0, b"\0".as_slice())]);
    let request = FetchRequest::decode(body.0.into(), 15).unwrap();
    assert_eq!(request.cluster_id, None);
}

#[test]
fn a_topic_of_the_wrong_kind_becomes_one_that_no_broker_knows() {
    let named = FetchRequest {
        topics: vec![FetchTopic {
            topic: TopicRef::Name(WireStr::from_static("orders")),
            partitions: vec![],
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    };
    let decoded = FetchRequest::decode(witness::encode_request(&named, 13), 13).unwrap();
    assert_eq!(decoded.topics[0].topic, TopicRef::Id(TopicId::ZERO));

    let by_id = request_of(FetchPartition::new(0, 0, 0));
    let decoded = FetchRequest::decode(witness::encode_request(&by_id, 12), 12).unwrap();
    assert_eq!(decoded.topics[0].topic, TopicRef::Name(WireStr::default()));
}
