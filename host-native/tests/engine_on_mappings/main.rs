//! The campaigns of the core's engine on files that are mapped, and over every damaged image of a mount.

#[allow(dead_code, reason = "the core's own tests use more of it")]
#[path = "../../../core/tests/engine/batches.rs"]
mod batches;
#[path = "../../../core/tests/engine/countdown.rs"]
mod countdown;
#[allow(dead_code, reason = "the core's own tests use more of it")]
#[path = "../../../core/tests/engine/driver.rs"]
mod driver;
#[path = "../../../core/tests/engine/generations.rs"]
mod generations;
#[path = "../../../core/tests/engine/images.rs"]
mod images;
#[path = "../engine_on_files/medium.rs"]
mod medium;

use kachet::mount::ReadMode;

const READ_MODE: ReadMode = ReadMode::Mapped;
