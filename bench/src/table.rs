//! Lets policies run over traces and compares what they served.

use crate::policies::{Contestant, Policy, Role};
use crate::traces::Trace;

/// What share of a trace's distinct bytes the caches of the table hold, in percent.
pub const CACHE_PERCENTS: [u64; 3] = [2, 10, 25];

/// One trace, one size of the cache, every policy.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The trace's name.
    pub trace: &'static str,
    /// The size of the cache, in percent of the trace's distinct bytes.
    pub cache_percent: u64,
    /// What each policy did, in the order in which they were given.
    pub outcomes: Vec<Outcome>,
}

/// What one policy did.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Its name.
    pub policy: &'static str,
    /// What it stands for.
    pub role: Role,
    /// Bytes served from the cache, in percent of the bytes read.
    pub hit_percent: f64,
}

impl Cell {
    /// The best of the general policies.
    ///
    /// # Panics
    /// If there is none.
    pub fn best_general(&self) -> &Outcome {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.role == Role::General)
            .max_by(|a, b| a.hit_percent.total_cmp(&b.hit_percent))
            .expect("a table has general policies")
    }
}

/// Runs every policy over a trace with a cache of each size.
pub fn cells(trace: &Trace, contestants: &[Contestant], cache_percents: &[u64]) -> Vec<Cell> {
    let (distinct_bytes, read_bytes) = (trace.distinct_bytes(), trace.read_bytes());
    cache_percents
        .iter()
        .map(|&cache_percent| Cell {
            trace: trace.name,
            cache_percent,
            outcomes: contestants
                .iter()
                .map(|contestant| {
                    outcome(
                        contestant,
                        distinct_bytes * cache_percent / 100,
                        trace,
                        read_bytes,
                    )
                })
                .collect(),
        })
        .collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a ratio of bytes needs no more than 53 bits"
)]
fn outcome(contestant: &Contestant, limit_bytes: u64, trace: &Trace, read_bytes: u64) -> Outcome {
    let mut policy = (contestant.build)(limit_bytes, trace);
    let hit_bytes = hit_bytes(policy.as_mut(), trace);
    Outcome {
        policy: contestant.name,
        role: contestant.role,
        hit_percent: 100.0 * hit_bytes as f64 / read_bytes as f64,
    }
}

/// Runs a policy over a trace and counts the bytes that it served.
pub fn hit_bytes(policy: &mut dyn Policy, trace: &Trace) -> u64 {
    let mut hit_bytes = 0;
    for access in &trace.accesses {
        if policy.access(access.key, access.size_bytes) {
            hit_bytes += policy.served_bytes(access.size_bytes);
        }
    }
    hit_bytes
}

/// The mean hit ratio of the policy at `position` over all cells, in percent.
#[expect(clippy::cast_precision_loss, reason = "tables have few cells")]
pub fn mean_percent(cells: &[Cell], position: usize) -> f64 {
    let sum: f64 = cells.iter().map(|cell| cell.outcomes[position].hit_percent).sum();
    sum / cells.len().max(1) as f64
}
