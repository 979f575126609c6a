//! Prints the table of byte hit ratios: what share of the bytes read each policy served from the cache.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use kachet_bench::policies::{self, Role};
use kachet_bench::table::{self, Cell};
use kachet_bench::traces::{self, Scale};

/// Compares what caches keep, on the same reads.
#[derive(Debug, Parser)]
struct Arguments {
    /// Makes the traces; the same seed makes the same ones.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs traces of a tenth of their length.
    #[arg(long)]
    quick: bool,
    /// Runs the variations of the traces instead: other numbers of readers, lags, skews and lengths.
    #[arg(long)]
    variations: bool,
    /// Runs somebody's trace instead: libCacheSim's oracleGeneral, or CSV of time, object and size; also by zstd.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["variations", "quick"])]
    trace: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let contestants = policies::contestants();
    let traces = if let Some(file) = &arguments.trace {
        vec![traces::public::read(file)?]
    } else if arguments.variations {
        traces::variations(arguments.seed)
    } else {
        let divisor = if arguments.quick { 10 } else { 1 };
        traces::all(arguments.seed, Scale { divisor })
    };
    let cells: Vec<Cell> = traces
        .iter()
        .flat_map(|trace| table::cells(trace, &contestants, &table::CACHE_PERCENTS))
        .collect();
    if arguments.json {
        println!("{:#}", json(&cells));
    } else {
        print_table(&cells);
    }
    Ok(())
}

fn json(cells: &[Cell]) -> serde_json::Value {
    let cell = |cell: &Cell| {
        let outcomes: Vec<_> = cell
            .outcomes
            .iter()
            .map(|outcome| {
                serde_json::json!({
                    "policy": outcome.policy,
                    "byte_hit_percent": outcome.hit_percent,
                })
            })
            .collect();
        serde_json::json!({ "trace": cell.trace, "cache_percent": cell.cache_percent, "outcomes": outcomes })
    };
    cells.iter().map(cell).collect()
}

/// One row for each cell; `±best` and `of opt` are about Kachet.
fn print_table(cells: &[Cell]) {
    let Some(first) = cells.first() else { return };
    print!("{:33}{:>6}", "trace", "cache");
    for outcome in &first.outcomes {
        print!("{:>10}", shortened(outcome.policy));
    }
    println!("  {:16}{:>6}{:>8}", "best general", "±best", "of opt");
    for cell in cells {
        print!("{:33}{:>4} %", cell.trace, cell.cache_percent);
        for outcome in &cell.outcomes {
            print!("{:>10.2}", outcome.hit_percent);
        }
        let best = cell.best_general();
        let ours = cell.outcomes.iter().rfind(|outcome| outcome.role == Role::Ours);
        let bound = cell.outcomes.iter().rfind(|outcome| outcome.role == Role::Bound);
        if let (Some(ours), Some(bound)) = (ours, bound) {
            println!(
                "  {:16}{:>+6.2}{:>8.3}",
                best.policy,
                ours.hit_percent - best.hit_percent,
                ours.hit_percent / bound.hit_percent,
            );
        }
    }
    print!("{:39}", "mean");
    for position in 0..first.outcomes.len() {
        print!("{:>10.2}", table::mean_percent(cells, position));
    }
    println!();
}

/// A heading that fits a column.
fn shortened(name: &str) -> String {
    name.chars().take(9).collect()
}
