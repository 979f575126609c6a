//! Batches, requests and answers that are made here.

use bytes::{BufMut, Bytes, BytesMut};
use kachet_core::cache::{CacheSettings, EpochEnd, Evidence};
use kachet_core::identity::PartitionKey;
use kachet_core::time::{Instant, MaxStaleness};
use kachet_core::wire::{
    Crc32c, FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopic, PartitionData,
    TaggedFields, TopicId, TopicRef,
};

/// By the processor: the portable one takes most of the time of a debug build.
pub(crate) const CRC: Crc32c = Crc32c::from_fn(crc32c::crc32c);

pub(crate) const TOPIC: TopicId = TopicId([7; 16]);

pub(crate) fn key(partition: i32) -> PartitionKey {
    PartitionKey {
        topic_id: TOPIC,
        partition,
    }
}

/// What a batch is like.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) base: i64,
    pub(crate) last: i64,
    pub(crate) epoch: i32,
    pub(crate) producer_id: i64,
    /// Of a transaction.
    pub(crate) is_transactional: bool,
    /// A marker of a transaction, and not data.
    pub(crate) is_control: bool,
    pub(crate) max_timestamp: i64,
    pub(crate) payload_bytes: usize,
    pub(crate) fill: u64,
}

impl Shape {
    pub(crate) fn new(base: i64, last: i64) -> Self {
        Self {
            base,
            last,
            epoch: 0,
            producer_id: -1,
            is_transactional: false,
            is_control: false,
            max_timestamp: 2_000,
            payload_bytes: 100,
            fill: 1,
        }
    }
}

/// A batch of format 2 whose payload tells it from every other.
pub(crate) fn make(shape: Shape) -> Bytes {
    let mut checked = BytesMut::with_capacity(40 + shape.payload_bytes);
    checked.put_i16(i16::from(shape.is_transactional) << 4 | i16::from(shape.is_control) << 5);
    checked.put_i32(i32::try_from(shape.last - shape.base).unwrap());
    checked.put_i64(1_000);
    checked.put_i64(shape.max_timestamp);
    checked.put_i64(shape.producer_id);
    checked.put_i16(0);
    checked.put_i32(0);
    checked.put_i32(1);
    let seed = shape.fill ^ shape.base.cast_unsigned().rotate_left(20);
    let mut noise = fastrand::Rng::with_seed(seed);
    let mut payload = vec![0; shape.payload_bytes];
    noise.fill(&mut payload);
    checked.put_slice(&payload);
    let mut batch = BytesMut::with_capacity(21 + checked.len());
    batch.put_i64(shape.base);
    batch.put_i32(i32::try_from(checked.len() + 9).unwrap());
    batch.put_i32(shape.epoch);
    batch.put_i8(2);
    batch.put_u32(CRC.of(&checked));
    batch.put_slice(&checked);
    batch.freeze()
}

/// The batch of offsets 10·`number` to 10·`number` + 9, of `size_bytes` bytes.
pub(crate) fn numbered(number: i64, size_bytes: usize) -> Bytes {
    make(Shape {
        payload_bytes: size_bytes - 61,
        ..Shape::new(10 * number, 10 * number + 9)
    })
}

pub(crate) fn request_of(partitions: &[(i32, i64)]) -> FetchRequest {
    let partitions = partitions
        .iter()
        .map(|(index, offset)| FetchPartition::new(*index, *offset, i32::MAX));
    FetchRequest {
        topics: vec![FetchTopic {
            topic: TopicRef::Id(TOPIC),
            partitions: partitions.collect(),
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    }
}

pub(crate) fn request(partition: i32, offset: i64) -> FetchRequest {
    request_of(&[(partition, offset)])
}

/// A request of which no more than the first batch is wanted.
pub(crate) fn request_one(partition: i32, offset: i64) -> FetchRequest {
    FetchRequest {
        max_bytes: 0,
        ..request(partition, offset)
    }
}

pub(crate) fn committed(request: FetchRequest) -> FetchRequest {
    FetchRequest {
        isolation_level: 1,
        ..request
    }
}

/// What a broker answers for a partition whose log ends at `high_watermark`.
pub(crate) fn data(index: i32, high_watermark: i64, records: Bytes) -> PartitionData {
    PartitionData {
        high_watermark,
        last_stable_offset: high_watermark,
        log_start_offset: 0,
        records: Some(records.into()),
        ..PartitionData::error(index, 0)
    }
}

pub(crate) fn response_of(partitions: Vec<PartitionData>) -> FetchResponse {
    FetchResponse {
        topics: vec![FetchableTopic {
            topic: TopicRef::Id(TOPIC),
            partitions,
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchResponse::default()
    }
}

/// What a broker says of a partition whose log is as it was, all of it of epoch 0.
pub(crate) fn unchanged(high_watermark: i64, is_compacted: bool) -> Evidence {
    Evidence {
        leader_epoch: 0,
        log_start_offset: 0,
        high_watermark,
        is_compacted,
        epoch_end: EpochEnd {
            epoch: 0,
            end_offset: high_watermark,
        },
        older_epoch_ends: Vec::new(),
    }
}

/// Settings under which nothing that is cached ever has to be validated, but for what is in doubt.
pub(crate) fn unbounded(size_limit_bytes: u64, segment_size_bytes: Option<u32>) -> CacheSettings {
    CacheSettings {
        size_limit_bytes,
        segment_size_bytes,
        max_staleness: MaxStaleness::Forever,
        ..CacheSettings::default()
    }
}

pub(crate) fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// How many cases to run: so many, or what `PROPTEST_CASES` says, for long runs.
pub(crate) fn cases_or(cases: u32) -> u32 {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    wanted.and_then(|wanted| wanted.parse().ok()).unwrap_or(cases)
}
