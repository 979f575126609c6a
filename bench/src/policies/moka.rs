//! The crate `moka`.

use moka::sync::Cache;

use super::{Policy, SameHash};
use crate::traces::BatchKey;

/// `moka` at its defaults (W-TinyLFU), its housekeeping done after each insertion, so that it never lags behind.
pub struct Moka {
    cache: Cache<BatchKey, u32, SameHash>,
    reads_since_housekeeping: u32,
}

/// Reads are recorded in a queue that must not overflow before they are seen to.
const READS_BETWEEN_HOUSEKEEPING: u32 = 32;

impl Moka {
    /// An empty cache.
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            cache: Cache::builder()
                .max_capacity(limit_bytes)
                .weigher(|_, size_bytes: &u32| *size_bytes)
                .build_with_hasher(SameHash::default()),
            reads_since_housekeeping: 0,
        }
    }
}

impl Policy for Moka {
    fn access(&mut self, key: BatchKey, size_bytes: u32) -> bool {
        let hit = self.cache.get(&key).is_some();
        self.reads_since_housekeeping += 1;
        if !hit {
            self.cache.insert(key, size_bytes);
        }
        if !hit || self.reads_since_housekeeping >= READS_BETWEEN_HOUSEKEEPING {
            self.cache.run_pending_tasks();
            self.reads_since_housekeeping = 0;
        }
        hit
    }

    fn held_bytes(&self) -> u64 {
        self.cache.weighted_size()
    }
}
