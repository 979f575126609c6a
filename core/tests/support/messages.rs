//! Strategies for every message that a version can carry.
//!
//! Where a tagged field is optional, the value that kafka-protocol takes for absent is left out: it could not
//! give it back.

use std::collections::BTreeMap;

use bytes::Bytes;
use kachet_core::wire::{
    AbortedTransaction, EpochEndOffset, FETCH_VERSION_FLEXIBLE, FETCH_VERSION_MAX, FETCH_VERSION_MIN,
    FETCH_VERSION_TOPIC_IDS, FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopic,
    ForgottenTopic, LeaderIdAndEpoch, NodeEndpoint, PartitionData, RecordBytes, ReplicaState, SnapshotId,
    TaggedFields, TopicId, TopicRef, WireStr,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::strategy::BoxedStrategy;

use super::body::request_head;

/// The highest tag that kafka-protocol keeps.
const TAG_MAX: u32 = i32::MAX.cast_unsigned();

pub(crate) fn versions() -> impl Strategy<Value = i16> {
    FETCH_VERSION_MIN..=FETCH_VERSION_MAX
}

/// Unknown tagged fields, made by decoding a message that holds them: there is no other way in.
pub(crate) fn tagged_fields<'a>(
    fields: impl IntoIterator<Item = (u32, &'a [u8]), IntoIter: ExactSizeIterator>,
) -> TaggedFields {
    // One topic with an empty name and no partitions, which has no tags that are known.
    let body = request_head(12).bytes(&[2, 1, 1]).tags(fields).bytes(&[1, 1, 0]);
    let mut request = FetchRequest::decode(body.0.into(), 12).unwrap();
    request.topics.remove(0).unknown_tags
}

/// Unknown tagged fields above those that any version knows.
fn tags(version: i16, first_unknown: u32) -> BoxedStrategy<TaggedFields> {
    if version < FETCH_VERSION_FLEXIBLE {
        return Just(TaggedFields::default()).boxed();
    }
    let tag = prop_oneof![
        3 => first_unknown..first_unknown + 8,
        1 => first_unknown..=TAG_MAX,
        1 => Just(TAG_MAX),
    ];
    let some = btree_map(tag, vec(any::<u8>(), 0..=150), 1..=6);
    let fields = prop_oneof![3 => Just(BTreeMap::new()), 1 => some];
    fields
        .prop_map(|fields| tagged_fields(fields.iter().map(|(tag, data)| (*tag, data.as_slice()))))
        .boxed()
}

/// The field from a version on, its default before.
fn since<T: Clone + std::fmt::Debug + 'static>(
    first: i16,
    version: i16,
    strategy: impl Strategy<Value = T> + 'static,
    default: T,
) -> BoxedStrategy<T> {
    if version >= first {
        strategy.boxed()
    } else {
        Just(default).boxed()
    }
}

fn int32() -> impl Strategy<Value = i32> {
    prop_oneof![any::<i32>(), Just(i32::MIN), Just(i32::MAX), Just(-1), Just(0)]
}

fn int64() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), Just(-1), Just(0)]
}

fn string() -> impl Strategy<Value = WireStr> {
    let text = prop_oneof![
        2 => Just(String::new()),
        6 => "[a-z.ß→🦀]{1,30}",
        1 => Just("t".repeat(WireStr::LIMIT_BYTES)),
        1 => Just("e".repeat(127)),
    ];
    text.prop_map(|text| WireStr::copy_from(&text).unwrap())
}

fn topic_id() -> impl Strategy<Value = TopicId> {
    prop_oneof![any::<[u8; 16]>(), Just([0; 16]), Just([0xff; 16])].prop_map(TopicId)
}

fn topic_ref(version: i16) -> BoxedStrategy<TopicRef> {
    if version >= FETCH_VERSION_TOPIC_IDS {
        topic_id().prop_map(TopicRef::Id).boxed()
    } else {
        string().prop_map(TopicRef::Name).boxed()
    }
}

pub(crate) fn request(version: i16) -> impl Strategy<Value = FetchRequest> {
    let replica_id = if version <= 14 {
        int32().boxed()
    } else {
        Just(-1).boxed()
    };
    let head = (replica_id, int32(), int32(), int32(), any::<i8>());
    let session = (
        since(7, version, int32(), 0),
        since(7, version, int32(), -1),
        since(7, version, vec(forgotten_topic(version), 0..3), vec![]),
    );
    let tail = (
        since(11, version, string(), WireStr::default()),
        since(12, version, option::of(string()), None),
        since(15, version, option::of(replica_state(version)), None),
        tags(version, 2),
    );
    (head, session, vec(fetch_topic(version), 0..4), tail).prop_map(|(head, session, topics, tail)| {
        FetchRequest {
            replica_id: head.0,
            max_wait_ms: head.1,
            min_bytes: head.2,
            max_bytes: head.3,
            isolation_level: head.4,
            session_id: session.0,
            session_epoch: session.1,
            forgotten_topics: session.2,
            topics,
            rack_id: tail.0,
            cluster_id: tail.1,
            replica_state: tail.2,
            unknown_tags: tail.3,
        }
    })
}

fn replica_state(version: i16) -> impl Strategy<Value = ReplicaState> {
    let made = (int32(), int64(), tags(version, 0)).prop_map(|(replica_id, replica_epoch, unknown_tags)| {
        ReplicaState {
            replica_id,
            replica_epoch,
            unknown_tags,
        }
    });
    made.prop_filter("absent for kafka-protocol", |state| {
        (state.replica_id, state.replica_epoch) != (-1, -1) || !state.unknown_tags.as_slice().is_empty()
    })
}

fn fetch_topic(version: i16) -> impl Strategy<Value = FetchTopic> {
    (
        topic_ref(version),
        vec(fetch_partition(version), 0..4),
        tags(version, 0),
    )
        .prop_map(|(topic, partitions, unknown_tags)| FetchTopic {
            topic,
            partitions,
            unknown_tags,
        })
}

fn fetch_partition(version: i16) -> impl Strategy<Value = FetchPartition> {
    let directory = topic_id().prop_filter("absent for kafka-protocol", |id| !id.is_zero());
    let high_watermark = int64().prop_filter("absent for kafka-protocol", |offset| *offset != i64::MAX);
    let tagged = (
        since(17, version, option::of(directory), None),
        since(18, version, option::of(high_watermark), None),
        tags(version, 2),
    );
    let fields = (
        int32(),
        since(9, version, int32(), -1),
        int64(),
        since(12, version, int32(), -1),
        since(5, version, int64(), -1),
        int32(),
    );
    (fields, tagged).prop_map(|(fields, tagged)| FetchPartition {
        partition: fields.0,
        current_leader_epoch: fields.1,
        fetch_offset: fields.2,
        last_fetched_epoch: fields.3,
        log_start_offset: fields.4,
        partition_max_bytes: fields.5,
        replica_directory_id: tagged.0,
        high_watermark: tagged.1,
        unknown_tags: tagged.2,
    })
}

fn forgotten_topic(version: i16) -> impl Strategy<Value = ForgottenTopic> {
    (topic_ref(version), vec(int32(), 0..5), tags(version, 0)).prop_map(
        |(topic, partitions, unknown_tags)| ForgottenTopic {
            topic,
            partitions,
            unknown_tags,
        },
    )
}

pub(crate) fn response(version: i16) -> impl Strategy<Value = FetchResponse> {
    (
        int32(),
        since(7, version, any::<i16>(), 0),
        since(7, version, int32(), 0),
        vec(fetchable_topic(version), 0..3),
        since(16, version, vec(node_endpoint(version), 0..3), vec![]),
        tags(version, 1),
    )
        .prop_map(|fields| FetchResponse {
            throttle_time_ms: fields.0,
            error_code: fields.1,
            session_id: fields.2,
            topics: fields.3,
            node_endpoints: fields.4,
            unknown_tags: fields.5,
        })
}

fn fetchable_topic(version: i16) -> impl Strategy<Value = FetchableTopic> {
    (
        topic_ref(version),
        vec(partition_data(version), 0..3),
        tags(version, 0),
    )
        .prop_map(|(topic, partitions, unknown_tags)| FetchableTopic {
            topic,
            partitions,
            unknown_tags,
        })
}

fn partition_data(version: i16) -> impl Strategy<Value = PartitionData> {
    let fields = (
        (int32(), any::<i16>(), int64(), int64()),
        since(5, version, int64(), -1),
        option::of(vec(aborted_transaction(version), 0..4)),
        since(11, version, int32(), -1),
        option::of(records()),
    );
    let tagged = (
        since(12, version, option::of(diverging_epoch(version)), None),
        since(12, version, option::of(current_leader(version)), None),
        since(12, version, option::of(snapshot_id(version)), None),
        tags(version, 3),
    );
    (fields, tagged).prop_map(
        |((first, log_start_offset, aborted, preferred, records), tagged)| PartitionData {
            partition_index: first.0,
            error_code: first.1,
            high_watermark: first.2,
            last_stable_offset: first.3,
            log_start_offset,
            aborted_transactions: aborted,
            preferred_read_replica: preferred,
            records,
            diverging_epoch: tagged.0,
            current_leader: tagged.1,
            snapshot_id: tagged.2,
            unknown_tags: tagged.3,
        },
    )
}

/// None, one or many slices, some of them empty.
fn records() -> impl Strategy<Value = RecordBytes> {
    let slice = prop_oneof![
        4 => vec(any::<u8>(), 0..60),
        1 => (any::<u8>(), 100_usize..20_000).prop_map(|(byte, length)| vec![byte; length]),
    ];
    vec(slice, 0..8).prop_map(|slices| {
        let mut records = RecordBytes::empty();
        for slice in slices {
            records.push(Bytes::from(slice));
        }
        records
    })
}

fn aborted_transaction(version: i16) -> impl Strategy<Value = AbortedTransaction> {
    (int64(), int64(), tags(version, 0)).prop_map(|(producer_id, first_offset, unknown_tags)| {
        AbortedTransaction {
            producer_id,
            first_offset,
            unknown_tags,
        }
    })
}

fn diverging_epoch(version: i16) -> impl Strategy<Value = EpochEndOffset> {
    let made =
        (int32(), int64(), tags(version, 0)).prop_map(|(epoch, end_offset, unknown_tags)| EpochEndOffset {
            epoch,
            end_offset,
            unknown_tags,
        });
    made.prop_filter("absent for kafka-protocol", |value| {
        (value.epoch, value.end_offset) != (-1, -1) || !value.unknown_tags.as_slice().is_empty()
    })
}

fn current_leader(version: i16) -> impl Strategy<Value = LeaderIdAndEpoch> {
    let made = (int32(), int32(), tags(version, 0)).prop_map(|(leader_id, leader_epoch, unknown_tags)| {
        LeaderIdAndEpoch {
            leader_id,
            leader_epoch,
            unknown_tags,
        }
    });
    made.prop_filter("absent for kafka-protocol", |value| {
        (value.leader_id, value.leader_epoch) != (-1, -1) || !value.unknown_tags.as_slice().is_empty()
    })
}

fn snapshot_id(version: i16) -> impl Strategy<Value = SnapshotId> {
    let made =
        (int64(), int32(), tags(version, 0)).prop_map(|(end_offset, epoch, unknown_tags)| SnapshotId {
            end_offset,
            epoch,
            unknown_tags,
        });
    made.prop_filter("absent for kafka-protocol", |value| {
        (value.end_offset, value.epoch) != (-1, -1) || !value.unknown_tags.as_slice().is_empty()
    })
}

fn node_endpoint(version: i16) -> impl Strategy<Value = NodeEndpoint> {
    (int32(), string(), int32(), option::of(string()), tags(version, 0)).prop_map(
        |(node_id, host, port, rack, unknown_tags)| NodeEndpoint {
            node_id,
            host,
            port,
            rack,
            unknown_tags,
        },
    )
}
