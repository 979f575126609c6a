//! Offsets as inclusive spans; there is no bare end anywhere.

use core::fmt;

/// The offsets from `base` to `last`, both inclusive; at least one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OffsetSpan {
    base: i64,
    last: i64,
}

impl OffsetSpan {
    /// `None` if `last` lies before `base`.
    pub const fn new(base: i64, last: i64) -> Option<Self> {
        if base <= last {
            Some(Self { base, last })
        } else {
            None
        }
    }

    /// One offset.
    pub const fn single(offset: i64) -> Self {
        Self {
            base: offset,
            last: offset,
        }
    }

    /// The first offset.
    pub const fn base(self) -> i64 {
        self.base
    }

    /// The last offset, inclusive.
    pub const fn last(self) -> i64 {
        self.last
    }

    /// Whether the offset lies within.
    pub const fn contains(self, offset: i64) -> bool {
        self.base <= offset && offset <= self.last
    }

    /// Whether the two have an offset in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.base <= other.last && other.base <= self.last
    }
}

impl fmt::Display for OffsetSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}–{}", self.base, self.last)
    }
}

impl fmt::Debug for OffsetSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
