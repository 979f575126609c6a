//! `kachet fetch --mount`: what is read stays in a folder, however the command ends.

use std::path::PathBuf;
use std::sync::Arc;

use bytesize::ByteSize;
use kachet::cache::Cache;
use kachet::mount::MountPoint;
use tracing::warn;

use super::{CachedClient, FetchArguments, client, print_statistics, read_all, transport};
use crate::cli::failure::Failure;
use crate::cli::signals::Signals;

/// In a folder.
const MOUNT_LIMIT: ByteSize = ByteSize::gib(1);

pub(super) async fn run(arguments: FetchArguments, folder: PathBuf) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let client = Arc::new(open(&arguments, folder).await?);
    let stats = arguments.stats;
    // A task of its own, because it may be waiting for standard output when the command is to end.
    let mut reading = {
        let client = Arc::clone(&client);
        tokio::spawn(async move { read_all(&client, &arguments).await })
    };
    let outcome = tokio::select! {
        read = &mut reading => read.unwrap_or_else(|error| Err(Failure::Task(error))),
        _ = signals.next() => {
            reading.abort();
            Err(Failure::Interrupted)
        }
    };
    let unwritten_bytes = tokio::select! {
        unwritten_bytes = client.transport().write_out() => unwritten_bytes,
        // Whoever asks twice does not want to wait for the medium.
        _ = signals.next() => client.transport().statistics().unwritten_bytes,
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

async fn open(arguments: &FetchArguments, folder: PathBuf) -> Result<CachedClient<MountPoint>, Failure> {
    let limit = arguments.size_limit.unwrap_or(MOUNT_LIMIT);
    let cache = Cache::builder(transport(arguments)?).max_staleness(arguments.max_staleness);
    let cache = arguments.storage.restore(folder, cache, limit).await?;
    client(arguments, cache)
}
