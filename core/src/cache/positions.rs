//! Partitions of a message by what they are and not by where they stand (H22).

use alloc::vec::Vec;

use crate::wire::TopicRef;

/// Where each partition of a message stands. Sorted: messages mostly are nearly in order, and one kind of sort does for all of them.
pub(super) struct Positions<'a>(Vec<(&'a TopicRef, i32, usize)>);

impl<'a> Positions<'a> {
    /// Of the partitions of a message, in its order.
    pub(super) fn of(partitions: impl Iterator<Item = (&'a TopicRef, i32)>) -> Self {
        let positions = partitions
            .enumerate()
            .map(|(at, (topic, partition))| (topic, partition, at));
        let mut positions: Vec<_> = positions.collect();
        positions.sort_unstable();
        Self(positions)
    }

    /// Whether a partition is mentioned more than once.
    pub(super) fn has_twice(&self) -> bool {
        let same = |pair: &[(&TopicRef, i32, usize)]| matches!(pair, [one, other] if (one.0, one.1) == (other.0, other.1));
        self.0.windows(2).any(same)
    }

    /// Where a partition is mentioned first.
    pub(super) fn find(&self, topic: &TopicRef, partition: i32) -> Option<usize> {
        let wanted = (topic, partition, 0);
        let found = self.0.get(self.0.partition_point(|each| *each < wanted))?;
        ((found.0, found.1) == (topic, partition)).then_some(found.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::TopicId;

    #[test]
    fn partitions_are_found_whatever_their_order_and_first_mentions_first() {
        let [one, other] = [1, 2].map(|byte| TopicRef::Id(TopicId([byte; 16])));
        let mentioned = [(&other, 7), (&one, 9), (&other, 3), (&one, 2), (&other, 7)];
        let positions = Positions::of(mentioned.into_iter());
        assert!(positions.has_twice());
        for (topic, partition, expected) in [
            (&other, 7, Some(0)),
            (&one, 9, Some(1)),
            (&other, 3, Some(2)),
            (&one, 2, Some(3)),
            (&one, 7, None),
            (&other, 8, None),
        ] {
            assert_eq!(positions.find(topic, partition), expected, "{topic}/{partition}");
        }
        assert!(!Positions::of(mentioned.into_iter().take(4)).has_twice());
    }
}
