//! The core of Kachet, a read-through cache for Kafka's Fetch responses: it reads the wire format, keeps batches
//! under a size limit, and answers fetches as the broker would.
//!
//! There is no std here, no unsafe code, no clock, no executor and no I/O. A host passes the time in, asks brokers for
//! what the cache does not hold, and hands over what they answered:
//!
//! ```
//! use bytes::Bytes;
//! use kachet_core::cache::{CacheSettings, Harvest, MemoryCache};
//! use kachet_core::time::Instant;
//! use kachet_core::wire::{Crc32c, FetchRequest, FetchResponse};
//!
//! # fn main() -> Result<(), kachet_core::wire::DecodeError> {
//! # let fetch = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v13-codecs.request"));
//! # let answer = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v13-codecs.response"));
//! let settings = CacheSettings { size_limit_bytes: 1 << 20, ..CacheSettings::default() };
//! let mut cache = MemoryCache::new(settings, Crc32c::PORTABLE);
//! let now = Instant::default();
//!
//! // A client's fetch, which the cache cannot answer yet.
//! let request = FetchRequest::decode(Bytes::from_static(fetch), 13)?;
//! let plan = cache.plan(request.clone(), now);
//! let upstream = plan.upstream_request().expect("nothing is cached").clone();
//!
//! // What a broker answered to it is kept, and handed on.
//! let response = FetchResponse::decode(Bytes::from_static(answer), 13)?;
//! for harvest in Harvest::gather(&upstream, &response, Crc32c::PORTABLE) {
//!     cache.absorb(harvest, now);
//! }
//! let first = plan.merge(response);
//!
//! // The same fetch again needs no broker, and gets the same bytes.
//! let again = cache.plan(request, now).into_response().expect("everything is cached");
//! assert_eq!(again, first);
//! assert_eq!(cache.statistics().hits, 2);
//! # Ok(())
//! # }
//! ```
//!
//! A host with threads guards the [`cache::Cache`] with a read–write lock: planning takes `&self`. What
//! [`cache::Cache::doubtful`] names is to be validated, so that what brokers no longer serve stops being served within
//! the staleness bound.
#![no_std]
#![forbid(unsafe_code)]
#![warn(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::alloc_instead_of_core
)]

extern crate alloc;

pub mod cache;
mod engine;
mod eviction;
mod freshness;
pub mod identity;
mod index;
pub mod offset;
#[cfg(feature = "json")]
pub mod record_json;
pub mod segment;
pub mod statistics;
pub mod storage;
pub mod time;
mod transactions;
pub mod wire;
