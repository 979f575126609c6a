//! Time as the embedder tells it.

use core::time::Duration;

use kachet_core::time::Instant;

/// How long before the module's own time the core's begins: what a snapshot brings is older than the module. A year, so
/// that seven are left of the eight that the core counts for batches.
const BEFORE_START: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A moment by both clocks that an embedder has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// Milliseconds by a clock that never goes back, from whichever start. Less than zero and what is no number count as
    /// zero.
    pub monotonic_ms: f64,
    /// Milliseconds since 1970 by the wall clock: only the age of snapshots is told by it.
    pub unix_ms: u64,
}

impl Moment {
    /// As the core counts.
    pub(crate) fn instant(self) -> Instant {
        let elapsed = Duration::try_from_secs_f64(self.monotonic_ms / 1000.0).unwrap_or_default();
        Instant::from_start(BEFORE_START.saturating_add(elapsed))
    }

    /// By the wall clock, in milliseconds since 1970, when it was `earlier`.
    pub(crate) fn unix_ms_at(self, earlier: Instant) -> u64 {
        let age_ms = u64::try_from(self.instant().since(earlier).as_millis()).unwrap_or(u64::MAX);
        // Rounded to what is older.
        self.unix_ms.saturating_sub(age_ms.saturating_add(1))
    }

    /// When it was this time by the wall clock; `None` if that is yet to come, so that one of two clocks is wrong.
    pub(crate) fn instant_at_unix_ms(self, unix_ms: u64) -> Option<Instant> {
        let age = Duration::from_millis(self.unix_ms.checked_sub(unix_ms)?);
        let now = self.instant().since(Instant::default());
        Some(Instant::from_start(now.saturating_sub(age)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(monotonic_ms: f64, unix_ms: u64) -> Moment {
        Moment {
            monotonic_ms,
            unix_ms,
        }
    }

    #[test]
    fn ages_survive_the_way_over_the_wall_clock_and_never_shrink() {
        let before = at(5_000.0, 1_000_000);
        let then = at(2_000.5, 0).instant();
        let unix_ms = before.unix_ms_at(then);
        // Another module, which has just begun, ten seconds later.
        let after = at(3.0, 1_010_000);
        let restored = after.instant_at_unix_ms(unix_ms).unwrap();
        let age = after.instant().since(restored);
        assert!(age >= Duration::from_millis(12_999), "{age:?}");
        assert!(age <= Duration::from_millis(13_002), "{age:?}");
    }

    #[test]
    fn what_comes_from_the_future_has_no_age() {
        assert_eq!(at(0.0, 5).instant_at_unix_ms(6), None);
    }

    #[test]
    fn clocks_that_make_no_sense_count_as_zero() {
        for wrong in [f64::NAN, f64::NEG_INFINITY, -1.0, f64::INFINITY] {
            assert_eq!(at(wrong, 0).instant(), at(0.0, 0).instant(), "{wrong}");
        }
    }
}
