//! The crate `quick_cache`.

use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::{Policy, SameHash};
use crate::traces::BatchKey;

/// `quick_cache` with one shard, so that its limit is not cut into pieces.
pub struct QuickCache {
    cache: Cache<BatchKey, u32, Bytes, SameHash>,
}

/// A batch weighs what it takes.
#[derive(Clone)]
struct Bytes;

impl Weighter<BatchKey, u32> for Bytes {
    fn weight(&self, _: &BatchKey, size_bytes: &u32) -> u64 {
        u64::from(*size_bytes)
    }
}

impl QuickCache {
    /// An empty cache that expects so many batches; it keeps half as many ghosts.
    ///
    /// # Panics
    /// Never: all options that must be given are.
    pub fn new(limit_bytes: u64, batches_expected: usize) -> Self {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(batches_expected)
            .weight_capacity(limit_bytes)
            .shards(1)
            .build()
            .expect("both capacities are given");
        Self {
            cache: Cache::with_options(options, Bytes, SameHash::default(), DefaultLifecycle::default()),
        }
    }
}

impl Policy for QuickCache {
    fn access(&mut self, key: BatchKey, size_bytes: u32) -> bool {
        let hit = self.cache.get(&key).is_some();
        if !hit {
            self.cache.insert(key, size_bytes);
        }
        hit
    }

    fn held_bytes(&self) -> u64 {
        self.cache.weight()
    }
}
