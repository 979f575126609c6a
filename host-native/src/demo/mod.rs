//! What `kachet demo` runs on: a broker inside the process and records that look like a shop's.

pub mod broker;
pub mod records;
