//! Kachet on native hosts: a read-through cache for Kafka's Fetch responses, a client that reads through it, and
//! the `kachet` command.
#![deny(unsafe_code)]

pub mod cache;
pub mod client;
pub mod cluster;
#[cfg(feature = "embedded-broker")]
pub mod demo;
pub mod figures;
#[cfg(feature = "gateway")]
pub mod gateway;
pub mod mount;
pub mod proxy;
mod reloaded;
pub mod transport;

pub use kachet_core as core;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// So do those of the manual.
#[cfg(doctest)]
#[doc = include_str!("../../docs/migrating-from-kafka-go-records.md")]
#[doc = include_str!("../../docs/statistics.md")]
struct Manual;
