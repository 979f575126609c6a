//! A mount point with many batches is opened. The batches are small, so that a million of them is little on the disk; what
//! opening takes depends on how many batches and segments there are, and not on how large they are.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use kachet::mount::MountPoint;
use kachet_bench::filled::{CRC32C, batches, settings};
use kachet_core::segment::read_directory;
use kachet_core::storage::Storage;
use tokio::runtime::Runtime;

use super::mounted::{Made, fill, float, folder_in, median, restore};

/// As many batches of 16 KiB as a segment of 64 MiB holds, so that there are as many segments as with such.
const BATCHES_PER_SEGMENT: usize = 4_000;
const BATCH_BYTES: usize = 128;
/// The record around a batch, its entry in the footer, and what is larger than the smallest batch on average.
const AROUND_BYTES: usize = 64 + 44 + BATCH_BYTES / 4;
/// As many batches as 64 GiB hold of 16 KiB.
const BATCHES_OF_64_GIB: u64 = 64 << 16;

pub(super) fn run(folder: &Path, count: usize, rounds: usize) -> Result<()> {
    let runtime = Runtime::new()?;
    let place = folder_in(folder)?;
    let segment_size_bytes = u32::try_from(BATCHES_PER_SEGMENT * (BATCH_BYTES + AROUND_BYTES))?;
    {
        let made = Made::new(batches(count, 64, BATCH_BYTES));
        drop(runtime.block_on(fill(place.path(), &made, Some(segment_size_bytes)))?);
    }
    let settings = settings(64 << 30);
    let (mut opened, mut read) = (Vec::new(), Vec::new());
    let mut segments = 0;
    for _ in 0..=rounds {
        let started = Instant::now();
        let (cache, restored) = runtime.block_on(restore(place.path(), settings))?;
        opened.push(started.elapsed().as_secs_f64());
        ensure!(
            restored.batches == count as u64 && restored.scanned == 0,
            "{restored:?}"
        );
        segments = restored.segments;
        drop(cache);
        let started = Instant::now();
        runtime.block_on(read_directories(place.path()))?;
        read.push(started.elapsed().as_secs_f64());
    }
    let (opened, read) = (
        median(opened.into_iter().skip(1)),
        median(read.into_iter().skip(1)),
    );
    println!(
        "open a mount point of {count} batches in {segments} segments, {rounds} rounds, its footers in the page cache:"
    );
    println!(
        "  {:<32} {:>7.1} ms, {:.0} ns a batch",
        "Cache::restore",
        opened * 1e3,
        opened * 1e9 / float(count as u64)
    );
    println!("  {:<32} {:>7.1} ms", "of it reading the directories", read * 1e3);
    println!(
        "  64 GiB of batches of 16 KiB are {BATCHES_OF_64_GIB}: {:.2} s",
        opened / float(count as u64) * float(BATCHES_OF_64_GIB)
    );
    Ok(())
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
