//! The `kachet` command as a person or a script meets it.
#![cfg(feature = "cli")]

#[cfg(target_os = "linux")]
mod abuse;
mod bad_input;
#[cfg(target_os = "linux")]
mod connections;
mod demo;
mod gateway;
mod kafka;
mod mount_points;
mod mounted_kafka;
mod mounts;
mod proxy;
mod security;

use core::time::Duration;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};
use kachet_tests::child::{self, Finished, command};

/// Runs `kachet`; fails if it has not ended after `deadline`.
fn kachet(arguments: &[&str], deadline: Duration) -> Result<Finished> {
    let mut kachet = command(env!("CARGO_BIN_EXE_kachet"));
    without_environment(kachet.args(arguments));
    child::run(kachet, b"", deadline)
}

/// Nothing that whoever runs the tests has set.
fn without_environment(kachet: &mut Command) -> &mut Command {
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_string_lossy().starts_with("KACHET_"))
        .fold(kachet, Command::env_remove)
}

/// Runs `kachet fetch` and asserts that it fails with `code`, in one line that holds every one of `words`, and soon.
fn fails(bootstrap: &str, arguments: &[&str], code: i32, words: &[&str]) -> Result<()> {
    let started = Instant::now();
    let arguments = [&["fetch", "--timeout", "3s", "--bootstrap", bootstrap], arguments].concat();
    let finished = kachet(&arguments, Duration::from_secs(20))?;
    let said = finished.stderr.trim_end();
    assert_eq!(finished.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(finished.stdout.is_empty(), "{arguments:?}");
    assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: no '{word}' in: {said}");
    }
    ensure!(
        started.elapsed() < Duration::from_secs(8),
        "{arguments:?} took {:?}",
        started.elapsed()
    );
    Ok(())
}

fn text(address: SocketAddr) -> String {
    address.to_string()
}
