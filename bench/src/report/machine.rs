//! What the figures were measured on: no name of a host, no path.

use std::fs;
use std::process::Command;

/// The versions that a build of this has, from the workspace's lock file.
const LOCK: &str = include_str!("../../../Cargo.lock");
/// The peers whose versions are told.
const PEERS: [&str; 6] = [
    "foyer",
    "foyer-memory",
    "kafka-protocol",
    "moka",
    "quick_cache",
    "crc32c",
];

/// A machine and what runs on it.
#[derive(Clone, Debug)]
pub struct Machine {
    lines: Vec<String>,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let memory =
            field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let memory = memory.map_or_else(String::new, |kib| format!(", {} GiB of memory", kib >> 20));
        let kernel = said("uname", &["-sr"]).unwrap_or_else(|| std::env::consts::OS.to_owned());
        let compiler = said("rustc", &["--version"]).unwrap_or_else(|| "an unknown rustc".to_owned());
        let peers = PEERS
            .iter()
            .filter_map(|name| Some(format!("{name} {}", version_of(name)?)));
        let peers: Vec<String> = peers.collect();
        Self {
            lines: vec![
                format!("{processors} × {model}{memory}; {kernel}; {compiler}"),
                format!("kachet {}, {}", env!("CARGO_PKG_VERSION"), peers.join(", ")),
            ],
        }
    }

    /// What there is to be told, a line each.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// The version of a crate in this build.
pub fn version_of(name: &str) -> Option<&'static str> {
    let wanted = format!("name = \"{name}\"");
    let mut lines = LOCK.lines().skip_while(|line| **line != *wanted);
    let version = lines.nth(1)?;
    version.strip_prefix("version = \"")?.strip_suffix('"')
}

/// What stands behind a name in one of the kernel's tables.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The first line that a program writes.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().next()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_is_in_the_lock_file() {
        for peer in PEERS {
            assert!(
                version_of(peer).is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit())),
                "{peer}"
            );
        }
        assert_eq!(version_of("no-such-crate"), None);
    }

    #[test]
    fn a_machine_is_told_without_its_name() {
        let lines = Machine::this().lines().join("\n");
        assert!(
            lines.contains("rustc") && lines.contains("quick_cache"),
            "{lines}"
        );
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        assert!(host.trim().is_empty() || !lines.contains(host.trim()), "{lines}");
    }
}
