//! The crate `foyer`, its cache in memory.

use foyer_memory::{Cache, CacheBuilder, CacheProperties, EvictionConfig, LfuConfig, S3FifoConfig};

use super::{Policy, SameHash};
use crate::traces::BatchKey;

/// `foyer` with one shard, so that its limit is not cut into pieces, and one of its policies at its defaults.
pub struct Foyer {
    cache: Cache<BatchKey, u32, SameHash, CacheProperties>,
}

impl Foyer {
    /// S3-FIFO.
    pub fn s3_fifo(limit_bytes: u64) -> Self {
        Self::new(limit_bytes, S3FifoConfig::default().into())
    }

    /// w-TinyLFU.
    pub fn w_tiny_lfu(limit_bytes: u64) -> Self {
        Self::new(limit_bytes, LfuConfig::default().into())
    }

    fn new(limit_bytes: u64, eviction: EvictionConfig) -> Self {
        let capacity = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
        Self {
            cache: CacheBuilder::new(capacity)
                .with_shards(1)
                .with_eviction_config(eviction)
                .with_hash_builder(SameHash::default())
                .with_weighter(|_, size_bytes: &u32| *size_bytes as usize)
                .build(),
        }
    }
}

impl Policy for Foyer {
    fn access(&mut self, key: BatchKey, size_bytes: u32) -> bool {
        let hit = self.cache.get(&key).is_some();
        if !hit {
            self.cache.insert(key, size_bytes);
        }
        hit
    }

    fn held_bytes(&self) -> u64 {
        self.cache.usage() as u64
    }
}
