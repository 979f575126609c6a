//! Kafka's jars, by Maven, and a Kafka to play with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::project::{cargo, root, target_dir};
use crate::system::{self, KAFKA_PARTS, Part};

/// The older releases that every run of the tests starts, as `tests/src/old_kafka.rs` has them.
const OLD_RELEASES: [&str; 2] = ["2.8.2", "3.9.1"];
/// How long Maven may take; about 70 MB come over the network.
const MAVEN_LIMIT: Duration = Duration::from_mins(10);

/// Makes sure of everything that tests with a real Kafka need. Ok(Some(why)) says what is missing and how to get it.
pub(crate) fn ensure() -> Result<Option<String>> {
    if let Some(missing) = system::ensure(&KAFKA_PARTS)? {
        return Ok(Some(missing));
    }
    ensure_jars(None)?;
    for release in OLD_RELEASES {
        ensure_jars(Some(release))?;
    }
    Ok(None)
}

/// Runs the tests of older releases against these.
pub(crate) fn test_releases(releases: &[String]) -> Result<()> {
    system::require(&[Part::Jdk, Part::Maven])?;
    // The Java client of the tests is that of the newest.
    ensure_jars(None)?;
    for release in releases {
        ensure_jars(Some(release))?;
    }
    let mut tests = cargo();
    tests.args(["test", "--package", "kachet-tests", "--test", "broker_versions"]);
    tests.env("KACHET_KAFKA_RELEASES", releases.join(","));
    // What was asked for by name is not skipped.
    process::run(tests.env("CI", "true"))
}

/// Reads at random from a cluster that changes, for so many minutes.
pub(crate) fn soak(minutes: f64, seed: u64) -> Result<()> {
    system::require(&[Part::Jdk, Part::Maven])?;
    ensure_jars(None)?;
    let mut soak = cargo();
    soak.args([
        "run",
        "--release",
        "--package",
        "kachet-tests",
        "--example",
        "soak",
        "--",
    ]);
    soak.arg(format!("--minutes={minutes}"))
        .arg(format!("--seed={seed}"));
    become_program(soak)
}

/// Starts a Kafka at `port` and runs it until Ctrl-C.
pub(crate) fn play(port: u16, dir: Option<&Path>, keep: bool) -> Result<()> {
    system::require(&[Part::Jdk, Part::Maven])?;
    ensure_jars(None)?;
    let mut sandbox = cargo();
    // The sandbox is a program of its own, so that xtask needs none of what it builds on.
    sandbox.args([
        "run",
        "--quiet",
        "--package",
        "kachet-tests",
        "--bin",
        "kafka-sandbox",
        "--",
        "--port",
        &port.to_string(),
    ]);
    if let Some(dir) = dir {
        sandbox.arg("--dir").arg(std::path::absolute(dir)?);
    }
    if keep {
        sandbox.arg("--keep");
    }
    become_program(sandbox)
}

/// On Unix the program takes the place of this one, as cargo's `run` does too: so a signal reaches it and no one in between.
#[cfg(unix)]
fn become_program(mut program: Command) -> Result<()> {
    use std::os::unix::process::CommandExt;
    Err(program.exec()).with_context(|| format!("cannot start `{}`", process::describe(&program)))
}

#[cfg(not(unix))]
fn become_program(mut program: Command) -> Result<()> {
    process::run(&mut program)
}

/// Fetches Kafka's jars into Maven's local repository and writes the class path to kafka/classpath.txt in the target folder, or
/// kafka/classpath-RELEASE.txt for an older release, unless that is done.
fn ensure_jars(release: Option<&str>) -> Result<()> {
    let pom = root().join("tests").join("kafka").join("pom.xml");
    let file = classpath_file(release);
    if is_current(&file, &pom) {
        eprintln!("Kafka's jars are in place: {}", file.display());
        return Ok(());
    }
    fs::create_dir_all(file.parent().unwrap_or(&file))
        .context("cannot create the folder for Kafka's class path")?;
    // Written aside first: an interrupted run leaves no half of it.
    let fresh = file.with_extension("new");
    let mut maven = Command::new("mvn");
    maven
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .arg("dependency:build-classpath");
    maven.arg(format!("-Dmdep.outputFile={}", fresh.display()));
    maven.args(release.map(|release| format!("-Dkafka.version={release}")));
    process::run_within(&mut maven, MAVEN_LIMIT).context("cannot fetch Kafka's jars from Maven Central")?;
    if missing_jar(&fresh).is_some_and(|jar| jar.as_os_str().is_empty()) {
        bail!("Maven wrote an empty class path");
    }
    fs::rename(&fresh, &file).with_context(|| format!("cannot write {}", file.display()))
}

fn classpath_file(release: Option<&str>) -> PathBuf {
    let name = release.map_or_else(
        || "classpath.txt".to_owned(),
        |release| format!("classpath-{release}.txt"),
    );
    target_dir().join("kafka").join(name)
}

/// Whether `file` is newer than `pom` and every jar that it names exists.
fn is_current(file: &Path, pom: &Path) -> bool {
    let changed = |path: &Path| -> Option<SystemTime> { fs::metadata(path).ok()?.modified().ok() };
    changed(file)
        .zip(changed(pom))
        .is_some_and(|(file, pom)| file > pom)
        && missing_jar(file).is_none()
}

/// The first jar of the class path that does not exist; an empty path where the class path is empty.
fn missing_jar(file: &Path) -> Option<PathBuf> {
    let classpath = fs::read_to_string(file).unwrap_or_default();
    std::env::split_paths(classpath.trim()).find(|jar| !jar.is_file())
}
