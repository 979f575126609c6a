//! The embedded broker, seen over its socket: what a consumer of any Fetch version gets from it.
#![cfg(feature = "embedded-broker")]

mod bounds;
mod cluster;
mod connection;
mod errors;
mod fetch;
mod waiting;
