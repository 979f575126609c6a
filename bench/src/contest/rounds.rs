//! How often a row is measured.

/// How many rounds a row takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounds {
    /// So many in any case.
    pub least: usize,
    /// So many at most, where targets stay open.
    pub most: usize,
}

impl Rounds {
    /// So many and no more, whatever comes of them.
    pub fn exactly(rounds: usize) -> Self {
        Self {
            least: rounds,
            most: rounds,
        }
    }

    /// So many times as many, for a row of which a round is short.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self {
            least: times * self.least,
            most: times * self.most,
        }
    }
}
