//! Runs seeds of the simulation; `cargo xtask sim` builds and calls this.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use kachet_sim::{Outcome, run};

/// One in so many seeds is run twice, to see that it does the same again.
const REPEAT_ONE_IN: u64 = 64;
/// Failing seeds of each rule that are told in full.
const FAILURES_SHOWN: usize = 5;

/// Runs seeds of the simulation.
#[derive(Debug, Parser)]
struct Options {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many run at once [default: one on each processor].
    #[arg(long)]
    threads: Option<usize>,
    /// Run this one seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Write every event of the seed to stderr.
    #[arg(long, requires = "seed")]
    trace: bool,
}

/// What all seeds came to.
#[derive(Debug, Default)]
struct Totals {
    tally: BTreeMap<String, u64>,
    events: u64,
    /// How many seeds failed.
    failed: u64,
    /// For each rule the seeds that broke it, and how each did so first.
    failures: BTreeMap<&'static str, Vec<(u64, String)>>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let (first, count) = match options.seed {
        Some(seed) => (seed, 1),
        None => (options.from, options.seeds),
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(processors).max(1);
    let begun = Instant::now();
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let totals = Mutex::new(Totals::default());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if place >= count {
                        return;
                    }
                    let seed = first.wrapping_add(place);
                    let outcome = run(seed, options.trace, None);
                    let again = place
                        .is_multiple_of(REPEAT_ONE_IN)
                        .then(|| run(seed, false, None).digest);
                    let differs = again.is_some_and(|again| again != outcome.digest);
                    totals
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(seed, outcome, differs);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| report_progress(&done, count, &totals, begun));
    });
    let mut totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    totals.print(count, begun.elapsed());
    if totals.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn report_progress(done: &AtomicU64, count: u64, totals: &Mutex<Totals>, begun: Instant) {
    let mut shown = Instant::now();
    while done.load(Ordering::Relaxed) < count {
        thread::sleep(Duration::from_millis(20));
        if shown.elapsed() < Duration::from_secs(5) {
            continue;
        }
        shown = Instant::now();
        let done = done.load(Ordering::Relaxed);
        let failed = totals.lock().unwrap_or_else(PoisonError::into_inner).failed;
        eprintln!(
            "{done} of {count} seeds, {failed} failed, {} s",
            begun.elapsed().as_secs()
        );
    }
}

impl Totals {
    fn add(&mut self, seed: u64, outcome: Outcome, differs: bool) {
        for (what, amount) in outcome.tally {
            *self.tally.entry(what).or_default() += amount;
        }
        self.events += outcome.events;
        let mut told = BTreeMap::new();
        for each in outcome.violations {
            told.entry(each.rule)
                .or_insert_with(|| format!("{} (at {} ms)", each.what, each.at_ms));
        }
        if differs {
            told.insert("determinism", "a second run did something else".to_owned());
        }
        self.failed += u64::from(!told.is_empty());
        for (rule, what) in told {
            self.failures.entry(rule).or_default().push((seed, what));
        }
    }

    fn print(&mut self, count: u64, took: Duration) {
        for (what, amount) in &self.tally {
            println!("{amount:>12}  {what}");
        }
        println!("{:>12}  events", self.events);
        for (rule, seeds) in &mut self.failures {
            seeds.sort();
            println!("\n{rule}: broken by {} seeds", seeds.len());
            for (seed, told) in seeds.iter().take(FAILURES_SHOWN) {
                println!("  seed {seed}: {told}\n    replay: cargo xtask sim --seed {seed} --trace");
            }
        }
        let failed = self.failed;
        println!("\n{count} seeds in {:.1} s, {failed} failed", took.as_secs_f64());
    }
}
