//! How large the modules for WebAssembly are, where `cargo xtask wasm` has made them, and what a runtime makes of a lookup.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Scope;
use crate::contest::{Bound, Contest, Outcome, Role, Target, Unit, count};
use crate::report::Section;

/// Where a module lies below the build's folder, what it is, and what it may take, in KiB.
const MODULES: [(&str, &str, u32); 3] = [
    (
        "npm/kachet/kachet_wasm_bg.wasm",
        "module of the npm package, by gzip",
        60,
    ),
    (
        "wasm/without-zstd/package/kachet_wasm_bg.wasm",
        "the same without zstd, by gzip",
        40,
    ),
    ("wasm/kachet.component.wasm", "component, by gzip", 60),
];
/// What the program `lookups` measures, in the order in which it prints.
const LOOKUPS: [&str; 2] = ["batch by its offset, in wasmtime", "hit of a batch, in wasmtime"];

pub(super) fn section(scope: &Scope) -> Result<Section> {
    let mut section = Section::new(
        "wasm",
        "WebAssembly",
        "What is downloaded, with all codecs unless it says otherwise.",
    );
    for (path, what, limit_kib) in MODULES {
        let path = scope.target_folder.join(path);
        if path.is_file() {
            section.rows.push(row(&path, what, limit_kib)?);
        } else {
            section
                .not_measured
                .push(format!("{what}: `cargo xtask wasm` makes it."));
        }
    }
    let program = scope.target_folder.join("wasm/lookups.wasm");
    if program.is_file() {
        for (at, what) in LOOKUPS.into_iter().enumerate() {
            section.rows.push(lookup(scope, at, what)?);
        }
    } else {
        section
            .not_measured
            .push("lookups in wasmtime: `cargo xtask bench wasm` builds what they need.".to_owned());
    }
    Ok(section)
}

/// The same program natively and in wasmtime, each measuring itself. It prints a number for each of [`LOOKUPS`], in nanoseconds.
fn lookup(scope: &Scope, at: usize, what: &str) -> Result<Outcome> {
    let folder = &scope.target_folder;
    let native = folder.join("release").join("lookups");
    let (runner, module) = (
        folder.join("release").join("wasi-runner"),
        folder.join("wasm/lookups.wasm"),
    );
    let rounds = if scope.is_quick { "20" } else { "100" };
    let contest = Contest::new(format!("{what}, 10 000 batches"), Unit::Seconds)
        .way("kachet", Role::Ours, || {
            printed(Command::new(&native).arg(rounds), at)
        })
        .way("kachet in wasmtime", Role::Ours, || {
            printed(Command::new(&runner).arg(&module).arg(rounds), at)
        })
        .target(Target::ratio("kachet in wasmtime", "kachet", Bound::AtMost(2.0)));
    contest.run(scope.rounds)
}

/// Seconds out of the number that a program prints at this place of its line.
fn printed(command: &mut Command, at: usize) -> Result<f64> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    let number = text
        .split_whitespace()
        .nth(at)
        .context("too few numbers were printed")?;
    Ok(number.parse::<f64>()? * 1e-9)
}

fn row(path: &Path, what: &str, limit_kib: u32) -> Result<Outcome> {
    let module = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&module)?;
    let size_bytes = encoder.finish()?.len();
    Contest::new(what, Unit::Bytes)
        .way("kachet", Role::Ours, || Ok(count(size_bytes)))
        .target(Target::of("kachet", Bound::AtMost(1024.0 * f64::from(limit_kib))))
        .once()
}
