//! A deterministic simulation of the cache layer: its real code, over brokers, a network and clients that one seed drives.
//!
//! Time is tokio's paused clock, which jumps to the next timer once every task waits. The brokers answer by the rules of a
//! real one and keep the whole history of their logs, so that every answer that comes through the cache can be judged:
//! was each byte served by a broker, for that topic and offset, lately enough; is anything left out, invented, failed
//! without a cause, asked twice, or never answered; does the size limit hold.
//!
//! `cargo xtask sim` runs many seeds. What a seed does is the same in every run and on every machine; its events make up a
//! digest by which that is checked.
#![forbid(unsafe_code)]

mod answers;
mod batch;
mod broker;
mod checker;
mod clients;
mod cluster;
mod dice;
mod ledger;
mod log;
mod network;
mod partition;
mod profile;
mod run;
mod sabotage;
mod storage;
mod world;

pub use run::{Outcome, run};
pub use sabotage::Sabotage;
pub use world::Violation;
