//! What came of a row.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Against, Role, Target, Unit, Verdict, count, three_digits};

/// How likely the median of a way may lie outside of its interval.
const DOUBT: f64 = 0.01;

/// The middle of some values, the two quartiles around it, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// A quarter of the values lie below.
    pub low: f64,
    /// Half of them.
    pub median: f64,
    /// A quarter lie above.
    pub high: f64,
    /// Where the median of ever more such values would lie in 99 of 100 cases, whatever their distribution: between two of them, by
    /// the signs alone. Of fewer than eight it is not that sure, and all of them lie between.
    pub surely: (f64, f64),
}

impl Spread {
    /// Of these; not a number where there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Self {
            low: at(last / 4),
            median: at(last / 2),
            high: at(last - last / 4),
            surely: {
                let aside = surely_aside(values.len());
                (at(aside), at(last - aside.min(last)))
            },
        }
    }

    /// How far the quartiles lie apart, in percent of the median.
    pub fn percent(&self) -> f64 {
        100.0 * (self.high - self.low).abs() / self.median.abs().max(f64::MIN_POSITIVE)
    }
}

/// How many of so many values, put in order, may be left aside at either end and the median still lies between the others, but for
/// [`DOUBT`]: as many heads as that come up in so many throws of a coin with half that likelihood.
fn surely_aside(values: usize) -> usize {
    let throws = count(values);
    let mut one_way = 0.5_f64.powf(throws);
    let mut fewer = one_way;
    let mut aside = 0;
    while 2.0 * fewer <= DOUBT && aside < values / 2 {
        aside += 1;
        one_way *= (throws - count(aside) + 1.0) / count(aside);
        fewer += one_way;
    }
    aside.saturating_sub(1)
}

/// What one way measured.
#[derive(Clone, Debug)]
pub struct WayOutcome {
    /// Its name.
    pub name: String,
    /// What it stands for.
    pub role: Role,
    /// What each round measured.
    pub samples: Vec<f64>,
}

impl WayOutcome {
    /// The middle and the quartiles.
    pub fn spread(&self) -> Spread {
        Spread::of(self.samples.iter().copied())
    }

    /// This way's value divided by that of `other`, in each round.
    pub fn over(&self, other: &Self) -> Spread {
        Spread::of(
            self.samples
                .iter()
                .zip(&other.samples)
                .map(|(own, other)| own / other),
        )
    }
}

/// One row with everything that was measured.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The work that was done.
    pub what: String,
    /// What the values are.
    pub unit: Unit,
    /// The ways, in the order in which they were given.
    pub ways: Vec<WayOutcome>,
    /// What came of the targets.
    pub verdicts: Vec<Verdict>,
}

impl Outcome {
    pub(super) fn new(what: String, unit: Unit, ways: Vec<WayOutcome>) -> Self {
        Self {
            what,
            unit,
            ways,
            verdicts: Vec::new(),
        }
    }

    /// Holds what has been measured against the targets.
    pub(super) fn judge(&mut self, targets: &[Target]) -> Result<()> {
        let verdicts: Result<Vec<_>> = targets.iter().map(|target| self.verdict(target)).collect();
        self.verdicts = verdicts?;
        Ok(())
    }

    /// Whether another round could tell more of a target.
    pub(super) fn is_open(&self) -> bool {
        self.verdicts.iter().any(|verdict| verdict.judgement.is_open())
    }

    /// How many rounds counted.
    pub fn rounds(&self) -> usize {
        self.ways.first().map_or(0, |way| way.samples.len())
    }

    /// The way of this name.
    pub fn way(&self, name: &str) -> Result<&WayOutcome> {
        let way = self.ways.iter().find(|way| way.name == name);
        way.with_context(|| format!("{}: there is no way {name:?}", self.what))
    }

    /// The first of ours.
    pub fn ours(&self) -> Option<&WayOutcome> {
        self.ways.iter().find(|way| way.role == Role::Ours)
    }

    fn verdict(&self, target: &Target) -> Result<Verdict> {
        let way = self.way(&target.way)?;
        let (spread, measured) = match &target.against {
            Against::Itself => (way.spread(), self.unit.show(way.spread().median)),
            Against::Way(other) => {
                let ratio = way.over(self.way(other)?);
                (ratio, format!("{} ×", three_digits(ratio.median)))
            }
        };
        Ok(Verdict {
            target: target.show(self.unit),
            measured,
            judgement: target.judge(&spread),
        })
    }

    /// Peers that do better than the first of ours, each with the ratio of its value to ours.
    pub fn lost_to(&self) -> Vec<(&str, Spread)> {
        let Some(ours) = self.ours() else {
            return Vec::new();
        };
        let better = |ratio: f64| {
            if self.unit.more_is_better() {
                ratio > 1.0
            } else {
                ratio < 1.0
            }
        };
        let peers = self.ways.iter().filter(|way| way.role == Role::Peer);
        peers
            .map(|peer| (peer.name.as_str(), peer.over(ours)))
            .filter(|(_, ratio)| better(ratio.median))
            .collect()
    }

    /// For somebody who watches the run.
    pub fn line(&self) -> String {
        let ways = self
            .ways
            .iter()
            .map(|way| format!("{} {}", way.name, self.unit.show(way.spread().median)));
        format!("{}: {}", self.what, ways.collect::<Vec<_>>().join(", "))
    }

    /// Everything, for programs.
    pub fn json(&self) -> Value {
        let ways = self.ways.iter().map(|way| {
            let Spread { low, median, high, .. } = way.spread();
            let role = match way.role {
                Role::Ours => "ours",
                Role::Peer => "peer",
                Role::Floor => "floor",
            };
            json!({ "name": way.name, "role": role, "median": median, "quartiles": [low, high], "samples": way.samples })
        });
        let verdicts = self.verdicts.iter().map(|verdict| {
            json!({ "target": verdict.target, "measured": verdict.measured, "verdict": verdict.judgement.name() })
        });
        json!({
            "what": self.what,
            "unit": self.unit.name(),
            "ways": ways.collect::<Vec<_>>(),
            "targets": verdicts.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bound, Contest, Judgement};
    use super::*;

    fn fixed(ours: &[f64], peer: &[f64], targets: &[Target]) -> Result<Outcome> {
        let way = |name: &str, role, samples: &[f64]| WayOutcome {
            name: name.to_owned(),
            role,
            samples: samples.to_vec(),
        };
        let ways = vec![way("ours", Role::Ours, ours), way("peer", Role::Peer, peer)];
        let mut outcome = Outcome::new("row".to_owned(), Unit::Seconds, ways);
        outcome.judge(targets)?;
        Ok(outcome)
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() -> Result<()> {
        // Both are slow in the second round, which the ratio does not show.
        let target = Target::ratio("peer", "ours", Bound::AtLeast(2.0));
        let outcome = fixed(&[1.0, 10.0, 1.0], &[2.0, 20.0, 2.0], &[target])?;
        assert_eq!(outcome.verdicts[0].measured, "2.00 ×");
        assert_eq!(outcome.verdicts[0].judgement, Judgement::Met);
        Ok(())
    }

    #[test]
    fn a_verdict_tells_whether_it_is_sure() -> Result<()> {
        let judgement = |bound| -> Result<_> {
            let outcome = fixed(
                &[1.0, 2.0, 3.0, 4.0, 5.0],
                &[1.0; 5],
                &[Target::of("ours", bound)],
            )?;
            Ok(outcome.verdicts[0].judgement)
        };
        assert_eq!(judgement(Bound::AtMost(5.0))?, Judgement::Met);
        assert_eq!(judgement(Bound::AtMost(3.5))?, Judgement::MetSoFar);
        assert_eq!(judgement(Bound::AtMost(2.5))?, Judgement::MissedSoFar);
        assert_eq!(judgement(Bound::AtLeast(5.5))?, Judgement::Missed);
        Ok(())
    }

    #[test]
    fn the_more_values_the_closer_the_median_is_known() {
        // As tables of the sign test have it.
        for (values, aside) in [
            (1, 0),
            (7, 0),
            (8, 0),
            (11, 0),
            (12, 1),
            (20, 3),
            (36, 9),
            (100, 36),
        ] {
            assert_eq!(surely_aside(values), aside, "{values}");
        }
        let twelve = Spread::of((1..=12_u8).map(f64::from));
        assert_eq!(twelve.surely, (2.0, 11.0));
        assert_eq!(Spread::of([3.0]).surely, (3.0, 3.0));
    }

    #[test]
    fn a_peer_that_does_better_is_named_whichever_way_better_lies() -> Result<()> {
        assert_eq!(fixed(&[2.0], &[1.0], &[])?.lost_to().len(), 1);
        assert!(fixed(&[1.0], &[2.0], &[])?.lost_to().is_empty());
        let more = Contest::new("rate", Unit::BytesPerSecond)
            .way("ours", Role::Ours, || Ok(1.0))
            .way("peer", Role::Peer, || Ok(2.0))
            .once()?;
        assert_eq!(more.lost_to()[0].0, "peer");
        Ok(())
    }

    #[test]
    fn a_target_of_a_way_that_is_not_there_is_an_error() {
        let target = Target::of("nobody", Bound::AtMost(1.0));
        assert!(fixed(&[1.0], &[1.0], &[target]).is_err());
    }
}
