//! What is written for each byte of a batch that is kept: records around it, footers, and batches that move.

use std::path::Path;

use crate::filled::{answer, key, settings};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kachet::mount::{MountPoint, MountReader};
use kachet_core::storage::{SegmentId, Storage, StorageError, StoredSegment};
use tokio::runtime::Runtime;

use crate::contest::{Bound, Contest, Outcome, Role, Target, Unit};
use crate::rows::Scope;

use super::mounted::{Made, Mounted, float, folder_in, is_verified};

/// A mount point, and what was appended to it.
struct Counting {
    mount: MountPoint,
    appended_bytes: u64,
}

impl Storage for Counting {
    type Reader = MountReader;

    async fn list(&mut self) -> Result<Vec<StoredSegment>, StorageError> {
        self.mount.list().await
    }

    async fn create(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.mount.create(segment).await
    }

    async fn append(&mut self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.appended_bytes += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        self.mount.append(segment, pieces).await
    }

    async fn seal(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.mount.seal(segment).await
    }

    async fn open(&mut self, segment: SegmentId) -> Result<MountReader, StorageError> {
        self.mount.open(segment).await
    }

    async fn remove(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.mount.remove(segment).await
    }
}

pub(super) fn rows(scope: &Scope) -> Result<Vec<Outcome>> {
    ensure!(is_verified::<Counting>());
    let runtime = Runtime::new()?;
    let made = Made::of_common_size(if scope.is_quick { 2_000 } else { 16_000 });
    let written = |what: &str| {
        Contest::new(
            format!("bytes written for each that is kept, {what}"),
            Unit::Times,
        )
    };
    let whole = written("all of it fits").way("kachet", Role::Ours, || {
        runtime.block_on(without_reuse(&scope.folder, &made))
    });
    let mut rows = vec![whole.target(Target::of("kachet", Bound::AtMost(1.01))).once()?];
    for percent in [50, 25, 10] {
        let what = format!("{percent} % of it fits, four fifths of reads of one fifth");
        let row = written(&what).way("kachet", Role::Ours, || {
            let (ratio, _) = runtime.block_on(with_reuse(&scope.folder, &made, percent))?;
            Ok(ratio)
        });
        rows.push(row.once()?);
    }
    Ok(rows)
}

fn counting(folder: &Path, limit_bytes: u64) -> Result<Mounted<Counting>> {
    let counting = Counting {
        mount: MountPoint::open(folder)?,
        appended_bytes: 0,
    };
    Ok(Mounted::new(counting, settings(limit_bytes)))
}

async fn without_reuse(folder: &Path, made: &Made) -> Result<f64> {
    let place = folder_in(folder)?;
    let mut mounted = counting(place.path(), 4 * made.batch_bytes)?;
    for answer in &made.answers {
        mounted.take(answer).await;
    }
    mounted.write_out().await;
    ensure!(mounted.cache.statistics().evictions == 0);
    Ok(float(mounted.storage.appended_bytes) / float(made.batch_bytes))
}

/// Reads at random through a cache that holds a part, and keeps what is missing, ten times as often as there are batches.
async fn with_reuse(folder: &Path, made: &Made, percent: u64) -> Result<(f64, f64)> {
    let place = folder_in(folder)?;
    let mut mounted = counting(place.path(), made.batch_bytes * percent / 100)?;
    let mut random = fastrand::Rng::with_seed(3);
    let (count, mut kept_bytes, mut hits) = (made.batches.len(), 0, 0_u64);
    let reads = 10 * count;
    for _ in 0..reads {
        let any = random.usize(..count);
        // Every fifth, so that what is hot lies everywhere.
        let read = if random.u8(..5) == 0 { any } else { any / 5 * 5 };
        let batch = made.batches.get(read).context("it is one of them")?;
        if mounted.cache.batch(&key(batch.partition), batch.base).is_some() {
            hits += 1;
            continue;
        }
        kept_bytes += batch.size_bytes as u64;
        let answer = answer(core::slice::from_ref(batch), i64::MAX).context("there is a batch")?;
        mounted.take(&answer).await;
    }
    mounted.write_out().await;
    Ok((
        float(mounted.storage.appended_bytes) / float(kept_bytes),
        float(hits) / float(reads as u64),
    ))
}
