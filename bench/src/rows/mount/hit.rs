//! Batches of 16 KiB that the page cache holds are read and verified: through the cache, and as a file is read.

use std::collections::HashMap;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use crate::filled::{CRC32C, TOPIC, key};
use anyhow::{Context, Result};
use kachet::mount::MountPoint;
use kachet_core::cache::Warmed;
use kachet_core::segment::read_directory;
use kachet_core::storage::Storage;
use kachet_core::wire::{FetchPartition, FetchRequest, FetchTopic, TaggedFields, TopicRef};
use tokio::runtime::Runtime;

use crate::contest::{Bound, Contest, Outcome, Role, Target, Unit};
use crate::rows::Scope;

use super::mounted::{Made, fill, float, folder_in};

/// Reads in a round by each way.
const READS: usize = 2_000;

/// Where a batch lies.
struct Lies {
    file: usize,
    at: u64,
    length: usize,
}

pub(super) fn rows(scope: &Scope) -> Result<Vec<Outcome>> {
    let runtime = Runtime::new()?;
    let place = folder_in(&scope.folder)?;
    let made = Made::of_common_size(if scope.is_quick { 4_000 } else { 16_000 });
    let mut mounted = runtime.block_on(fill(place.path(), &made, None))?;
    let (files, lies) = runtime.block_on(places(&mut mounted.storage))?;
    let mut random = fastrand::Rng::with_seed(5);
    let reads = (0..READS).map(|_| made.batches[random.usize(..made.batches.len())]);
    let reads: Vec<_> = reads.collect();
    let requests = reads.iter().map(|batch| one_batch(batch.partition, batch.base));
    let requests: Vec<_> = requests.collect();
    let cache = &mounted.cache;
    let now = kachet_core::time::Instant::default();
    let mut buffer = vec![0; 16 << 10];
    let row = Contest::new("a warm hit of 16 KiB, verified", Unit::Seconds)
        .way("kachet, the batch", Role::Ours, || {
            each(&reads, |batch| {
                let found = cache.batch(&key(batch.partition), batch.base);
                black_box(found.context("it is there")?);
                Ok(())
            })
        })
        .way("kachet, the response", Role::Ours, || {
            each(&requests, |request| {
                let plan = cache.plan(request.clone(), now);
                black_box(plan.into_response().context("it is a hit")?);
                Ok(())
            })
        })
        .way("kachet, as a host asks", Role::Ours, || {
            each(&requests, |request| {
                let mut warmed = Warmed::default();
                black_box(cache.cold_reads(request, now, &mut warmed));
                let plan = cache.plan_with(request.clone(), now, &warmed);
                black_box(plan.into_response().context("it is a hit")?);
                Ok(())
            })
        })
        .way("pread and CRC-32C", Role::Floor, || {
            each(&reads, |batch| {
                let found = lies.get(&(batch.partition, batch.base)).context("it is there")?;
                let into = buffer.get_mut(..found.length).context("all are of a size")?;
                files[found.file].read_exact_at(into, found.at)?;
                black_box(crc32c::crc32c(into));
                Ok(())
            })
        })
        .target(Target::ratio(
            "kachet, the batch",
            "pread and CRC-32C",
            Bound::AtMost(1.2),
        ));
    // Short, so that many rounds are affordable.
    let row = row.run(scope.rounds.times(10))?;
    runtime.block_on(mounted.do_jobs());
    Ok(vec![row])
}

/// The time that one of these took, in seconds.
fn each<T>(these: &[T], mut work: impl FnMut(&T) -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    for this in these {
        work(this)?;
    }
    Ok(started.elapsed().as_secs_f64() / float(these.len() as u64))
}

/// The files of a mount point, and where each batch lies in them.
async fn places(mount: &mut MountPoint) -> Result<(Vec<File>, HashMap<(i32, i64), Lies>)> {
    let failed = |error: &dyn core::fmt::Display| anyhow::anyhow!("{error}");
    let (mut files, mut lies) = (Vec::new(), HashMap::new());
    for stored in mount.list().await.map_err(|error| failed(&error))? {
        let reader = mount.open(stored.id).await.map_err(|error| failed(&error))?;
        let directory = read_directory(&reader, stored.id, CRC32C).await;
        for entry in directory.map_err(|error| failed(&error))?.directory.entries {
            let range = entry.batch_range();
            let of_batch = Lies {
                file: files.len(),
                at: range.start,
                length: usize::try_from(range.end - range.start)?,
            };
            lies.insert((entry.key.partition, entry.span.base()), of_batch);
        }
        files.push(File::open(mount.segment_path(stored.id))?);
    }
    Ok((files, lies))
}

/// The batch at an offset and none behind it.
fn one_batch(partition: i32, offset: i64) -> FetchRequest {
    FetchRequest {
        max_bytes: 1,
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic: TopicRef::Id(TOPIC),
            partitions: vec![FetchPartition::new(partition, offset, 1)],
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    }
}
