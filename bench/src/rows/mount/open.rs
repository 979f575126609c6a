//! A mount point with many batches is opened. The batches are small, so that a million of them is little on the disk; what
//! opening takes depends on how many batches and segments there are, and not on how large they are.

use std::path::Path;
use std::time::Instant;

use crate::filled::{CRC32C, batches, settings};
use anyhow::{Result, ensure};
use kachet::mount::MountPoint;
use kachet_core::segment::read_directory;
use kachet_core::storage::Storage;
use tokio::runtime::Runtime;

use super::mounted::{Made, fill, folder_in, restore};
use crate::contest::{Bound, Contest, Outcome, Role, Target, Unit};
use crate::rows::Scope;

/// As many batches of 16 KiB as a segment of 64 MiB holds, so that there are as many segments as with such.
const BATCHES_PER_SEGMENT: usize = 4_000;
const BATCH_BYTES: usize = 128;
/// The record around a batch, its entry in the footer, and what is larger than the smallest batch on average.
const AROUND_BYTES: usize = 64 + 44 + BATCH_BYTES / 4;

pub(super) fn rows(scope: &Scope) -> Result<Vec<Outcome>> {
    let runtime = Runtime::new()?;
    let count = if scope.is_quick { 100_000 } else { 1_000_000 };
    let place = folder_in(&scope.folder)?;
    let segment_size_bytes = u32::try_from(BATCHES_PER_SEGMENT * (BATCH_BYTES + AROUND_BYTES))?;
    {
        let made = Made::new(batches(count, 64, BATCH_BYTES));
        drop(runtime.block_on(fill(place.path(), &made, Some(segment_size_bytes)))?);
    }
    let mut contest = Contest::new(format!("open a mount point of {count} batches"), Unit::Seconds)
        .way("kachet", Role::Ours, || {
            let started = Instant::now();
            let (cache, restored) = runtime.block_on(restore(place.path(), settings(64 << 30)))?;
            let took = started.elapsed();
            ensure!(
                restored.batches == count as u64 && restored.scanned == 0,
                "{restored:?}"
            );
            drop(cache);
            Ok(took.as_secs_f64())
        })
        .way("reading its directories", Role::Floor, || {
            let started = Instant::now();
            runtime.block_on(read_directories(place.path()))?;
            Ok(started.elapsed().as_secs_f64())
        });
    // A tenth of the batches, a tenth of the time.
    let limit_seconds = 0.15e-6 * crate::contest::count(count);
    contest = contest.target(Target::of("kachet", Bound::AtMost(limit_seconds)));
    Ok(vec![contest.run(scope.rounds)?])
}

/// The part of opening that reads, by itself.
async fn read_directories(folder: &Path) -> Result<()> {
    let mut mount = MountPoint::open(folder)?;
    let failed = |error: &dyn core::fmt::Display| anyhow::anyhow!("{error}");
    let mut stored = mount.list().await.map_err(|error| failed(&error))?;
    stored.sort_unstable_by_key(|segment| segment.id);
    let mut found = Vec::new();
    for segment in stored {
        let reader = mount.open(segment.id).await.map_err(|error| failed(&error))?;
        let directory = read_directory(&reader, segment.id, CRC32C).await;
        found.push((reader, directory.map_err(|error| failed(&error))?));
    }
    ensure!(!found.is_empty());
    Ok(())
}
