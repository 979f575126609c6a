//! How figures change with the number of batches, of partitions, and with the size of a batch.

use anyhow::Result;

use super::{Scope, absorbing, lookups};
use crate::contest::{Contest, Outcome, Role, Unit};
use crate::filled::{batches, cache, lookups as offsets};
use crate::holders::{self, Borrowed};
use crate::report::{Curve, Section};

const LOOKUPS: usize = 1 << 17;
/// A batch that has little but its header: ten million of them, with what stands around them, are two gigabytes.
const BATCH_BYTES: usize = 80;
/// From here on only the cache and the plainest peer are held, for the sake of the machine's memory.
const PEERS_MAX: usize = 1_000_000;

pub(super) fn section(scope: &Scope) -> Result<Section> {
    let mut section = Section::new(
        "growth",
        "Growth",
        "Lookups as above, of batches of 80 to 120 bytes; inserts as above.",
    );
    let counts: &[usize] = if scope.is_quick {
        &[10_000, 100_000, 300_000]
    } else {
        &[10_000, 100_000, 1_000_000, 10_000_000]
    };
    let mut by_batches = Vec::new();
    for &count in counts {
        by_batches.push((crate::contest::count(count), lookup(scope, count, 1)?));
    }
    let mut by_partitions = Vec::new();
    for partitions in [1, 10, 100, 1_000, 10_000] {
        by_partitions.push((f64::from(partitions), lookup(scope, 100_000, partitions)?));
    }
    let mut by_size = Vec::new();
    let sizes: &[u32] = if scope.is_quick {
        &[100, 10_000, 1 << 20]
    } else {
        &[100, 1_000, 10_000, 100_000, 1 << 20]
    };
    for &size_bytes in sizes {
        by_size.push((
            f64::from(size_bytes),
            absorbing::row(scope, usize::try_from(size_bytes)?)?,
        ));
    }
    section.curves = vec![
        Curve {
            id: "batches",
            of: "lookup",
            along: "batches",
            points: by_batches,
        },
        Curve {
            id: "partitions",
            of: "lookup",
            along: "partitions of 100 000 batches",
            points: by_partitions,
        },
        Curve {
            id: "sizes",
            of: "insert",
            along: "bytes of a batch",
            points: by_size,
        },
    ];
    Ok(section)
}

fn lookup(scope: &Scope, count: usize, partitions: i32) -> Result<Outcome> {
    let made = batches(count, partitions, BATCH_BYTES);
    let asked = offsets(&made, LOOKUPS);
    let cache = cache(&made, 16 << 30);
    let borrowed = Borrowed(&cache);
    let held = holders::held(&made);
    let btree_map = holders::btree_map(&made, &held);
    let quick_cache = (count <= PEERS_MAX).then(|| holders::quick_cache(&made, &held));
    let what = format!("lookup, {count} small batches in {partitions} partitions");
    let mut contest = Contest::new(what, Unit::Seconds)
        .way("kachet", Role::Ours, || Ok(lookups::time(&borrowed, &asked, 1)))
        .way("BTreeMap", Role::Peer, || {
            Ok(lookups::time(&*btree_map, &asked, 1))
        });
    if let Some(quick_cache) = &quick_cache {
        contest = contest.way("quick_cache + BTreeMap", Role::Peer, || {
            Ok(lookups::time(&**quick_cache, &asked, 1))
        });
    }
    contest.run(scope.rounds)
}
