//! Where the cache under test keeps its batches: a storage that fails, and that outlives the cache when that crashes.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use bytes::Bytes;
use kachet::core::storage::faulty::{FaultRates, Faults, FaultyStorage};
use kachet::core::storage::{
    MemoryStorage, Operation, SegmentId, Storage, StorageError, StorageErrorKind, StoredSegment,
};
use tokio::sync::Mutex;

/// A handle on the storage, for one life of the cache.
pub(crate) struct SurvivingStorage {
    medium: Arc<Medium>,
    life: u64,
}

/// What survives a crash.
pub(crate) struct Medium {
    storage: Mutex<FaultyStorage<MemoryStorage>>,
    pub(crate) faults: Faults,
    /// Counts the lives of the cache; what the jobs of an earlier one still want done is not done.
    life: AtomicU64,
}

impl Medium {
    pub(crate) fn new(seed: u64, rates: FaultRates) -> Arc<Self> {
        let faults = Faults::new(seed, rates);
        Arc::new(Self {
            storage: Mutex::new(FaultyStorage::new(MemoryStorage::new(), faults.clone())),
            faults,
            life: AtomicU64::new(0),
        })
    }

    pub(crate) fn handle(self: &Arc<Self>) -> SurvivingStorage {
        SurvivingStorage {
            medium: Arc::clone(self),
            life: self.life.load(Ordering::Relaxed),
        }
    }

    /// Ends a life of the cache, and leaves of what it wrote last what a crash leaves.
    pub(crate) async fn crash(&self) {
        self.life.fetch_add(1, Ordering::Relaxed);
        let mut storage = self.storage.lock().await;
        // The storage below is memory, which does not fail.
        let _ = storage.crash().await;
    }
}

impl SurvivingStorage {
    fn is_alive(&self, operation: Operation, segment: Option<SegmentId>) -> Result<(), StorageError> {
        if self.life == self.medium.life.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(StorageError {
            operation,
            segment,
            kind: StorageErrorKind::Medium("the cache has crashed".to_owned()),
        })
    }
}

impl Storage for SurvivingStorage {
    type Reader = <FaultyStorage<MemoryStorage> as Storage>::Reader;

    async fn list(&mut self) -> Result<Vec<StoredSegment>, StorageError> {
        self.is_alive(Operation::List, None)?;
        self.medium.storage.lock().await.list().await
    }

    async fn create(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.is_alive(Operation::Create, Some(segment))?;
        self.medium.storage.lock().await.create(segment).await
    }

    async fn append(&mut self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.is_alive(Operation::Append, Some(segment))?;
        self.medium.storage.lock().await.append(segment, pieces).await
    }

    async fn seal(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.is_alive(Operation::Seal, Some(segment))?;
        self.medium.storage.lock().await.seal(segment).await
    }

    async fn open(&mut self, segment: SegmentId) -> Result<Self::Reader, StorageError> {
        self.is_alive(Operation::Open, Some(segment))?;
        self.medium.storage.lock().await.open(segment).await
    }

    async fn remove(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.is_alive(Operation::Remove, Some(segment))?;
        self.medium.storage.lock().await.remove(segment).await
    }
}
