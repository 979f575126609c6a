//! What must be on the machine before a test can use it, and what is said where it is not.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::child::find_program;

/// The command that fetches everything.
pub const SETUP_COMMAND: &str = "cargo xtask test";

/// Whether `CI=true`: then a missing part is a failure.
pub fn everything_is_required() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Passes `part` on; where there is none, says so on stderr and returns None.
///
/// # Panics
/// With the error where `CI=true`.
pub fn or_skip<T>(part: Result<T>) -> Option<T> {
    match part {
        Ok(part) => Some(part),
        Err(why) if everything_is_required() => panic!("CI=true and {why:#}"),
        Err(why) => {
            // Not `eprintln!`, which the test harness swallows when the test passes.
            let _ = writeln!(io::stderr(), "skipped: {why:#}");
            None
        }
    }
}

/// Whether a real Kafka can be started here; says `skipped: …` where not.
///
/// # Panics
/// Where not and `CI=true`.
pub fn kafka_is_there() -> bool {
    // `cargo xtask test --no-kafka` asks for the skip, in CI too.
    if std::env::var_os("KACHET_SKIP_KAFKA").is_some() {
        let _ = writeln!(io::stderr(), "skipped: KACHET_SKIP_KAFKA is set");
        return false;
    }
    or_skip(kafka_classpath()).is_some()
}

/// The class path of Kafka's broker and clients.
///
/// It is `KACHET_KAFKA_CLASSPATH` where that is set (as for `java -cp`), else the contents of `kafka/classpath.txt` in the
/// target folder.
pub fn kafka_classpath() -> Result<String> {
    if find_program("java").is_none() {
        bail!("there is no `java` on PATH; install a JDK of version 17 or later, then run `{SETUP_COMMAND}`");
    }
    if let Some(classpath) = std::env::var("KACHET_KAFKA_CLASSPATH")
        .ok()
        .filter(|path| !path.is_empty())
    {
        return Ok(classpath);
    }
    listed_classpath("classpath.txt")
}

/// The class path of an older release of Kafka, such as `2.8.2`: the contents of `kafka/classpath-2.8.2.txt` in the target
/// folder.
pub fn classpath_of(release: &str) -> Result<String> {
    listed_classpath(&format!("classpath-{release}.txt"))
}

fn listed_classpath(name: &str) -> Result<String> {
    let files = target_folders()
        .into_iter()
        .map(|target| target.join("kafka").join(name));
    let Some(file) = files.into_iter().find(|file| file.is_file()) else {
        bail!("Kafka's jars have not been fetched ({name}); run `{SETUP_COMMAND}`");
    };
    let classpath =
        std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    if let Some(gone) = std::env::split_paths(classpath.trim()).find(|jar| !jar.is_file()) {
        bail!(
            "{} is gone; run `{SETUP_COMMAND}` to fetch Kafka's jars again",
            gone.display()
        );
    }
    Ok(classpath.trim().to_owned())
}

/// The folders that cargo may build into, the likeliest first.
pub(crate) fn target_folders() -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders = Vec::new();
    if let Some(folder) = std::env::var_os("CARGO_TARGET_DIR") {
        // A relative one is relative to where cargo was called, and a test runs in its package: assume the workspace's root.
        folders.push(workspace.join(folder));
    }
    if let Ok(program) = std::env::current_exe() {
        // <target>/debug/deps/test-0123, whatever named the target folder.
        folders.extend(program.ancestors().skip(2).take(3).map(Path::to_path_buf));
    }
    folders.push(workspace.join("target"));
    folders
}
