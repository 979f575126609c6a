//! RESULTS.md.

use std::fmt::Write;

use super::{Curve, Run, Section};
use crate::contest::{Judgement, Outcome, Role, Spread, three_digits};

/// What is lost by less than this is as good as equal.
const EQUAL_PERCENT: f64 = 3.0;

/// The whole page.
pub fn page(run: &Run) -> String {
    let mut page = String::from("# Results\n\n");
    write_head(&mut page, run);
    write_verdicts(&mut page, run);
    write_lost(&mut page, run);
    for section in &run.sections {
        write_section(&mut page, section);
    }
    page
}

/// Writing to a string does not fail.
macro_rules! line {
    ($page:expr, $($text:tt)*) => {{ let _ = writeln!($page, $($text)*); }};
}

fn write_head(page: &mut String, run: &Run) {
    let command = if run.is_quick {
        "cargo xtask bench --quick"
    } else {
        "cargo xtask bench"
    };
    line!(
        page,
        "Written by `{command}` in {:.0} s; do not edit.",
        run.seconds
    );
    line!(page, "");
    for told in run.machine.lines() {
        line!(page, "- {told}");
    }
    line!(page, "");
    line!(
        page,
        "Ways of doing the same work take turns, each of them first in turn. A figure is the median of the rounds, ± half of what \
         lies between its quartiles. × is the median of the ratios to Kachet within a round, which other work on the machine \
         changes least; for times more than 1 is slower than Kachet, for rates less than 1 is. A target is *met* or *missed* where \
         the median surely is (in 99 of 100 cases); while it is *open* up to four times as many rounds are gone, and where it stays \
         so another run may say otherwise."
    );
    if run.is_quick {
        line!(page, "");
        line!(
            page,
            "**A quick run**: few rounds of small data, for trying out. Its figures are not to be quoted."
        );
    }
}

fn write_verdicts(page: &mut String, run: &Run) {
    line!(page, "\n## Targets\n");
    line!(page, "| what | target | measured | verdict |");
    line!(page, "|---|---|---:|---|");
    let (mut met, mut missed, mut all) = (0, 0, 0);
    for row in run.sections.iter().flat_map(Section::all_rows) {
        for verdict in &row.verdicts {
            line!(
                page,
                "| {} | {} | {} | {} |",
                row.what,
                verdict.target,
                verdict.measured,
                verdict.judgement.words()
            );
            met += usize::from(verdict.judgement == Judgement::Met);
            missed += usize::from(verdict.judgement == Judgement::Missed);
            all += 1;
        }
    }
    let open = all - met - missed;
    line!(
        page,
        "\n{met} of {all} are met, {missed} are missed, {open} are open."
    );
}

fn write_lost(page: &mut String, run: &Run) {
    line!(page, "\n## What Kachet does not win\n");
    let mut any = false;
    for row in run.sections.iter().flat_map(Section::all_rows) {
        for (peer, ratio) in row.lost_to() {
            let percent = 100.0 * (ratio.median - 1.0).abs();
            let word = if percent < EQUAL_PERCENT {
                "about as good: "
            } else {
                ""
            };
            line!(
                page,
                "- {}: {word}{peer}, {} × of Kachet's",
                row.what,
                three_digits(ratio.median)
            );
            any = true;
        }
    }
    if !any {
        line!(page, "Nothing of what is measured here.");
    }
}

fn write_section(page: &mut String, section: &Section) {
    line!(page, "\n## {}\n", section.title);
    line!(page, "{}", section.how);
    if !section.rows.is_empty() {
        line!(page, "\n![{}](plots/{}.svg)", section.title, section.id);
    }
    // Rows with the same ways stand in one table.
    let alike = |one: &Outcome, other: &Outcome| {
        let names = |row: &Outcome| row.ways.iter().map(|way| way.name.clone()).collect::<Vec<_>>();
        names(one) == names(other)
    };
    for rows in section.rows.chunk_by(alike) {
        match rows {
            [row] => write_row(page, row),
            _ => write_grid(page, rows),
        }
    }
    for curve in &section.curves {
        write_curve(page, section, curve);
    }
    for why in &section.not_measured {
        line!(page, "\nNot measured: {why}");
    }
}

fn write_row(page: &mut String, row: &Outcome) {
    line!(page, "\n| {} | median | ± | × |", row.what);
    line!(page, "|---|---:|---:|---:|");
    for way in &row.ways {
        let spread = way.spread();
        let ratio = row
            .ours()
            .filter(|ours| ours.name != way.name)
            .map(|ours| way.over(ours).median);
        let ratio = ratio.map_or_else(String::new, three_digits);
        line!(
            page,
            "| {} | {} | {} | {ratio} |",
            name(way.role, &way.name),
            row.unit.show(spread.median),
            around(spread)
        );
    }
}

fn write_grid(page: &mut String, rows: &[Outcome]) {
    let Some(first) = rows.first() else { return };
    let names: Vec<_> = first.ways.iter().map(|way| name(way.role, &way.name)).collect();
    line!(page, "\n| | {} |", names.join(" | "));
    line!(page, "|---|{}", "---:|".repeat(names.len()));
    for row in rows {
        line!(page, "| {} | {} |", row.what, cells(row).join(" | "));
    }
}

fn write_curve(page: &mut String, section: &Section, curve: &Curve) {
    // Not every way goes as far as the others.
    let Some((_, fullest)) = curve.points.iter().max_by_key(|(_, row)| row.ways.len()) else {
        return;
    };
    let names: Vec<_> = fullest.ways.iter().map(|way| name(way.role, &way.name)).collect();
    line!(
        page,
        "\n![{} by {}](plots/{}-{}.svg)",
        curve.of,
        curve.along,
        section.id,
        curve.id
    );
    line!(
        page,
        "\n| {}: {} | {} |",
        curve.of,
        curve.along,
        names.join(" | ")
    );
    line!(page, "|---:|{}", "---:|".repeat(names.len()));
    for (x, row) in &curve.points {
        let mut cells = cells(row);
        cells.resize(names.len(), "–".to_owned());
        line!(page, "| {} | {} |", three_digits(*x), cells.join(" | "));
    }
}

/// What each way measured, and how many times Kachet's that is.
fn cells(row: &Outcome) -> Vec<String> {
    let cell = |way: &crate::contest::WayOutcome| {
        let spread = way.spread();
        let mut cell = row.unit.show(spread.median);
        if way.samples.len() > 1 {
            let _ = write!(cell, " {}", around(spread));
        }
        if let Some(ours) = row
            .ours()
            .filter(|ours| ours.name != way.name && way.role != Role::Ours)
        {
            let _ = write!(cell, " · {} ×", three_digits(way.over(ours).median));
        }
        cell
    };
    row.ways.iter().map(cell).collect()
}

fn around(spread: Spread) -> String {
    format!("± {:.0} %", spread.percent() / 2.0)
}

fn name(role: Role, name: &str) -> String {
    match role {
        Role::Ours => format!("**{name}**"),
        Role::Peer => name.to_owned(),
        Role::Floor => format!("*{name}*"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::{Bound, Contest, Target, Unit};
    use crate::report::Machine;

    fn run(peer: f64) -> Run {
        let row = |what: &str| {
            Contest::new(what, Unit::Seconds)
                .way("kachet", Role::Ours, || Ok(2e-9))
                .way("peer", Role::Peer, move || Ok(peer))
                .target(Target::of("kachet", Bound::AtMost(1e-9)))
                .once()
                .unwrap()
        };
        let mut section = Section::new("some", "Some", "In some way.");
        section.rows = vec![row("one"), row("two")];
        section.not_measured.push("the moon: too far.".to_owned());
        Run {
            machine: Machine::this(),
            is_quick: true,
            seconds: 1.0,
            sections: vec![section],
        }
    }

    #[test]
    fn a_page_has_the_figures_the_verdicts_and_what_is_lost() {
        let page = page(&run(1e-9));
        for part in [
            "| one | kachet ≤ 1.00 ns | 2.00 ns | **missed** |",
            "0 of 2 are met, 2 are missed, 0 are open.",
            "- two: peer, 0.50 × of Kachet's",
            "| | **kachet** | peer |",
            "| one | 2.00 ns | 1.00 ns · 0.50 × |",
            "Not measured: the moon: too far.",
            "**A quick run**",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
    }

    #[test]
    fn nothing_lost_is_said_too() {
        let page = page(&run(3e-9));
        assert!(page.contains("Nothing of what is measured here."), "{page}");
    }
}
