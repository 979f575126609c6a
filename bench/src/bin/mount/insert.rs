//! Batches of 16 KiB go in: through the cache, as one plain stream, as a file each, and into a peer.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use foyer::{
    BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder, HybridCachePolicy,
};
use tokio::runtime::Runtime;

use super::mounted::{Made, fill, float, folder_in, median};
use super::prepared::read_through;

/// Set, it has `--way 5` tell where the time went.
const SHOW_SPENT: &str = "KACHET_BENCH_SPENT";
/// Files by themselves take so long that fewer of them have to tell.
const FILES: usize = 1024;
/// With an fsync each, still fewer.
const SYNCED_FILES: usize = 256;

/// How long it took until everything was accepted, and until the medium had it.
#[derive(Clone, Copy)]
struct Took {
    accepted: Duration,
    synced: Duration,
    bytes: u64,
}

impl Took {
    fn accepted(&self) -> f64 {
        float(self.bytes) / self.accepted.as_secs_f64()
    }

    fn synced(&self) -> f64 {
        float(self.bytes) / self.synced.as_secs_f64()
    }
}

type Way = (&'static str, fn(&Runtime, &Path, &Made) -> Result<Took>);

const WAYS: [Way; 6] = [
    ("plain stream, 1 MiB a write", stream),
    ("kachet", kachet),
    ("foyer's hybrid cache", foyer),
    ("a file for each batch", files),
    ("a file for each batch, fsync", synced_files),
    ("kachet's core on one thread", core),
];

pub(super) fn run(folder: &Path, mib: usize, rounds: usize) -> Result<()> {
    let mut took: Vec<Vec<Took>> = vec![Vec::new(); WAYS.len()];
    let mut random = fastrand::Rng::with_seed(9);
    // One more, for what is slow only once.
    for round in 0..=rounds {
        // In another order each time, because what one leaves for the disk to do the next one pays for.
        let mut order: Vec<usize> = (0..WAYS.len()).collect();
        random.shuffle(&mut order);
        for way in order {
            let of_way = in_a_process(folder, mib, way)?;
            if round > 0 {
                took[way].push(of_way);
            }
        }
    }
    println!(
        "insert {} batches of 16 KiB ({mib} MiB), {rounds} rounds; ratio of rates to the plain stream:",
        mib << 6
    );
    println!(
        "  {:<32} {:>10} {:>7} {:>16} {:>7}",
        "", "accepted", "ratio", "on the medium", "ratio"
    );
    for ((name, _), of_way) in WAYS.iter().zip(&took) {
        let ratio = |rate: fn(&Took) -> f64| {
            median(
                of_way
                    .iter()
                    .zip(&took[0])
                    .map(|(way, stream)| rate(way) / rate(stream)),
            )
        };
        let mib_per_s = |rate: fn(&Took) -> f64| median(of_way.iter().map(rate)) / f64::from(1 << 20);
        println!(
            "  {name:<32} {:>6.0} MiB/s {:>6.3} {:>10.0} MiB/s {:>7.3}",
            mib_per_s(Took::accepted),
            ratio(Took::accepted),
            mib_per_s(Took::synced),
            ratio(Took::synced),
        );
    }
    let times = |other: usize, rate: fn(&Took) -> f64| {
        median(
            took[1]
                .iter()
                .zip(&took[other])
                .map(|(kachet, other)| rate(kachet) / rate(other)),
        )
    };
    println!(
        "  kachet: {:.1} times a file for each batch, {:.0} times one with fsync, {:.2} times foyer (on the medium: {:.1}, {:.0}, {:.2})",
        times(3, Took::accepted),
        times(4, Took::accepted),
        times(2, Took::accepted),
        times(3, Took::synced),
        times(4, Took::synced),
        times(2, Took::synced),
    );
    Ok(())
}

/// Has a process of its own go one way: what a way leaves behind in memory and in threads holds no other up.
fn in_a_process(folder: &Path, mib: usize, way: usize) -> Result<Took> {
    let place = folder_in(folder)?;
    // What was removed before has left the disk.
    File::open(folder)?.sync_all()?;
    let mut process = Command::new(std::env::current_exe()?);
    process.args(["--way", &way.to_string(), "--mib", &mib.to_string(), "--folder"]);
    let output = process.arg(place.path()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", WAYS[way].0);
    let numbers = String::from_utf8(output.stdout)?;
    let numbers: Vec<u64> = numbers
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [accepted, synced, bytes] = numbers[..] else {
        bail!("{}: {numbers:?}", WAYS[way].0);
    };
    Ok(Took {
        accepted: Duration::from_nanos(accepted),
        synced: Duration::from_nanos(synced),
        bytes,
    })
}

/// Goes one way, and says how long it took.
pub(super) fn go(folder: &Path, mib: usize, way: usize) -> Result<()> {
    let (_, way) = WAYS.get(way).context("there is no such way")?;
    let made = Made::of_common_size(mib << 6);
    let took = way(&Runtime::new()?, folder, &made)?;
    println!(
        "{} {} {}",
        took.accepted.as_nanos(),
        took.synced.as_nanos(),
        took.bytes
    );
    Ok(())
}

/// Waits until the medium has all files.
fn sync(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()?;
    Ok(())
}

fn timed(folder: &Path, bytes: u64, work: impl FnOnce() -> Result<()>) -> Result<Took> {
    let started = Instant::now();
    work()?;
    let accepted = started.elapsed();
    sync(folder)?;
    let synced = started.elapsed();
    Ok(Took {
        accepted,
        synced,
        bytes,
    })
}

/// The very answers that the cache takes, of which each has a mebibyte of batches in one piece.
fn stream(_: &Runtime, folder: &Path, made: &Made) -> Result<Took> {
    timed(folder, made.batch_bytes, || {
        let mut file = File::create(folder.join("stream"))?;
        let answers = made
            .answers
            .iter()
            .flat_map(|(_, response)| response.partitions());
        for records in answers.filter_map(|(_, data)| data.records.as_ref()) {
            for piece in records.slices() {
                file.write_all(piece)?;
            }
        }
        Ok(())
    })
}

fn kachet(runtime: &Runtime, folder: &Path, made: &Made) -> Result<Took> {
    timed(folder, made.batch_bytes, || {
        runtime.block_on(read_through(folder, made))
    })
}

/// The core alone, which a host drives from one thread: nothing is done while the storage works.
fn core(runtime: &Runtime, folder: &Path, made: &Made) -> Result<Took> {
    let mut kept = None;
    let took = timed(folder, made.batch_bytes, || {
        kept = Some(runtime.block_on(fill(folder, made, None))?);
        Ok(())
    })?;
    // Only now, because to let go of the files is not a part of writing them.
    if let Some(kept) = kept.filter(|_| std::env::var_os(SHOW_SPENT).is_some()) {
        eprintln!("{:?}", kept.spent);
    }
    Ok(took)
}

fn files(_: &Runtime, folder: &Path, made: &Made) -> Result<Took> {
    let batches = made.bytes.iter().take(FILES);
    let bytes = batches.clone().map(|batch| batch.len() as u64).sum();
    timed(folder, bytes, || {
        for (number, batch) in batches.enumerate() {
            File::create(folder.join(number.to_string()))?.write_all(batch)?;
        }
        Ok(())
    })
}

fn synced_files(_: &Runtime, folder: &Path, made: &Made) -> Result<Took> {
    let batches = made.bytes.iter().take(SYNCED_FILES);
    let bytes = batches.clone().map(|batch| batch.len() as u64).sum();
    timed(folder, bytes, || {
        for (number, batch) in batches.enumerate() {
            let mut file = File::create(folder.join(number.to_string()))?;
            file.write_all(batch)?;
            file.sync_all()?;
        }
        Ok(())
    })
}

/// Written at once and not when it leaves the memory, with queues so long that it drops nothing.
fn foyer(runtime: &Runtime, folder: &Path, made: &Made) -> Result<Took> {
    let bytes = usize::try_from(made.batch_bytes)?;
    let build = async {
        let device = FsDeviceBuilder::new(folder).with_capacity(2 * bytes).build()?;
        let engine = BlockEngineConfig::new(device)
            .with_block_size(64 << 20)
            .with_buffer_pool_size(4 * bytes)
            .with_submit_queue_size_threshold(4 * bytes);
        let builder = HybridCacheBuilder::new()
            .with_policy(HybridCachePolicy::WriteOnInsertion)
            .memory(16 << 20)
            .with_weighter(|_: &u64, batch: &bytes::Bytes| batch.len())
            .storage()
            .with_engine_config(engine);
        builder.build().await
    };
    let cache: HybridCache<u64, bytes::Bytes> = runtime.block_on(build).context("foyer does not start")?;
    let took = timed(folder, made.batch_bytes, || {
        runtime.block_on(async {
            for (number, batch) in (0..).zip(&made.bytes) {
                cache.insert(number, batch.clone());
            }
            cache.close().await
        })?;
        Ok(())
    })?;
    let count = made.bytes.len() as u64;
    let kept = (0..count)
        .filter(|number| cache.storage().may_contains(number))
        .count() as u64;
    ensure!(kept * 100 >= count * 99, "foyer has kept {kept} of {count}");
    Ok(took)
}
