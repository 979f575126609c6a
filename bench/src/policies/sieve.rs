//! SIEVE (Zhang and others, NSDI 2024), weighted by bytes.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::Policy;
use crate::traces::BatchKey;

/// First in, first out, but a hand that goes round from old to new spares what was read since it last came by, and
/// leaves it in its place.
#[derive(Debug)]
pub struct Sieve {
    limit_bytes: u64,
    held_bytes: u64,
    inserted: u64,
    /// The insertion at which the hand stands.
    hand: u64,
    entries: HashMap<BatchKey, Entry>,
    by_insertion: BTreeMap<u64, BatchKey>,
}

#[derive(Debug)]
struct Entry {
    size_bytes: u32,
    read: bool,
}

impl Sieve {
    /// An empty cache.
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            held_bytes: 0,
            inserted: 0,
            hand: 0,
            entries: HashMap::new(),
            by_insertion: BTreeMap::new(),
        }
    }

    fn evict_one(&mut self) {
        loop {
            let next = self.by_insertion.range(self.hand..).next();
            let Some((&insertion, &key)) = next.or_else(|| self.by_insertion.iter().next()) else {
                return;
            };
            self.hand = insertion + 1;
            let Some(entry) = self.entries.get_mut(&key) else {
                return;
            };
            if !entry.read {
                self.held_bytes -= u64::from(entry.size_bytes);
                self.entries.remove(&key);
                self.by_insertion.remove(&insertion);
                return;
            }
            entry.read = false;
        }
    }
}

impl Policy for Sieve {
    fn access(&mut self, key: BatchKey, size_bytes: u32) -> bool {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.read = true;
            return true;
        }
        if u64::from(size_bytes) <= self.limit_bytes {
            while self.held_bytes + u64::from(size_bytes) > self.limit_bytes {
                self.evict_one();
            }
            self.inserted += 1;
            self.held_bytes += u64::from(size_bytes);
            self.by_insertion.insert(self.inserted, key);
            self.entries.insert(
                key,
                Entry {
                    size_bytes,
                    read: false,
                },
            );
        }
        false
    }

    fn held_bytes(&self) -> u64 {
        self.held_bytes
    }
}
