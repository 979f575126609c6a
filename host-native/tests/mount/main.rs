//! A mount point: the promises of a storage on files, and what it refuses, leaves alone and survives.

mod conformance;
#[cfg(unix)]
mod full;
mod lifecycle;
mod locked;
mod notes;
mod refused;
#[cfg(target_os = "linux")]
mod truncated;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kachet::core::storage::SegmentId;

const BOTH: [kachet::mount::ReadMode; 2] = [
    kachet::mount::ReadMode::Mapped,
    kachet::mount::ReadMode::Positional,
];

/// Bytes that differ from place to place.
fn noise(seed: u64, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes.into()
}

fn segment_path(folder: &Path, segment: SegmentId) -> PathBuf {
    folder.join(format!("{segment}.segment"))
}

/// Everything that lies in a folder, by name; of a link where it leads.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut contents = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        let held = if kind.is_symlink() {
            let target = fs::read_link(entry.path()).unwrap();
            target.into_os_string().into_encoded_bytes()
        } else if kind.is_file() {
            fs::read(entry.path()).unwrap()
        } else {
            b"neither a file nor a link".to_vec()
        };
        contents.insert(entry.file_name().into(), held);
    }
    contents
}

/// A test of this binary, run by itself in a process of its own.
fn this_test(name: &str) -> std::process::Command {
    let program = std::env::current_exe().unwrap();
    let mut command = kachet_tests::child::command(program);
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command
}
