//! The tests of what runs anywhere, built for WASI and run in wasmtime: the core's own, and those of its storage in a folder.

use anyhow::Result;

use super::{Toolchain, WASI};
use crate::process::{self, Tally, run_tests};
use crate::project::{cargo, target_dir};

/// What runs in wasmtime: a package, and its features.
const PACKAGES: [(&str, &[&str]); 3] = [
    ("kachet-core", &["--features", "conformance"]),
    ("kachet-wasm", &[]),
    ("kachet-wasi", &[]),
];

/// Builds the runner, and has cargo run every test by it.
pub(super) fn test(toolchain: Toolchain) -> Result<Tally> {
    process::run(cargo().args(["build", "--package", "kachet-wasm-tests", "--bin", "wasi-runner"]))?;
    let runner = target_dir().join("debug").join("wasi-runner");
    let mut tally = Tally::default();
    for (package, features) in PACKAGES {
        let mut tests = toolchain.cargo();
        // What documents cannot be run anywhere but natively, and is.
        tests.args([
            "test",
            "--target",
            WASI,
            "--package",
            package,
            "--lib",
            "--bins",
            "--tests",
            "--no-fail-fast",
        ]);
        tests.args(features);
        // Without optimisation wasmtime takes many times as long.
        tests.args(["--profile", "simulation"]);
        tests.env("CARGO_TARGET_WASM32_WASIP1_RUNNER", &runner);
        tally.add(run_tests(&mut tests)?);
    }
    Ok(tally)
}
