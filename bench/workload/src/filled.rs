//! A filled cache and filled peers: the same batches in each.

use bytes::{BufMut, Bytes, BytesMut};
use fastrand::Rng;
use kachet_core::cache::{CacheSettings, Harvest, MemoryCache};
use kachet_core::identity::PartitionKey;
use kachet_core::time::{Instant, MaxStaleness};
use kachet_core::wire::{
    Crc32c, FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopic, PartitionData,
    TaggedFields, TopicId, TopicRef,
};

/// By the processor's own instructions.
pub const CRC32C: Crc32c = Crc32c::from_fn(crc32c::crc32c);

/// The topic of all batches here.
pub const TOPIC: TopicId = TopicId([7; 16]);

/// Where one batch lies in a log.
#[derive(Clone, Copy, Debug)]
pub struct BatchAt {
    /// Its partition.
    pub partition: i32,
    /// Its first offset.
    pub base: i64,
    /// Its records, and so how many offsets it takes.
    pub records: i32,
    /// All of it, in bytes.
    pub size_bytes: usize,
}

impl BatchAt {
    /// Its last offset.
    pub fn last(&self) -> i64 {
        self.base + i64::from(self.records) - 1
    }

    /// The batch: a header as producers write it, and filling that nobody decodes.
    pub fn bytes(&self) -> Bytes {
        let payload = self.size_bytes.saturating_sub(61);
        let mut checked = BytesMut::with_capacity(self.size_bytes);
        checked.put_i16(0);
        checked.put_i32(self.records - 1);
        checked.put_i64(1_000);
        checked.put_i64(2_000);
        checked.put_i64(-1);
        checked.put_i16(0);
        checked.put_i32(0);
        checked.put_i32(self.records);
        checked.put_bytes(1, payload);
        let mut batch = BytesMut::with_capacity(checked.len() + 21);
        batch.put_i64(self.base);
        batch.put_i32(i32::try_from(checked.len() + 9).unwrap_or(i32::MAX));
        batch.put_i32(0);
        batch.put_i8(2);
        batch.put_u32(CRC32C.of(&checked));
        batch.put_slice(&checked);
        batch.freeze()
    }
}

/// `count` batches over `partitions` partitions, of one to 39 records, as producers that send on time make them, and of
/// `size_bytes` up to half as much more.
pub fn batches(count: usize, partitions: i32, size_bytes: usize) -> Vec<BatchAt> {
    let mut rng = Rng::with_seed(7);
    let mut ends = vec![0_i64; usize::try_from(partitions).unwrap_or(1)];
    let mut batches = Vec::with_capacity(count);
    for n in 0..count {
        let partition = n % ends.len();
        let records = rng.i32(1..40);
        batches.push(BatchAt {
            partition: i32::try_from(partition).unwrap_or(0),
            base: ends[partition],
            records,
            size_bytes: size_bytes + rng.usize(0..=size_bytes / 2),
        });
        ends[partition] += i64::from(records);
    }
    batches
}

/// Offsets to look up, uniform over all batches, each with its partition.
pub fn lookups(batches: &[BatchAt], count: usize) -> Vec<(PartitionKey, i64)> {
    let mut rng = Rng::with_seed(11);
    let lookup = |_| {
        let batch = &batches[rng.usize(0..batches.len())];
        (
            key(batch.partition),
            batch.base + rng.i64(0..i64::from(batch.records)),
        )
    };
    (0..count).map(lookup).collect()
}

/// A partition of [`TOPIC`].
pub fn key(partition: i32) -> PartitionKey {
    PartitionKey {
        topic_id: TOPIC,
        partition,
    }
}

/// What a broker answers with these batches, which are neighbours in one partition whose log ends at `log_end_offset`, and to
/// what.
pub fn answer(batches: &[BatchAt], log_end_offset: i64) -> Option<(FetchRequest, FetchResponse)> {
    let first = batches.first()?;
    let request = FetchRequest {
        topics: vec![FetchTopic {
            topic: TopicRef::Id(TOPIC),
            partitions: vec![FetchPartition::new(first.partition, first.base, i32::MAX)],
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    };
    let records: Vec<Bytes> = batches.iter().map(BatchAt::bytes).collect();
    let data = PartitionData {
        high_watermark: log_end_offset,
        last_stable_offset: log_end_offset,
        log_start_offset: 0,
        records: Some(Bytes::from(records.concat()).into()),
        ..PartitionData::error(first.partition, 0)
    };
    let response = FetchResponse {
        topics: vec![FetchableTopic {
            topic: TopicRef::Id(TOPIC),
            partitions: vec![data],
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchResponse::default()
    };
    Some((request, response))
}

/// What there is to be kept of such an answer.
pub fn harvest(batches: &[BatchAt]) -> Vec<Harvest> {
    let log_end_offset = batches.last().map_or(0, |last| last.last() + 1);
    answer(batches, log_end_offset).map_or_else(Vec::new, |(request, response)| {
        Harvest::gather(&request, &response, CRC32C)
    })
}

/// Settings of a cache that serves whatever it holds.
pub fn settings(size_limit_bytes: u64) -> CacheSettings {
    CacheSettings {
        size_limit_bytes,
        max_staleness: MaxStaleness::Forever,
        ..CacheSettings::default()
    }
}

/// A cache in memory that holds all of the batches.
///
/// # Panics
/// If the limit is too low for them.
pub fn cache(batches: &[BatchAt], size_limit_bytes: u64) -> MemoryCache {
    let mut cache = MemoryCache::new(settings(size_limit_bytes), CRC32C);
    for batch in batches {
        for harvest in harvest(core::slice::from_ref(batch)) {
            cache.absorb(harvest, Instant::default());
        }
    }
    assert_eq!(
        cache.statistics().batches,
        batches.len() as u64,
        "the limit is too low"
    );
    cache
}
