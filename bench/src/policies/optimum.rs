//! What no policy can pass, because it knows the future.

use std::collections::BinaryHeap;

use hashbrown::HashMap;

use super::Policy;
use crate::traces::{BatchKey, Trace};

/// Belady's optimum for bytes: of all bytes at hand, the new ones included, those go whose next read is furthest away.
///
/// It may keep a part of a batch, which makes it the exact optimum if batches could be cut, and so an upper bound for
/// policies that keep them whole: a byte is served if it is kept from one read to the next, all bytes are alike, and
/// for items that are alike Belady's rule with bypass is optimal.
#[derive(Debug)]
pub struct Optimum {
    limit_bytes: u64,
    held_bytes: u64,
    reads: usize,
    /// For each read, when the same batch is read next.
    next_reads: Vec<usize>,
    kept: HashMap<BatchKey, Kept>,
    /// What is kept, by its next read. Those whose batch has a later one are stale.
    by_next_read: BinaryHeap<(usize, BatchKey)>,
    served_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    next_read: usize,
    bytes: u64,
}

impl Optimum {
    /// An empty cache that knows the trace.
    pub fn new(limit_bytes: u64, trace: &Trace) -> Self {
        let mut next_reads = vec![usize::MAX; trace.accesses.len()];
        let mut later = HashMap::new();
        for (index, access) in trace.accesses.iter().enumerate().rev() {
            if let Some(next) = later.insert(access.key, index) {
                next_reads[index] = next;
            }
        }
        Self {
            limit_bytes,
            held_bytes: 0,
            reads: 0,
            next_reads,
            kept: HashMap::new(),
            by_next_read: BinaryHeap::new(),
            served_bytes: 0,
        }
    }

    /// Lets bytes go until the limit holds.
    fn trim(&mut self) {
        while self.held_bytes > self.limit_bytes {
            let Some(&(next_read, key)) = self.by_next_read.peek() else {
                return;
            };
            let excess = self.held_bytes - self.limit_bytes;
            match self.kept.get_mut(&key).filter(|kept| kept.next_read == next_read) {
                Some(kept) if kept.bytes > excess => {
                    kept.bytes -= excess;
                    self.held_bytes -= excess;
                }
                Some(kept) => {
                    self.held_bytes -= kept.bytes;
                    self.kept.remove(&key);
                    self.by_next_read.pop();
                }
                None => {
                    self.by_next_read.pop();
                }
            }
        }
    }
}

impl Policy for Optimum {
    fn access(&mut self, key: BatchKey, size_bytes: u32) -> bool {
        let next_read = self.next_reads[self.reads];
        self.reads += 1;
        self.served_bytes = self.kept.remove(&key).map_or(0, |kept| kept.bytes);
        self.held_bytes -= self.served_bytes;
        if next_read != usize::MAX {
            let bytes = u64::from(size_bytes);
            self.held_bytes += bytes;
            self.kept.insert(key, Kept { next_read, bytes });
            self.by_next_read.push((next_read, key));
            self.trim();
        }
        self.served_bytes > 0
    }

    fn served_bytes(&self, _: u32) -> u64 {
        self.served_bytes
    }

    fn held_bytes(&self) -> u64 {
        self.held_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::Access;

    fn trace(batches: &[u32]) -> Trace {
        let accesses = batches
            .iter()
            .map(|&batch| Access {
                key: BatchKey { partition: 0, batch },
                size_bytes: 100,
            })
            .collect();
        Trace {
            name: "by hand",
            accesses,
        }
    }

    #[test]
    fn on_a_loop_it_keeps_what_fits() {
        let trace = trace(&[1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4]);
        let mut optimum = Optimum::new(200, &trace);
        // Two of the four stay from round to round.
        assert_eq!(crate::table::hit_bytes(&mut optimum, &trace), 400);
    }

    #[test]
    fn a_part_of_a_batch_serves_its_part() {
        let trace = trace(&[1, 2, 1, 2]);
        let mut optimum = Optimum::new(150, &trace);
        assert_eq!(crate::table::hit_bytes(&mut optimum, &trace), 150);
    }
}
