//! How a broker answers a Fetch: what Apache Kafka 4.4.0 was seen to do (H1, H2, H4, H8, H9, H11, H12).

use kachet::core::wire::{
    AbortedTransaction, EpochEndOffset, FETCH_VERSION_TOPIC_IDS, FetchPartition, FetchRequest, FetchResponse,
    FetchableTopic, LeaderIdAndEpoch, NodeEndpoint, PartitionData, RecordBytes, TaggedFields, TopicId,
    TopicRef, WireStr,
};
use kafka_protocol::ResponseError;

use crate::cluster::{Cluster, Topic};
use crate::log::ReadLimit;
use crate::partition::Role;

/// The session epochs with which a request is complete in itself.
const COMPLETE: [i32; 2] = [-1, 0];
const READ_COMMITTED: i8 = 1;
/// From this version on followers answer consumers, and leaders send them there (KIP-392).
const VERSION_FOLLOWERS: i16 = 11;
/// From this version on an error names the leader that has the partition (KIP-951).
const VERSION_WITH_LEADERS: i16 = 16;

/// One look at the logs.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) partitions: Vec<Told>,
    unknown: Vec<Told>,
    bytes: usize,
    available: usize,
    urgent: bool,
    /// An error of the whole response.
    refusal: i16,
}

/// What is told of one partition.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) topic: TopicRef,
    /// The topic that the broker meant.
    pub(crate) id: Option<TopicId>,
    pub(crate) data: PartitionData,
}

/// A fetch as a broker sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) broker: i32,
    pub(crate) version: i16,
    pub(crate) request: &'a FetchRequest,
    pub(crate) now: u64,
    /// Decides what brokers leave open.
    pub(crate) coin: u64,
}

impl Reading {
    pub(crate) fn of(cluster: &Cluster, asked: &Asked<'_>) -> Self {
        let request = asked.request;
        let mut reading = Self::default();
        if !COMPLETE.contains(&request.session_epoch) {
            reading.refusal = ResponseError::FetchSessionIdNotFound.code();
            return reading;
        }
        if !matches!(request.isolation_level, 0 | READ_COMMITTED) {
            reading.refusal = ResponseError::UnknownServerError.code();
            return reading;
        }
        let mut left = i64::from(request.max_bytes);
        for (topic, partition) in without_repetitions(request) {
            let found = cluster.find(topic, asked.broker, asked.now);
            let told = |data, id| Told {
                topic: topic.clone(),
                id,
                data,
            };
            let Some((found, log)) =
                found.and_then(|found| found.partition(partition.partition).map(|each| (found, each)))
            else {
                reading.unknown.push(told(unknown(topic, found, partition), None));
                continue;
            };
            let reader = Reader {
                asked,
                partition,
                role: log.role(asked.broker, asked.now),
                leader: log.leader_as_told_by(asked.broker, asked.now),
                limit: i64::from(partition.partition_max_bytes).min(left),
            };
            let data = reader.read(&mut reading);
            let size = data.records_size_bytes();
            reading.bytes += size;
            left = (left - i64::try_from(size).unwrap_or(0)).max(0);
            reading.partitions.push(told(data, Some(found.id)));
        }
        reading
    }

    pub(crate) fn is_enough(&self, request: &FetchRequest) -> bool {
        let min_bytes = usize::try_from(request.min_bytes.min(request.max_bytes)).unwrap_or(0);
        request.max_wait_ms <= 0
            || self.refusal != 0
            || self.partitions.is_empty()
            || self.urgent
            || self.bytes.max(self.available) >= min_bytes
    }

    /// Every partition in the order of the answer.
    pub(crate) fn into_told(self) -> (i16, Vec<Told>) {
        let mut told = self.partitions;
        told.extend(self.unknown);
        (self.refusal, told)
    }
}

/// A partition that is named twice is answered once: in the place of the first mention, with the values of the last.
fn without_repetitions(request: &FetchRequest) -> Vec<(&TopicRef, &FetchPartition)> {
    let mut wanted: Vec<(&TopicRef, &FetchPartition)> = Vec::new();
    for (topic, partition) in request.partitions() {
        let same = |each: &&mut (&TopicRef, &FetchPartition)| {
            each.0 == topic && each.1.partition == partition.partition
        };
        match wanted.iter_mut().find(same) {
            Some(first) => *first = (topic, partition),
            None => wanted.push((topic, partition)),
        }
    }
    wanted
}

fn unknown(topic: &TopicRef, found: Option<&Topic>, partition: &FetchPartition) -> PartitionData {
    let error = if matches!(topic, TopicRef::Id(_)) && found.is_none() {
        ResponseError::UnknownTopicId
    } else {
        ResponseError::UnknownTopicOrPartition
    };
    PartitionData {
        aborted_transactions: Some(Vec::new()),
        ..PartitionData::error(partition.partition, error.code())
    }
}

struct Reader<'a> {
    asked: &'a Asked<'a>,
    partition: &'a FetchPartition,
    role: Role<'a>,
    leader: (i32, i32),
    /// Negative where the request's limit is.
    limit: i64,
}

impl Reader<'_> {
    fn read(&self, reading: &mut Reading) -> PartitionData {
        let (log, offset) = (self.role.log, self.partition.fetch_offset);
        if let Some(error) = epoch_error(log.leader_epoch(), self.partition.current_leader_epoch) {
            return self.fail(error, reading);
        }
        if !self.role.leads && self.asked.version < VERSION_FOLLOWERS {
            return self.fail(ResponseError::NotLeaderOrFollower, reading);
        }
        if self.partition.last_fetched_epoch >= 0 {
            let Some((epoch, end)) = log.epoch_end(self.partition.last_fetched_epoch) else {
                return self.fail(ResponseError::OffsetOutOfRange, reading);
            };
            if epoch < self.partition.last_fetched_epoch || end < offset {
                reading.urgent = true;
                let diverging = EpochEndOffset {
                    epoch,
                    end_offset: end,
                    unknown_tags: TaggedFields::default(),
                };
                return PartitionData {
                    diverging_epoch: Some(diverging),
                    aborted_transactions: None,
                    ..self.data(RecordBytes::empty())
                };
            }
        }
        if let Some(replica) = self.preferred_replica() {
            reading.urgent = true;
            return PartitionData {
                preferred_read_replica: replica,
                ..self.data(RecordBytes::empty())
            };
        }
        let end = if self.role.leads {
            log.end
        } else {
            self.role.high_watermark
        };
        if !self.role.leads && offset > end && offset <= log.end {
            return self.fail(ResponseError::OffsetNotAvailable, reading);
        }
        if !(log.start..=end).contains(&offset) {
            return self.fail(ResponseError::OffsetOutOfRange, reading);
        }
        self.records(reading)
    }

    fn committed(&self) -> bool {
        self.asked.request.isolation_level == READ_COMMITTED
    }

    fn records(&self, reading: &mut Reading) -> PartitionData {
        let (log, offset) = (self.role.log, self.partition.fetch_offset);
        let below = if self.committed() {
            log.last_stable_offset(self.role.high_watermark)
        } else {
            self.role.high_watermark
        };
        let available = log.available_bytes(offset, below);
        let Ok(bytes) = usize::try_from(self.limit) else {
            // A real broker trips over a negative limit once there is something to read.
            return if available > 0 {
                self.fail(ResponseError::UnknownServerError, reading)
            } else {
                self.data(RecordBytes::empty())
            };
        };
        let most = usize::try_from(self.partition.partition_max_bytes).unwrap_or(0);
        reading.available += available.min(most);
        let out = log.read(
            offset,
            ReadLimit {
                bytes,
                first_whole: reading.bytes == 0,
                cut_tail: self.asked.coin & 2 == 0,
                below,
            },
        );
        let mut records = RecordBytes::empty();
        for slice in out.slices {
            records.push(slice);
        }
        let mut data = self.data(records);
        if self.committed() && out.bytes > 0 {
            // The index is sparse: the broker looks up to the next offset that stands in it.
            let end = if self.asked.coin & 1 == 0 {
                out.end
            } else {
                out.segment_end
            };
            let aborted = log
                .aborted_within(offset, end)
                .into_iter()
                .map(|each| AbortedTransaction {
                    producer_id: each.producer_id,
                    first_offset: each.first,
                    unknown_tags: TaggedFields::default(),
                });
            data.aborted_transactions = Some(aborted.collect());
        }
        data
    }

    fn data(&self, records: RecordBytes) -> PartitionData {
        let high_watermark = self.role.high_watermark;
        PartitionData {
            high_watermark,
            last_stable_offset: self.role.log.last_stable_offset(high_watermark),
            log_start_offset: if self.asked.version >= 5 {
                self.role.log.start
            } else {
                -1
            },
            aborted_transactions: self.committed().then(Vec::new),
            records: Some(records),
            ..PartitionData::error(self.partition.partition, 0)
        }
    }

    fn fail(&self, error: ResponseError, reading: &mut Reading) -> PartitionData {
        reading.urgent = true;
        let code = error.code();
        let named = self.asked.version >= VERSION_WITH_LEADERS
            && matches!(
                error,
                ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch
            );
        let (leader_id, leader_epoch) = self.leader;
        PartitionData {
            current_leader: named.then(|| LeaderIdAndEpoch {
                leader_id,
                leader_epoch,
                unknown_tags: TaggedFields::default(),
            }),
            ..PartitionData::error(self.partition.partition, code)
        }
    }

    /// The follower in the client's rack, if the leader is asked; the rack of a broker is its node id.
    fn preferred_replica(&self) -> Option<i32> {
        let rack = self.asked.request.rack_id.as_str().parse().ok()?;
        (self.role.leads && self.asked.version >= VERSION_FOLLOWERS && rack != self.asked.broker)
            .then_some(rack)
    }
}

/// What is wrong with the leader epoch that a client believes in; −1 is no belief (H9).
pub(crate) fn epoch_error(known: i32, believed: i32) -> Option<ResponseError> {
    match believed {
        -1 => None,
        older if older < known => Some(ResponseError::FencedLeaderEpoch),
        newer if newer > known => Some(ResponseError::UnknownLeaderEpoch),
        _ => None,
    }
}

/// The response that carries `told`. Partitions that follow each other and are of one topic share its entry.
pub(crate) fn response(version: i16, error_code: i16, told: &[Told]) -> FetchResponse {
    let mut topics: Vec<FetchableTopic> = Vec::new();
    for each in told {
        match topics.last_mut() {
            Some(last) if last.topic == each.topic => last.partitions.push(each.data.clone()),
            _ => topics.push(FetchableTopic {
                topic: each.topic.clone(),
                partitions: vec![each.data.clone()],
                unknown_tags: TaggedFields::default(),
            }),
        }
    }
    let leaders = told.iter().filter_map(|each| each.data.current_leader.as_ref());
    let mut leaders: Vec<i32> = leaders
        .map(|leader| leader.leader_id)
        .filter(|id| *id > 0)
        .collect();
    leaders.sort_unstable();
    leaders.dedup();
    let endpoint = |node_id: i32| {
        let address = Cluster::address(node_id);
        NodeEndpoint {
            node_id,
            host: WireStr::copy_from(&address.host).unwrap_or_default(),
            port: address.port.into(),
            rack: None,
            unknown_tags: TaggedFields::default(),
        }
    };
    let node_endpoints = leaders.into_iter().map(endpoint).collect();
    // A refusal as a whole lists no partitions where topics have ids.
    if error_code != 0 && version >= FETCH_VERSION_TOPIC_IDS {
        topics.clear();
    }
    FetchResponse {
        error_code,
        topics,
        node_endpoints,
        ..FetchResponse::default()
    }
}
