//! The promises of every storage, on the files of a folder: natively, and in wasmtime over a folder that it gives.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use kachet_core::storage_conformance;
use kachet_wasi::{Access, FolderStorage};

/// A folder for one test.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = if cfg!(target_family = "wasm") {
            // There is no folder for temporary files, and no process id, but each run has a `/scratch` of its own.
            Path::new("/scratch").join(format!("conformance-{number}"))
        } else {
            std::env::temp_dir().join(format!("kachet-conformance-{}-{number}", std::process::id()))
        };
        fs::create_dir(&folder).unwrap();
        // What is not a segment is left alone, and in nobody's way.
        fs::write(folder.join("kachet.superblock"), "x").unwrap();
        fs::create_dir(folder.join("00000000000000ff.segment.d")).unwrap();
        Self(folder)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

storage_conformance!(
    files,
    Place::new,
    async |place: &Place| FolderStorage::new(&place.0, Access::Change),
    restarts
);
