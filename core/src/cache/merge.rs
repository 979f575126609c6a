//! One answer out of hits and upstream's answer, as a broker would give it (H12, H22).

use alloc::vec::Vec;
use core::mem;

use hashbrown::HashMap;

use super::plan::{Limits, Outcome, Plan, PlannedTopic};
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
        let mut given = Given {
            limits,
            size_bytes: 0,
        };
        let mut late = Vec::new();
        let mut topics = Vec::with_capacity(planned.len());
        for topic in planned {
            let (merged, failed) = merge_topic(topic, &mut answered, &mut given);
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
    given: &mut Given,
) -> (FetchableTopic, Option<FetchableTopic>) {
    let (mut partitions, mut failed) = (Vec::new(), Vec::new());
    for (index, hit) in planned.partitions {
        // One that upstream leaves out is left out here: there is nothing true to say of it.
        let upstream = || answered.remove(&(planned.topic.clone(), index));
        let Some(mut data) = hit.or_else(upstream) else {
            continue;
        };
        given.cut_to_fit(&mut data);
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

/// Keeps the whole response within its limit.
struct Given {
    limits: Limits,
    size_bytes: usize,
}

impl Given {
    /// The first partition with records keeps its first batch whatever the limit says; behind it, batches that do
    /// not fit are left off whole.
    fn cut_to_fit(&mut self, data: &mut PartitionData) {
        let Some(records) = &mut data.records else { return };
        let left = self.limits.max_bytes.saturating_sub(self.size_bytes);
        if records.size_bytes() > left {
            *records = whole_batches_within(records, left, self.size_bytes == 0);
        }
        self.size_bytes += records.size_bytes();
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
