//! What all parts of one simulation share.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::dice::{Dice, digest, mix};
use crate::ledger::Ledger;
use crate::profile::Profile;

/// What crashes of the cache are counted under.
pub(crate) const CRASHES: &str = "change: crash of the cache";

/// What went against a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, in simulated milliseconds.
    pub at_ms: u64,
    /// Which rule of the checker.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

/// One seed's simulation.
pub(crate) struct Simulation {
    pub(crate) seed: u64,
    pub(crate) profile: Profile,
    started: Instant,
    world: Mutex<World>,
    /// Woken at every change of the cluster.
    pub(crate) changed: Notify,
}

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) ledger: Ledger,
    pub(crate) tally: BTreeMap<String, u64>,
    pub(crate) violations: Vec<Violation>,
    /// Size limits by the time from which on they held.
    pub(crate) limits: Vec<(u64, u64)>,
    /// When each request began whose answer is still held by somebody, by number.
    pub(crate) outstanding: BTreeMap<u64, u64>,
    next_number: u64,
    digest: u64,
    pub(crate) events: u64,
    verbose: bool,
}

impl Simulation {
    pub(crate) fn new(seed: u64, verbose: bool) -> Self {
        let profile = Profile::draw(seed);
        let world = World {
            cluster: Cluster::new(seed, &profile),
            ledger: Ledger::default(),
            tally: BTreeMap::new(),
            violations: Vec::new(),
            limits: vec![(0, profile.size_limit_bytes)],
            outstanding: BTreeMap::new(),
            next_number: 0,
            digest: 0,
            events: 0,
            verbose,
        };
        Self {
            seed,
            profile,
            started: Instant::now(),
            world: Mutex::new(world),
            changed: Notify::new(),
        }
    }

    /// Simulated milliseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn dice(&self, purpose: u64) -> Dice {
        Dice::new(self.seed, purpose)
    }
}

impl World {
    /// Notes an event for the trace and its digest. Events of the same moment count in any order, because the order in
    /// which tasks wake up that waited for one thing is nobody's promise.
    pub(crate) fn event(&mut self, now: u64, kind: &'static str, what: impl FnOnce() -> String) {
        let what = what();
        self.digest = self.digest.wrapping_add(mix(now
            ^ digest(kind.as_bytes())
            ^ digest(what.as_bytes()).rotate_left(7)));
        self.events += 1;
        if self.verbose {
            eprintln!("{now:>7} ms  {kind:<10} {what}");
        }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn count(&mut self, what: impl Into<String>, amount: u64) {
        *self.tally.entry(what.into()).or_default() += amount;
    }

    pub(crate) fn violate(&mut self, now: u64, rule: &'static str, what: String) {
        self.event(now, "VIOLATION", || format!("{rule}: {what}"));
        self.violations.push(Violation {
            at_ms: now,
            rule,
            what,
        });
    }

    /// Notes that somebody waits for an answer or holds one, and gives the number by which to say that it is over.
    pub(crate) fn begin(&mut self, now: u64) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.outstanding.insert(number, now);
        number
    }

    /// The size limit that must hold: the highest of those that were in force since the oldest answer was asked for that
    /// is still held, because a lower one cannot take memory from readers (H26).
    ///
    /// A storage other than memory is given `grace_ms` to remove what a lower limit takes from it.
    pub(crate) fn limit_in_force(&self, now: u64, grace_ms: u64) -> u64 {
        let current = self.limits.last().map_or(0, |(_, limit)| *limit);
        let oldest = self.outstanding.values().copied().min().unwrap_or(now);
        let oldest = oldest.min(now.saturating_sub(grace_ms));
        // The limit at that moment, and every later one.
        let first = self
            .limits
            .iter()
            .rposition(|(from, _)| *from < oldest)
            .unwrap_or(0);
        let since = self.limits[first..].iter().map(|(_, limit)| *limit);
        since.max().unwrap_or(current)
    }
}
