//! The tests of what runs anywhere, built for WASI and run in wasmtime: the core's own, and those of its storage in a folder.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Toolchain, WASI};
use crate::process::{self, Tally, run_tests};
use crate::project::{cargo, root, target_dir};
use crate::system::{self, Part};

/// What runs in wasmtime: a package, and its features.
const PACKAGES: [(&str, &[&str]); 3] = [
    ("kachet-core", &["--features", "conformance"]),
    ("kachet-wasm", &[]),
    ("kachet-wasi", &[]),
];

/// Of the core, what is run in Node as well: the rules, the wire format and the fixtures. What else there is takes more memory than
/// Node gives.
const IN_NODE: [&str; 10] = [
    "--lib",
    "--test",
    "fixtures",
    "--test",
    "malformed",
    "--test",
    "malformed_batches",
    "--test",
    "witness",
    "--no-fail-fast",
];

/// Has cargo run every test in wasmtime, and those of the core in Node.
pub(super) fn test(toolchain: Toolchain) -> Result<Tally> {
    process::run(cargo().args(["build", "--package", "kachet-wasm-tests", "--bin", "wasi-runner"]))?;
    test_behind_the_others(toolchain)
}

/// The same where the workspace's tests have been built, and with them what runs these: by itself it would be built a second
/// time, with a runtime that lacks some features, which takes minutes.
pub(super) fn test_behind_the_others(toolchain: Toolchain) -> Result<Tally> {
    system::require(&[Part::Node])?;
    let runner = target_dir().join("debug").join("wasi-runner");
    ensure!(
        runner.is_file(),
        "{} is missing: the workspace's tests were not built",
        runner.display()
    );
    let wasmtime = [runner.display().to_string()];
    let mut tally = Tally::default();
    for (package, features) in PACKAGES {
        let mut arguments = vec![
            "--package",
            package,
            "--lib",
            "--bins",
            "--tests",
            "--no-fail-fast",
        ];
        arguments.extend(features);
        tally.add(run(toolchain, &wasmtime, &arguments)?);
    }
    let script = root().join("host-wasm/js/test/wasi-runner.mjs");
    let node = ["node", "--no-warnings", &script.display().to_string()].map(str::to_owned);
    let (core, features) = PACKAGES[0];
    let arguments = [&["--package", core], features, &IN_NODE].concat();
    tally.add(run(toolchain, &node, &arguments)?);
    Ok(tally)
}

/// The tests that `arguments` name, each run by `runner`.
fn run(toolchain: Toolchain, runner: &[String], arguments: &[&str]) -> Result<Tally> {
    let mut tests = toolchain.cargo();
    // As a list, because a path may have blanks.
    let words: Vec<String> = runner.iter().map(|word| format!("{word:?}")).collect();
    tests.arg("--config");
    tests.arg(format!("target.{WASI}.runner=[{}]", words.join(",")));
    // Without optimisation a runtime takes many times as long.
    tests.args(["test", "--target", WASI, "--profile", "simulation"]);
    tests.args(arguments).env("KACHET_WORKSPACE", root());
    run_tests(&mut tests)
}

/// What `cargo xtask bench wasm` measures.
pub(super) fn build_lookups(toolchain: Toolchain) -> Result<()> {
    let release = |mut cargo: std::process::Command, package: &str, bin: &str| {
        process::run(cargo.args([
            "build",
            "--release",
            "--quiet",
            "--package",
            package,
            "--bin",
            bin,
        ]))
    };
    release(cargo(), "kachet-workload", "lookups")?;
    release(cargo(), "kachet-wasm-tests", "wasi-runner")?;
    let mut for_wasi = toolchain.cargo();
    process::run(for_wasi.args([
        "build",
        "--release",
        "--quiet",
        "--target",
        WASI,
        "--package",
        "kachet-workload",
        "--bin",
        "lookups",
    ]))?;
    let built = toolchain.target_dir().join(WASI).join("release/lookups.wasm");
    place(&built, &target_dir().join("wasm"))
}

fn place(file: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let to = folder.join(file.file_name().unwrap_or_default());
    fs::copy(file, &to).with_context(|| format!("cannot copy {} to {}", file.display(), to.display()))?;
    Ok(())
}
