//! The harness of the tests that need a real Kafka: a broker, a Java client, kcat.
//!
//! `cargo xtask setup` fetches what this needs; `cargo xtask test` does so by itself. Where a part is missing, a test that asks
//! for it says `skipped: …` on stderr and passes, unless `CI=true`, which turns the same into a failure.
//!
//! ```no_run
//! use kachet_tests::{java, kafka, kcat};
//!
//! # fn main() -> anyhow::Result<()> {
//! let Some(broker) = kafka::shared_kafka() else { return Ok(()) };
//! let mut writer = java::TopicWriter::start(&broker.bootstrap())?;
//! writer.command("create readings 1")?;
//! writer.command("produce readings 0 zstd 100 10 42")?;
//! let records = java::read_records(&broker.bootstrap(), "readings", 0, 0, java::Isolation::ReadCommitted)?;
//! assert_eq!(records.len(), 100);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod certificates;
pub mod child;
pub mod chromium;
pub mod clients;
pub mod cluster;
pub mod curl;
pub mod java;
pub mod kafka;
pub mod kcat;
pub mod old_kafka;
pub mod records;
pub mod secure;
pub mod setup;
pub mod small_file_system;
