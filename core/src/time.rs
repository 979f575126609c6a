//! Time as an argument: the core has no clock.

use core::time::Duration;

/// A moment on the host's monotonic clock, counted from whatever the host counts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant {
    since_start: Duration,
}

impl Instant {
    /// The moment that lies `since_start` after the start of the host's clock.
    pub const fn from_start(since_start: Duration) -> Self {
        Self { since_start }
    }

    /// The moment that lies this many milliseconds after the start of the host's clock.
    pub const fn from_millis(since_start_ms: u64) -> Self {
        Self::from_start(Duration::from_millis(since_start_ms))
    }

    /// Whole milliseconds since the start of the host's clock, rounded down: what was known then may be taken for
    /// older than it is, never for newer.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.since_start.as_millis()).unwrap_or(u64::MAX)
    }

    /// How long before `self` the other moment was; zero if it was later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.since_start.saturating_sub(earlier.since_start)
    }
}

/// How old what is known of a partition may be when a hit is served from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxStaleness {
    /// At most this old; zero asks before every hit.
    Within(Duration),
    /// Serve whatever is cached without ever asking.
    Forever,
}

impl MaxStaleness {
    /// Whether what was validated at `validated_at` may be served to a request that arrived at `now`; what was
    /// validated since it arrived always may.
    pub fn allows(self, validated_at: Instant, now: Instant) -> bool {
        match self {
            Self::Within(bound) => now.since(validated_at) <= bound,
            Self::Forever => true,
        }
    }

    /// The same for a moment that may not be known, which is longer ago than any bound.
    pub(crate) fn allows_known(self, known_at: Option<Instant>, now: Instant) -> bool {
        match known_at {
            Some(known_at) => self.allows(known_at, now),
            None => self == Self::Forever,
        }
    }

    /// Whether it is time to validate again in the background: half of the bound has passed.
    pub fn is_ageing(self, validated_at: Instant, now: Instant) -> bool {
        match self {
            Self::Within(bound) => now > validated_at && now.since(validated_at) >= bound / 2,
            Self::Forever => false,
        }
    }
}

impl Default for MaxStaleness {
    /// One second.
    fn default() -> Self {
        Self::Within(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn a_bound_of_zero_allows_what_was_validated_since_the_request_came_and_forever_allows_all() {
        let always_ask = MaxStaleness::Within(Duration::ZERO);
        assert!(!always_ask.allows(at(4), at(5)));
        assert!(always_ask.is_ageing(at(4), at(5)));
        assert!(always_ask.allows(at(5), at(5)));
        assert!(!always_ask.is_ageing(at(5), at(5)));
        assert!(MaxStaleness::Forever.allows(at(0), at(u64::MAX)));
    }

    #[test]
    fn milliseconds_are_rounded_down_and_never_overflow() {
        assert_eq!(Instant::from_start(Duration::from_micros(1_999)).as_millis(), 1);
        assert_eq!(Instant::from_start(Duration::MAX).as_millis(), u64::MAX);
        assert_eq!(Instant::from_millis(u64::MAX).as_millis(), u64::MAX);
    }

    #[test]
    fn ageing_begins_at_half_of_the_bound() {
        let bound = MaxStaleness::Within(Duration::from_millis(100));
        assert!(!bound.is_ageing(at(0), at(49)));
        assert!(bound.is_ageing(at(0), at(50)));
        assert!(bound.allows(at(0), at(100)));
        assert!(!bound.allows(at(0), at(101)));
    }
}
