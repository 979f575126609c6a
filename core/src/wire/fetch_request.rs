//! Fetch requests, versions 4 to 18.
//!
//! Source: `FetchRequest.json` of Apache Kafka; KIP-227 (sessions), 320 (epochs), 392 (racks), 516 (topic
//! ids), 903 (replica state), 1166 (high watermark hint).

use alloc::vec::Vec;

use bytes::Bytes;

use super::error::{DecodeError, DecodeErrorKind};
use super::reader::Reader;
use super::tagged::TaggedFields;
use super::types::{TopicId, TopicRef, WireStr};
use super::writer::{Chunks, Writer};

/// Oldest Fetch version that is spoken here, which is the oldest that Kafka 4 brokers answer.
pub const FETCH_VERSION_MIN: i16 = 4;
/// Newest Fetch version that is spoken here.
pub const FETCH_VERSION_MAX: i16 = 18;
/// From this version on messages are flexible: compact lengths and tagged fields (KIP-482).
pub const FETCH_VERSION_FLEXIBLE: i16 = 12;
/// From this version on topics are named by id instead of by name (KIP-516).
pub const FETCH_VERSION_TOPIC_IDS: i16 = 13;
/// Kafka's API key of Fetch.
pub const FETCH_API_KEY: i16 = 1;

/// A Fetch request without its header. Fields that the version at hand does not carry have their defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// The broker that replicates, −1 for a consumer (v4–14; later in `replica_state`).
    pub replica_id: i32,
    /// How long the broker may wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// How many bytes the broker waits for.
    pub min_bytes: i32,
    /// How many bytes of records the response may hold, except that the first batch always comes whole.
    pub max_bytes: i32,
    /// 0 reads uncommitted, 1 reads committed.
    pub isolation_level: i8,
    /// The fetch session (KIP-227), 0 for none (v7+).
    pub session_id: i32,
    /// −1: no session; 0: create one; above: the next fetch of the session (v7+).
    pub session_epoch: i32,
    /// What to fetch.
    pub topics: Vec<FetchTopic>,
    /// What to take out of the session (v7+).
    pub forgotten_topics: Vec<ForgottenTopic>,
    /// The consumer's rack (v11+, KIP-392).
    pub rack_id: WireStr,
    /// The cluster that the request is meant for (v12+, tag 0).
    pub cluster_id: Option<WireStr>,
    /// The replica that fetches (v15+, tag 1, KIP-903).
    pub replica_state: Option<ReplicaState>,
    /// Tagged fields that are not known here.
    pub unknown_tags: TaggedFields,
}

impl Default for FetchRequest {
    fn default() -> Self {
        Self {
            replica_id: -1,
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: i32::MAX,
            isolation_level: 0,
            session_id: 0,
            session_epoch: -1,
            topics: Vec::new(),
            forgotten_topics: Vec::new(),
            rack_id: WireStr::default(),
            cluster_id: None,
            replica_state: None,
            unknown_tags: TaggedFields::default(),
        }
    }
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchTopic {
    /// The topic, by name (v4–12) or by id (v13+).
    pub topic: TopicRef,
    /// Its partitions.
    pub partitions: Vec<FetchPartition>,
    /// Tagged fields that are not known here.
    pub unknown_tags: TaggedFields,
}

/// One partition, and where to read it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchPartition {
    /// The partition's index.
    pub partition: i32,
    /// The leader epoch that the client believes in, −1 for none (v9+, KIP-320).
    pub current_leader_epoch: i32,
    /// The offset to read from.
    pub fetch_offset: i64,
    /// The epoch of the last record that the client has, −1 for none (v12+).
    pub last_fetched_epoch: i32,
    /// A follower's log start, −1 from consumers (v5+).
    pub log_start_offset: i64,
    /// How many bytes of records this partition may contribute.
    pub partition_max_bytes: i32,
    /// A replica's directory (v17+, tag 0).
    pub replica_directory_id: Option<TopicId>,
    /// A replica's high watermark, a hint (v18+, tag 1).
    pub high_watermark: Option<i64>,
    /// Tagged fields that are not known here.
    pub unknown_tags: TaggedFields,
}

impl FetchPartition {
    /// A consumer's read of `partition` from `fetch_offset`, without epochs.
    pub fn new(partition: i32, fetch_offset: i64, partition_max_bytes: i32) -> Self {
        Self {
            partition,
            current_leader_epoch: -1,
            fetch_offset,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes,
            replica_directory_id: None,
            high_watermark: None,
            unknown_tags: TaggedFields::default(),
        }
    }
}

/// Partitions that a fetch session is to forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgottenTopic {
    /// The topic, by name (v7–12) or by id (v13+).
    pub topic: TopicRef,
    /// Its partitions.
    pub partitions: Vec<i32>,
    /// Tagged fields that are not known here.
    pub unknown_tags: TaggedFields,
}

/// A replica's id and epoch (KIP-903).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    /// The replica's broker id, −1 for none.
    pub replica_id: i32,
    /// The broker's epoch, −1 for none.
    pub replica_epoch: i64,
    /// Tagged fields that are not known here.
    pub unknown_tags: TaggedFields,
}

/// Whether messages of this version are flexible, or an error if the version is not spoken here.
pub(super) fn check_version(field: &'static str, version: i16) -> Result<bool, DecodeError> {
    if (FETCH_VERSION_MIN..=FETCH_VERSION_MAX).contains(&version) {
        return Ok(version >= FETCH_VERSION_FLEXIBLE);
    }
    Err(DecodeError {
        field,
        at_byte: 0,
        kind: DecodeErrorKind::UnsupportedVersion { version },
    })
}

pub(super) fn read_topic_ref(reader: &mut Reader) -> TopicRef {
    if reader.version() >= FETCH_VERSION_TOPIC_IDS {
        TopicRef::Id(reader.topic_id("TopicId"))
    } else {
        TopicRef::Name(reader.string("Topic"))
    }
}

/// The name or the id, as the version wants it. The wrong one of the two becomes the empty name or the zero
/// id, which no broker knows, so that the mistake comes back as the broker's error.
pub(super) fn write_topic_ref(writer: &mut Writer<'_>, topic: &TopicRef, version: i16) {
    match (topic, version >= FETCH_VERSION_TOPIC_IDS) {
        (TopicRef::Id(id), true) => writer.topic_id(*id),
        (TopicRef::Name(name), false) => writer.string(name),
        (TopicRef::Name(_), true) => writer.topic_id(TopicId::ZERO),
        (TopicRef::Id(_), false) => writer.string(&WireStr::default()),
    }
}

impl FetchRequest {
    /// Decodes the body of a request. Bytes left over behind it are ignored, as brokers do.
    pub fn decode(body: Bytes, version: i16) -> Result<Self, DecodeError> {
        check_version("FetchRequest", version)?;
        let mut reader = Reader::new(body, version);
        let r = &mut reader;
        let mut request = Self {
            replica_id: if version <= 14 { r.i32("ReplicaId") } else { -1 },
            max_wait_ms: r.i32("MaxWaitMs"),
            min_bytes: r.i32("MinBytes"),
            max_bytes: r.i32("MaxBytes"),
            isolation_level: r.i8("IsolationLevel"),
            ..Self::default()
        };
        if version >= 7 {
            request.session_id = r.i32("SessionId");
            request.session_epoch = r.i32("SessionEpoch");
        }
        let topic_min_bytes = if version >= FETCH_VERSION_TOPIC_IDS { 18 } else { 3 };
        request.topics = r.vec("Topics", topic_min_bytes, FetchTopic::read);
        if version >= 7 {
            request.forgotten_topics = r.vec("ForgottenTopicsData", topic_min_bytes, ForgottenTopic::read);
        }
        if version >= 11 {
            request.rack_id = r.string("RackId");
        }
        request.unknown_tags = r.tagged("FetchRequest tags", &mut |tag, r| {
            match tag {
                0 => request.cluster_id = r.nullable_string("ClusterId"),
                1 if version >= 15 => request.replica_state = Some(ReplicaState::read(r)),
                _ => return false,
            }
            true
        });
        reader.end()?;
        Ok(request)
    }

    /// Appends the body of the request to `out`.
    pub fn encode(&self, version: i16, out: &mut Chunks) -> Result<(), DecodeError> {
        let mut writer = Writer::new(out, check_version("FetchRequest", version)?);
        let w = &mut writer;
        if version <= 14 {
            w.i32(self.replica_id);
        }
        w.i32(self.max_wait_ms);
        w.i32(self.min_bytes);
        w.i32(self.max_bytes);
        w.i8(self.isolation_level);
        if version >= 7 {
            w.i32(self.session_id);
            w.i32(self.session_epoch);
        }
        w.vec(&self.topics, |w, topic| topic.write(w, version));
        if version >= 7 {
            w.vec(&self.forgotten_topics, |w, topic| topic.write(w, version));
        }
        if version >= 11 {
            w.string(&self.rack_id);
        }
        let cluster_id = |w: &mut Writer<'_>| w.nullable_string(self.cluster_id.as_ref());
        let replica_state = |w: &mut Writer<'_>| {
            if let Some(state) = &self.replica_state {
                state.write(w);
            }
        };
        w.tagged(
            &[
                (0, self.cluster_id.is_some(), &cluster_id),
                (1, self.replica_state.is_some() && version >= 15, &replica_state),
            ],
            &self.unknown_tags,
        );
        Ok(())
    }

    /// Every partition that is asked for, in request order, with its topic.
    pub fn partitions(&self) -> impl Iterator<Item = (&TopicRef, &FetchPartition)> {
        self.topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(move |each| (&topic.topic, each)))
    }
}

impl FetchTopic {
    fn read(r: &mut Reader) -> Self {
        Self {
            topic: read_topic_ref(r),
            // The smallest partition, of v4: index, offset and limit.
            partitions: r.vec("Partitions", 16, FetchPartition::read),
            unknown_tags: r.unknown_tags("FetchTopic tags"),
        }
    }

    fn write(&self, w: &mut Writer<'_>, version: i16) {
        write_topic_ref(w, &self.topic, version);
        w.vec(&self.partitions, |w, partition| partition.write(w, version));
        w.tagged(&[], &self.unknown_tags);
    }
}

impl FetchPartition {
    fn read(r: &mut Reader) -> Self {
        let version = r.version();
        let mut partition = Self::new(r.i32("Partition"), 0, 0);
        if version >= 9 {
            partition.current_leader_epoch = r.i32("CurrentLeaderEpoch");
        }
        partition.fetch_offset = r.i64("FetchOffset");
        if version >= 12 {
            partition.last_fetched_epoch = r.i32("LastFetchedEpoch");
        }
        if version >= 5 {
            partition.log_start_offset = r.i64("LogStartOffset");
        }
        partition.partition_max_bytes = r.i32("PartitionMaxBytes");
        partition.unknown_tags = r.tagged("FetchPartition tags", &mut |tag, r| {
            match tag {
                0 if version >= 17 => {
                    partition.replica_directory_id = Some(r.topic_id("ReplicaDirectoryId"));
                }
                1 if version >= 18 => partition.high_watermark = Some(r.i64("HighWatermark")),
                _ => return false,
            }
            true
        });
        partition
    }

    fn write(&self, w: &mut Writer<'_>, version: i16) {
        w.i32(self.partition);
        if version >= 9 {
            w.i32(self.current_leader_epoch);
        }
        w.i64(self.fetch_offset);
        if version >= 12 {
            w.i32(self.last_fetched_epoch);
        }
        if version >= 5 {
            w.i64(self.log_start_offset);
        }
        w.i32(self.partition_max_bytes);
        let directory = |w: &mut Writer<'_>| w.topic_id(self.replica_directory_id.unwrap_or_default());
        let high_watermark = |w: &mut Writer<'_>| w.i64(self.high_watermark.unwrap_or(i64::MAX));
        w.tagged(
            &[
                (
                    0,
                    self.replica_directory_id.is_some() && version >= 17,
                    &directory,
                ),
                (1, self.high_watermark.is_some() && version >= 18, &high_watermark),
            ],
            &self.unknown_tags,
        );
    }
}

impl ForgottenTopic {
    fn read(r: &mut Reader) -> Self {
        Self {
            topic: read_topic_ref(r),
            partitions: r.vec("Partitions", 4, |r| r.i32("Partition")),
            unknown_tags: r.unknown_tags("ForgottenTopic tags"),
        }
    }

    fn write(&self, w: &mut Writer<'_>, version: i16) {
        write_topic_ref(w, &self.topic, version);
        w.vec(&self.partitions, |w, partition| w.i32(*partition));
        w.tagged(&[], &self.unknown_tags);
    }
}

impl ReplicaState {
    fn read(r: &mut Reader) -> Self {
        Self {
            replica_id: r.i32("ReplicaId"),
            replica_epoch: r.i64("ReplicaEpoch"),
            unknown_tags: r.unknown_tags("ReplicaState tags"),
        }
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.i32(self.replica_id);
        w.i64(self.replica_epoch);
        w.tagged(&[], &self.unknown_tags);
    }
}
