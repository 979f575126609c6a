//! How long a lookup takes where this runs: one line, nanoseconds by its offset alone and nanoseconds of a whole hit. It is built
//! natively and for WASI, so that what a runtime costs can be told: `lookups [ROUNDS]`.

use std::hint::black_box;
use std::time::Instant as Clock;

use kachet_core::time::Instant;
use kachet_core::wire::FetchPartition;
use kachet_workload::filled::{TOPIC, batches, cache, lookups};

const BATCHES: usize = 10_000;
const LOOKUPS: usize = 1 << 14;

fn main() {
    let rounds = std::env::args()
        .nth(1)
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(50);
    let held = batches(BATCHES, 1, 100);
    let cache = cache(&held, 1 << 28);
    let asked = lookups(&held, LOOKUPS);
    let by_offset = quickest(rounds, || {
        for (key, offset) in &asked {
            black_box(cache.batch_slice(key, *offset));
        }
    });
    let whole = quickest(rounds, || {
        for (key, offset) in &asked {
            let asked = FetchPartition::new(key.partition, *offset, 0);
            black_box(cache.hit(TOPIC, &asked, false, Instant::default()));
        }
    });
    println!("{by_offset:.1} {whole:.1}");
}

/// Nanoseconds of one lookup in the quickest round, because whatever else runs here only makes others longer.
fn quickest(rounds: u32, mut body: impl FnMut()) -> f64 {
    let rounds = (0..rounds.max(1)).map(|_| {
        let start = Clock::now();
        body();
        start.elapsed().as_secs_f64()
    });
    let best = rounds.fold(f64::INFINITY, f64::min);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let lookups = LOOKUPS as f64;
    best * 1e9 / lookups
}
