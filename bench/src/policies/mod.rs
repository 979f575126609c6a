//! What stays: the peers, the offline optimum and Kachet's own policy, behind one trait.

mod foyer;
mod lru;
mod moka;
mod optimum;
mod quick_cache;
mod segmented;
mod sieve;

use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;

use crate::traces::{BatchKey, Trace};

pub use foyer::Foyer;
pub use lru::Lru;
pub use moka::Moka;
pub use optimum::Optimum;
pub use quick_cache::QuickCache;
pub use segmented::{Segmented, Settings};
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

    /// What was written into the cache so far, in bytes: batches that were admitted, and again each time that one
    /// was moved. Zero if the policy does not write in this sense.
    fn written_bytes(&self) -> u64 {
        0
    }
}

/// What a column of the table stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A policy that any cache may have.
    General,
    /// Kachet's.
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
        Contestant::new("Kachet, no readers", Ours, |limit, _| {
            Segmented::new(
                limit,
                Settings {
                    follows_readers: false,
                    ..Settings::default()
                },
            )
        }),
        Contestant::new("Kachet", Ours, |limit, _| {
            Segmented::new(limit, Settings::default())
        }),
        Contestant::new("optimum", Bound, Optimum::new),
    ]
}

/// Kachet's policy with one thing changed at a time: what each part is worth.
pub fn ablations() -> Vec<Contestant> {
    let default = Settings::default();
    let general = Settings {
        follows_readers: false,
        ..default
    };
    let settings = [
        ("a", general),
        (
            "a, small 1 %",
            Settings {
                small_percent: 1,
                ..general
            },
        ),
        (
            "a, small 2 %",
            Settings {
                small_percent: 2,
                ..general
            },
        ),
        (
            "a, small 10 %",
            Settings {
                small_percent: 10,
                ..general
            },
        ),
        (
            "a, ghosts 25 %",
            Settings {
                ghost_percent: 25,
                ..general
            },
        ),
        (
            "a, ghosts 75 %",
            Settings {
                ghost_percent: 75,
                ..general
            },
        ),
        (
            "a, ghosts 100 %",
            Settings {
                ghost_percent: 100,
                ..general
            },
        ),
        (
            "a, no fill",
            Settings {
                fills_main_first: false,
                ..general
            },
        ),
        (
            "a, 32 segments",
            Settings {
                segments: 32,
                ..general
            },
        ),
        (
            "a, 64 segments",
            Settings {
                segments: 64,
                ..general
            },
        ),
        (
            "a, patrol 16",
            Settings {
                patrol: 16,
                ..general
            },
        ),
        (
            "a, patrol 64",
            Settings {
                patrol: 64,
                ..general
            },
        ),
        ("b", default),
        (
            "b, small 10 %",
            Settings {
                small_percent: 10,
                ..default
            },
        ),
        (
            "b, no fill",
            Settings {
                fills_main_first: false,
                ..default
            },
        ),
        (
            "b, 32 segments",
            Settings {
                segments: 32,
                ..default
            },
        ),
        (
            "b, 64 segments",
            Settings {
                segments: 64,
                ..default
            },
        ),
        (
            "b, window 200 %",
            Settings {
                window_percent: 200,
                ..default
            },
        ),
        (
            "b, window 1000 %",
            Settings {
                window_percent: 1000,
                ..default
            },
        ),
        (
            "b, all hits count",
            Settings {
                ignores_sequential_hits: false,
                ..default
            },
        ),
        (
            "b, patrol 16",
            Settings {
                patrol: 16,
                ..default
            },
        ),
        (
            "b, patrol 64",
            Settings {
                patrol: 64,
                ..default
            },
        ),
    ];
    settings
        .into_iter()
        .map(|(name, settings)| {
            Contestant::new(name, Role::Ours, move |limit, _| Segmented::new(limit, settings))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::{self, Scale};

    #[test]
    fn no_policy_holds_more_than_its_limit() {
        for trace in traces::all(1, Scale { divisor: 20 }) {
            let limit = trace.distinct_bytes() / 10;
            for contestant in contestants() {
                let mut policy = (contestant.build)(limit, &trace);
                for access in &trace.accesses {
                    policy.access(access.key, access.size_bytes);
                    let held = policy.held_bytes();
                    assert!(held <= limit, "{}: {held} of {limit} bytes", contestant.name);
                }
            }
        }
    }

    #[test]
    fn nothing_passes_the_optimum() {
        for trace in traces::all(2, Scale { divisor: 20 }) {
            let limit = trace.distinct_bytes() / 10;
            let hits: Vec<(&str, u64)> = contestants()
                .iter()
                .map(|contestant| {
                    let mut policy = (contestant.build)(limit, &trace);
                    (contestant.name, crate::table::hit_bytes(policy.as_mut(), &trace))
                })
                .collect();
            let (_, optimum) = hits[hits.len() - 1];
            for (name, hit_bytes) in hits {
                assert!(hit_bytes <= optimum, "{name} on {}", trace.name);
            }
        }
    }
}
