//! What went not long ago.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::traces::BatchKey;

/// Remembers batches that were evicted without a read, until so many bytes were evicted after them.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    reach_bytes: u64,
    /// Bytes evicted so far: the clock by which ghosts age.
    evicted_bytes: u64,
    evicted_at: HashMap<BatchKey, u64>,
    /// The oldest first. Those whose batch has another time in the map, or none, are stale.
    queue: VecDeque<(BatchKey, u64)>,
}

impl Ghosts {
    pub(super) fn new(reach_bytes: u64) -> Self {
        Self {
            reach_bytes,
            ..Self::default()
        }
    }

    pub(super) fn remember(&mut self, key: BatchKey, size_bytes: u32) {
        self.evicted_bytes += u64::from(size_bytes);
        self.evicted_at.insert(key, self.evicted_bytes);
        self.queue.push_back((key, self.evicted_bytes));
        while let Some(&(oldest, at)) = self.queue.front() {
            if self.evicted_bytes - at <= self.reach_bytes {
                break;
            }
            self.queue.pop_front();
            if self.evicted_at.get(&oldest) == Some(&at) {
                self.evicted_at.remove(&oldest);
            }
        }
    }

    /// Forgets a batch; true if it was remembered.
    pub(super) fn take(&mut self, key: BatchKey) -> bool {
        self.evicted_at.remove(&key).is_some()
    }
}
