//! What a row is to reach, and whether it did.

use super::{Unit, three_digits};

/// Which side of a limit is the right one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Not more than this.
    AtMost(f64),
    /// Not less than this.
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn sign_and_value(self) -> (char, f64) {
        match self {
            Self::AtMost(most) => ('≤', most),
            Self::AtLeast(least) => ('≥', least),
        }
    }
}

/// What the value of a way is held against.
#[derive(Clone, Debug, PartialEq)]
pub enum Against {
    /// The bound itself, in the row's unit.
    Itself,
    /// The value of another way in the same round: the bound is on their ratio.
    Way(String),
}

/// One thing to reach.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Which way's value.
    pub way: String,
    /// What it is held against.
    pub against: Against,
    /// The limit.
    pub bound: Bound,
}

impl Target {
    /// The value of `way` by itself.
    pub fn of(way: &str, bound: Bound) -> Self {
        Self {
            way: way.to_owned(),
            against: Against::Itself,
            bound,
        }
    }

    /// The value of `way` divided by that of `other`.
    pub fn ratio(way: &str, other: &str, bound: Bound) -> Self {
        Self {
            way: way.to_owned(),
            against: Against::Way(other.to_owned()),
            bound,
        }
    }

    /// The target as a person says it.
    pub(super) fn show(&self, unit: Unit) -> String {
        let (sign, value) = self.bound.sign_and_value();
        match &self.against {
            Against::Itself => format!("{} {sign} {}", self.way, unit.show(value)),
            Against::Way(other) => format!("{} {sign} {} × {other}", self.way, three_digits(value)),
        }
    }

    pub(super) fn judge(&self, low: f64, median: f64, high: f64) -> Judgement {
        match (
            self.bound.holds(low),
            self.bound.holds(median),
            self.bound.holds(high),
        ) {
            (true, true, true) => Judgement::Met,
            (_, true, _) => Judgement::MetByMedian,
            (false, false, false) => Judgement::Missed,
            (_, false, _) => Judgement::MissedByMedian,
        }
    }
}

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// By the median and by both quartiles.
    Met,
    /// By the median; another run may say otherwise.
    MetByMedian,
    /// By the median; another run may say otherwise.
    MissedByMedian,
    /// By the median and by both quartiles.
    Missed,
}

impl Judgement {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::MetByMedian => "met, within the spread",
            Self::MissedByMedian => "**missed**, within the spread",
            Self::Missed => "**missed**",
        }
    }
}

/// A target and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The target in words.
    pub target: String,
    /// What was measured, in words.
    pub measured: String,
    /// Whether the median reaches it.
    pub is_met: bool,
    /// The verdict in words, which tell how sure it is.
    pub words: &'static str,
}
