//! What stays: the peers, the offline optimum and Kachet itself, behind one trait.

mod foyer;
mod kachet;
mod lru;
mod moka;
mod optimum;
mod quick_cache;
mod sieve;

use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;

use crate::traces::{BatchKey, Trace};

pub use foyer::Foyer;
pub use kachet::Kachet;
pub use lru::Lru;
pub use moka::Moka;
pub use optimum::Optimum;
pub use quick_cache::QuickCache;
pub use sieve::Sieve;

/// Hashes alike in each run, so that policies which decide by hashes do so too.
type SameHash = BuildHasherDefault<DefaultHasher>;

/// A cache that is read through: whoever misses puts what it has fetched into it.
///
/// The limit is given in bytes at construction and holds for everything that the policy keeps, dead bytes included.
pub trait Policy {
    /// Reads a batch, and offers it to the cache if it was not there. True if it was.
    fn access(&mut self, key: BatchKey, size_bytes: u32) -> bool;

    /// How many of the bytes that were served came from the cache, given that [`access`](Self::access) said so.
    /// Only a bound that keeps parts of batches says less than all.
    fn served_bytes(&self, size_bytes: u32) -> u64 {
        u64::from(size_bytes)
    }

    /// What the policy holds, in bytes.
    fn held_bytes(&self) -> u64;
}

/// What a column of the table stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A policy that any cache may have.
    General,
    /// Kachet.
    Ours,
    /// What no policy can pass.
    Bound,
}

/// Makes a policy for a limit in bytes; the trace is for bounds that know the future, and for estimates of the number
/// of items, which peers ask for.
pub type Build = Box<dyn Fn(u64, &Trace) -> Box<dyn Policy>>;

/// One column of the table.
pub struct Contestant {
    /// Its heading.
    pub name: &'static str,
    /// What it stands for.
    pub role: Role,
    /// Makes it.
    pub build: Build,
}

impl Contestant {
    fn new<P: Policy + 'static>(
        name: &'static str,
        role: Role,
        build: impl Fn(u64, &Trace) -> P + 'static,
    ) -> Self {
        Self {
            name,
            role,
            build: Box::new(move |limit_bytes, trace| Box::new(build(limit_bytes, trace))),
        }
    }
}

/// How many batches of a trace fit a limit, on the average.
fn batches_expected(limit_bytes: u64, trace: &Trace) -> usize {
    let mean_bytes = trace.distinct_bytes() / (trace.distinct_batches() as u64).max(1);
    usize::try_from(limit_bytes / mean_bytes.max(1))
        .unwrap_or(usize::MAX)
        .max(1)
}

/// Everything that is compared.
pub fn contestants() -> Vec<Contestant> {
    use Role::{Bound, General, Ours};
    vec![
        Contestant::new("LRU", General, |limit, _| Lru::new(limit)),
        Contestant::new("SIEVE", General, |limit, _| Sieve::new(limit)),
        Contestant::new("quick_cache", General, |limit, trace| {
            QuickCache::new(limit, batches_expected(limit, trace))
        }),
        Contestant::new("moka", General, |limit, _| Moka::new(limit)),
        Contestant::new("foyer S3-FIFO", General, |limit, _| Foyer::s3_fifo(limit)),
        Contestant::new("foyer w-TinyLFU", General, |limit, _| Foyer::w_tiny_lfu(limit)),
        Contestant::new("Kachet", Ours, |limit, _| Kachet::new(limit)),
        Contestant::new("optimum", Bound, Optimum::new),
    ]
}
