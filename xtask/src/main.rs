//! Every chore of the project, as code: `cargo xtask help`.
#![forbid(unsafe_code)]

mod bench;
mod clients;
mod differential;
mod kafka;
mod licences;
mod process;
mod project;
mod simulation;
mod steps;
mod system;
mod test;
mod tidy;
mod wasm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Every chore of the project. Each command can be repeated: what is in place already is not done again.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check everything that the project promises: style, lints, docs, tests, feature combinations, WebAssembly, licences.
    ///
    /// Sets up what it can by itself. A part that is missing and cannot be installed is skipped, with the command that installs
    /// it; where CI=true it fails. The last line is the count: `N passed, N failed, N skipped`.
    Test {
        /// Do without a real Kafka; the tests that need one are skipped.
        #[arg(long)]
        no_kafka: bool,
        /// Do without the WebAssembly targets.
        #[arg(long)]
        no_wasm: bool,
    },
    /// Like `test`, with everything required: what is missing fails. This is what CI runs.
    Ci,
    /// Do what `test` does beside its longest step: feature combinations, fuzz targets, the simulation, counts of instructions.
    #[command(hide = true)]
    Aside,
    /// Install what the tests need: system packages, Kafka's jars, the WebAssembly targets.
    Setup,
    /// Start a real Kafka to play with, and stop it at Ctrl-C.
    Kafka {
        /// The port for clients.
        #[arg(long, default_value_t = 9092)]
        port: u16,
        /// Keep topics in this folder, and find those of an earlier run there again [default: a temporary folder].
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Leave the temporary folder in place at the end.
        #[arg(long)]
        keep: bool,
    },
    /// Make the npm package `target/npm/kachet`, the examples beside it and the component `target/wasm/kachet.component.wasm`, and print sizes.
    Wasm,
    /// Run the tests of what runs anywhere in wasmtime, and most of the core's in Node.
    WasmTest,
    /// Absorb and evict batches in the npm package, again and again, and fail if its memory grows; the end is one JSON object.
    WasmSoak {
        /// How many batches.
        #[arg(long, default_value_t = 1_000_000)]
        cycles: u32,
    },
    /// Test against brokers of older releases; every run of `test` starts the first and one of the others.
    BrokerVersions {
        /// The releases, with commas between them; from 2.8 on.
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "2.8.2,3.3.2,3.6.2,3.9.1,4.0.0,4.1.0"
        )]
        releases: Vec<String>,
    },
    /// Read at random for minutes while a cluster of three real brokers changes; the end is one JSON object.
    Soak {
        /// For how many minutes to read.
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// What the changes follow from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Run the cache against simulated brokers, networks and clients, one world for each seed.
    Sim(simulation::Options),
    /// Send random requests to a real Kafka and through the proxy, and have every answer judged.
    Differential(differential::Options),
    /// Measure this project and its peers side by side, and write `bench/RESULTS.md` with its drawings.
    Bench(bench::Options),
    /// Count the instructions of the hot paths by callgrind, and compare them with `bench/workload/instructions.txt`.
    Instructions {
        /// Make what is counted the baseline.
        #[arg(long)]
        accept: bool,
    },
    /// Check the style rules that no other tool knows: file sizes, names, leftovers, panics in libraries.
    Tidy,
    /// Check that every dependency's licence is one that the project accepts.
    Licences,
}

fn main() -> ExitCode {
    let wanted = |kafka, wasm, all| test::Wanted { kafka, wasm, all };
    let all_well = match Options::parse().command {
        Command::Test { no_kafka, no_wasm } => test::run(&wanted(!no_kafka, !no_wasm, is_ci())),
        Command::Ci => test::run(&wanted(true, true, true)),
        Command::Aside => test::aside(is_ci()),
        Command::Setup => test::set_up(),
        Command::Kafka { port, dir, keep } => told(&kafka::play(port, dir.as_deref(), keep)),
        Command::Wasm => told(&wasm::package()),
        Command::WasmTest => told(&wasm::test()),
        Command::WasmSoak { cycles } => told(&wasm::soak(cycles)),
        Command::BrokerVersions { releases } => told(&kafka::test_releases(&releases)),
        Command::Soak { minutes, seed } => told(&kafka::soak(minutes, seed)),
        Command::Sim(options) => told(&simulation::run(&options)),
        Command::Differential(options) => told(&differential::run(&options)),
        Command::Bench(options) => told(&bench::run(&options)),
        Command::Instructions { accept } => {
            told(&system::require(&[system::Part::Valgrind]).and_then(|()| bench::instructions(accept)))
        }
        Command::Tidy => told(&tidy::run()),
        Command::Licences => told(&licences::run()),
    };
    if all_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Shows an error; says whether there was none.
fn told(result: &Result<()>) -> bool {
    if let Err(error) = result {
        eprintln!("error: {error:#}");
    }
    result.is_ok()
}

fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}
