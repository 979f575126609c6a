//! Runs tests that were built for WASI, as a runner of cargo: `wasi-runner MODULE ARGUMENTS`. They read the workspace at its own
//! path, and write to `/scratch`, which is a temporary folder of theirs.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use kachet_wasm_tests::wasi::{Folder, Start, run_as_runner};

fn main() -> ExitCode {
    match run() {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)),
        Err(error) => {
            eprintln!("wasi-runner: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<i32> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()?;
    let scratch = tempfile::tempdir()?;
    let start = Start {
        folders: vec![
            Folder {
                guest: workspace
                    .to_str()
                    .context("the workspace's path is no text")?
                    .to_owned(),
                host: workspace,
                may_change: false,
            },
            Folder {
                host: scratch.path().to_owned(),
                guest: "/scratch".to_owned(),
                may_change: true,
            },
        ],
        variables: std::env::vars()
            .filter(|(name, _)| {
                ["PROPTEST_CASES", "KACHET_BIT_STEP", "RUST_BACKTRACE"].contains(&name.as_str())
            })
            .collect(),
        memory_bytes: usize::try_from(u32::MAX).unwrap_or(usize::MAX),
        time: Duration::from_secs(1800),
        ..Start::default()
    };
    run_as_runner(std::env::args_os().skip(1), start)
}
