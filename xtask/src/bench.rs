//! `cargo xtask bench` and `cargo xtask instructions`: how long things take, and how many instructions.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::project::{cargo, root, target_dir};
use crate::system::{self, Part};
use crate::{kafka, process, wasm};

/// How far from its baseline a count may be, in percent: what another release of the compiler or the C library changes is less,
/// and one more allocation or copy in these paths is more.
const TOLERANCE_PERCENT: u64 = 5;
/// How often a piece is done in the shorter and in the longer run. The difference holds growth of tables alike.
const CALLS: [u32; 2] = [4_096, 8_192];
/// For one run under valgrind.
const LIMIT: Duration = Duration::from_mins(5);

/// What to measure, and how.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to measure, for instance `lookups` or `mount`; RESULTS.md is written only of everything [default: everything]
    sections: Vec<String>,
    /// The same rows of less data in fewer rounds, for trying out; the page is written to `bench` in the target folder.
    #[arg(long)]
    quick: bool,
    /// How often each way goes [default: 9, and up to 36 while a target is open; 3 where it is to be quick].
    #[arg(long)]
    rounds: Option<u16>,
    /// Where mount points are made, which must be on a disk [default: the folder for temporary files].
    #[arg(long)]
    folder: Option<PathBuf>,
    /// A trace of a cache for the table of hit ratios: libCacheSim's oracleGeneral, or CSV of time, object and size.
    #[arg(long)]
    trace: Option<PathBuf>,
}

/// Builds everything first, so that nothing is measured beside a compiler.
pub(crate) fn run(options: &Options) -> Result<()> {
    // Where it is missing the rows of the proxy are told as not measured.
    if let Some(missing) = kafka::ensure()? {
        eprintln!("{missing}");
    }
    let mut build = cargo();
    build.args([
        "build",
        "--release",
        "--quiet",
        "--package",
        "kachet-bench",
        "--bin",
        "figures",
    ]);
    process::run(&mut build)?;
    if options.sections.is_empty() || options.sections.iter().any(|section| section == "wasm") {
        // Where the targets are missing these rows are told as not measured.
        match wasm::ensure()? {
            Ok(toolchain) => wasm::build_lookups(toolchain)?,
            Err(missing) => eprintln!("{missing}"),
        }
    }
    let mut figures = Command::new(target_dir().join("release").join("figures"));
    // What is only tried out does not take the place of what is published.
    let results = if options.quick { target_dir() } else { root() };
    figures.arg("--results").arg(results.join("bench"));
    figures.arg("--target-folder").arg(target_dir());
    figures
        .arg("--json")
        .arg(target_dir().join("bench").join("run.json"));
    if options.quick {
        figures.arg("--quick");
    }
    if let Some(rounds) = options.rounds {
        figures.arg(format!("--rounds={rounds}"));
    }
    for (name, path) in [("--folder", &options.folder), ("--trace", &options.trace)] {
        if let Some(path) = path {
            figures.arg(name).arg(std::path::absolute(path)?);
        }
    }
    process::run(figures.args(&options.sections).current_dir(root()))
}

/// Whether everything that counting needs is there: Ok(Some(why)) says what is missing and how to get it.
pub(crate) fn ensure() -> Result<Option<String>> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Some("the baseline counts instructions of x86-64".to_owned()));
    }
    system::ensure(&[Part::Valgrind])
}

/// Counts the instructions of each hot path and compares them with the baseline; `accepts` makes them the baseline.
pub(crate) fn instructions(accepts: bool) -> Result<()> {
    let mut build = cargo();
    build.args([
        "build",
        "--release",
        "--quiet",
        "--package",
        "kachet-workload",
        "--bin",
        "instructions",
    ]);
    process::run(&mut build)?;
    let program = target_dir().join("release").join("instructions");
    let names = process::capture(&mut Command::new(&program))?;
    let mut counted = BTreeMap::new();
    for name in names.lines() {
        counted.insert(name.to_owned(), count(&program, name)?);
    }
    let file = root().join("bench").join("workload").join("instructions.txt");
    if accepts {
        return fs::write(&file, written(&counted))
            .with_context(|| format!("cannot write {}", file.display()));
    }
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let (table, findings) = compare(&parsed(&text)?, &counted);
    eprintln!("{table}");
    if !findings.is_empty() {
        bail!(
            "{}\nWhere that is meant, `cargo xtask instructions --accept` makes it the baseline.",
            findings.join("\n")
        );
    }
    Ok(())
}

/// Instructions of one call.
fn count(program: &std::path::Path, name: &str) -> Result<u64> {
    let [fewer, more] = CALLS;
    let mut of_run = [0; 2];
    for (calls, of_run) in CALLS.into_iter().zip(&mut of_run) {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        valgrind.arg(program).args([name, &calls.to_string()]);
        let said = process::capture_errors_within(&mut valgrind, LIMIT)?;
        *of_run = collected(&said).with_context(|| format!("callgrind says no count: {said}"))?;
    }
    ensure!(
        of_run[1] > of_run[0],
        "{name}: {more} calls take no more than {fewer}"
    );
    Ok((of_run[1] - of_run[0]) / u64::from(more - fewer))
}

/// The number of `==7== Collected : 123456`.
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(':').next()?.trim().parse().ok()
}

type Counts = BTreeMap<String, u64>;

fn written(counts: &Counts) -> String {
    let mut text = format!(
        "# Instructions of one call, by callgrind; CI fails where one is off by more than {TOLERANCE_PERCENT} %.\n\
         # `cargo xtask instructions --accept` writes this.\n"
    );
    for (name, count) in counts {
        let _ = writeln!(text, "{name} {count}");
    }
    text
}

fn parsed(text: &str) -> Result<Counts> {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, count) = line
                .split_once(' ')
                .with_context(|| format!("{line:?} is no name and count"))?;
            Ok((name.to_owned(), count.trim().parse()?))
        })
        .collect()
}

/// A table, and a line for each count that is off. One that has become less is off too: else the baseline would hide what is
/// lost again.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of instructions of one call are far below 53 bits"
)]
fn compare(baseline: &Counts, counted: &Counts) -> (String, Vec<String>) {
    let (mut table, mut findings) = (String::new(), Vec::new());
    for (name, count) in counted {
        let Some(before) = baseline.get(name) else {
            findings.push(format!("{name}: {count} instructions, and no baseline"));
            continue;
        };
        let percent = 100.0 * (*count as f64 / (*before).max(1) as f64 - 1.0);
        let line = format!("{name:12} {count:>9} instructions, baseline {before:>9}, {percent:+.1} %");
        if 100 * count.abs_diff(*before) > TOLERANCE_PERCENT * before {
            findings.push(line.clone());
        }
        table.push_str(&line);
        table.push('\n');
    }
    let gone = baseline.keys().filter(|name| !counted.contains_key(*name));
    findings.extend(gone.map(|name| format!("{name}: in the baseline, and not counted")));
    (table, findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> Counts {
        of.iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    }

    #[test]
    fn a_count_is_off_by_more_than_the_tolerance_either_way() {
        let baseline = counts(&[("lookup", 1000)]);
        for (count, is_off) in [(1050, false), (1051, true), (950, false), (949, true)] {
            let (_, findings) = compare(&baseline, &counts(&[("lookup", count)]));
            assert_eq!(!findings.is_empty(), is_off, "{count}: {findings:?}");
        }
    }

    #[test]
    fn what_only_one_side_has_is_a_finding() {
        let (_, findings) = compare(&counts(&[("gone", 1)]), &counts(&[("new", 1)]));
        assert_eq!(findings.len(), 2, "{findings:?}");
    }

    #[test]
    fn a_baseline_reads_as_it_was_written() -> Result<()> {
        let baseline = counts(&[("lookup", 1000), ("walk", 7)]);
        assert_eq!(parsed(&written(&baseline))?, baseline);
        assert!(parsed("lookup").is_err() && parsed("lookup many").is_err());
        Ok(())
    }

    #[test]
    fn callgrinds_count_is_found() {
        assert_eq!(
            collected("==7== Events    : Ir\n==7== Collected : 123456\n"),
            Some(123_456)
        );
        assert_eq!(collected("==7== Events    : Ir\n"), None);
    }
}
