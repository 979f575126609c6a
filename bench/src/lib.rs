//! Kachet's laboratory: what the cache keeps and how fast it is, measured beside its peers.
//!
//! [`traces`] makes reads, [`policies`] decides what stays, [`table`] lets each policy run over each trace and compares.
//! [`contest`] has ways of doing the same work take turns, [`rows`] are the works, and [`report`] is what is written of
//! them. What is done is a function of a seed; how long it took is the machine's.

pub mod contest;
pub mod holders;
pub mod policies;
pub mod report;
#[cfg(unix)]
pub mod rows;
pub mod table;
pub mod traces;

pub use kachet_workload::{answers, filled};
