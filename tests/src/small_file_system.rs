//! A small file system in memory, to be filled and made read-only.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use tempfile::TempDir;

use crate::{child, setup};

/// A file system of its own, unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallFileSystem {
    folder: TempDir,
    size_bytes: usize,
}

impl SmallFileSystem {
    /// One that holds so much, in bytes; `None`, after a line that says why, where mounting is not allowed.
    pub fn mounted(size_bytes: usize) -> Option<Self> {
        setup::or_skip(Self::mount(size_bytes))
    }

    fn mount(size_bytes: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={size_bytes}"));
        mount.arg("kachet-test").arg(folder.path());
        if let Err(error) = child::run_ok(mount, b"", Duration::from_secs(20)) {
            bail!(
                "no small file system can be mounted here, which takes Linux and an administrator: {error:#}"
            );
        }
        Ok(Self { folder, size_bytes })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all that is left of it.
    pub fn fill(&self) {
        // It ends when nothing more goes in.
        let _ = fs::write(self.path().join("ballast"), vec![1; 2 * self.size_bytes]);
    }

    /// Gives back what [`Self::fill`] took.
    pub fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(self.path().join("ballast"))?)
    }

    /// Lets nothing be written, or again.
    pub fn set_read_only(&self, is_read_only: bool) -> Result<()> {
        let options = if is_read_only { "remount,ro" } else { "remount,rw" };
        let mut mount = Command::new("mount");
        mount.args(["-o", options]).arg(self.path());
        child::run_ok(mount, b"", Duration::from_secs(20))?;
        Ok(())
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        // Lazily, because a reader may live.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
