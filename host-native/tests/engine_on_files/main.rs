//! The campaigns of the core's engine, on files: whichever operation of the storage fails, and over generations of crashes,
//! nothing wrong is served, no fetch fails and the limit holds. And processes that are killed.

#[allow(dead_code, reason = "the core's own tests use more of it")]
#[path = "../../../core/tests/engine/batches.rs"]
mod batches;
#[path = "../../../core/tests/engine/countdown.rs"]
mod countdown;
#[allow(dead_code, reason = "the core's own tests use more of it")]
#[path = "../../../core/tests/engine/driver.rs"]
mod driver;
mod full;
#[path = "../../../core/tests/engine/generations.rs"]
mod generations;
#[cfg(unix)]
mod kills;
#[allow(dead_code, reason = "other tests use more of it")]
mod medium;

use kachet::mount::ReadMode;

const READ_MODE: ReadMode = ReadMode::Positional;
