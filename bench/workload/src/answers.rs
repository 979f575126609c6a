//! A whole hit, from the bytes of a Fetch request to those of the response: decoded, planned, encoded.

use bytes::Bytes;
use kachet_core::cache::MemoryCache;
use kachet_core::time::Instant;
use kachet_core::wire::{Chunks, FetchPartition, FetchRequest, FetchTopic, TaggedFields, TopicRef};

use crate::filled::TOPIC;

/// With ids and tagged fields.
pub const VERSION: i16 = 17;

/// A request for one batch, encoded.
///
/// # Panics
/// Never: the version is spoken.
pub fn request(partition: i32, fetch_offset: i64, isolation_level: i8) -> Bytes {
    let request = FetchRequest {
        isolation_level,
        topics: vec![FetchTopic {
            topic: TopicRef::Id(TOPIC),
            partitions: vec![FetchPartition::new(partition, fetch_offset, 1)],
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    };
    let mut encoded = Chunks::new();
    request
        .encode(VERSION, &mut encoded)
        .expect("the version is spoken");
    encoded.into_bytes()
}

/// Answers a request; gives the size of the answer, in bytes, so that nothing of it can be left out.
///
/// # Panics
/// If it is no request, or not every batch is held.
pub fn answer(cache: &MemoryCache, request: &Bytes, encoded: &mut Chunks) -> usize {
    let request = FetchRequest::decode(request.clone(), VERSION).expect("it is a request");
    let plan = cache.plan(request, Instant::default());
    encoded.clear();
    let is_whole = plan.encode_response(VERSION, encoded);
    assert_eq!(is_whole, Ok(true), "every batch is held");
    encoded.size_bytes()
}
