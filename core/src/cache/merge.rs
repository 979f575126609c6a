//! One answer out of hits and upstream's answer, as a broker would give it (H12, H22).

use alloc::vec::Vec;
use core::mem;

use hashbrown::HashMap;

use super::plan::{Outcome, Plan, PlannedPartition, PlannedTopic};
use crate::wire::{
    BatchEntry, Batches, FetchResponse, FetchableTopic, PartitionData, RecordBytes, TaggedFields, TopicRef,
};

impl Plan {
    /// The answer to a fetch that needs nothing from upstream; `None` if there is something to ask.
    pub fn into_response(self) -> Option<FetchResponse> {
        let Self {
            outcome: Outcome::Hits(topics, _),
            upstream: None,
        } = self
        else {
            return None;
        };
        let topics = topics.into_iter().map(FetchableTopic::from).collect();
        Some(FetchResponse {
            topics,
            ..FetchResponse::default()
        })
    }

    /// The answer out of the hits and what upstream gave for [`Plan::upstream_request`]. An error of the whole
    /// response and a throttle time reach the client unchanged (H23).
    #[must_use]
    pub fn merge(self, mut upstream: FetchResponse) -> FetchResponse {
        let Outcome::Hits(planned, limits) = self.outcome else {
            return upstream;
        };
        if upstream.error_code != 0 {
            return upstream;
        }
        let mut answered = by_identity(mem::take(&mut upstream.topics));
        let mut room = ResponseRoom::new(limits.max_bytes);
        let mut late = Vec::new();
        let mut topics = Vec::with_capacity(planned.len());
        for topic in planned {
            let (merged, failed) = merge_topic(topic, &mut answered, &mut room);
            topics.push(merged);
            late.extend(failed);
        }
        topics.retain(|topic| !topic.partitions.is_empty());
        topics.extend(late);
        upstream.topics = topics;
        upstream
    }
}

/// A broker lists partitions of topics that it does not know behind all others.
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const UNKNOWN_TOPIC_ID: i16 = 100;

fn merge_topic(
    planned: PlannedTopic,
    answered: &mut Answered,
    room: &mut ResponseRoom,
) -> (FetchableTopic, Option<FetchableTopic>) {
    let (mut partitions, mut failed) = (Vec::new(), Vec::new());
    for PlannedPartition {
        index,
        limit_bytes,
        hit,
        ..
    } in planned.partitions
    {
        // One that upstream leaves out is left out here: there is nothing true to say of it.
        let upstream = || answered.remove(&(planned.topic.clone(), index));
        let Some(mut data) = hit.or_else(upstream) else {
            continue;
        };
        room.cut_to_fit(&mut data, limit_bytes);
        if matches!(data.error_code, UNKNOWN_TOPIC_OR_PARTITION | UNKNOWN_TOPIC_ID) {
            failed.push(data);
        } else {
            partitions.push(data);
        }
    }
    let topic = |partitions| FetchableTopic {
        topic: planned.topic.clone(),
        partitions,
        unknown_tags: TaggedFields::default(),
    };
    let failed = (!failed.is_empty()).then(|| topic(failed));
    (topic(partitions), failed)
}

/// Upstream's partitions by identity and not by position (H22).
type Answered = HashMap<(TopicRef, i32), PartitionData>;

/// Of a partition that is mentioned twice the first mention counts.
fn by_identity(topics: Vec<FetchableTopic>) -> Answered {
    let mut answered = Answered::new();
    for topic in topics {
        for data in topic.partitions {
            answered
                .entry((topic.topic.clone(), data.partition_index))
                .or_insert(data);
        }
    }
    answered
}

/// Keeps an answer that is put together from several within its limits, partition by partition in request order.
#[derive(Clone, Debug)]
pub struct ResponseRoom {
    left_bytes: usize,
    /// No partition has given anything yet.
    first: bool,
}

impl ResponseRoom {
    /// Room for `max_bytes` of records.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            left_bytes: max_bytes,
            first: true,
        }
    }

    /// The first partition with records keeps its first batch whatever the limits say; behind it, batches that do
    /// not fit are left off whole. Whoever gave the records may have taken the partition for the first one.
    pub fn cut_to_fit(&mut self, data: &mut PartitionData, partition_max_bytes: usize) {
        let Some(records) = &mut data.records else { return };
        let left = self.left_bytes.min(partition_max_bytes);
        if records.size_bytes() > left {
            *records = whole_batches_within(records, left, self.first);
        }
        self.first &= records.is_empty();
        self.left_bytes = self.left_bytes.saturating_sub(records.size_bytes());
    }
}

fn whole_batches_within(records: &RecordBytes, limit_bytes: usize, first_whole: bool) -> RecordBytes {
    let mut kept = RecordBytes::empty();
    let mut left = limit_bytes;
    for slice in records.slices() {
        let mut walk = Batches::new(slice);
        let mut end = 0;
        while let Some(Ok(entry)) = walk.next() {
            let size = match entry {
                BatchEntry::Batch(batch) => batch.size_bytes(),
                BatchEntry::Legacy(message) => message.bytes.len(),
            };
            let first = first_whole && kept.is_empty() && end == 0;
            if size > left && !first {
                break;
            }
            left = left.saturating_sub(size);
            end = walk.at_byte();
        }
        kept.push(slice.slice(..end));
        if end < slice.len() {
            break;
        }
    }
    kept
}
