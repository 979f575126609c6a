//! Whole answers of the Go library that this cache is measured against, where a checkout of it is named.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use kachet_core::wire::Chunks;

use super::Scope;
use crate::answers::{answer, request};
use crate::contest::{Bound, Contest, Outcome, Role, Target, Unit, count};
use crate::filled::{batches, cache, lookups};

/// Names the folder of a checkout of kafka-go's branch `records`, beside which, as `datastructures`, lies
/// segmentio/datastructures at v2.6.0.
const CHECKOUT: &str = "KACHET_REFERENCE_DIR";
const ANSWERS: usize = 1 << 16;
const BATCHES: usize = 10_000;
/// The program's source, which is built in a folder of its own with the checkout in place of the module.
const PROGRAM: [(&str, &str); 2] = [
    ("go.mod", include_str!("../../reference/go.mod")),
    ("main.go", include_str!("../../reference/main.go")),
];

/// A row, or why there is none.
pub(super) fn row(scope: &Scope) -> Result<Result<Outcome, String>> {
    let Some(checkout) = std::env::var_os(CHECKOUT).map(PathBuf::from) else {
        return Ok(Err(format!(
            "answers of kafka-go's records: set {CHECKOUT} to a checkout, see `bench/reference/README.md`."
        )));
    };
    let program = build(scope, &checkout)?;
    let held = batches(BATCHES, 1, 200);
    let cache = cache(&held, 8 << 30);
    let asked = lookups(&held, ANSWERS);
    let requests: Vec<Bytes> = asked
        .iter()
        .map(|(key, offset)| request(key.partition, *offset, 0))
        .collect();
    let mut encoded = Chunks::new();
    let contest = Contest::new(
        format!("answer beside the Go library, {BATCHES} batches"),
        Unit::Seconds,
    )
    .timed("kachet", Role::Ours, ANSWERS, || {
        for request in &requests {
            std::hint::black_box(answer(&cache, request, &mut encoded));
        }
    })
    .way("kafka-go records", Role::Peer, || {
        let output = Command::new(&program)
            .args([BATCHES.to_string(), ANSWERS.to_string()])
            .output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let nanoseconds: usize = String::from_utf8(output.stdout)?.trim().parse()?;
        Ok(count(nanoseconds) * 1e-9 / count(ANSWERS))
    })
    .target(Target::ratio("kafka-go records", "kachet", Bound::AtLeast(10.0)));
    contest.run(scope.rounds).map(Ok)
}

fn build(scope: &Scope, checkout: &Path) -> Result<PathBuf> {
    let checkout = checkout
        .canonicalize()
        .with_context(|| format!("{CHECKOUT}: {}", checkout.display()))?;
    let structures = checkout.with_file_name("datastructures");
    if !checkout.join("records").is_dir() || !structures.is_dir() {
        bail!(
            "{CHECKOUT} names {}, which has no records/ or no datastructures beside it",
            checkout.display()
        );
    }
    let folder = std::path::absolute(scope.target_folder.join("bench").join("reference"))?;
    fs::create_dir_all(&folder)?;
    for (name, text) in PROGRAM {
        fs::write(folder.join(name), text)?;
    }
    let go = |arguments: &[&str]| -> Result<()> {
        let output = Command::new("go").args(arguments).current_dir(&folder).output()?;
        ensure!(
            output.status.success(),
            "go {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    };
    let replaced = |module: &str, by: &Path| format!("-replace={module}={}", by.display());
    go(&[
        "mod",
        "edit",
        &replaced("github.com/segmentio/kafka-go", &checkout),
    ])?;
    go(&[
        "mod",
        "edit",
        &replaced("github.com/segmentio/kafka-go/records", &checkout.join("records")),
    ])?;
    go(&[
        "mod",
        "edit",
        &replaced("github.com/segmentio/datastructures/v2", &structures),
    ])?;
    go(&["mod", "tidy"])?;
    go(&["build", "-o", "reference", "."])?;
    Ok(folder.join("reference"))
}
