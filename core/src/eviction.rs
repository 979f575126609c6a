//! What goes when the limit is reached: first in, first out, with one more round for what was hit.

use alloc::collections::VecDeque;

use crate::identity::PartitionKey;

/// Where a batch stands in the queue, and which insertion it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) key: PartitionKey,
    /// The last offset that the batch covers, by which the index finds it.
    pub(crate) last_offset: i64,
    pub(crate) sequence: u64,
}

/// The order in which batches are to go. Batches that left the index in another way stay queued until their
/// turn comes or until they outnumber the others.
#[derive(Debug, Default)]
pub(crate) struct EvictionQueue {
    queue: VecDeque<Queued>,
}

impl EvictionQueue {
    pub(crate) fn push(&mut self, queued: Queued) {
        self.queue.push_back(queued);
    }

    pub(crate) fn pop(&mut self) -> Option<Queued> {
        self.queue.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Forgets those that are no longer in the index, once they are more than half.
    pub(crate) fn tidy(&mut self, live: usize, is_live: impl Fn(&Queued) -> bool) {
        if self.queue.len() > 64 && self.queue.len() / 2 > live {
            self.queue.retain(is_live);
        }
    }
}
