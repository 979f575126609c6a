//! What a row is to reach, and whether it did.

use super::{Spread, Unit, three_digits};

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

    pub(super) fn judge(&self, measured: &Spread) -> Judgement {
        let (low, high) = measured.surely;
        match (
            self.bound.holds(low) && self.bound.holds(high),
            self.bound.holds(measured.median),
        ) {
            (true, _) => Judgement::Met,
            (false, true) => Judgement::MetSoFar,
            (false, false) if self.bound.holds(low) || self.bound.holds(high) => Judgement::MissedSoFar,
            (false, false) => Judgement::Missed,
        }
    }
}

/// Whether a target is met, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// By all of the interval in which the median surely lies.
    Met,
    /// By the median, but the interval goes beyond the target: it is open.
    MetSoFar,
    /// Not by the median, but the interval reaches the target: it is open.
    MissedSoFar,
    /// By nothing of the interval.
    Missed,
}

impl Judgement {
    /// Whether another run may say otherwise.
    pub fn is_open(self) -> bool {
        matches!(self, Self::MetSoFar | Self::MissedSoFar)
    }

    /// In a table.
    pub fn words(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::MetSoFar => "open, met by the median",
            Self::MissedSoFar => "open, missed by the median",
            Self::Missed => "**missed**",
        }
    }

    /// Its name in a run's JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::MetSoFar | Self::MissedSoFar => "open",
            Self::Missed => "missed",
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
    /// Whether it is met.
    pub judgement: Judgement,
}
