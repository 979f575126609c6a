//! Named steps, one after another, each timed; a table and a count at the end.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::process::Tally;

/// How a step ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// What it checks holds; counts as one.
    Passed,
    /// It ran tests; these count.
    Tests(Tally),
    /// It could not be done; counts as one. Says why and what would make it possible.
    Skipped(String),
}

/// The steps so far.
#[derive(Debug)]
pub(crate) struct Steps {
    /// Whether a skipped step is a failed one.
    all_required: bool,
    rows: Vec<Row>,
    tally: Tally,
}

#[derive(Debug)]
struct Row {
    name: String,
    result: String,
    took: Duration,
}

impl Steps {
    pub(crate) fn new(all_required: bool) -> Self {
        Self {
            all_required,
            rows: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Runs one step; its failure is shown and counted, and does not keep the next from running.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> Result<Outcome>) {
        eprintln!("\n=== {name}");
        let start = Instant::now();
        let outcome = step();
        let (tally, result) = self.judge(outcome);
        let took = start.elapsed();
        eprintln!("--- {name}: {result} ({:.1} s)", took.as_secs_f64());
        self.tally.add(tally);
        self.rows.push(Row {
            name: name.to_owned(),
            result,
            took,
        });
    }

    fn judge(&self, outcome: Result<Outcome>) -> (Tally, String) {
        let failed = Tally {
            failed: 1,
            ..Tally::default()
        };
        match outcome {
            Ok(Outcome::Passed) => (
                Tally {
                    passed: 1,
                    ..Tally::default()
                },
                "ok".to_owned(),
            ),
            Ok(Outcome::Tests(tally)) => {
                let word = if tally.failed == 0 { "ok" } else { "failed" };
                (tally, format!("{word}: {tally}"))
            }
            Ok(Outcome::Skipped(why)) if self.all_required => {
                (failed, format!("failed: missing and required: {why}"))
            }
            Ok(Outcome::Skipped(why)) => (
                Tally {
                    skipped: 1,
                    ..Tally::default()
                },
                format!("skipped: {why}"),
            ),
            Err(error) => (failed, format!("failed: {error:#}")),
        }
    }

    /// Prints the table and the count, which is the last line; says whether nothing failed.
    pub(crate) fn finish(self) -> bool {
        println!("{}", self.summary());
        self.tally.failed == 0
    }

    fn summary(&self) -> String {
        let width = self
            .rows
            .iter()
            .map(|row| row.name.chars().count())
            .max()
            .unwrap_or(0);
        let mut text = String::from("\n=== Summary\n");
        for Row { name, result, took } in &self.rows {
            // The first line tells enough here; the rest stands above, where it happened.
            let result = result.lines().next().unwrap_or_default();
            let _ = writeln!(text, "{name:width$}  {:>6.1} s  {result}", took.as_secs_f64());
        }
        let _ = write!(text, "\n{}", self.tally);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_steps(all_required: bool) -> Steps {
        let mut steps = Steps::new(all_required);
        steps.run("fmt", || Ok(Outcome::Passed));
        steps.run("tests", || {
            Ok(Outcome::Tests(Tally {
                passed: 7,
                failed: 0,
                skipped: 2,
            }))
        });
        steps.run("wasm", || Ok(Outcome::Skipped("no target".to_owned())));
        steps
    }

    #[test]
    fn the_last_line_is_the_count_of_tests_and_steps() {
        let steps = some_steps(false);
        assert_eq!(
            steps.summary().lines().last(),
            Some("8 passed, 0 failed, 3 skipped")
        );
        assert!(steps.finish());
    }

    #[test]
    fn what_is_required_and_skipped_fails() {
        let steps = some_steps(true);
        assert_eq!(
            steps.summary().lines().last(),
            Some("8 passed, 1 failed, 2 skipped")
        );
        assert!(!steps.finish());
    }

    #[test]
    fn a_failed_step_is_named_and_the_next_one_runs() {
        let mut steps = Steps::new(false);
        steps.run("clippy", || anyhow::bail!("a warning\nand its details"));
        steps.run("doc", || Ok(Outcome::Passed));
        let summary = steps.summary();
        assert!(
            summary.contains("failed: a warning\n") && !summary.contains("details"),
            "{summary}"
        );
        assert_eq!(summary.lines().last(), Some("1 passed, 1 failed, 0 skipped"));
    }
}
