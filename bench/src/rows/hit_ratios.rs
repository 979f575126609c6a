//! What share of the bytes read each policy serves.

use anyhow::Result;

use super::Scope;
use crate::contest::{Bound, Contest, Outcome, Role, Target, Unit};
use crate::policies::{self, Role as Stands};
use crate::report::Section;
use crate::table::{self, Cell};
use crate::traces::{self, Scale};

/// How far Kachet may stay behind the best general policy of any cell, in points.
const BEHIND_MAX: f64 = 2.0;
/// What share of the optimum's hits there are to be at a cache of 10 %, by trace.
const OF_OPTIMUM: [(&str, f64); 3] = [("fan-out", 0.99), ("replays", 0.85), ("zipf", 0.86)];

pub(super) fn section(scope: &Scope) -> Result<Section> {
    let mut section = Section::new(
        "hit-ratios",
        "Byte hit ratios",
        "Bytes served from the cache in percent of the bytes read, with caches of 2, 10 and 25 % of a trace's distinct bytes. The \
         traces are made by `bench/src/traces` from a seed, and every policy sees the same reads; *optimum* knows the future. \
         `cargo run --release -p kachet-bench --bin hit-ratio -- --variations` runs others, `--trace FILE` somebody's own.",
    );
    let divisor = if scope.is_quick { 4 } else { 1 };
    let mut traces = traces::all(1, Scale { divisor });
    traces.extend(scope.trace.clone());
    let contestants = policies::contestants();
    let mut cells = Vec::new();
    for trace in &traces {
        cells.extend(table::cells(trace, &contestants, &table::CACHE_PERCENTS));
    }
    for cell in &cells {
        section.rows.push(row(cell)?);
    }
    section.rows.push(mean(&cells)?);
    Ok(section)
}

fn contest<'a>(what: String, cell: &Cell, value: impl Fn(usize) -> f64) -> Contest<'a> {
    let mut contest = Contest::new(what, Unit::Percent);
    for (position, outcome) in cell.outcomes.iter().enumerate() {
        let role = match outcome.role {
            Stands::General => Role::Peer,
            Stands::Ours => Role::Ours,
            Stands::Bound => Role::Floor,
        };
        let value = value(position);
        contest = contest.way(outcome.policy, role, move || Ok(value));
    }
    contest
}

fn row(cell: &Cell) -> Result<Outcome> {
    let what = format!("{}, {} % cache", cell.trace, cell.cache_percent);
    let mut contest = contest(what, cell, |position| cell.outcomes[position].hit_percent);
    let best = cell.best_general().hit_percent;
    contest = contest.target(Target::of("Kachet", Bound::AtLeast(best - BEHIND_MAX)));
    if cell.cache_percent == 10 {
        for (_, share) in OF_OPTIMUM.iter().filter(|(trace, _)| *trace == cell.trace) {
            contest = contest.target(Target::ratio("Kachet", "optimum", Bound::AtLeast(*share)));
        }
    }
    contest.once()
}

fn mean(cells: &[Cell]) -> Result<Outcome> {
    let first = cells
        .first()
        .ok_or_else(|| anyhow::anyhow!("there is no trace"))?;
    let means = |position| table::mean_percent(cells, position);
    let general = first
        .outcomes
        .iter()
        .enumerate()
        .filter(|(_, outcome)| outcome.role == Stands::General);
    let best = general.map(|(position, _)| means(position)).fold(0.0, f64::max);
    let contest = contest("mean".to_owned(), first, means);
    contest.target(Target::of("Kachet", Bound::AtLeast(best))).once()
}
