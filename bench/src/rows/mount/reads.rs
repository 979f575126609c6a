//! Ways of reading 16 or 512 KiB of a 64 MiB segment at a random place that the page cache holds, and their checksum. The
//! floor is a call that reads into a buffer which is there already.

use std::fs::File;
use std::hint::black_box;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use kachet::mount::{MountOptions, MountPoint, MountReader, ReadMode};
use kachet_core::storage::{SegmentId, SegmentReader, Storage};
use tokio::runtime::Runtime;

use super::mounted::folder_in;
use crate::contest::{Contest, Outcome, Role, Unit, count};
use crate::rows::Scope;

const SEGMENT_BYTES: usize = 64 << 20;
const RECORD_BYTES: [usize; 2] = [16 << 10, 512 << 10];
const SEGMENT: SegmentId = SegmentId(1);
/// What is read in a round by each way.
const ROUND_BYTES: usize = 8 << 20;

pub(super) fn rows(scope: &Scope) -> Result<Vec<Outcome>> {
    let runtime = Runtime::new()?;
    let folder = folder_in(&scope.folder)?;
    runtime.block_on(fill(folder.path()))?;
    let mapped = runtime.block_on(open(folder.path(), ReadMode::Mapped))?;
    let positional = runtime.block_on(open(folder.path(), ReadMode::Positional))?;
    let file = File::open(folder.path().join(format!("{SEGMENT}.segment")))?;
    let mut rows = Vec::new();
    for record_bytes in RECORD_BYTES {
        let records = (SEGMENT_BYTES / record_bytes) as u64;
        let mut random = fastrand::Rng::with_seed(7);
        let places = (0..ROUND_BYTES / record_bytes).map(|_| random.u64(..records) * record_bytes as u64);
        let places: Vec<u64> = places.collect();
        let mut buffer = vec![0; record_bytes];
        let each = |read: &mut dyn FnMut(Range<u64>) -> Result<u32>| {
            let started = Instant::now();
            for at in &places {
                black_box(read(*at..at + record_bytes as u64)?);
            }
            Ok(started.elapsed().as_secs_f64() / count(places.len()))
        };
        let row = Contest::new(
            format!("ways of reading {} KiB", record_bytes >> 10),
            Unit::Seconds,
        )
        .way("positional, at once", Role::Ours, || {
            each(&mut |range| at_once(&positional, range))
        })
        .way("mapped, at once", Role::Ours, || {
            each(&mut |range| at_once(&mapped, range))
        })
        .way("positional, by a thread that may block", Role::Ours, || {
            each(&mut |range| elsewhere(&runtime, &positional, range))
        })
        .way("mapped, by a thread that may block", Role::Ours, || {
            each(&mut |range| elsewhere(&runtime, &mapped, range))
        })
        .way("pread and CRC-32C", Role::Floor, || {
            each(&mut |range| {
                file.read_exact_at(&mut buffer, range.start)?;
                Ok(crc32c::crc32c(black_box(&buffer)))
            })
        });
        rows.push(row.run(scope.rounds.times(10))?);
    }
    Ok(rows)
}

fn at_once(reader: &MountReader, range: Range<u64>) -> Result<u32> {
    let read = reader.read_now(range).context("it is warm")?;
    Ok(crc32c::crc32c(black_box(
        &read.map_err(|error| anyhow::anyhow!("{error}"))?,
    )))
}

fn elsewhere(runtime: &Runtime, reader: &MountReader, range: Range<u64>) -> Result<u32> {
    let read = runtime.block_on(reader.read(range));
    Ok(crc32c::crc32c(black_box(
        &read.map_err(|error| anyhow::anyhow!("{error}"))?,
    )))
}

async fn fill(path: &Path) -> Result<()> {
    let failed = |error: &dyn core::fmt::Display| anyhow::anyhow!("{error}");
    let mut mount = MountPoint::open(path)?;
    let mut noise = fastrand::Rng::with_seed(1);
    mount.create(SEGMENT).await.map_err(|error| failed(&error))?;
    for _ in 0..SEGMENT_BYTES >> 20 {
        let mut bytes = vec![0; 1 << 20];
        noise.fill(&mut bytes);
        let appended = mount.append(SEGMENT, vec![Bytes::from(bytes)]).await;
        appended.map_err(|error| failed(&error))?;
    }
    mount.seal(SEGMENT).await.map_err(|error| failed(&error))
}

async fn open(path: &Path, mode: ReadMode) -> Result<MountReader> {
    let mut mount = MountOptions::new().read_mode(mode).open(path)?;
    mount
        .open(SEGMENT)
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))
}
