//! How a Fetch is answered. Rules H4, H9, H11, H12 and the shapes of Apache Kafka 4.4.0.

use core::time::Duration;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use kachet_core::wire::{
    EpochEndOffset, FETCH_VERSION_TOPIC_IDS, FetchPartition, FetchRequest, FetchResponse, FetchableTopic,
    LeaderIdAndEpoch, NodeEndpoint, PartitionData, RecordBytes, TaggedFields, TopicRef, WireStr,
};
use kafka_protocol::error::ResponseError;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::log::{PartitionLog, ReadLimit};
use super::topics::Topics;
use super::{BrokerState, NODE_ID};

/// Kafka's default of `fetch.max.bytes`: no response holds more, whatever the request allows.
const RESPONSE_LIMIT_BYTES: i32 = 55 * 1024 * 1024;
/// The session epoch of a fetch outside any session.
const SESSIONLESS_EPOCH: i32 = -1;
/// The session epoch of a fetch that asks for a new session.
const NEW_SESSION_EPOCH: i32 = 0;
/// From this version on an error names the leader that has the partition (KIP-951).
const VERSION_WITH_LEADERS: i16 = 16;

/// Partitions in the order in which they are answered.
type Wanted<'a> = Vec<(&'a TopicRef, &'a FetchPartition)>;

/// Answers a fetch, if need be after `max_wait_ms` or when there are `min_bytes`.
pub(super) async fn answer(
    state: &BrokerState,
    changes: &mut watch::Receiver<u64>,
    request: &FetchRequest,
    version: i16,
) -> FetchResponse {
    if let Some(refusal) = refuse(request, version) {
        return refusal;
    }
    let wanted = without_repetitions(request);
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = Instant::now() + max_wait;
    loop {
        // Seen before the logs are read: a change from now on wakes the wait below.
        changes.borrow_and_update();
        let read = Read::of(state, request, &wanted, version);
        if read.is_enough(request) {
            return read.into_response(state, version);
        }
        // Nothing has changed at the deadline, so that reading again would give the same.
        let Ok(Ok(())) = timeout_at(deadline, changes.changed()).await else {
            return read.into_response(state, version);
        };
    }
}

/// The answer to a request that is refused as a whole.
fn refuse(request: &FetchRequest, version: i16) -> Option<FetchResponse> {
    // With one of these epochs a request is complete in itself, and the session that it names is closed (KIP-227).
    let complete = matches!(request.session_epoch, SESSIONLESS_EPOCH | NEW_SESSION_EPOCH);
    if !complete {
        let error_code = ResponseError::FetchSessionIdNotFound.code();
        return Some(FetchResponse {
            error_code,
            ..FetchResponse::default()
        });
    }
    if matches!(request.isolation_level, 0 | 1) {
        return None;
    }
    let error_code = ResponseError::UnknownServerError.code();
    let mut refusal = FetchResponse {
        error_code,
        ..FetchResponse::default()
    };
    if version < FETCH_VERSION_TOPIC_IDS {
        let each = |(topic, partition): (&TopicRef, &FetchPartition)| {
            (
                topic.clone(),
                PartitionData::error(partition.partition, error_code),
            )
        };
        refusal.topics = grouped(request.partitions().map(each));
    }
    Some(refusal)
}

/// A partition that is named twice is answered once: in the place of the first mention, with the values of the last.
fn without_repetitions(request: &FetchRequest) -> Wanted<'_> {
    let mut wanted = Wanted::new();
    let mut places = HashMap::new();
    for (topic, partition) in request.partitions() {
        match places.entry((topic, partition.partition)) {
            Entry::Occupied(place) => wanted[*place.get()] = (topic, partition),
            Entry::Vacant(place) => {
                place.insert(wanted.len());
                wanted.push((topic, partition));
            }
        }
    }
    wanted
}

/// Partitions that follow each other and are of one topic share its entry.
fn grouped(partitions: impl Iterator<Item = (TopicRef, PartitionData)>) -> Vec<FetchableTopic> {
    let mut topics: Vec<FetchableTopic> = Vec::new();
    for (topic, partition) in partitions {
        match topics.last_mut() {
            Some(last) if last.topic == topic => last.partitions.push(partition),
            _ => topics.push(FetchableTopic {
                topic,
                partitions: vec![partition],
                unknown_tags: TaggedFields::default(),
            }),
        }
    }
    topics
}

/// What one look at the logs gave.
struct Read {
    partitions: Vec<(TopicRef, PartitionData)>,
    /// Partitions that the cluster does not have. They come last.
    unknown: Vec<(TopicRef, PartitionData)>,
    size_bytes: u64,
    /// What there is from the offsets on, without the limit of the whole response.
    available_bytes: u64,
    /// An error or a divergence is told at once.
    is_urgent: bool,
}

impl Read {
    fn of(state: &BrokerState, request: &FetchRequest, wanted: &Wanted<'_>, version: i16) -> Self {
        let topics = state.topics();
        let mut read = Self {
            partitions: Vec::with_capacity(wanted.len()),
            unknown: Vec::new(),
            size_bytes: 0,
            available_bytes: 0,
            is_urgent: false,
        };
        let mut left_bytes = i64::from(request.max_bytes.min(RESPONSE_LIMIT_BYTES));
        for &(topic, partition) in wanted {
            let Some(log) = topics
                .find(topic)
                .and_then(|found| found.partition(partition.partition))
            else {
                read.unknown
                    .push((topic.clone(), unknown(&topics, topic, partition)));
                continue;
            };
            let limit_bytes = i64::from(partition.partition_max_bytes).min(left_bytes);
            let mut reader = PartitionReader {
                log,
                partition,
                limit_bytes,
                read: &mut read,
            };
            let mut data = reader.read(state.settings.cut_last_batch);
            if request.isolation_level == 1 && data.error_code == 0 && data.diverging_epoch.is_none() {
                // There are no transactions, hence no aborted ones.
                data.aborted_transactions = Some(Vec::new());
            }
            if version >= VERSION_WITH_LEADERS && data.error_code == ResponseError::FencedLeaderEpoch.code() {
                data.current_leader = Some(LeaderIdAndEpoch {
                    leader_id: NODE_ID,
                    leader_epoch: log.leader_epoch(),
                    unknown_tags: TaggedFields::default(),
                });
            }
            let size_bytes = data.records_size_bytes() as u64;
            read.size_bytes += size_bytes;
            left_bytes = left_bytes.saturating_sub_unsigned(size_bytes).max(0);
            read.partitions.push((topic.clone(), data));
        }
        read
    }

    fn is_enough(&self, request: &FetchRequest) -> bool {
        // A broker never waits for more than the response may hold.
        let min_bytes = request.min_bytes.min(request.max_bytes.min(RESPONSE_LIMIT_BYTES));
        let min_bytes = u64::try_from(min_bytes).unwrap_or(0);
        request.max_wait_ms <= 0
            || self.partitions.is_empty()
            || self.is_urgent
            || self.size_bytes.max(self.available_bytes) >= min_bytes
    }

    fn into_response(self, state: &BrokerState, version: i16) -> FetchResponse {
        let names_leader = self
            .partitions
            .iter()
            .any(|(_, data)| data.current_leader.is_some());
        let node_endpoints = if names_leader && version >= VERSION_WITH_LEADERS {
            vec![NodeEndpoint {
                node_id: NODE_ID,
                host: WireStr::copy_from(&state.address.host).unwrap_or_default(),
                port: state.address.port.into(),
                rack: None,
                unknown_tags: TaggedFields::default(),
            }]
        } else {
            Vec::new()
        };
        let topics = grouped(self.partitions.into_iter().chain(self.unknown));
        FetchResponse {
            topics,
            node_endpoints,
            ..FetchResponse::default()
        }
    }
}

/// The answer for a partition that the cluster does not have.
fn unknown(topics: &Topics, topic: &TopicRef, partition: &FetchPartition) -> PartitionData {
    let is_unknown_id = matches!(topic, TopicRef::Id(_)) && topics.find(topic).is_none();
    let error = if is_unknown_id {
        ResponseError::UnknownTopicId
    } else {
        ResponseError::UnknownTopicOrPartition
    };
    let aborted_transactions = Some(Vec::new());
    PartitionData {
        aborted_transactions,
        ..PartitionData::error(partition.partition, error.code())
    }
}

/// Reads one partition and notes in `read` what that means for the whole.
struct PartitionReader<'a> {
    log: &'a PartitionLog,
    partition: &'a FetchPartition,
    /// Negative where the request's limit is.
    limit_bytes: i64,
    read: &'a mut Read,
}

impl PartitionReader<'_> {
    fn read(&mut self, cut_last_batch: bool) -> PartitionData {
        let (log, offset) = (self.log, self.partition.fetch_offset);
        if let Some(error) = epoch_error(log, self.partition.current_leader_epoch) {
            return self.fail(error);
        }
        if self.partition.last_fetched_epoch >= 0 {
            match self.diverging_epoch() {
                Ok(None) => {}
                Ok(Some(diverging)) => {
                    self.read.is_urgent = true;
                    let diverging_epoch = Some(diverging);
                    return PartitionData {
                        diverging_epoch,
                        ..self.data(RecordBytes::empty())
                    };
                }
                Err(error) => return self.fail(error),
            }
        }
        if !log.holds(offset) {
            return self.fail(ResponseError::OffsetOutOfRange);
        }
        let available_bytes = log.available_bytes(offset);
        let Ok(size_bytes) = usize::try_from(self.limit_bytes) else {
            // A real broker trips over a negative limit once there is something to read.
            return if available_bytes > 0 {
                self.fail(ResponseError::UnknownServerError)
            } else {
                self.data(RecordBytes::empty())
            };
        };
        let limit_bytes = u64::try_from(self.partition.partition_max_bytes).unwrap_or(0);
        self.read.available_bytes += available_bytes.min(limit_bytes);
        // Only until some partition has given records (KIP-74).
        let first_batch_whole = self.read.size_bytes == 0;
        self.data(log.read(
            offset,
            ReadLimit {
                size_bytes,
                first_batch_whole,
                cut_last_batch,
            },
        ))
    }

    fn data(&self, records: RecordBytes) -> PartitionData {
        PartitionData {
            high_watermark: self.log.end_offset(),
            last_stable_offset: self.log.end_offset(),
            log_start_offset: self.log.log_start_offset(),
            records: Some(records),
            ..PartitionData::error(self.partition.partition, 0)
        }
    }

    fn fail(&mut self, error: ResponseError) -> PartitionData {
        self.read.is_urgent = true;
        PartitionData::error(self.partition.partition, error.code())
    }

    /// Whether what the client has read last was truncated since (KIP-320, H8).
    fn diverging_epoch(&self) -> Result<Option<EpochEndOffset>, ResponseError> {
        let fetched = self.partition.last_fetched_epoch;
        let (epoch, end_offset) = self
            .log
            .epoch_end(fetched)
            .ok_or(ResponseError::OffsetOutOfRange)?;
        let diverges = epoch < fetched || end_offset < self.partition.fetch_offset;
        Ok(diverges.then(|| EpochEndOffset {
            epoch,
            end_offset,
            unknown_tags: TaggedFields::default(),
        }))
    }
}

/// What is wrong with the leader epoch that a client believes in; −1 is no belief (H9).
pub(super) fn epoch_error(log: &PartitionLog, believed: i32) -> Option<ResponseError> {
    match believed {
        -1 => None,
        older if older < log.leader_epoch() => Some(ResponseError::FencedLeaderEpoch),
        newer if newer > log.leader_epoch() => Some(ResponseError::UnknownLeaderEpoch),
        _ => None,
    }
}
