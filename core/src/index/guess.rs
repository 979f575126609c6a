//! Looks a value up in a sorted list by guessing where it stands.
//!
//! Batches of a topic are mostly of a size, so that the offsets along a list lie close to a straight line. A right
//! guess reads one place of the list instead of one for each halving, and the processor can go on ahead of the
//! comparison; a wrong one costs a few steps, and at worst the halving that it was to save.

/// The straight line through a sorted list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Guess {
    /// Places for each unit of the value.
    slope: f32,
}

/// Steps from the guess before the rest is halved.
const STEPS_MAX: usize = 8;

impl Guess {
    /// For `places` values, of which the last lies `reach` beyond where the first may lie.
    #[expect(clippy::cast_precision_loss, reason = "it is a guess")]
    pub(super) fn new(places: usize, reach: u64) -> Self {
        Self {
            slope: places as f32 / (reach as f32 + 1.0),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is a guess, and neither operand is negative"
    )]
    fn at(self, distance: u64) -> usize {
        (distance as f32 * self.slope) as usize
    }

    /// The first place whose value is `wanted` or more; `distance` is how far `wanted` lies beyond where the first value
    /// may lie.
    pub(super) fn search<T: Copy + PartialOrd>(self, sorted: &[T], wanted: T, distance: u64) -> usize {
        let guess = self.at(distance).min(sorted.len());
        let (before, behind) = sorted.split_at(guess);
        if behind.first().is_some_and(|value| *value < wanted) {
            let steps = behind.iter().take(STEPS_MAX);
            let near = steps.take_while(|value| **value < wanted).count();
            return match near {
                STEPS_MAX => guess + near + behind[near..].partition_point(|value| *value < wanted),
                _ => guess + near,
            };
        }
        let steps = before.iter().rev().take(STEPS_MAX);
        let near = steps.take_while(|value| **value >= wanted).count();
        match near {
            STEPS_MAX => before[..guess - near].partition_point(|value| *value < wanted),
            _ => guess - near,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_halving_finds(mut list in prop::collection::vec(any::<u32>(), 0..200), wanted: u32) {
            list.sort_unstable();
            list.dedup();
            let reach = list.last().copied().unwrap_or(0);
            let near: Vec<u32> = list.iter().flat_map(|value| [value.saturating_sub(1), *value, value.saturating_add(1)]).collect();
            for wanted in near.into_iter().chain([wanted, 0, u32::MAX]) {
                let expected = list.partition_point(|value| *value < wanted);
                let guess = Guess::new(list.len(), reach.into());
                prop_assert_eq!(guess.search(&list, wanted, wanted.into()), expected);
                prop_assert_eq!(Guess::default().search(&list, wanted, wanted.into()), expected);
                prop_assert_eq!(Guess::new(usize::MAX, 0).search(&list, wanted, wanted.into()), expected);
            }
        }
    }
}
