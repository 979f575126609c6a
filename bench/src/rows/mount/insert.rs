//! Batches of 16 KiB go in: through the cache, as one plain stream, as a file each, and into a peer.

use std::cell::RefCell;
use std::collections::VecDeque;
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

use crate::contest::{Bound, Contest, Outcome, Role, Rounds, Target, Unit};
use crate::rows::Scope;

use super::mounted::{Made, fill, float, folder_in};
use super::prepared::read_through;

/// Set, it has the way of the core alone tell where the time went.
const SHOW_SPENT: &str = "KACHET_BENCH_SPENT";
/// In blocks of 64 MiB foyer wants several to write into.
const DEVICE_BYTES_MIN: usize = 512 << 20;
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

type Way = (&'static str, Role, fn(&Runtime, &Path, &Made) -> Result<Took>);

const WAYS: [Way; 6] = [
    ("plain stream, 1 MiB a write", Role::Floor, stream),
    ("kachet", Role::Ours, kachet),
    ("foyer's hybrid cache", Role::Peer, foyer),
    ("a file for each batch", Role::Peer, files),
    ("a file for each batch, fsync", Role::Peer, synced_files),
    ("kachet's core on one thread", Role::Ours, core),
];

pub(super) fn rows(scope: &Scope) -> Result<Vec<Outcome>> {
    let mib = if scope.is_quick { 64 } else { 256 };
    let what = format!("insert {} batches of 16 KiB", mib << 6);
    // What one contest measures the other one shows from its other side.
    let taken: Vec<RefCell<VecDeque<Took>>> = WAYS.iter().map(|_| RefCell::default()).collect();
    let mut on_medium = Contest::new(format!("{what}, on the medium"), Unit::BytesPerSecond);
    let mut accepted = Contest::new(format!("{what}, accepted"), Unit::BytesPerSecond);
    for (way, ((name, role, _), of_way)) in WAYS.iter().zip(&taken).enumerate() {
        on_medium = on_medium.way(*name, *role, move || {
            let took = in_a_process(&scope.folder, mib, way)?;
            of_way.borrow_mut().push_back(took);
            Ok(took.synced())
        });
        accepted = accepted.way(*name, *role, || {
            let took = of_way.borrow_mut().pop_front();
            Ok(took.context("the other contest has gone first")?.accepted())
        });
    }
    let (kachet, stream, synced_files) = (WAYS[1].0, WAYS[0].0, WAYS[4].0);
    let on_medium = on_medium
        .target(Target::ratio(kachet, stream, Bound::AtLeast(0.6)))
        // What the reference does for each batch.
        .target(Target::ratio(kachet, synced_files, Bound::AtLeast(60.0)));
    let on_medium = on_medium.run(scope.rounds)?;
    let gone = Rounds::exactly(on_medium.rounds());
    Ok(vec![on_medium, accepted.run(gone)?])
}

/// Has a process of its own go one way: what a way leaves behind in memory and in threads holds no other up.
fn in_a_process(folder: &Path, mib: usize, way: usize) -> Result<Took> {
    let place = folder_in(folder)?;
    // What was removed before has left the disk.
    File::open(folder)?.sync_all()?;
    let mut process = Command::new(std::env::current_exe()?);
    process.arg("insert").arg(place.path());
    let output = process.args([mib.to_string(), way.to_string()]).output()?;
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
pub fn go(folder: &Path, mib: usize, way: usize) -> Result<()> {
    let (_, _, way) = WAYS.get(way).context("there is no such way")?;
    let made = Made::of_common_size(mib << 6);
    touch_memory(folder, &made)?;
    let took = way(&Runtime::new()?, folder, &made)?;
    println!(
        "{} {} {}",
        took.accepted.as_nanos(),
        took.synced.as_nanos(),
        took.bytes
    );
    Ok(())
}

/// Has the system's cache of files take memory that is there. A virtual machine is given memory when it first touches it,
/// which takes longer than the write; without this, whoever comes first after an idle time pays for it.
fn touch_memory(folder: &Path, made: &Made) -> Result<()> {
    let touched = folder.join("touched");
    let mut file = File::create(&touched)?;
    for batch in &made.bytes {
        file.write_all(batch)?;
    }
    file.sync_all()?;
    std::fs::remove_file(&touched)?;
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
        let device = FsDeviceBuilder::new(folder)
            .with_capacity((2 * bytes).max(DEVICE_BYTES_MIN))
            .build()?;
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
