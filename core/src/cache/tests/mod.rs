//! The rules of the cache, one by one, on batches that are made here. A real broker judges the same rules in the
//! tests that start one.

mod compaction;
mod errors;
mod freshness;
mod limits;
mod plans;
mod readers;
mod transactions;

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::*;
use crate::time::Instant;
use crate::wire::{
    AbortedTransaction, Crc32c, FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopic,
    PartitionData, TaggedFields, TopicId, TopicRef,
};

const TOPIC: TopicId = TopicId([7; 16]);
const KEY: PartitionKey = PartitionKey {
    topic_id: TOPIC,
    partition: 0,
};

/// What a test batch is like.
#[derive(Clone, Copy)]
struct Shape {
    base: i64,
    last_offset_delta: i32,
    records_count: i32,
    epoch: i32,
    attributes: i16,
    producer_id: i64,
    payload_bytes: usize,
    fill: u8,
}

/// `count` records from `base` on.
fn shape(base: i64, count: i32) -> Shape {
    Shape {
        base,
        last_offset_delta: count - 1,
        records_count: count,
        epoch: 0,
        attributes: 0,
        producer_id: -1,
        payload_bytes: 100,
        fill: 1,
    }
}

fn make(shape: Shape) -> Bytes {
    let mut checked = BytesMut::new();
    checked.put_i16(shape.attributes);
    checked.put_i32(shape.last_offset_delta);
    checked.put_i64(1_000);
    checked.put_i64(2_000);
    checked.put_i64(shape.producer_id);
    checked.put_i16(0);
    checked.put_i32(0);
    checked.put_i32(shape.records_count);
    checked.put_bytes(shape.fill, shape.payload_bytes);
    let mut batch = BytesMut::new();
    batch.put_i64(shape.base);
    batch.put_i32(i32::try_from(checked.len() + 9).unwrap());
    batch.put_i32(shape.epoch);
    batch.put_i8(2);
    batch.put_u32(Crc32c::PORTABLE.of(&checked));
    batch.put_slice(&checked);
    batch.freeze()
}

fn batch(base: i64, count: i32) -> Bytes {
    make(shape(base, count))
}

fn join(batches: &[Bytes]) -> Bytes {
    batches.concat().into()
}

fn at(millis: u64) -> Instant {
    Instant::from_start(Duration::from_millis(millis))
}

fn cache_of(size_limit_bytes: u64) -> MemoryCache {
    let max_staleness = MaxStaleness::Forever;
    MemoryCache::new(
        CacheSettings {
            size_limit_bytes,
            max_staleness,
            ..CacheSettings::default()
        },
        Crc32c::PORTABLE,
    )
}

fn request_of(partitions: &[(i32, i64)]) -> FetchRequest {
    let partitions = partitions
        .iter()
        .map(|(index, offset)| FetchPartition::new(*index, *offset, 1 << 20));
    FetchRequest {
        topics: vec![FetchTopic {
            topic: TopicRef::Id(TOPIC),
            partitions: partitions.collect(),
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    }
}

fn request(offset: i64) -> FetchRequest {
    request_of(&[(0, offset)])
}

fn committed(mut request: FetchRequest) -> FetchRequest {
    request.isolation_level = 1;
    request
}

/// What a broker answers for a partition whose log ends at `high_watermark`.
fn data(index: i32, high_watermark: i64, records: Bytes) -> PartitionData {
    PartitionData {
        high_watermark,
        last_stable_offset: high_watermark,
        log_start_offset: 0,
        records: Some(records.into()),
        ..PartitionData::error(index, 0)
    }
}

fn response_of(partitions: Vec<PartitionData>) -> FetchResponse {
    let topic = TopicRef::Id(TOPIC);
    FetchResponse {
        topics: vec![FetchableTopic {
            topic,
            partitions,
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchResponse::default()
    }
}

fn response(high_watermark: i64, records: Bytes) -> FetchResponse {
    response_of(vec![data(0, high_watermark, records)])
}

fn absorb_at(cache: &mut MemoryCache, request: &FetchRequest, response: &FetchResponse, asked_at: Instant) {
    for harvest in Harvest::gather(request, response, Crc32c::PORTABLE) {
        cache.absorb(harvest, asked_at);
    }
}

fn absorb(cache: &mut MemoryCache, request: &FetchRequest, response: &FetchResponse) {
    absorb_at(cache, request, response, at(0));
}

/// Absorbs an answer under a name that is known to be of this topic.
fn absorb_as(cache: &mut MemoryCache, request: &FetchRequest, response: &FetchResponse, topic_id: TopicId) {
    for mut harvest in Harvest::gather(request, response, Crc32c::PORTABLE) {
        harvest.identify(topic_id);
        cache.absorb(harvest, at(0));
    }
}

/// Caches batches as the answer to a fetch of partition 0 from `offset`.
fn fill(cache: &mut MemoryCache, offset: i64, high_watermark: i64, batches: &[Bytes]) {
    absorb(cache, &request(offset), &response(high_watermark, join(batches)));
}

/// The records that the cache gives for a request of one partition, if it is a hit.
fn hit(cache: &MemoryCache, request: FetchRequest) -> Option<Bytes> {
    hit_data(cache, request).map(|data| data.records.unwrap().to_bytes())
}

fn hit_data(cache: &MemoryCache, request: FetchRequest) -> Option<PartitionData> {
    let response = cache.plan(request, at(0)).into_response()?;
    Some(response.topics[0].partitions[0].clone())
}

/// What accounting says must equal a sum over all that is held.
fn check_accounting(cache: &MemoryCache) {
    let statistics = cache.statistics();
    let (counted, summed) = cache.audit();
    assert_eq!(counted, summed);
    assert!(statistics.size_bytes <= statistics.limit_bytes, "{statistics:?}");
}
