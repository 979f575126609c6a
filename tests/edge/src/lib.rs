//! What the tests of the npm package's examples stand on: workerd, a server of files, and where `cargo xtask wasm` puts things.
#![forbid(unsafe_code)]

pub mod static_files;
pub mod workerd;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// A file or a folder that `cargo xtask wasm` makes, by its path in the target folder.
pub fn made(path: &str) -> Result<PathBuf> {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
    };
    let path = target.join(path);
    ensure!(
        path.exists(),
        "{} is not there: make it with `cargo xtask wasm`",
        path.display()
    );
    Ok(path.canonicalize()?)
}

/// Copies the files of a folder, and of none below it.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        if file.file_type()?.is_file() {
            fs::copy(file.path(), to.join(file.file_name()))?;
        }
    }
    Ok(())
}
