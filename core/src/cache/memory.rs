//! The cache over memory, for hosts without threads or other storage: jobs are done as they come up.

use core::future::Future;
use core::ops::Deref;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::{Absorbed, Cache, CacheSettings, Doubtful, Evidence, Harvest};
use crate::identity::PartitionKey;
use crate::storage::MemoryStorage;
use crate::time::Instant;
use crate::wire::{Crc32c, TopicId, WireStr};

/// A [`Cache`] in memory that does its jobs by itself. Everything that reads is [`Cache`]'s own.
#[derive(Debug)]
pub struct MemoryCache {
    cache: Cache<Bytes>,
    storage: MemoryStorage,
    crc32c: Crc32c,
}

impl MemoryCache {
    /// An empty cache. `crc32c` verifies nothing here and is what records are written with.
    pub fn new(settings: CacheSettings, crc32c: Crc32c) -> Self {
        Self {
            cache: Cache::new(settings, crc32c),
            storage: MemoryStorage::default(),
            crc32c,
        }
    }

    /// Does what is to be done.
    fn settle(&mut self) -> bool {
        let mut any = false;
        while let Some(job) = self.cache.next_job() {
            let Some(done) = now(job.perform(&mut self.storage, self.crc32c)) else {
                debug_assert!(false, "memory never waits");
                return false;
            };
            self.cache.complete(done);
            any = true;
        }
        any
    }

    fn settled<T>(&mut self, change: impl FnOnce(&mut Cache<Bytes>) -> T) -> T {
        let changed = change(&mut self.cache);
        self.settle();
        changed
    }

    /// See [`Cache::absorb`].
    pub fn absorb(&mut self, mut harvest: Harvest, asked_at: Instant) {
        while self.cache.absorb(&mut harvest, asked_at) == Absorbed::NeedsRoom {
            if !self.settle() {
                self.cache.reject(&mut harvest);
            }
        }
        self.settle();
    }

    /// See [`Cache::set_size_limit_bytes`]; takes effect at once.
    pub fn set_size_limit_bytes(&mut self, size_limit_bytes: u64) {
        self.settled(|cache| cache.set_size_limit_bytes(size_limit_bytes));
    }

    /// See [`Cache::identify_cluster`].
    pub fn identify_cluster(&mut self, cluster_id: &WireStr) {
        self.settled(|cache| cache.identify_cluster(cluster_id));
    }

    /// See [`Cache::learn_topic`].
    #[cfg(feature = "names")]
    pub fn learn_topic(&mut self, name: &WireStr, topic_id: TopicId, asked_at: Instant) {
        self.settled(|cache| cache.learn_topic(name, topic_id, asked_at));
    }

    /// See [`Cache::forget_name`].
    #[cfg(feature = "names")]
    pub fn forget_name(&mut self, name: &WireStr) {
        self.settled(|cache| cache.forget_name(name));
    }

    /// See [`Cache::validate`].
    pub fn validate(&mut self, doubtful: &Doubtful, evidence: &Evidence, asked_at: Instant) {
        self.settled(|cache| cache.validate(doubtful, evidence, asked_at));
    }

    /// See [`Cache::clear`].
    pub fn clear(&mut self) {
        self.settled(Cache::clear);
    }

    /// See [`Cache::forget_topic`].
    pub fn forget_topic(&mut self, topic_id: TopicId) {
        self.settled(|cache| cache.forget_topic(topic_id));
    }

    /// See [`Cache::forget_partition`].
    pub fn forget_partition(&mut self, key: PartitionKey) {
        self.settled(|cache| cache.forget_partition(key));
    }

    /// See [`Cache::drop_from`].
    pub fn drop_from(&mut self, key: PartitionKey, offset: i64) {
        self.settled(|cache| cache.drop_from(key, offset));
    }

    /// See [`Cache::drop_below`].
    pub fn drop_below(&mut self, key: PartitionKey, offset: i64) {
        self.settled(|cache| cache.drop_below(key, offset));
    }
}

impl Deref for MemoryCache {
    type Target = Cache<Bytes>;

    fn deref(&self) -> &Cache<Bytes> {
        &self.cache
    }
}

/// What a future gives without waiting.
fn now<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
