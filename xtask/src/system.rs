//! Programs of the system that the tests call: found, installed where that is possible, else named with how to install them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::process::{self, capture, find_program};

/// The oldest Java that runs Kafka 4 and single source files.
const JAVA_MAJOR_MIN: u32 = 17;

/// The oldest Node that is tried.
const NODE_MAJOR_MIN: u32 = 18;

/// The oldest Go that compiles kafka-go, the 23 of 1.23.
const GO_MINOR_MIN: u32 = 23;

/// A part of the system that tests need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A Java with its compiler.
    Jdk,
    /// Maven, which fetches Kafka's jars.
    Maven,
    /// The command-line client of librdkafka.
    Kcat,
    /// A Python that makes virtual environments.
    Python,
    /// The Go compiler.
    Go,
    /// A browser, for the pages.
    Chromium,
    /// The client that everybody has for HTTP.
    Curl,
    /// Node with npm, which fetches clients and what makes a package of WebAssembly.
    Node,
    /// What counts instructions.
    Valgrind,
}

/// What the clients in other languages take.
pub(crate) const CLIENT_PARTS: [Part; 3] = [Part::Python, Part::Node, Part::Go];

/// What a real Kafka and its clients take.
pub(crate) const KAFKA_PARTS: [Part; 4] = [Part::Jdk, Part::Maven, Part::Kcat, Part::Curl];

impl Part {
    fn what(self) -> String {
        match self {
            Self::Jdk => format!("a JDK of version {JAVA_MAJOR_MIN} or later"),
            Self::Maven => "Maven (`mvn`)".to_owned(),
            Self::Kcat => "kcat".to_owned(),
            Self::Python => "a Python 3 with venv".to_owned(),
            Self::Go => format!("a Go of version 1.{GO_MINOR_MIN} or later"),
            Self::Chromium => "Chromium".to_owned(),
            Self::Curl => "curl".to_owned(),
            Self::Node => format!("Node of version {NODE_MAJOR_MIN} or later with npm"),
            Self::Valgrind => "valgrind".to_owned(),
        }
    }

    fn is_there(self) -> bool {
        match self {
            Self::Jdk => {
                find_program("javac").is_some() && java_major().is_some_and(|major| major >= JAVA_MAJOR_MIN)
            }
            Self::Maven => find_program("mvn").is_some(),
            Self::Kcat => find_program("kcat").is_some(),
            Self::Python => capture(Command::new("python3").args(["-m", "ensurepip", "--version"])).is_ok(),
            Self::Go => {
                let version = capture(Command::new("go").args(["env", "GOVERSION"])).ok();
                let minor = version.and_then(|version| parse_go_minor(&version));
                minor.is_some_and(|minor| minor >= GO_MINOR_MIN)
            }
            Self::Chromium => ["chromium", "chromium-browser", "google-chrome"]
                .iter()
                .any(|program| find_program(program).is_some()),
            Self::Curl => find_program("curl").is_some(),
            Self::Valgrind => find_program("valgrind").is_some(),
            Self::Node => {
                find_program("npm").is_some() && node_major().is_some_and(|major| major >= NODE_MAJOR_MIN)
            }
        }
    }

    /// Debian's packages, the first of which that exists is the one; Ubuntu's have the same names.
    fn debian_packages(self) -> &'static [&'static str] {
        match self {
            Self::Jdk => &["openjdk-17-jdk-headless", "default-jdk-headless"],
            Self::Maven => &["maven"],
            Self::Kcat => &["kcat"],
            Self::Python => &["python3-venv"],
            // The newest of the release that is new enough, or of the backports to it.
            Self::Go => &["golang-1.23-go", "golang-go"],
            Self::Chromium => &["chromium", "chromium-browser"],
            Self::Curl => &["curl"],
            // It brings nodejs with it.
            Self::Node => &["npm"],
            Self::Valgrind => &["valgrind"],
        }
    }

    fn homebrew_package(self) -> &'static str {
        match self {
            Self::Jdk => "openjdk",
            Self::Maven => "maven",
            Self::Kcat => "kcat",
            Self::Python => "python",
            Self::Go => "go",
            Self::Chromium => "chromium",
            Self::Curl => "curl",
            Self::Node => "node",
            Self::Valgrind => "valgrind",
        }
    }
}

/// Makes sure of `parts`, installing what is missing where this is Debian or Ubuntu and we are root. Ok(Some(why)) names what
/// is missing still and the command that installs it.
pub(crate) fn ensure(parts: &[Part]) -> Result<Option<String>> {
    let missing = |parts: &[Part]| {
        parts
            .iter()
            .copied()
            .filter(|part| !part.is_there())
            .collect::<Vec<_>>()
    };
    let lacking = missing(parts);
    if lacking.is_empty() {
        return Ok(None);
    }
    if can_install() {
        update_package_lists()?;
        install(
            &lacking
                .iter()
                .map(|part| existing_package(part.debian_packages()))
                .collect::<Vec<_>>(),
        )?;
    }
    let lacking = missing(parts);
    if lacking.is_empty() {
        return Ok(None);
    }
    let what = lacking
        .iter()
        .map(|part| part.what())
        .collect::<Vec<_>>()
        .join(" and ");
    Ok(Some(format!(
        "there is no {what} — install with `{}`",
        install_command(&lacking)
    )))
}

/// Whether packages can be installed without asking anyone.
pub(crate) fn can_install() -> bool {
    is_debian() && is_root()
}

/// Installs Debian packages, without what they merely recommend.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let mut install = apt_get();
    install
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages);
    // The output is hundreds of lines that tell nothing when all goes well.
    eprintln!("$ {}", process::describe(&install));
    capture(&mut install).map(drop)
}

/// Fetches the lists of packages.
pub(crate) fn update_package_lists() -> Result<()> {
    process::run(apt_get().args(["update", "-qq"]))
}

fn apt_get() -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get.env("DEBIAN_FRONTEND", "noninteractive");
    apt_get.args(["-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=120"]);
    apt_get
}

/// The first of `packages` that this release has; the last where none is known.
fn existing_package(packages: &'static [&'static str]) -> &'static str {
    let known = |package: &&&str| {
        let policy = capture(Command::new("apt-cache").args(["policy", **package]));
        policy.is_ok_and(|policy| policy.contains("Candidate:") && !policy.contains("Candidate: (none)"))
    };
    packages
        .iter()
        .find(known)
        .or(packages.last())
        .copied()
        .unwrap_or_default()
}

fn install_command(parts: &[Part]) -> String {
    let sudo = if is_root() { "" } else { "sudo " };
    if cfg!(target_os = "macos") {
        let packages: Vec<_> = parts.iter().map(|part| part.homebrew_package()).collect();
        return format!("brew install {}", packages.join(" "));
    }
    // On other systems the names are Debian's, which tell what to look for.
    let packages: Vec<_> = parts
        .iter()
        .map(|part| existing_package(part.debian_packages()))
        .collect();
    format!("{sudo}apt-get install {}", packages.join(" "))
}

fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && find_program("apt-get").is_some()
}

fn is_root() -> bool {
    capture(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

fn java_major() -> Option<u32> {
    // The version is on stderr, whatever the vendor.
    let output = Command::new("java")
        .arg("-version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    parse_java_major(&String::from_utf8_lossy(&output.stderr))
}

/// The 20 of `v20.20.2`.
fn node_major() -> Option<u32> {
    let version = capture(Command::new("node").arg("--version")).ok()?;
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// The 17 of `openjdk version "17.0.15" 2025-04-15`, and the 8 of `"1.8.0_402"`.
fn parse_java_major(text: &str) -> Option<u32> {
    let version = text.split('"').nth(1)?;
    let mut numbers = version.split(['.', '-', '+', '_']).map(str::parse);
    match numbers.next()?.ok()? {
        1 => numbers.next()?.ok(),
        major => Some(major),
    }
}

/// The 26 of `go1.26.8`.
fn parse_go_minor(text: &str) -> Option<u32> {
    let numbers = text.trim().strip_prefix("go1.")?;
    numbers
        .split(|each: char| !each.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// Fails with what is missing of `parts` after trying to install it.
pub(crate) fn require(parts: &[Part]) -> Result<()> {
    if let Some(missing) = ensure(parts)? {
        bail!("{missing}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn javas_version_is_read_whatever_its_form() {
        assert_eq!(
            parse_java_major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime…"),
            Some(17)
        );
        assert_eq!(parse_java_major("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(parse_java_major("openjdk version \"26-ea\" 2026-03-17"), Some(26));
        assert_eq!(parse_java_major("java version \"1.8.0_402\""), Some(8));
        assert_eq!(parse_java_major("The operation couldn’t be completed."), None);
    }

    #[test]
    fn gos_version_is_read() {
        assert_eq!(parse_go_minor("go1.26.8\n"), Some(26));
        assert_eq!(parse_go_minor("go1.23rc1"), Some(23));
        assert_eq!(parse_go_minor("devel"), None);
    }

    #[test]
    fn what_is_missing_is_named_with_the_command_that_installs_it() {
        let command = install_command(&[Part::Maven, Part::Kcat]);
        assert!(command.ends_with("install maven kcat"), "{command}");
    }
}
