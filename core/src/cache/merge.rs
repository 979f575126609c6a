//! One answer out of hits and upstream's answer, as a broker would give it (H12, H22).

use alloc::vec::Vec;
use core::mem;

use super::plan::Plan;
use super::positions::Positions;
use crate::wire::{
    BatchEntry, Batches, Chunks, DecodeError, FetchResponse, FetchTopic, FetchableTopic, PartitionData,
    RecordBytes, TaggedFields, TopicRef,
};

impl Plan {
    /// The answer to a fetch that needs nothing from upstream; `None` if there is something to ask.
    pub fn into_response(self) -> Option<FetchResponse> {
        if self.upstream.is_some() {
            return None;
        }
        let mut hits = self.hits.into_iter();
        let topics = self.topics.into_iter().map(|topic| FetchableTopic {
            topic: topic.topic,
            partitions: hits.by_ref().take(topic.partitions.len()).flatten().collect(),
            unknown_tags: TaggedFields::default(),
        });
        Some(FetchResponse {
            topics: topics.collect(),
            ..FetchResponse::default()
        })
    }

    /// Appends to `out` the body of the answer to a fetch that needs nothing from upstream, as [`Self::into_response`] and
    /// [`FetchResponse::encode`] make it together. Says whether it has; `false` if there is something to ask.
    pub fn encode_response(&self, version: i16, out: &mut Chunks) -> Result<bool, DecodeError> {
        if self.upstream.is_some() {
            return Ok(false);
        }
        FetchResponse::encode_answers(&self.topics, self.hits.iter().flatten(), version, out)?;
        Ok(true)
    }

    /// The answer out of the hits and what upstream gave for [`Plan::upstream_request`]. An error of the whole
    /// response and a throttle time reach the client unchanged (H23).
    #[must_use]
    pub fn merge(self, mut upstream: FetchResponse) -> FetchResponse {
        if !self.has_hits() || upstream.error_code != 0 {
            return upstream;
        }
        let mut upstream_topics = mem::take(&mut upstream.topics);
        let mut answered = Answered::of(&mut upstream_topics);
        let mut room = ResponseRoom::new(self.limits.max_bytes);
        let mut hits = self.hits.into_iter();
        let mut late = Vec::new();
        let mut topics = Vec::with_capacity(self.topics.len());
        for topic in self.topics {
            let (merged, failed) = merge_topic(topic, &mut hits, &mut answered, &mut room);
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

/// The answers of a topic's partitions, and those that stand behind all others. Takes a hit, or its absence, for each.
fn merge_topic(
    FetchTopic {
        topic, partitions, ..
    }: FetchTopic,
    hits: &mut impl Iterator<Item = Option<PartitionData>>,
    answered: &mut Answered<'_>,
    room: &mut ResponseRoom,
) -> (FetchableTopic, Option<FetchableTopic>) {
    let (mut answers, mut failed) = (Vec::new(), Vec::new());
    for asked in partitions {
        // One that upstream leaves out is left out here: there is nothing true to say of it.
        let upstream = || answered.take(&topic, asked.partition);
        let Some(mut data) = hits.next().flatten().or_else(upstream) else {
            continue;
        };
        room.cut_to_fit(&mut data, usize::try_from(asked.partition_max_bytes).unwrap_or(0));
        if matches!(data.error_code, UNKNOWN_TOPIC_OR_PARTITION | UNKNOWN_TOPIC_ID) {
            failed.push(data);
        } else {
            answers.push(data);
        }
    }
    let with = |partitions| FetchableTopic {
        topic: topic.clone(),
        partitions,
        unknown_tags: TaggedFields::default(),
    };
    let failed = (!failed.is_empty()).then(|| with(failed));
    (with(answers), failed)
}

/// Upstream's partitions by identity and not by position (H22).
struct Answered<'a> {
    positions: Positions<'a>,
    data: Vec<Option<PartitionData>>,
}

impl<'a> Answered<'a> {
    /// Takes the partitions out of `topics`.
    fn of(topics: &'a mut [FetchableTopic]) -> Self {
        let (mut identities, mut answers) = (Vec::new(), Vec::new());
        for FetchableTopic {
            topic, partitions, ..
        } in topics
        {
            for data in mem::take(partitions) {
                identities.push((&*topic, data.partition_index));
                answers.push(Some(data));
            }
        }
        Self {
            positions: Positions::of(identities.into_iter()),
            data: answers,
        }
    }

    /// What upstream gave of a partition; of one that is mentioned twice the first mention counts.
    fn take(&mut self, topic: &TopicRef, partition: i32) -> Option<PartitionData> {
        let position = self.positions.find(topic, partition)?;
        self.data.get_mut(position)?.take()
    }
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
