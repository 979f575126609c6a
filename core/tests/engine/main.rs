//! The engine under the cache, judged from outside: against a naive model, and under storages that fail.
//!
//! `PROPTEST_CASES=10000` runs so many cases of each property.

mod answers;
mod batches;
mod chain;
mod countdown;
mod driver;
mod faults;
mod generations;
mod images;
mod interleaved;
mod medium;
mod model;
mod moving;
mod naive;
mod readers;
mod writing;
