//! Kachet itself: the engine in memory, not a model of it.

use kachet_core::cache::{Harvest, MemoryCache};
use kachet_core::time::Instant;
use kachet_core::wire::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopic, PartitionData, TaggedFields,
    TopicRef,
};

use super::Policy;
use crate::filled::{BatchAt, CRC32C, TOPIC, settings};
use crate::traces::BatchKey;

/// Where every log ends, so that no batch lies behind it whichever is read first.
const LOG_END: i64 = 1 << 40;

/// The cache, which is given batches of the trace's sizes and counts everything that it holds, its index included.
#[derive(Debug)]
pub struct Kachet {
    cache: MemoryCache,
    /// Bytes of batches that were put in.
    absorbed_bytes: u64,
}

impl Kachet {
    /// An empty cache.
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            cache: MemoryCache::new(settings(limit_bytes), CRC32C),
            absorbed_bytes: 0,
        }
    }
}

impl Policy for Kachet {
    fn access(&mut self, batch: BatchKey, size_bytes: u32) -> bool {
        let at = BatchAt {
            partition: i32::try_from(batch.partition).unwrap_or(i32::MAX),
            base: i64::from(batch.batch),
            records: 1,
            size_bytes: usize::try_from(size_bytes).unwrap_or(usize::MAX),
        };
        // A reader that has room for one batch at a time.
        let asked = FetchPartition::new(at.partition, at.base, 1);
        if self.cache.hit(TOPIC, &asked, false, Instant::default()).is_some() {
            return true;
        }
        for harvest in answer(at) {
            self.cache.absorb(harvest, Instant::default());
        }
        self.absorbed_bytes += u64::from(size_bytes);
        false
    }

    fn held_bytes(&self) -> u64 {
        self.cache.statistics().size_bytes
    }
}

/// What a broker answers that is asked for this batch and no more.
fn answer(at: BatchAt) -> Vec<Harvest> {
    let request = FetchRequest {
        topics: vec![FetchTopic {
            topic: TopicRef::Id(TOPIC),
            partitions: vec![FetchPartition::new(at.partition, at.base, i32::MAX)],
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    };
    let data = PartitionData {
        high_watermark: LOG_END,
        last_stable_offset: LOG_END,
        log_start_offset: 0,
        records: Some(at.bytes().into()),
        ..PartitionData::error(at.partition, 0)
    };
    let response = FetchResponse {
        topics: vec![FetchableTopic {
            topic: TopicRef::Id(TOPIC),
            partitions: vec![data],
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchResponse::default()
    };
    Harvest::gather(&request, &response, CRC32C)
}
