//! How the cache of a command behaves, and where it is kept.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use kachet::cache::{Cache, CacheBuilder};
use kachet::core::time::MaxStaleness;
use kachet::mount::{MountOptions, MountPoint, ReadMode};
use kachet::transport::Transport;
use tracing::{info, warn};

use super::failure::Failure;
use super::open_files;

#[derive(Clone, Debug, Args)]
pub(super) struct StorageArguments {
    /// Keep what is fetched in this folder, and read what is there from before; made if there is none
    #[arg(long, value_name = "DIR")]
    pub(super) mount: Option<PathBuf>,
    /// How what lies in the folder is read
    #[arg(long, value_enum, default_value_t = ReadModeArgument::Positional, requires = "mount")]
    mount_read_mode: ReadModeArgument,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ReadModeArgument {
    /// By a system call for each read; holds a file open for each segment
    Positional,
    /// By mapping files into memory; for large batches and many segments
    Mapped,
}

impl From<ReadModeArgument> for ReadMode {
    fn from(argument: ReadModeArgument) -> Self {
        match argument {
            ReadModeArgument::Positional => Self::Positional,
            ReadModeArgument::Mapped => Self::Mapped,
        }
    }
}

/// A time, or 'forever'.
pub(super) fn parse_max_staleness(given: &str) -> Result<MaxStaleness, humantime::DurationError> {
    match given {
        "forever" => Ok(MaxStaleness::Forever),
        time => humantime::parse_duration(time).map(MaxStaleness::Within),
    }
}

impl StorageArguments {
    /// Whether it goes together with the limit.
    pub(super) fn check(&self, limit: ByteSize) -> Result<(), Failure> {
        if self.mount.is_some() && limit.as_u64() == 0 {
            return Err(Failure::Usage(
                "--size-limit 0 would empty the mount point; leave --mount out, or use 'kachet mount clear'",
            ));
        }
        Ok(())
    }

    /// The cache in its folder, with what is there from before.
    pub(super) async fn restore<T: Transport>(
        &self,
        folder: PathBuf,
        cache: CacheBuilder<T>,
        limit: ByteSize,
    ) -> Result<Cache<T, MountPoint>, Failure> {
        self.check(limit)?;
        // Before the first segment is opened.
        let open_files = open_files::raise_limit();
        let options = MountOptions::new().read_mode(self.mount_read_mode.into());
        let opened = tokio::task::spawn_blocking(move || options.open(folder)).await;
        let mount = opened.map_err(Failure::Task)?.map_err(Failure::Mount)?;
        let cache = cache.size_limit_bytes(limit.as_u64()).mount(mount);
        let (cache, restored) = cache.restore().await.map_err(Failure::Restore)?;
        info!(batches = restored.batches, "the cache is restored");
        for (segment, error) in &restored.lost {
            warn!(%segment, %error, "a segment of the mount point is lost");
        }
        if self.mount_read_mode == ReadModeArgument::Positional {
            let new = limit.as_u64() / cache.segment_size_bytes().max(1);
            open_files::warn_beyond(open_files, restored.segments.saturating_add(new));
        }
        Ok(cache)
    }
}
