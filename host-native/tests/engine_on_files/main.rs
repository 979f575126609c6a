//! The campaigns of the core's engine, on files: whichever operation of the storage fails, whatever is flipped or cut,
//! and over generations of crashes, nothing wrong is served, no fetch fails and the limit holds.

#[path = "../../../core/tests/engine/batches.rs"]
mod batches;
#[path = "../../../core/tests/engine/countdown.rs"]
mod countdown;
#[path = "../../../core/tests/engine/driver.rs"]
mod driver;
#[path = "../../../core/tests/engine/generations.rs"]
mod generations;
#[path = "../../../core/tests/engine/images.rs"]
mod images;
mod kills;
mod medium;

/// What the modules above say, which stand in the core's tests.
use kachet::core as kachet_core;
