//! Records and batches straight from the cache, without a request of a client.

use alloc::vec;
#[cfg(any(feature = "javascript", feature = "component"))]
use alloc::vec::Vec;

use bytes::Bytes;
use kachet_core::wire::{
    FetchPartition, FetchRequest, FetchTopic, PartitionData, TaggedFields, TopicId, TopicRef,
};

use crate::cache::{EmbeddedCache, within};
use crate::clock::Moment;
use crate::error::Error;
use crate::frame::decode_response;
#[cfg(any(feature = "javascript", feature = "component"))]
use crate::frame::{RequestFrame, RequestHeader};
use crate::records::{self, Block, Wanted};

/// How many bytes of batches the first step of a range takes at most, unless the first batch is larger: who reads one record
/// wants no more. Each step takes twice as many as the one before.
const FIRST_STEP_BYTES: i32 = 16 << 10;
const STEP_BYTES_MAX: i32 = 1 << 20;

/// A range of a partition to read records from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition's index.
    pub partition: i32,
    /// The first offset.
    pub offset: i64,
    /// So many records at most.
    pub count_limit: usize,
    /// How many bytes of keys, values and headers at most; the record that passes it is the last.
    pub size_limit_bytes: usize,
    /// Whether only what is committed is read, without aborted transactions.
    pub committed: bool,
}

impl Range {
    /// The request that brings it.
    pub(crate) fn request(&self, max_bytes: i32) -> FetchRequest {
        FetchRequest {
            max_bytes,
            isolation_level: i8::from(self.committed),
            topics: vec![FetchTopic {
                topic: TopicRef::Id(self.topic_id),
                partitions: vec![FetchPartition::new(self.partition, self.offset, max_bytes)],
                unknown_tags: TaggedFields::default(),
            }],
            ..FetchRequest::default()
        }
    }

    fn wanted(&self, cache: &EmbeddedCache, verifies: bool) -> Wanted {
        Wanted {
            from_offset: self.offset,
            count_limit: self.count_limit,
            size_limit_bytes: self.size_limit_bytes,
            decompressed_limit_bytes: cache.settings.decompressed_limit_bytes,
            verifies,
        }
    }
}

impl EmbeddedCache {
    /// The cached records from an offset on, as far as they lie there without a gap that would have to be fetched. `None`
    /// if the first offset is not cached.
    pub fn records(&mut self, range: &Range, now: Moment) -> Result<Option<Block>, Error> {
        let wanted = range.wanted(self, false);
        let mut block = Block::default();
        let mut next = *range;
        let mut is_there = false;
        let mut step_bytes = FIRST_STEP_BYTES;
        // Each step goes on behind what the last one brought, so that they end with the cache.
        while let Some(data) = self.hit(&next, step_bytes, now) {
            is_there = true;
            step_bytes = STEP_BYTES_MAX.min(2 * step_bytes);
            block.read(&data, &wanted)?;
            match block.next_offset() {
                Some(offset) if offset > next.offset && !block.is_full() => next.offset = offset,
                _ => break,
            }
        }
        Ok(is_there.then_some(block))
    }

    /// The cached batch that holds an offset, or the next one if the broker has shown that nothing lies there. Shares the
    /// cache's memory.
    pub fn batch(&mut self, topic_id: TopicId, partition: i32, offset: i64, now: Moment) -> Option<Bytes> {
        let range = Range {
            topic_id,
            partition,
            offset,
            count_limit: 1,
            size_limit_bytes: 0,
            committed: false,
        };
        // With a limit of 0 the first batch comes whole.
        let data = self.hit(&range, 0, now)?;
        data.records?.slices().next().cloned()
    }

    /// What the cache answers to a fetch from the range's offset on.
    fn hit(&mut self, range: &Range, max_bytes: i32, now: Moment) -> Option<PartitionData> {
        let now = now.instant();
        let asked = FetchPartition::new(range.partition, range.offset, max_bytes);
        let hit = self.core.hit(range.topic_id, &asked, range.committed, now);
        if hit.is_none() {
            // It may be there and too old.
            self.drop_stale(&range.request(max_bytes), now);
        }
        hit
    }

    /// The records of an answer, which need not have come through the cache: of the partition of the range, from its
    /// offset on.
    pub fn decode(
        &self,
        frame: &Bytes,
        version: i16,
        correlation_id: i32,
        range: &Range,
    ) -> Result<Block, Error> {
        within("response", frame.len(), self.settings.response_limit_bytes)?;
        let response = decode_response(frame, version, correlation_id)?;
        if response.error_code != 0 {
            let (partition, error_code) = (-1, response.error_code);
            return Err(Error::Records(records::Error::Broker {
                partition,
                error_code,
            }));
        }
        let topic = TopicRef::Id(range.topic_id);
        let mut block = Block::default();
        for (found, data) in response.partitions() {
            if *found == topic && data.partition_index == range.partition {
                block.read(data, &range.wanted(self, true))?;
                break;
            }
        }
        Ok(block)
    }
}

/// What a request that is made here asks for.
#[cfg(any(feature = "javascript", feature = "component"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) range: Range,
    pub(crate) version: i16,
    pub(crate) max_bytes: i32,
    pub(crate) min_bytes: i32,
    pub(crate) max_wait_ms: i32,
}

/// The frame of a request for one partition.
#[cfg(any(feature = "javascript", feature = "component"))]
pub(crate) fn request_frame(asked: &Asked) -> Result<Vec<u8>, Error> {
    let request = FetchRequest {
        min_bytes: asked.min_bytes,
        max_wait_ms: asked.max_wait_ms,
        ..asked.range.request(asked.max_bytes)
    };
    let header = RequestHeader::new(asked.version, 0);
    RequestFrame::encode(&header, &request).map(Vec::from)
}
