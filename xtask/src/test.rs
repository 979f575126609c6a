//! `cargo xtask test`: everything that the project promises, step by step.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{self, Aside, Tally, find_program, run_tests};
use crate::project::{cargo, root, target_dir};
use crate::steps::{Outcome, Steps};
use crate::system::{self, Part};
use crate::{bench, clients, kafka, licences, simulation, tidy, wasm};

/// What to test.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) kafka: bool,
    pub(crate) wasm: bool,
    /// Whether what is missing fails; else it is skipped.
    pub(crate) all: bool,
}

/// The optional features of the core: one for each codec, topic names, the tests of storages, and records as JSON.
const CORE_FEATURES: [&str; 7] = ["conformance", "gzip", "json", "lz4", "names", "snappy", "zstd"];

/// Runs every step; says whether none failed.
pub(crate) fn run(wanted: &Wanted) -> bool {
    let mut steps = Steps::new(wanted.all);
    steps.run("tidy", || tidy::run().map(|()| Outcome::Passed));
    steps.run("format", formatted);
    steps.run("clippy", || {
        passes(
            cargo()
                .args(["clippy", "--workspace", "--all-targets"])
                .args(["--", "-D", "warnings"]),
        )
    });
    steps.run("docs", || {
        passes(
            cargo()
                .args(["doc", "--workspace", "--no-deps"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
    });
    if wanted.kafka {
        steps.run("kafka set-up", || kafka::ensure().map(present));
        steps.run("clients set-up", || clients::ensure().map(present));
    }
    steps.run("browser set-up", || {
        system::ensure(&[Part::Chromium]).map(present)
    });
    if wanted.wasm {
        // In front of the tests, which embed what comes of it.
        steps.run("wasm set-up and builds", || {
            Ok(match wasm::ensure()? {
                Ok(toolchain) => Outcome::Tests(wasm::build(toolchain)),
                Err(missing) => Outcome::Skipped(missing),
            })
        });
        steps.run("wasm packages", || {
            Ok(match wasm::ensure()? {
                Ok(toolchain) => Outcome::Tests(wasm::package_and_test(toolchain)?),
                Err(missing) => Outcome::Skipped(missing),
            })
        });
    }
    steps.run("building tests", || {
        passes(workspace_tests(wanted).arg("--no-run"))
    });
    // Tests wait for brokers and for times to pass; what only computes gets that time.
    let aside = Aside::start("aside", &target_dir().join("aside.log"));
    steps.run("tests", || {
        run_tests(&mut workspace_tests(wanted)).map(Outcome::Tests)
    });
    steps.run("beside the tests", || Ok(Outcome::Tests(aside?.finish()?)));
    if wanted.wasm {
        steps.run("tests in wasmtime", || {
            Ok(match wasm::ensure()? {
                Ok(toolchain) => Outcome::Tests(wasm::test_inside(toolchain)?),
                Err(missing) => Outcome::Skipped(missing),
            })
        });
    }
    steps.run("licences", || licences::run().map(|()| Outcome::Passed));
    // Its rules are those of `licences` and more; the tool takes minutes to build, so it is asked only where it is.
    if find_program("cargo-deny").is_some() {
        steps.run("cargo deny", || {
            passes(cargo().args(["deny", "check", "licenses", "bans", "sources"]))
        });
    }
    steps.finish()
}

/// Runs the steps that only compute, of which none measures time; says whether none failed.
pub(crate) fn aside(all: bool) -> bool {
    let mut steps = Steps::new(all);
    steps.run("simulation", || {
        simulation::run(&simulation::Options::of_every_test()).map(|()| Outcome::Passed)
    });
    steps.run("features", || Ok(Outcome::Tests(features())));
    if fuzz_manifest().exists() {
        steps.run("fuzz targets", fuzz_targets);
    }
    steps.run("instructions", || {
        Ok(match bench::ensure()? {
            Some(missing) => Outcome::Skipped(missing),
            None => bench::instructions(false).map(|()| Outcome::Passed)?,
        })
    });
    steps.finish()
}

/// Installs what the tests need; says whether all of it is there.
pub(crate) fn set_up() -> bool {
    let mut steps = Steps::new(false);
    steps.run("kafka", || match kafka::ensure()? {
        None => Ok(Outcome::Passed),
        Some(missing) => bail!("{missing}"),
    });
    steps.run("clients", || match clients::ensure()? {
        None => Ok(Outcome::Passed),
        Some(missing) => bail!("{missing}"),
    });
    steps.run("browser", || match system::ensure(&[Part::Chromium])? {
        None => Ok(Outcome::Passed),
        Some(missing) => bail!("{missing}"),
    });
    steps.run("valgrind", || match system::ensure(&[Part::Valgrind])? {
        None => Ok(Outcome::Passed),
        Some(missing) => bail!("{missing}"),
    });
    steps.run("wasm", || match wasm::ensure()? {
        Ok(toolchain) => {
            eprintln!("The targets are in the toolchain: {toolchain:?}");
            Ok(Outcome::Passed)
        }
        Err(missing) => bail!("{missing}"),
    });
    steps.run("npm packages", || wasm::install_tools().map(|()| Outcome::Passed));
    steps.finish()
}

fn passes(command: &mut Command) -> Result<Outcome> {
    process::run(command).map(|()| Outcome::Passed)
}

fn formatted() -> Result<Outcome> {
    // The names of the files; the differences are what `cargo fmt` then makes.
    let check = passes(cargo().args(["fmt", "--all", "--check", "--message-format", "short"]));
    check.context("mend it with `cargo fmt --all`")
}

fn present(missing: Option<String>) -> Outcome {
    missing.map_or(Outcome::Passed, Outcome::Skipped)
}

/// All tests of the workspace, the examples in its docs included.
fn workspace_tests(wanted: &Wanted) -> Command {
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--no-fail-fast"]);
    if !wanted.wasm {
        // What they build on takes minutes to build.
        tests.args(["--exclude", "kachet-wasm-tests", "--exclude", "xtask-wasm"]);
        tests.args(["--exclude", "kachet-edge-tests"]);
    }
    if !wanted.kafka {
        tests.env("KACHET_SKIP_KAFKA", "1");
    }
    if wanted.all {
        // A test that lacks something fails then, instead of skipping itself.
        tests.env("CI", "true");
    }
    tests
}

/// The core with every feature alone and with none at all, and the library without the command.
fn features() -> Tally {
    let mut tally = Tally::default();
    let of_core = std::iter::once(None).chain(CORE_FEATURES.map(Some));
    let of_core = of_core.map(|feature| ("kachet-core", feature));
    let of_host =
        [None, Some("embedded-broker"), Some("gateway"), Some("metrics")].map(|feature| ("kachet", feature));
    let of_wasm = [None, Some("javascript"), Some("component")].map(|feature| ("kachet-wasm", feature));
    for (package, feature) in of_core.chain(of_host).chain(of_wasm) {
        let mut clippy = cargo();
        // Clippy takes the lint level after `--`, where RUSTFLAGS would make cargo build every dependency anew.
        clippy.args(["clippy", "--package", package, "--no-default-features"]);
        clippy.args(feature.map(|feature| ["--features", feature]).iter().flatten());
        match process::run(clippy.args(["--", "-D", "warnings"])) {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                eprintln!("error: {error:#}");
                tally.failed += 1;
            }
        }
    }
    tally
}

/// The fuzz targets are a workspace of their own, as cargo-fuzz wants; here the stable compiler checks that they compile.
fn fuzz_targets() -> Result<Outcome> {
    let mut check = cargo();
    check.arg("check").arg("--manifest-path").arg(fuzz_manifest());
    passes(check.env("CARGO_TARGET_DIR", target_dir().join("fuzz")))
}

fn fuzz_manifest() -> PathBuf {
    root().join("fuzz").join("Cargo.toml")
}
