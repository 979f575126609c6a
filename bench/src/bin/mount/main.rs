//! A cache over a mount point beside the plainest things that a disk can be asked for, and beside a peer. All ways take
//! turns within a round, so that what else the machine does meets each of them; what counts is the median of the
//! rounds' ratios.
//!
//! `cargo run --release -p kachet-bench --bin mount`

#[cfg(unix)]
mod amplification;
#[cfg(unix)]
mod hit;
#[cfg(unix)]
mod insert;
#[cfg(unix)]
mod mounted;
#[cfg(unix)]
mod open;
#[cfg(unix)]
mod prepared;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};

/// Measures mount points.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; everything by default
    #[arg(value_enum)]
    sections: Vec<Section>,
    /// Where; the system's folder for temporary files by default, which must be on a disk
    #[arg(long)]
    folder: Option<PathBuf>,
    /// How many MiB of batches a round inserts
    #[arg(long, default_value_t = 256)]
    mib: usize,
    /// How many rounds
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Goes one way of inserting, for the process that compares them
    #[arg(long, hide = true)]
    way: Option<usize>,
    /// How many batches are there when a mount point is opened
    #[arg(long, default_value_t = 1_000_000)]
    batches: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Batches of 16 KiB are put in
    Insert,
    /// Batches that the page cache holds are read
    Hit,
    /// A mount point with many batches is opened
    Open,
    /// What is written for each byte of a batch
    Amplification,
}

#[cfg(unix)]
fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let folder = arguments.folder.clone().unwrap_or_else(std::env::temp_dir);
    if let Some(way) = arguments.way {
        return insert::go(&folder, arguments.mib, way);
    }
    let is_wanted = |section| arguments.sections.is_empty() || arguments.sections.contains(&section);
    if is_wanted(Section::Open) {
        open::run(&folder, arguments.batches, arguments.rounds)?;
    }
    if is_wanted(Section::Insert) {
        insert::run(&folder, arguments.mib, arguments.rounds)?;
    }
    if is_wanted(Section::Hit) {
        hit::run(&folder, arguments.mib, arguments.rounds)?;
    }
    if is_wanted(Section::Amplification) {
        amplification::run(&folder, arguments.mib)?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn main() -> Result<()> {
    let arguments = Arguments::parse();
    anyhow::bail!("not measured: reads at a place are made as Unix has them ({arguments:?})")
}
