//! Least recently used.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::Policy;
use crate::traces::BatchKey;

/// Evicts what was not read for the longest time.
#[derive(Debug)]
pub struct Lru {
    limit_bytes: u64,
    held_bytes: u64,
    reads: u64,
    /// When each batch was read last, and what it takes.
    entries: HashMap<BatchKey, (u64, u32)>,
    by_last_read: BTreeMap<u64, BatchKey>,
}

impl Lru {
    /// An empty cache.
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            held_bytes: 0,
            reads: 0,
            entries: HashMap::new(),
            by_last_read: BTreeMap::new(),
        }
    }

    fn make_room(&mut self, size_bytes: u32) {
        while self.held_bytes + u64::from(size_bytes) > self.limit_bytes {
            let Some((_, key)) = self.by_last_read.pop_first() else {
                return;
            };
            if let Some((_, size_bytes)) = self.entries.remove(&key) {
                self.held_bytes -= u64::from(size_bytes);
            }
        }
    }
}

impl Policy for Lru {
    fn access(&mut self, key: BatchKey, size_bytes: u32) -> bool {
        self.reads += 1;
        if let Some((last_read, _)) = self.entries.get_mut(&key) {
            self.by_last_read.remove(last_read);
            *last_read = self.reads;
            self.by_last_read.insert(self.reads, key);
            return true;
        }
        if u64::from(size_bytes) <= self.limit_bytes {
            self.make_room(size_bytes);
            self.held_bytes += u64::from(size_bytes);
            self.entries.insert(key, (self.reads, size_bytes));
            self.by_last_read.insert(self.reads, key);
        }
        false
    }

    fn held_bytes(&self) -> u64 {
        self.held_bytes
    }
}
