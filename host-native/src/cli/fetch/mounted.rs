//! `kachet fetch --mount`: what is read stays in a folder, however the command ends.

use std::sync::Arc;

use bytesize::ByteSize;
use kachet::cache::Cache;
use kachet::mount::{MountOptions, MountPoint, ReadMode};
use tracing::warn;

use super::{CachedClient, FetchArguments, ReadModeArgument, client, print_statistics, read_all, transport};
use crate::cli::failure::Failure;
use crate::cli::open_files;
use crate::cli::signals::Signals;

/// In a folder.
const MOUNT_LIMIT: ByteSize = ByteSize::gib(1);

pub(super) async fn run(arguments: FetchArguments) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let client = Arc::new(open(&arguments).await?);
    let stats = arguments.stats;
    // A task of its own, because it may be waiting for standard output when the command is to end.
    let mut reading = {
        let client = Arc::clone(&client);
        tokio::spawn(async move { read_all(&client, &arguments).await })
    };
    let outcome = tokio::select! {
        read = &mut reading => read.unwrap_or_else(|error| Err(Failure::Task(error))),
        () = signals.next() => {
            reading.abort();
            Err(Failure::Interrupted)
        }
    };
    let unwritten_bytes = tokio::select! {
        unwritten_bytes = client.transport().write_out() => unwritten_bytes,
        // Whoever asks twice does not want to wait for the medium.
        () = signals.next() => client.transport().statistics().unwritten_bytes,
    };
    if unwritten_bytes > 0 {
        let unwritten = ByteSize(unwritten_bytes).display().iec().to_string();
        warn!(%unwritten, "not all that was fetched is in the mount point; the rest is fetched again next time");
    }
    if stats {
        print_statistics(&client);
    }
    outcome
}

async fn open(arguments: &FetchArguments) -> Result<CachedClient<MountPoint>, Failure> {
    let limit = arguments.size_limit.unwrap_or(MOUNT_LIMIT);
    if limit.as_u64() == 0 {
        return Err(Failure::Usage(
            "--size-limit 0 would empty the mount point; leave --mount out, or use 'kachet mount clear'",
        ));
    }
    let transport = transport(arguments)?;
    let read_mode = ReadMode::from(arguments.mount_read_mode);
    // Before the first segment is opened.
    let open_files = open_files::raise_limit();
    let folder = arguments.mount.clone().unwrap_or_default();
    let options = MountOptions::new().read_mode(read_mode);
    let opened = tokio::task::spawn_blocking(move || options.open(folder)).await;
    let mount = opened.map_err(Failure::Task)?.map_err(Failure::Mount)?;
    let cache = Cache::builder(transport)
        .size_limit_bytes(limit.as_u64())
        .max_staleness(arguments.max_staleness)
        .mount(mount);
    let (cache, restored) = cache.restore().await.map_err(Failure::Restore)?;
    for (segment, error) in &restored.lost {
        warn!(%segment, %error, "a segment of the mount point is lost");
    }
    if arguments.mount_read_mode == ReadModeArgument::Positional {
        let new = limit.as_u64() / cache.segment_size_bytes().max(1);
        open_files::warn_beyond(open_files, restored.segments.saturating_add(new));
    }
    client(arguments, cache)
}
