//! `cargo xtask sim`: the simulation, built with optimisation and assertions, over many seeds or over one.

use anyhow::Result;
use clap::Args;

use crate::process;
use crate::project::cargo;

/// Which seeds to run, and how.
#[derive(Debug, Args)]
pub(crate) struct Options {
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

impl Options {
    /// What each run of the tests simulates.
    pub(crate) fn of_every_test() -> Self {
        Self {
            seeds: 2000,
            from: 0,
            threads: None,
            seed: None,
            trace: false,
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut simulation = cargo();
    simulation.args([
        "run",
        "--quiet",
        "--profile",
        "simulation",
        "--package",
        "kachet-sim",
        "--",
    ]);
    simulation.arg(format!("--seeds={}", options.seeds));
    simulation.arg(format!("--from={}", options.from));
    simulation.args(options.threads.map(|threads| format!("--threads={threads}")));
    simulation.args(options.seed.map(|seed| format!("--seed={seed}")));
    if options.trace {
        simulation.arg("--trace");
    }
    process::run(&mut simulation)
}
