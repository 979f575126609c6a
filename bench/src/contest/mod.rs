//! One runner for every row of the results: ways of doing the same thing take turns, and what counts is the median of
//! each, and of the ratios within a round, because what else the machine does meets all ways of a round alike.

mod outcome;
mod rounds;
mod target;

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

pub use outcome::{Outcome, Spread, WayOutcome};
pub use rounds::Rounds;
pub use target::{Against, Bound, Judgement, Target, Verdict};

/// What a value of a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds; less is better.
    Seconds,
    /// Bytes in a second; more is better.
    BytesPerSecond,
    /// Bytes; less is better.
    Bytes,
    /// Percent; more is better.
    Percent,
    /// How many times something; less is better.
    Times,
    /// Calls in a second; more is better.
    PerSecond,
}

impl Unit {
    /// Whether the larger value wins.
    pub fn more_is_better(self) -> bool {
        matches!(self, Self::BytesPerSecond | Self::Percent | Self::PerSecond)
    }

    /// A value with its unit, in the size that reads best.
    pub fn show(self, value: f64) -> String {
        let scaled = |steps: &[(f64, &str)]| {
            let step = steps.iter().find(|(from, _)| value.abs() >= *from);
            let (from, name) = step.or(steps.last()).copied().unwrap_or((1.0, ""));
            format!("{} {name}", three_digits(value / from))
        };
        match self {
            Self::Seconds => scaled(&[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")]),
            Self::BytesPerSecond => scaled(&[
                (1_073_741_824.0, "GiB/s"),
                (1_048_576.0, "MiB/s"),
                (1024.0, "KiB/s"),
            ]),
            Self::Bytes => scaled(&[
                (1_073_741_824.0, "GiB"),
                (1_048_576.0, "MiB"),
                (1024.0, "KiB"),
                (1.0, "B"),
            ]),
            Self::Percent => format!("{value:.2} %"),
            Self::Times => format!("{value:.3} ×"),
            Self::PerSecond => scaled(&[(1.0, "/s")]),
        }
    }

    /// Its name in a run's JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::BytesPerSecond => "bytes_per_second",
            Self::Bytes => "bytes",
            Self::Percent => "percent",
            Self::Times => "times",
            Self::PerSecond => "per_second",
        }
    }
}

/// As many digits as a measurement of a shared machine deserves.
pub fn three_digits(value: f64) -> String {
    match value.abs() {
        large if large >= 99.95 => {
            let digits = format!("{value:.0}");
            let mut spaced = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0
                    && digit != '-'
                    && (digits.len() - index).is_multiple_of(3)
                    && !spaced.ends_with('-')
                {
                    let _ = spaced.write_char(' ');
                }
                let _ = spaced.write_char(digit);
            }
            spaced
        }
        middle if middle >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// What a way of doing the work stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Kachet.
    Ours,
    /// Somebody else's.
    Peer,
    /// What nobody can pass.
    Floor,
}

/// Does the work once; gives what was measured, in the row's unit.
pub type Run<'a> = Box<dyn FnMut() -> Result<f64> + 'a>;

struct Way<'a> {
    name: String,
    role: Role,
    run: Run<'a>,
}

/// One row: the same work, done in several ways.
pub struct Contest<'a> {
    what: String,
    unit: Unit,
    ways: Vec<Way<'a>>,
    targets: Vec<Target>,
}

impl<'a> Contest<'a> {
    /// A row without ways as yet.
    pub fn new(what: impl Into<String>, unit: Unit) -> Self {
        Self {
            what: what.into(),
            unit,
            ways: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// One more way, whose closure does the work once and gives what it measured.
    #[must_use]
    pub fn way(mut self, name: impl Into<String>, role: Role, run: impl FnMut() -> Result<f64> + 'a) -> Self {
        let (name, run) = (name.into(), Box::new(run));
        self.ways.push(Way { name, role, run });
        self
    }

    /// One more way whose closure does the work `calls` times, and what counts is the time for one of them.
    #[must_use]
    pub fn timed(
        self,
        name: impl Into<String>,
        role: Role,
        calls: usize,
        mut work: impl FnMut() + 'a,
    ) -> Self {
        self.way(name, role, move || {
            let started = Instant::now();
            work();
            Ok(started.elapsed().as_secs_f64() / count(calls))
        })
    }

    /// What is to be reached.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        self.targets.push(target);
        self
    }

    /// Has every way go once in each round, and once before them that does not count. Another way is first each time, which
    /// finds the least of it in the processor's caches. Goes on beyond the least of `rounds` while a target is open.
    pub fn run(self, rounds: Rounds) -> Result<Outcome> {
        self.run_after(1, rounds)
    }

    /// Without the round that does not count, for so many rounds that were measured already.
    pub fn run_cold(self, rounds: usize) -> Result<Outcome> {
        self.run_after(0, Rounds::exactly(rounds))
    }

    /// For what takes the same value each time, such as a count: once.
    pub fn once(self) -> Result<Outcome> {
        self.run_cold(1)
    }

    fn run_after(mut self, warming: usize, rounds: Rounds) -> Result<Outcome> {
        ensure!(
            !self.ways.is_empty() && rounds.least > 0,
            "{}: nothing to measure",
            self.what
        );
        let ways = self.ways.iter().map(|way| WayOutcome {
            name: way.name.clone(),
            role: way.role,
            samples: Vec::new(),
        });
        let mut outcome = Outcome::new(self.what.clone(), self.unit, ways.collect());
        for round in 0..warming + rounds.most.max(rounds.least) {
            for turn in 0..self.ways.len() {
                let at = (round + turn) % self.ways.len();
                let way = &mut self.ways[at];
                let value = (way.run)().with_context(|| format!("{}: {}", self.what, way.name))?;
                ensure!(value.is_finite(), "{}: {}: {value}", self.what, way.name);
                if round >= warming {
                    outcome.ways[at].samples.push(value);
                }
            }
            if round + 1 >= warming + rounds.least {
                outcome.judge(&self.targets)?;
                if !outcome.is_open() {
                    break;
                }
            }
        }
        eprintln!("{}", outcome.line());
        Ok(outcome)
    }
}

/// Counts here are far below the precision of a float.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 53 bits")]
pub fn count(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn ways_take_turns_and_each_is_first_in_its_round() -> Result<()> {
        let order = RefCell::new(String::new());
        let note = |name: char| {
            order.borrow_mut().push(name);
            Ok(1.0)
        };
        Contest::new("turns", Unit::Times)
            .way("a", Role::Ours, || note('a'))
            .way("b", Role::Peer, || note('b'))
            .way("c", Role::Floor, || note('c'))
            .run(Rounds::exactly(3))?;
        assert_eq!(*order.borrow(), "abcbcacababc");
        Ok(())
    }

    #[test]
    fn the_round_that_warms_does_not_count() -> Result<()> {
        let mut values = [100.0, 1.0, 3.0, 2.0].into_iter();
        let outcome = Contest::new("warm", Unit::Times)
            .way("ours", Role::Ours, || values.next().context("as many as rounds"))
            .run(Rounds::exactly(3))?;
        assert_eq!(outcome.ways[0].samples, [1.0, 3.0, 2.0]);
        assert!((outcome.ways[0].spread().median - 2.0).abs() < 1e-9);
        Ok(())
    }

    #[test]
    fn more_rounds_are_gone_only_while_a_target_is_open() -> Result<()> {
        let rounds = |most: usize, limit: f64| -> Result<usize> {
            let mut values = [1.0, 3.0].into_iter().cycle();
            let outcome = Contest::new("row", Unit::Times)
                .way("ours", Role::Ours, || values.next().context("it goes on"))
                .target(Target::of("ours", Bound::AtMost(limit)))
                .run(Rounds { least: 8, most })?;
            Ok(outcome.ways[0].samples.len())
        };
        assert_eq!(rounds(20, 4.0)?, 8, "met by all");
        assert_eq!(rounds(20, 0.5)?, 8, "missed by all");
        assert_eq!(rounds(20, 2.0)?, 20, "open to the last");
        assert_eq!(rounds(8, 2.0)?, 8, "no more than is allowed");
        Ok(())
    }

    #[test]
    fn what_fails_or_is_no_number_says_which_way_it_was() {
        let failing = Contest::new("row", Unit::Times).way("way", Role::Ours, || Ok(f64::NAN));
        assert_eq!(failing.once().unwrap_err().to_string(), "row: way: NaN");
        assert!(Contest::new("row", Unit::Times).once().is_err());
    }

    #[test]
    fn values_read_well_at_every_size() {
        assert_eq!(Unit::Seconds.show(32.4e-9), "32.4 ns");
        assert_eq!(Unit::Seconds.show(0.0971), "97.1 ms");
        assert_eq!(Unit::BytesPerSecond.show(1096.4 * 1_048_576.0), "1.07 GiB/s");
        assert_eq!(Unit::Bytes.show(48.0), "48.0 B");
        assert_eq!(three_digits(1_234_567.8), "1 234 568");
        assert_eq!(three_digits(-1234.0), "-1 234");
        assert_eq!(three_digits(-123.0), "-123");
    }
}
