//! Looks an offset up in a sorted list by guessing where it stands.
//!
//! Batches of a topic are mostly of a size, so that the offsets along a list lie close to a straight line. A right
//! guess reads one place of the list instead of one for each halving; a wrong one costs a few steps, and at worst the halving
//! that it was to save.

/// The straight line through a sorted list of offsets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Guess {
    /// Where the line begins.
    base: i64,
    /// Distances count in units of so many bits, so that a product fits into 64 of them.
    shift: u32,
    /// Places for each unit, in parts of 2⁻³².
    slope: u64,
}

/// Steps from the guess before the rest is halved.
const STEPS_MAX: usize = 8;
/// So many offsets around a guess are compared at once in a short list.
const WINDOW: usize = 4;
/// A list is short that stays in the processor's nearest memory. There a branch that cannot be predicted is what costs most,
/// and the window spares it. In a longer one the wait for memory is, which the processor shortens by going on from what it
/// predicts before it has compared: measured, a window in a list of sixteen thousand costs a fifth more.
const SHORT: usize = 1024;

impl Guess {
    /// Along a list whose first offset is not below `base`.
    pub(super) fn along(sorted: &[i64], base: i64) -> Self {
        let reach = sorted.last().map_or(0, |last| last.abs_diff(base));
        let shift = (u64::BITS - reach.leading_zeros()).saturating_sub(31);
        let places = sorted.len() as u64;
        Self {
            base,
            shift,
            slope: (places << 32) / ((reach >> shift) + 1),
        }
    }

    fn at(self, offset: i64) -> usize {
        let distance = u64::try_from(offset.saturating_sub(self.base)).unwrap_or(0);
        // Far beyond the list it wraps, and then is a bad guess.
        let place = (distance >> self.shift).wrapping_mul(self.slope) >> 32;
        usize::try_from(place).unwrap_or(usize::MAX)
    }

    /// The first place whose offset is `wanted` or more.
    pub(super) fn search(self, sorted: &[i64], wanted: i64) -> usize {
        let guess = self.at(wanted).min(sorted.len());
        if sorted.len() <= SHORT
            && let Some(place) = search_window(sorted, wanted, guess)
        {
            return place;
        }
        search_steps(sorted, wanted, guess)
    }
}

/// Where the first offset stands that is `wanted` or more, if it is near the guess.
fn search_window(sorted: &[i64], wanted: i64, guess: usize) -> Option<usize> {
    let Some(latest) = sorted.len().checked_sub(WINDOW) else {
        return Some(sorted.partition_point(|offset| *offset < wanted));
    };
    let from = guess.saturating_sub(WINDOW / 2).min(latest);
    let window = sorted.get(from..)?.first_chunk::<WINDOW>()?;
    match window.iter().map(|offset| usize::from(*offset < wanted)).sum() {
        0 if from > 0 => None,
        WINDOW if from < latest => None,
        smaller => Some(from + smaller),
    }
}

fn search_steps(sorted: &[i64], wanted: i64, guess: usize) -> usize {
    let (before, behind) = sorted.split_at(guess);
    if behind.first().is_some_and(|offset| *offset < wanted) {
        let steps = behind.iter().take(STEPS_MAX);
        let near = steps.take_while(|offset| **offset < wanted).count();
        return match near {
            STEPS_MAX => guess + near + behind[near..].partition_point(|offset| *offset < wanted),
            _ => guess + near,
        };
    }
    let steps = before.iter().rev().take(STEPS_MAX);
    let near = steps.take_while(|offset| **offset >= wanted).count();
    match near {
        STEPS_MAX => before[..guess - near].partition_point(|offset| *offset < wanted),
        _ => guess - near,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_halving_finds(mut list in prop::collection::vec(any::<i64>(), 0..200), wanted: i64, below: u32) {
            list.sort_unstable();
            list.dedup();
            let base = list.first().map_or(0, |first| first.saturating_sub(below.into()));
            let near: Vec<i64> = list.iter().flat_map(|offset| [offset.saturating_sub(1), *offset, offset.saturating_add(1)]).collect();
            for wanted in near.into_iter().chain([wanted, 0, i64::MIN, i64::MAX]) {
                let expected = list.partition_point(|offset| *offset < wanted);
                for guess in [Guess::along(&list, base), Guess::default(), Guess { base: i64::MIN, shift: 0, slope: u64::MAX }] {
                    prop_assert_eq!(guess.search(&list, wanted), expected);
                }
                for guess in [0, expected / 2, expected, list.len()] {
                    prop_assert_eq!(search_steps(&list, wanted, guess), expected);
                    prop_assert!(search_window(&list, wanted, guess).is_none_or(|place| place == expected));
                }
            }
        }

        #[test]
        fn a_straight_line_is_guessed_right(base in -1_000_000_i64..1_000_000, step in 1_i64..1_000_000, places in 1_usize..10_000) {
            let list: Vec<i64> = (1..=places).map(|place| base + step * i64::try_from(place).expect("small")).collect();
            let guess = Guess::along(&list, base);
            for (place, offset) in list.iter().enumerate().step_by(97) {
                prop_assert!(guess.at(*offset).abs_diff(place) <= 1);
            }
        }
    }
}
