//! Kachet in WebAssembly: the cache in memory, where there is no socket and no file system.
//!
//! Whoever embeds it fetches bytes however it can; the cache parses, keeps, bounds and answers:
//!
//! ```text
//! request frame ──plan──▶ all cached? ──yes──▶ response frame
//!                            │ no
//!                            ▼
//!                 upstream frame ──(the embedder asks)──▶ response frame ──absorb──▶ response frame
//! ```
//!
//! A frame is what Kafka sends over a connection without the four bytes of length in front: a header, which names the
//! version, and a body ([`frame`]).
//!
//! This crate is the same for every platform; features make a module of it:
//!
//! - `javascript`: the raw module that the npm package `kachet` wraps (`js/`).
//! - `component`: a WebAssembly component with the world of `wit/`.
//!
//! # How old what is served may be
//!
//! Nobody here can ask a leader whether what is cached still stands; only a fetch says what a broker serves. So what is
//! cached of a partition is served until the oldest answer among it is [`CacheSettings::max_staleness`] old, and is then
//! dropped as a whole and fetched anew. With [`MaxStaleness::Forever`] it is served as long as it is there.
//!
//! Requests of versions 4 to 12 name topics, and their answers do not tell which topic bore the name (H6): they pass
//! through and nothing of them is kept. From version 13 on requests name ids.
//!
//! [`CacheSettings::max_staleness`]: kachet_core::cache::CacheSettings::max_staleness
//! [`MaxStaleness::Forever`]: kachet_core::time::MaxStaleness::Forever
#![no_std]

extern crate alloc;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
extern crate std;

mod cache;
mod clock;
#[cfg(feature = "component")]
mod component;
mod error;
pub mod frame;
#[cfg(feature = "javascript")]
#[expect(
    unreachable_pub,
    reason = "wasm-bindgen exports what is public, wherever it stands"
)]
mod javascript;
mod lookup;
mod module;
pub mod snapshot;
mod topic;

pub use kachet_wasm_records as records;

pub use self::cache::{CachedPart, EmbeddedCache, Planned, Settings};
pub use self::clock::Moment;
pub use self::error::Error;
pub use self::lookup::Range;
pub use self::topic::parse_topic_id;
