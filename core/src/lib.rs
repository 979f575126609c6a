//! The core of Kachet, a read-through cache for Kafka's Fetch responses.
#![no_std]
#![forbid(unsafe_code)]
#![warn(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::alloc_instead_of_core
)]

extern crate alloc;

pub mod cache;
mod eviction;
mod freshness;
pub mod identity;
mod index;
mod memory;
pub mod offset;
pub mod statistics;
pub mod time;
mod transactions;
pub mod wire;
