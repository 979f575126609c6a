//! The core's cache over a storage, its jobs done as they come, and what is put into it.

use std::path::Path;
use std::time::{Duration, Instant as Clock};

use crate::filled::{BatchAt, CRC32C, answer, batches, settings};
use anyhow::{Result, ensure};
use bytes::Bytes;
use kachet::mount::{MountPoint, MountReader};
use kachet_core::cache::{Absorbed, Cache, CacheSettings, Harvest, Restored};
use kachet_core::storage::{SegmentReader, Storage};
use kachet_core::time::Instant;
use kachet_core::wire::{FetchRequest, FetchResponse};
use tempfile::TempDir;

/// As many batches as come in one answer of a mebibyte.
const BATCHES_PER_ANSWER: usize = 64;
pub(super) const PARTITIONS: i32 = 8;

/// Made of a broker, made up before anything is measured.
pub(super) struct Made {
    pub(super) batches: Vec<BatchAt>,
    /// The same batches, each by itself.
    pub(super) bytes: Vec<Bytes>,
    pub(super) answers: Vec<(FetchRequest, FetchResponse)>,
    pub(super) batch_bytes: u64,
}

impl Made {
    /// `count` batches of 16 KiB.
    pub(super) fn of_common_size(count: usize) -> Self {
        let mut made = batches(count, PARTITIONS, 16 << 10);
        for batch in &mut made {
            batch.size_bytes = 16 << 10;
        }
        Self::new(made)
    }

    pub(super) fn new(mut batches: Vec<BatchAt>) -> Self {
        batches.sort_by_key(|batch| (batch.partition, batch.base));
        let neighbours = batches.chunk_by(|one, other| one.partition == other.partition);
        // Every answer tells the same end of its log, because they may come in any order, and an end that goes back is a
        // truncation.
        let answers = neighbours.flat_map(|partition| {
            let log_end_offset = partition.last().map_or(0, |last| last.last() + 1);
            let answers = partition.chunks(BATCHES_PER_ANSWER);
            answers.filter_map(move |batches| answer(batches, log_end_offset))
        });
        let answers = answers.collect();
        Self {
            bytes: batches.iter().map(BatchAt::bytes).collect(),
            batch_bytes: batches.iter().map(|batch| batch.size_bytes as u64).sum(),
            batches,
            answers,
        }
    }
}

/// A cache and its storage.
pub(super) struct Mounted<S: Storage> {
    pub(super) cache: Cache<S::Reader>,
    pub(super) storage: S,
    pub(super) spent: Spent,
}

/// Where the time of an insertion went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    /// Checksums of what came.
    pub(super) checking: Duration,
    /// Copies into segments, and the index.
    pub(super) absorbing: Duration,
    /// The storage's work, the way to its thread and back included.
    pub(super) storing: Duration,
}

impl<S: Storage> Mounted<S> {
    pub(super) fn new(storage: S, settings: CacheSettings) -> Self {
        Self {
            cache: Cache::new(settings, CRC32C),
            storage,
            spent: Spent::default(),
        }
    }

    /// Checks what came and keeps it, as a host does.
    pub(super) async fn take(&mut self, (request, response): &(FetchRequest, FetchResponse)) {
        let came = Clock::now();
        let harvests = Harvest::gather(request, response, CRC32C);
        self.spent.checking += came.elapsed();
        for mut harvest in harvests {
            loop {
                let began = Clock::now();
                let absorbed = self.cache.absorb(&mut harvest, Instant::default());
                self.spent.absorbing += began.elapsed();
                match absorbed {
                    Absorbed::Complete => break,
                    Absorbed::NeedsRoom => self.do_jobs().await,
                }
            }
        }
        self.do_jobs().await;
    }

    pub(super) async fn do_jobs(&mut self) {
        let began = Clock::now();
        while let Some(job) = self.cache.next_job() {
            let done = job.perform(&mut self.storage, CRC32C).await;
            self.cache.complete(done);
        }
        self.spent.storing += began.elapsed();
    }

    pub(super) async fn write_out(&mut self) {
        self.cache.write_out(true);
        self.do_jobs().await;
    }
}

/// Opens what a folder holds.
pub(super) async fn restore(
    folder: &Path,
    settings: CacheSettings,
) -> Result<(Cache<MountReader>, Restored)> {
    let mut mount = MountPoint::open(folder)?;
    let mut cache = Cache::new(settings, CRC32C);
    let restored = cache
        .restore(&mut mount, CRC32C)
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok((cache, restored))
}

/// A mount point with all of these in it.
pub(super) async fn fill(
    folder: &Path,
    made: &Made,
    segment_size_bytes: Option<u32>,
) -> Result<Mounted<MountPoint>> {
    let settings = CacheSettings {
        segment_size_bytes,
        ..settings(64 << 30)
    };
    let mut mounted = Mounted::new(MountPoint::open(folder)?, settings);
    for answer in &made.answers {
        mounted.take(answer).await;
    }
    mounted.write_out().await;
    let held = mounted.cache.statistics();
    ensure!(held.batches == made.batches.len() as u64, "{held:?}");
    ensure!(held.unwritten_bytes == 0, "{held:?}");
    Ok(mounted)
}

pub(super) fn folder_in(folder: &Path) -> Result<TempDir> {
    Ok(tempfile::Builder::new()
        .prefix("kachet-bench-")
        .tempdir_in(folder)?)
}

/// What is counted here is far below the precision of a float.
#[allow(clippy::cast_precision_loss)]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

/// Whether a reader may be used by the core at all; here so that a storage of another kind does not go unnoticed.
pub(super) const fn is_verified<S: Storage>() -> bool {
    <S::Reader as SegmentReader>::MAY_CORRUPT
}
