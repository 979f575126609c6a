//! Fetch responses, versions 4 to 18. Record data is shared with the bytes that came in, never copied.
//!
//! Source: `FetchResponse.json` of Apache Kafka; KIP-98 (transactions), 107 (log start), 392 (preferred
//! replica), 516 (topic ids), 595 (diverging epoch), 951 (current leader and node endpoints).

use alloc::vec::Vec;

use bytes::Bytes;

use super::error::DecodeError;
use super::fetch_request::{
    FETCH_VERSION_TOPIC_IDS, FetchTopic, check_version, read_topic_ref, write_topic_ref,
};
use super::reader::Reader;
use super::record_bytes::RecordBytes;
use super::tagged::TaggedFields;
use super::types::{TopicRef, WireStr};
use super::writer::{Chunks, Writer};

/// A Fetch response without its header. Fields that the version at hand does not carry have their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchResponse {
    /// How long a quota held the request back, in milliseconds.
    pub throttle_time_ms: i32,
    /// The error of the whole response, 0 for none (v7+).
    pub error_code: i16,
    /// The fetch session, 0 for none (v7+).
    pub session_id: i32,
    /// What was fetched.
    pub topics: Vec<FetchableTopic>,
    /// Addresses of the leaders that `current_leader` names (v16+, tag 0). Empty and absent are the same.
    pub node_endpoints: Vec<NodeEndpoint>,
    /// Tagged fields that are not known here.
    pub unknown_tags: TaggedFields,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchableTopic {
    /// The topic, by name (v4–12) or by id (v13+).
    pub topic: TopicRef,
    /// Its partitions.
    pub partitions: Vec<PartitionData>,
    /// Tagged fields that are not known here.
    pub unknown_tags: TaggedFields,
}

/// What one partition gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionData {
    /// The partition's index.
    pub partition_index: i32,
    /// The error of this partition, 0 for none.
    pub error_code: i16,
    /// The first offset that is not yet replicated to all in-sync replicas.
    pub high_watermark: i64,
    /// The first offset of the oldest open transaction, or the high watermark.
    pub last_stable_offset: i64,
    /// The first offset that the log still holds (v5+).
    pub log_start_offset: i64,
    /// The aborted transactions of the range, when committed data was asked for; null otherwise.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// The replica that the consumer should read from, −1 for none (v11+).
    pub preferred_read_replica: i32,
    /// The batches.
    pub records: Option<RecordBytes>,
    /// Where the log of the client parts from the leader's (v12+, tag 0).
    pub diverging_epoch: Option<EpochEndOffset>,
    /// The leader (v12+, tag 1).
    pub current_leader: Option<LeaderIdAndEpoch>,
    /// The snapshot to fetch instead (v12+, tag 2; controllers only).
    pub snapshot_id: Option<SnapshotId>,
    /// Tagged fields that are not known here.
    pub unknown_tags: TaggedFields,
}

impl PartitionData {
    /// A partition that gives nothing but an error, in the shape of Apache Kafka 4: watermarks −1 and empty,
    /// not null, records.
    pub fn error(partition_index: i32, error_code: i16) -> Self {
        Self {
            partition_index,
            error_code,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: Some(RecordBytes::empty()),
            diverging_epoch: None,
            current_leader: None,
            snapshot_id: None,
            unknown_tags: TaggedFields::default(),
        }
    }

    /// Bytes of records.
    pub fn records_size_bytes(&self) -> usize {
        self.records.as_ref().map_or(0, RecordBytes::size_bytes)
    }
}

/// An aborted transaction that touches the range that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Who produced it.
    pub producer_id: i64,
    /// Its first offset.
    pub first_offset: i64,
    /// Tagged fields that are not known here.
    pub unknown_tags: TaggedFields,
}

/// An epoch and the offset at which it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochEndOffset {
    /// The epoch.
    pub epoch: i32,
    /// The first offset beyond it.
    pub end_offset: i64,
    /// Tagged fields that are not known here.
    pub unknown_tags: TaggedFields,
}

/// The leader of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderIdAndEpoch {
    /// The leader's node id, −1 if unknown.
    pub leader_id: i32,
    /// The leader's epoch, −1 if unknown.
    pub leader_epoch: i32,
    /// Tagged fields that are not known here.
    pub unknown_tags: TaggedFields,
}

/// A snapshot of the metadata log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotId {
    /// The first offset beyond it.
    pub end_offset: i64,
    /// Its epoch.
    pub epoch: i32,
    /// Tagged fields that are not known here.
    pub unknown_tags: TaggedFields,
}

/// The address of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// The node's id.
    pub node_id: i32,
    /// The node's host name.
    pub host: WireStr,
    /// The node's port.
    pub port: i32,
    /// The node's rack.
    pub rack: Option<WireStr>,
    /// Tagged fields that are not known here.
    pub unknown_tags: TaggedFields,
}

impl FetchResponse {
    /// Decodes the body of a response. The records of its partitions share the memory of `body`.
    pub fn decode(body: Bytes, version: i16) -> Result<Self, DecodeError> {
        check_version("FetchResponse", version)?;
        let mut reader = Reader::new(body, version);
        let r = &mut reader;
        let mut response = Self {
            throttle_time_ms: r.i32("ThrottleTimeMs"),
            ..Self::default()
        };
        if version >= 7 {
            response.error_code = r.i16("ErrorCode");
            response.session_id = r.i32("SessionId");
        }
        let topic_min_bytes = if version >= FETCH_VERSION_TOPIC_IDS { 18 } else { 3 };
        response.topics = r.vec("Responses", topic_min_bytes, FetchableTopic::read);
        response.unknown_tags = r.tagged("FetchResponse tags", &mut |tag, r| {
            if tag != 0 || version < 16 {
                return false;
            }
            response.node_endpoints = r.vec("NodeEndpoints", 11, NodeEndpoint::read);
            true
        });
        reader.finish("FetchResponse")?;
        Ok(response)
    }

    /// Appends the body of the response to `out`; records are shared, not copied.
    pub fn encode(&self, version: i16, out: &mut Chunks) -> Result<(), DecodeError> {
        let mut writer = Writer::new(out, check_version("FetchResponse", version)?);
        let w = &mut writer;
        self.write_head(w, version);
        w.vec(&self.topics, |w, topic| topic.write(w, version));
        self.write_tags(w, version);
        Ok(())
    }

    /// What stands before the topics.
    fn write_head(&self, w: &mut Writer<'_>, version: i16) {
        w.i32(self.throttle_time_ms);
        if version >= 7 {
            w.i16(self.error_code);
            w.i32(self.session_id);
        }
    }

    /// What stands behind the topics.
    fn write_tags(&self, w: &mut Writer<'_>, version: i16) {
        let endpoints = |w: &mut Writer<'_>| w.vec(&self.node_endpoints, |w, node| node.write(w));
        let carried = !self.node_endpoints.is_empty() && version >= 16;
        w.tagged(&[(0, carried, &endpoints)], &self.unknown_tags);
    }

    /// Appends the body of a response that answers each partition of `asked`, in its order, by the next of `answers`, to
    /// `out`. The same as [`Self::encode`] makes of a response with these answers, which is not built.
    pub(crate) fn encode_answers<'a>(
        asked: &[FetchTopic],
        answers: impl IntoIterator<Item = &'a PartitionData>,
        version: i16,
        out: &mut Chunks,
    ) -> Result<(), DecodeError> {
        let mut writer = Writer::new(out, check_version("FetchResponse", version)?);
        let (w, frame) = (&mut writer, Self::default());
        let mut answers = answers.into_iter();
        frame.write_head(w, version);
        w.vec(asked, |w, topic| {
            write_topic_ref(w, &topic.topic, version);
            w.count(Some(topic.partitions.len()));
            for answer in answers.by_ref().take(topic.partitions.len()) {
                answer.write(w, version);
            }
            w.tagged(&[], &TaggedFields::default());
        });
        frame.write_tags(w, version);
        Ok(())
    }

    /// Every partition of the response, in its order, with its topic.
    pub fn partitions(&self) -> impl Iterator<Item = (&TopicRef, &PartitionData)> {
        self.topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(move |each| (&topic.topic, each)))
    }
}

impl FetchableTopic {
    fn read(r: &mut Reader) -> Self {
        // The smallest partition, of v4 before the flexible versions and of v12 after.
        let partition_min_bytes = if r.version() >= 12 { 37 } else { 30 };
        Self {
            topic: read_topic_ref(r),
            partitions: r.vec("Partitions", partition_min_bytes, PartitionData::read),
            unknown_tags: r.unknown_tags("FetchableTopic tags"),
        }
    }

    fn write(&self, w: &mut Writer<'_>, version: i16) {
        write_topic_ref(w, &self.topic, version);
        w.vec(&self.partitions, |w, partition| partition.write(w, version));
        w.tagged(&[], &self.unknown_tags);
    }
}

impl PartitionData {
    fn read(r: &mut Reader) -> Self {
        let version = r.version();
        let mut partition = Self::error(r.i32("PartitionIndex"), r.i16("ErrorCode"));
        partition.high_watermark = r.i64("HighWatermark");
        partition.last_stable_offset = r.i64("LastStableOffset");
        if version >= 5 {
            partition.log_start_offset = r.i64("LogStartOffset");
        }
        partition.aborted_transactions = r.nullable_vec("AbortedTransactions", 16, AbortedTransaction::read);
        if version >= 11 {
            partition.preferred_read_replica = r.i32("PreferredReadReplica");
        }
        partition.records = r.nullable_bytes("Records").map(RecordBytes::from);
        partition.unknown_tags = r.tagged("PartitionData tags", &mut |tag, r| {
            match tag {
                0 => partition.diverging_epoch = Some(EpochEndOffset::read(r)),
                1 => partition.current_leader = Some(LeaderIdAndEpoch::read(r)),
                2 => partition.snapshot_id = Some(SnapshotId::read(r)),
                _ => return false,
            }
            true
        });
        partition
    }

    fn write(&self, w: &mut Writer<'_>, version: i16) {
        w.i32(self.partition_index);
        w.i16(self.error_code);
        w.i64(self.high_watermark);
        w.i64(self.last_stable_offset);
        if version >= 5 {
            w.i64(self.log_start_offset);
        }
        match &self.aborted_transactions {
            None => w.count(None),
            Some(aborted) => w.vec(aborted, |w, each| each.write(w)),
        }
        if version >= 11 {
            w.i32(self.preferred_read_replica);
        }
        w.records(self.records.as_ref());
        let diverging = |w: &mut Writer<'_>| {
            if let Some(value) = &self.diverging_epoch {
                value.write(w);
            }
        };
        let leader = |w: &mut Writer<'_>| {
            if let Some(value) = &self.current_leader {
                value.write(w);
            }
        };
        let snapshot = |w: &mut Writer<'_>| {
            if let Some(value) = &self.snapshot_id {
                value.write(w);
            }
        };
        w.tagged(
            &[
                (0, self.diverging_epoch.is_some(), &diverging),
                (1, self.current_leader.is_some(), &leader),
                (2, self.snapshot_id.is_some(), &snapshot),
            ],
            &self.unknown_tags,
        );
    }
}

impl AbortedTransaction {
    fn read(r: &mut Reader) -> Self {
        Self {
            producer_id: r.i64("ProducerId"),
            first_offset: r.i64("FirstOffset"),
            unknown_tags: r.unknown_tags("AbortedTransaction tags"),
        }
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.i64(self.producer_id);
        w.i64(self.first_offset);
        w.tagged(&[], &self.unknown_tags);
    }
}

impl EpochEndOffset {
    fn read(r: &mut Reader) -> Self {
        Self {
            epoch: r.i32("Epoch"),
            end_offset: r.i64("EndOffset"),
            unknown_tags: r.unknown_tags("DivergingEpoch tags"),
        }
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.i32(self.epoch);
        w.i64(self.end_offset);
        w.tagged(&[], &self.unknown_tags);
    }
}

impl LeaderIdAndEpoch {
    fn read(r: &mut Reader) -> Self {
        Self {
            leader_id: r.i32("LeaderId"),
            leader_epoch: r.i32("LeaderEpoch"),
            unknown_tags: r.unknown_tags("CurrentLeader tags"),
        }
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.i32(self.leader_id);
        w.i32(self.leader_epoch);
        w.tagged(&[], &self.unknown_tags);
    }
}

impl SnapshotId {
    fn read(r: &mut Reader) -> Self {
        Self {
            end_offset: r.i64("EndOffset"),
            epoch: r.i32("Epoch"),
            unknown_tags: r.unknown_tags("SnapshotId tags"),
        }
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.i64(self.end_offset);
        w.i32(self.epoch);
        w.tagged(&[], &self.unknown_tags);
    }
}

impl NodeEndpoint {
    fn read(r: &mut Reader) -> Self {
        Self {
            node_id: r.i32("NodeId"),
            host: r.string("Host"),
            port: r.i32("Port"),
            rack: r.nullable_string("Rack"),
            unknown_tags: r.unknown_tags("NodeEndpoint tags"),
        }
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.i32(self.node_id);
        w.string(&self.host);
        w.i32(self.port);
        w.nullable_string(self.rack.as_ref());
        w.tagged(&[], &self.unknown_tags);
    }
}
