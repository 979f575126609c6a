//! From (partition, offset) to the bytes of the batch that holds it.

use std::time::Duration;

use anyhow::Result;
use crossbeam_utils::sync::ShardedLock;
use kachet_core::identity::PartitionKey;

use super::Scope;
use crate::contest::{Bound, Contest, Outcome, Role, Target, Unit, count};
use crate::filled::{BatchAt, batches, cache as filled_cache, key, lookups};
use crate::holders::{self, Borrowed, Holder, Lookups, Sharded, on_threads};
use crate::report::Section;

/// Lookups of each way in a round, so many that the machine's caches are not the same every time.
const LOOKUPS: usize = 1 << 18;

pub(super) fn section(scope: &Scope) -> Result<Section> {
    let mut section = Section::new(
        "lookups",
        "Lookups",
        "From (partition, offset) to the batch that holds it, at random over all that is held. *kachet* gives the bytes where they \
         lie, *kachet, shared* a share of them from behind the lock that hosts use; peers give a share of theirs and stand behind \
         a map of ranges for each partition, as a service would use them. *HashMap* is asked for first offsets only, without \
         ranges, order or limit. A time with two threads is that of all lookups divided by their number.",
    );
    let large = if scope.is_quick { 100_000 } else { 1_000_000 };
    for (count, partitions, size_bytes) in [
        (10_000, 1, 2_000),
        (10_000, 100, 2_000),
        (large, 1, 200),
        (large, 1_000, 200),
    ] {
        section.rows.push(row(scope, count, partitions, size_bytes)?);
    }
    Ok(section)
}

fn row(scope: &Scope, count: usize, partitions: i32, size_bytes: usize) -> Result<Outcome> {
    let made = batches(count, partitions, size_bytes);
    let asked = lookups(&made, LOOKUPS);
    let of_bases = bases(&made, &asked);
    let held = holders::held(&made);
    let cache = filled_cache(&made, 8 << 30);
    let borrowed: &dyn Holder = &Borrowed(&cache);
    let quick_cache = holders::quick_cache(&made, &held);
    let moka = holders::moka(&made, &held);
    let foyer = holders::foyer(&made, &held);
    let btree_map = holders::btree_map(&made, &held);
    let hash_map = holders::hash_map(&made, &held);
    // Filled alike, because a lock owns what it guards.
    let shared = ShardedLock::new(filled_cache(&made, 8 << 30));
    let shared = Sharded(&shared);
    let limit = if count <= 10_000 { 40e-9 } else { 200e-9 };
    let contest = Contest::new(
        format!("lookup, {count} batches in {partitions} partitions"),
        Unit::Seconds,
    );
    let contest = contest
        .way("kachet", Role::Ours, || Ok(time(borrowed, &asked, 1)))
        .way("kachet, 2 threads", Role::Ours, || Ok(time(borrowed, &asked, 2)))
        .way("kachet, shared", Role::Ours, || Ok(time(&shared, &asked, 1)))
        .way("kachet, shared, 2 threads", Role::Ours, || {
            Ok(time(&shared, &asked, 2))
        })
        .way("quick_cache + BTreeMap", Role::Peer, || {
            Ok(time(&*quick_cache, &asked, 1))
        })
        .way("the same, 2 threads", Role::Peer, || {
            Ok(time(&*quick_cache, &asked, 2))
        })
        .way("moka + BTreeMap", Role::Peer, || Ok(time(&*moka, &asked, 1)))
        .way("foyer + BTreeMap", Role::Peer, || Ok(time(&*foyer, &asked, 1)))
        .way("BTreeMap", Role::Peer, || Ok(time(&*btree_map, &asked, 1)))
        .way("HashMap", Role::Floor, || Ok(time(&*hash_map, &of_bases, 1)))
        .target(Target::of("kachet", Bound::AtMost(limit)))
        .target(Target::ratio(
            "quick_cache + BTreeMap",
            "kachet",
            Bound::AtLeast(3.0),
        ))
        .target(Target::ratio("moka + BTreeMap", "kachet", Bound::AtLeast(8.0)))
        .target(Target::ratio("kachet", "kachet, 2 threads", Bound::AtLeast(1.8)))
        .target(Target::ratio(
            "kachet, shared",
            "kachet, shared, 2 threads",
            Bound::AtLeast(1.8),
        ));
    contest.run(scope.rounds)
}

/// The first offset of each batch that is looked up.
fn bases(made: &[BatchAt], asked: &Lookups) -> Vec<(PartitionKey, i64)> {
    let mut by_place: Vec<_> = made.iter().map(|batch| (batch.partition, batch.base)).collect();
    by_place.sort_unstable();
    let base = |(at, offset): &(PartitionKey, i64)| {
        let after = by_place.partition_point(|place| *place <= (at.partition, *offset));
        let (partition, base) = by_place[after - 1];
        (key(partition), base)
    };
    asked.iter().map(base).collect()
}

/// For one lookup, in seconds.
pub(super) fn time(holder: &dyn Holder, asked: &Lookups, threads: usize) -> f64 {
    let took: Duration = on_threads(holder, asked, threads, asked.len() as u64);
    took.as_secs_f64() / count(asked.len() * threads)
}
