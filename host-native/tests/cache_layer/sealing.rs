//! What the storage has to do after a fetch holds up neither that fetch nor others.

use core::time::Duration;
use std::sync::mpsc;

use anyhow::{Context, Result};
use bytes::Bytes;
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings};
use kachet::core::storage::{MemoryStorage, SegmentId, Storage, StorageError, StoredSegment};
use kachet::transport::{TcpSettings, TcpTransport};
use tokio::time::timeout;

use super::{TOPIC, broker_with};

const PATIENCE: Duration = Duration::from_secs(10);

/// Memory that says when a segment is to be sealed, and takes until it is told to go on.
struct SlowToSeal {
    memory: MemoryStorage,
    begun: mpsc::Sender<()>,
    may_end: mpsc::Receiver<()>,
}

impl Storage for SlowToSeal {
    type Reader = Bytes;

    async fn list(&mut self) -> Result<Vec<StoredSegment>, StorageError> {
        self.memory.list().await
    }

    async fn create(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.memory.create(segment).await
    }

    async fn append(&mut self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.memory.append(segment, pieces).await
    }

    async fn seal(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        let _nobody_listens = self.begun.send(());
        // The thread itself is held up, as it is by a copy. Whoever is gone holds up nobody.
        let _is_gone = self.may_end.recv_timeout(3 * PATIENCE);
        self.memory.seal(segment).await
    }

    async fn open(&mut self, segment: SegmentId) -> Result<Bytes, StorageError> {
        self.memory.open(segment).await
    }

    async fn remove(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.memory.remove(segment).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn fetches_are_answered_while_a_segment_is_being_sealed() -> Result<()> {
    let broker = broker_with(8).await?;
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_end) = mpsc::channel();
    let storage = SlowToSeal {
        memory: MemoryStorage::new(),
        begun,
        may_end,
    };
    // Each batch is larger than a segment, and so has one of its own, which is full at once.
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default()))
        .storage(storage)
        .segment_size_bytes(64)
        .size_limit_bytes(1 << 20)
        .build();
    let bootstrap = vec![broker.address().clone()];
    let client = Client::new(cache.clone(), bootstrap, ClientSettings::default())?;

    for offset in [3, 14, 5, 25] {
        let record = timeout(PATIENCE, client.record(TOPIC, 0, offset));
        let record = record.await.context("a fetch waits for the seal")??;
        assert_eq!(record.context("no record")?.offset, offset);
    }
    assert!(has_begun.recv_timeout(PATIENCE).is_ok(), "nothing is sealed");
    assert_eq!(cache.statistics().hits, 1);
    // With this gone, all are sealed at once.
    drop(go_on);
    timeout(PATIENCE, cache.write_out()).await?;
    assert!(has_begun.try_iter().count() >= 2, "not all is sealed");
    let (size_bytes, summed_bytes) = cache.audit();
    assert_eq!(size_bytes, summed_bytes);
    assert!(client.record(TOPIC, 0, 7).await?.is_some());
    assert_eq!(cache.statistics().hits, 2);
    Ok(())
}
