//! What is held in memory for what is kept.

use std::fs;
use std::hint::black_box;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use foyer_memory::{CacheBuilder, CacheProperties};
use hashbrown::DefaultHashBuilder;
use kachet_core::cache::MemoryCache;
use kachet_core::time::Instant;

use super::Scope;
use crate::contest::{Bound, Contest, Outcome, Role, Rounds, Target, Unit, count};
use crate::filled::{BatchAt, CRC32C, batches, cache, harvest, settings};
use crate::report::Section;

/// Who holds, by name.
const HOLDERS: [(&str, Role); 4] = [
    ("kachet", Role::Ours),
    ("quick_cache", Role::Peer),
    ("moka", Role::Peer),
    ("foyer", Role::Peer),
];

pub(super) fn section(scope: &Scope) -> Result<Section> {
    let mut section = Section::new(
        "memory",
        "Memory",
        "What the cache counts of its limit beside the batches themselves: 48 B of index, 64 B in front of a batch in its segment, and 16 \
         to 32 B of table for batches that went; and what a process has more of in memory after twice \
         the limit of batches went in, divided by the limit. Peers count the batches alone, without keys and maps of ranges.",
    );
    section.rows.push(index()?);
    for size_bytes in [1 << 10, 16 << 10] {
        section.rows.push(resident(scope, size_bytes)?);
    }
    Ok(section)
}

fn index() -> Result<Outcome> {
    let number = 1_000_000;
    let made = batches(number, 64, 200);
    let bytes: usize = made.iter().map(|batch| batch.size_bytes).sum();
    let cache = cache(&made, 8 << 30);
    let held = cache.statistics().size_bytes;
    let around = count(usize::try_from(held)? - bytes) / count(number);
    Contest::new(
        format!("a batch of {number}: index, record and what is remembered of those that went"),
        Unit::Bytes,
    )
    .way("kachet", Role::Ours, || Ok(around))
    .once()
}

fn resident(scope: &Scope, size_bytes: usize) -> Result<Outcome> {
    let mib: usize = if scope.is_quick { 64 } else { 256 };
    let what = format!(
        "resident memory for each byte of the limit, batches of {} KiB",
        size_bytes >> 10
    );
    let mut contest = Contest::new(what, Unit::Times);
    for (name, role) in HOLDERS {
        contest = contest.way(name, role, move || {
            let mut process = Command::new(std::env::current_exe()?);
            process
                .args(["hold", name])
                .args([mib.to_string(), size_bytes.to_string()]);
            let output = process.output()?;
            ensure!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let grown: usize = String::from_utf8(output.stdout)?.trim().parse()?;
            Ok(count(grown) / count(mib << 20))
        });
    }
    if size_bytes == 16 << 10 {
        contest = contest.target(Target::of("kachet", Bound::AtMost(1.1)));
    }
    contest.run(Rounds::exactly(scope.rounds.least.min(3)))
}

/// Fills a holder of `mib` MiB with twice as much; says by how many bytes this process has grown.
pub fn hold(name: &str, mib: usize, size_bytes: usize) -> Result<()> {
    let limit_bytes = mib << 20;
    let made = batches(2 * limit_bytes / size_bytes, 8, size_bytes).into_iter();
    let made = made.map(|batch| BatchAt { size_bytes, ..batch });
    let made: Vec<BatchAt> = made.collect();
    let before = resident_bytes()?;
    let held: Box<dyn std::any::Any> = match name {
        "kachet" => Box::new(in_kachet(&made, limit_bytes)),
        "quick_cache" => Box::new(in_quick_cache(&made, limit_bytes)),
        "moka" => Box::new(in_moka(&made, limit_bytes)),
        "foyer" => Box::new(in_foyer(&made, limit_bytes)),
        _ => bail!("nobody is called {name:?}"),
    };
    println!("{}", resident_bytes()?.saturating_sub(before));
    black_box(&held);
    Ok(())
}

fn in_kachet(made: &[BatchAt], limit_bytes: usize) -> MemoryCache {
    let mut cache = MemoryCache::new(settings(limit_bytes as u64), CRC32C);
    for batch in made {
        for harvest in harvest(core::slice::from_ref(batch)) {
            cache.absorb(harvest, Instant::default());
        }
    }
    cache
}

type Key = (i32, i64);

fn in_quick_cache(made: &[BatchAt], limit_bytes: usize) -> impl Sized + 'static {
    #[derive(Clone)]
    struct Bytewise;
    impl quick_cache::Weighter<Key, Bytes> for Bytewise {
        fn weight(&self, _: &Key, batch: &Bytes) -> u64 {
            batch.len() as u64
        }
    }
    let cache = quick_cache::sync::Cache::with_weighter(made.len() / 2, limit_bytes as u64, Bytewise);
    for batch in made {
        cache.insert((batch.partition, batch.base), batch.bytes());
    }
    cache
}

fn in_moka(made: &[BatchAt], limit_bytes: usize) -> impl Sized + 'static {
    let cache = moka::sync::Cache::builder()
        .max_capacity(limit_bytes as u64)
        .weigher(|_: &Key, batch: &Bytes| u32::try_from(batch.len()).unwrap_or(u32::MAX))
        .build();
    for batch in made {
        cache.insert((batch.partition, batch.base), batch.bytes());
    }
    cache.run_pending_tasks();
    cache
}

fn in_foyer(made: &[BatchAt], limit_bytes: usize) -> impl Sized + 'static {
    let cache: foyer_memory::Cache<Key, Bytes, DefaultHashBuilder, CacheProperties> =
        CacheBuilder::new(limit_bytes)
            .with_weighter(|_: &Key, batch: &Bytes| batch.len())
            .with_hash_builder(DefaultHashBuilder::default())
            .build();
    for batch in made {
        cache.insert((batch.partition, batch.base), batch.bytes());
    }
    cache
}

/// What this process has in memory.
fn resident_bytes() -> Result<usize> {
    resident_bytes_of("self")
}

/// What a process has in memory, as Linux tells it.
pub(super) fn resident_bytes_of(process: &str) -> Result<usize> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))
        .context("resident memory is told by Linux only")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .context("no VmRSS")?;
    Ok(kib.parse::<usize>()? << 10)
}
