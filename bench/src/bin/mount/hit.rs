//! Batches of 16 KiB that the page cache holds are read and verified: through the cache, and as a file is read.

use std::collections::HashMap;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use kachet_bench::filled::{CRC32C, TOPIC, key};
use kachet_core::cache::Warmed;
use kachet_core::segment::read_directory;
use kachet_core::storage::Storage;
use kachet_core::wire::{FetchPartition, FetchRequest, FetchTopic, TaggedFields, TopicRef};
use tokio::runtime::Runtime;

use super::mounted::{Made, fill, float, folder_in, median};

/// Reads in a round by each way.
const READS: usize = 2_000;
const ROUNDS_PER_ROUND: usize = 10;

/// Where a batch lies.
struct Lies {
    file: usize,
    at: u64,
    length: usize,
}

pub(super) fn run(folder: &Path, mib: usize, rounds: usize) -> Result<()> {
    let runtime = Runtime::new()?;
    let place = folder_in(folder)?;
    let made = Made::of_common_size(mib << 6);
    let mut mounted = runtime.block_on(fill(place.path(), &made, None))?;
    let mut files = Vec::new();
    let mut lies = HashMap::new();
    for stored in runtime
        .block_on(mounted.storage.list())
        .map_err(|error| anyhow::anyhow!("{error}"))?
    {
        let reader = runtime
            .block_on(mounted.storage.open(stored.id))
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let directory = runtime.block_on(read_directory(&reader, stored.id, CRC32C));
        for entry in directory
            .map_err(|error| anyhow::anyhow!("{error}"))?
            .directory
            .entries
        {
            let range = entry.batch_range();
            let length = usize::try_from(range.end - range.start)?;
            let of_batch = Lies {
                file: files.len(),
                at: range.start,
                length,
            };
            lies.insert((entry.key.partition, entry.span.base()), of_batch);
        }
        files.push(File::open(mounted.storage.segment_path(stored.id))?);
    }

    let cache = &mounted.cache;
    let mut buffer = vec![0; 16 << 10];
    let mut random = fastrand::Rng::with_seed(5);
    let mut seconds: [Vec<f64>; 4] = Default::default();
    for round in 0..=rounds * ROUNDS_PER_ROUND {
        let reads = (0..READS).map(|_| made.batches[random.usize(..made.batches.len())]);
        let reads: Vec<_> = reads.collect();
        let requests = reads.iter().map(|batch| one_batch(batch.partition, batch.base));
        let requests: Vec<_> = requests.collect();
        // One for each of the two ways that take them.
        let mut of_ways = [requests.clone().into_iter(), requests.into_iter()];
        for turn in 0..seconds.len() {
            let way = (round + turn) % seconds.len();
            let started = Instant::now();
            for batch in &reads {
                match way {
                    0 => {
                        let found = lies.get(&(batch.partition, batch.base)).context("it is there")?;
                        let into = buffer.get_mut(..found.length).context("all are of a size")?;
                        files[found.file].read_exact_at(into, found.at)?;
                        black_box(crc32c::crc32c(into));
                    }
                    1 => {
                        black_box(
                            cache
                                .batch(&key(batch.partition), batch.base)
                                .context("it is there")?,
                        );
                    }
                    _ => {
                        let request = of_ways[way - 2].next().context("there is one for each")?;
                        let now = kachet_core::time::Instant::default();
                        let mut warmed = Warmed::default();
                        if way == 3 {
                            black_box(cache.cold_reads(&request, now, &mut warmed));
                        }
                        let plan = cache.plan_with(request, now, &warmed);
                        black_box(plan.into_response().context("it is a hit")?);
                    }
                }
            }
            if round > 0 {
                seconds[way].push(started.elapsed().as_secs_f64() / float(READS as u64));
            }
        }
    }
    println!(
        "warm hit of 16 KiB, verified, {} rounds of {READS}; ratio of times to pread and CRC-32C:",
        seconds[0].len()
    );
    for (name, of_way) in [
        "pread into a buffer, CRC-32C",
        "Cache::batch",
        "Cache::plan, the response",
        "the same as a host asks",
    ]
    .iter()
    .zip(&seconds)
    {
        let ratio = median(of_way.iter().zip(&seconds[0]).map(|(way, floor)| way / floor));
        println!(
            "  {name:<32} {:>7.2} µs {ratio:>7.3}",
            median(of_way.iter().copied()) * 1e6
        );
    }
    runtime.block_on(mounted.do_jobs());
    Ok(())
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
