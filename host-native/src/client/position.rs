//! Where to read, also as a person writes it.

use core::str::FromStr;

/// Where to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// At this offset.
    Offset(i64),
    /// At the first offset that the log holds.
    Earliest,
    /// So many offsets before the end of the log, or at its start if it is shorter.
    BeforeEnd(u64),
    /// At the first record of this time or later, in milliseconds since 1970.
    Timestamp(i64),
}

/// What is wrong with a position that a person wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "OFFSET is a number from 0 on, 'earliest', 'latest-N' (N records from the end) or '@T' (the first record at or after \
     T, in milliseconds since 1970)"
)]
pub struct PositionError;

/// A number, `earliest`, `latest-N`, or `@T` for a time in milliseconds since 1970.
impl FromStr for Position {
    type Err = PositionError;

    fn from_str(given: &str) -> Result<Self, PositionError> {
        let position = if let Some(timestamp) = given.strip_prefix('@') {
            number(timestamp).map(Self::Timestamp)
        } else if let Some(back) = given.strip_prefix("latest-") {
            number(back).map(Self::BeforeEnd)
        } else if given == "earliest" {
            Some(Self::Earliest)
        } else {
            number(given).map(Self::Offset)
        };
        position.ok_or(PositionError)
    }
}

/// A number without a sign.
fn number<N: FromStr>(given: &str) -> Option<N> {
    let is_plain = given.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| given.parse().ok()).flatten()
}
