//! `TOPIC/PARTITION@OFFSET`, as a person writes it.

use core::fmt;
use core::str::FromStr;

use kachet::client::{Position, PositionError};

/// A position in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) position: Position,
}

/// What is wrong with a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetError {
    Form,
    Partition,
    Offset,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "write TOPIC/PARTITION@OFFSET, such as orders/0@42",
            Self::Partition => "the partition is a number from 0 on",
            Self::Offset => return PositionError.fmt(f),
        })
    }
}

impl core::error::Error for TargetError {}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        // Topic names hold neither '/' nor '@'; the offset may begin with an '@' of its own.
        let (topic, rest) = given.split_once('/').ok_or(TargetError::Form)?;
        let (partition, position) = rest.split_once('@').ok_or(TargetError::Form)?;
        if topic.is_empty() {
            return Err(TargetError::Form);
        }
        Ok(Self {
            topic: topic.to_owned(),
            partition: number(partition).ok_or(TargetError::Partition)?,
            position: position.parse().map_err(|_| TargetError::Offset)?,
        })
    }
}

/// A number without a sign.
fn number<N: FromStr>(given: &str) -> Option<N> {
    given
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| given.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_target_is_read() {
        let target = |position| {
            Ok(Target {
                topic: "a.b-c_d".into(),
                partition: 12,
                position,
            })
        };
        for (given, position) in [
            ("a.b-c_d/12@0", Position::Offset(0)),
            ("a.b-c_d/12@9223372036854775807", Position::Offset(i64::MAX)),
            ("a.b-c_d/12@earliest", Position::Earliest),
            ("a.b-c_d/12@latest-3", Position::BeforeEnd(3)),
            (
                "a.b-c_d/12@@1700000000000",
                Position::Timestamp(1_700_000_000_000),
            ),
        ] {
            assert_eq!(given.parse(), target(position), "{given}");
        }
    }

    #[test]
    fn anything_else_says_what_is_wrong() {
        for (given, error) in [
            ("", TargetError::Form),
            ("orders", TargetError::Form),
            ("orders@5", TargetError::Form),
            ("orders/0", TargetError::Form),
            ("/0@5", TargetError::Form),
            ("orders/x@5", TargetError::Partition),
            ("orders/-1@5", TargetError::Partition),
            ("orders/+1@5", TargetError::Partition),
            ("orders/2147483648@5", TargetError::Partition),
            ("orders/0@", TargetError::Offset),
            ("orders/0@-5", TargetError::Offset),
            ("orders/0@latest", TargetError::Offset),
            ("orders/0@latest-", TargetError::Offset),
            ("orders/0@9223372036854775808", TargetError::Offset),
            ("orders/0@@now", TargetError::Offset),
        ] {
            assert_eq!(given.parse::<Target>(), Err(error), "{given}");
        }
    }
}
