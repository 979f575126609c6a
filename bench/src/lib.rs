//! Kachet's laboratory: what the cache keeps, measured beside its peers on the same reads.
//!
//! [`traces`] makes the reads, [`policies`] decides what stays, [`table`] lets each policy run over each trace and
//! compares. Everything is a function of a seed, so a figure can be had again.

pub mod filled;
pub mod policies;
pub mod table;
pub mod traces;
