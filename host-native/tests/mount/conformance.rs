//! The promises of every storage, on files, in both ways of reading, inside a runtime and without one.

use kachet::core::storage_conformance;
use kachet::mount::{MountOptions, MountPoint, ReadMode};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(folder: &TempDir, mode: ReadMode) -> MountPoint {
    MountOptions::new().read_mode(mode).open(folder.path()).unwrap()
}

fn in_a_runtime<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future)
}

storage_conformance!(
    mapped,
    folder,
    async |folder: &TempDir| open(folder, ReadMode::Mapped),
    restarts,
    block_on = in_a_runtime
);

storage_conformance!(
    positional,
    folder,
    async |folder: &TempDir| open(folder, ReadMode::Positional),
    restarts,
    block_on = in_a_runtime
);

storage_conformance!(
    mapped_without_a_runtime,
    folder,
    async |folder: &TempDir| open(folder, ReadMode::Mapped),
    restarts
);

storage_conformance!(
    synced,
    folder,
    async |folder: &TempDir| MountOptions::new()
        .sync_on_seal(true)
        .open(folder.path())
        .unwrap(),
    restarts,
    block_on = in_a_runtime
);
