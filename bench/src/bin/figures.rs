//! Measures Kachet beside its peers and writes RESULTS.md, its drawings and a run's JSON: `cargo xtask bench`.

#[cfg(unix)]
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

#[cfg(unix)]
use anyhow::{Context, Result, ensure};
#[cfg(unix)]
use clap::{Parser, Subcommand};
#[cfg(unix)]
use kachet_bench::{
    contest::Rounds,
    report::{self, Machine, Run},
    rows::{self, SECTIONS, Scope},
    traces::public,
};

/// Measures this project and its peers side by side.
#[cfg(unix)]
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    /// What to measure [default: everything]. RESULTS.md is written only of everything
    sections: Vec<String>,
    /// The same rows of less data in fewer rounds, for trying out
    #[arg(long)]
    quick: bool,
    /// How often each way goes [default: 9, and up to 36 while a target is open; 3 where it is to be quick]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Where mount points are made, which must be on a disk [default: the folder for temporary files]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// A trace of a cache for the table of hit ratios, in libCacheSim's oracleGeneral or as CSV
    #[arg(long)]
    trace: Option<PathBuf>,
    /// The folder that RESULTS.md and plots/ go to
    #[arg(long, default_value = "bench")]
    results: PathBuf,
    /// The file that the run goes to as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// The folder that cargo builds into
    #[arg(long, default_value = "target")]
    target_folder: PathBuf,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What this program starts itself for.
#[cfg(unix)]
#[derive(Debug, Subcommand)]
enum Part {
    /// Goes one way of inserting into a mount point
    #[command(hide = true)]
    Insert { folder: PathBuf, mib: usize, way: usize },
    /// Fills one holder and says what memory it takes
    #[command(hide = true)]
    Hold {
        name: String,
        mib: usize,
        size_bytes: usize,
    },
}

#[cfg(unix)]
fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.part {
        Some(Part::Insert { folder, mib, way }) => rows::mount::insert(folder, *mib, *way),
        Some(Part::Hold {
            name,
            mib,
            size_bytes,
        }) => rows::hold(name, *mib, *size_bytes),
        None => measure(&arguments),
    }
}

#[cfg(unix)]
fn measure(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    let scope = Scope {
        is_quick: arguments.quick,
        rounds: match arguments.rounds {
            Some(rounds) => Rounds::exactly(rounds.into()),
            None if arguments.quick => Rounds::exactly(3),
            None => Rounds { least: 9, most: 36 },
        },
        folder: arguments.folder.clone().unwrap_or_else(std::env::temp_dir),
        target_folder: arguments.target_folder.clone(),
        trace: arguments.trace.as_deref().map(public::read).transpose()?,
    };
    let all = || SECTIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let is_whole = arguments.sections.is_empty();
    let names: Vec<String> = if is_whole {
        all()
    } else {
        arguments.sections.clone()
    };
    let (mut sections, mut failed) = (Vec::new(), Vec::new());
    for name in &names {
        match rows::measure(name, &scope) {
            Ok(section) => sections.push(section),
            // The rest is worth having.
            Err(error) => {
                eprintln!("{name}: {error:#}");
                failed.push(name.as_str());
            }
        }
    }
    let run = Run {
        machine: Machine::this(),
        is_quick: arguments.quick,
        seconds: started.elapsed().as_secs_f64(),
        sections,
    };
    if let Some(json) = &arguments.json {
        write(json, &format!("{:#}\n", run.json()))?;
    }
    let page = report::page(&run);
    if is_whole && failed.is_empty() {
        write(&arguments.results.join("RESULTS.md"), &page)?;
        draw(&run, &arguments.results.join("plots"))?;
    } else {
        println!("{page}");
    }
    ensure!(
        failed.is_empty(),
        "not measured, see above: {}",
        failed.join(", ")
    );
    Ok(())
}

#[cfg(unix)]
fn draw(run: &Run, folder: &Path) -> Result<()> {
    // What a run does not draw any more is not left behind.
    if folder.is_dir() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    for section in &run.sections {
        if !section.rows.is_empty() {
            write(
                &folder.join(format!("{}.svg", section.id)),
                &report::bars(section),
            )?;
        }
        for curve in &section.curves {
            write(
                &folder.join(format!("{}-{}.svg", section.id, curve.id)),
                &report::curves(curve),
            )?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn write(path: &Path, text: &str) -> Result<()> {
    ensure!(!text.is_empty(), "{}: nothing to write", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("not measured: mount points are read at a place as Unix does it")
}
