//! Where the batches of these tests lie: in memory. The tests of the native host run the same on files, with a medium of
//! their own in the place of this one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kachet_core::storage::{MemoryStorage, SegmentId, Storage, StorageError, StoredSegment};

/// What lies on a medium, seen past all faults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lying(Arc<Mutex<BTreeMap<SegmentId, u64>>>);

impl Lying {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.lock().unwrap().values().sum()
    }

    pub(crate) fn segments(&self) -> Vec<SegmentId> {
        self.0.lock().unwrap().keys().copied().collect()
    }
}

/// Memory, and a view of what lies in it.
#[derive(Debug, Default)]
pub(crate) struct Medium {
    pub(crate) inner: MemoryStorage,
    pub(crate) lying: Lying,
}

impl Medium {
    /// The bytes of a segment.
    pub(crate) async fn all_of(&mut self, segment: SegmentId) -> Vec<u8> {
        self.inner.open(segment).await.unwrap().to_vec()
    }
}

impl Storage for Medium {
    type Reader = Bytes;

    async fn list(&mut self) -> Result<Vec<StoredSegment>, StorageError> {
        self.inner.list().await
    }

    async fn create(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.inner.create(segment).await?;
        self.lying.0.lock().unwrap().insert(segment, 0);
        Ok(())
    }

    async fn append(&mut self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.inner.append(segment, pieces).await?;
        *self.lying.0.lock().unwrap().entry(segment).or_default() += bytes;
        Ok(())
    }

    async fn seal(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.inner.seal(segment).await
    }

    async fn open(&mut self, segment: SegmentId) -> Result<Bytes, StorageError> {
        self.inner.open(segment).await
    }

    async fn remove(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.inner.remove(segment).await?;
        self.lying.0.lock().unwrap().remove(&segment);
        Ok(())
    }
}
