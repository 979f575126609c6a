//! A storage of one's own: segments as objects of a store that knows only whole-object operations and ranged reads.
//!
//! Here the store is a map; S3, Redis or a table would have the same six operations. Whatever a storage does wrong costs
//! misses, never a wrong answer: what comes back is verified before it is served.
//!
//! ```sh
//! cargo run --example custom_storage
//! ```

mod cluster;

use std::collections::HashMap;
use std::error::Error;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::TryStreamExt;
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings};
use kachet::core::storage::{
    Operation, SegmentId, SegmentReader, Storage, StorageError, StorageErrorKind, StoredSegment,
};
use kachet::transport::{TcpSettings, TcpTransport};

use cluster::Cluster;

/// Shared by the storage, its readers and whoever looks on.
#[derive(Clone, Debug, Default)]
struct ObjectStore {
    objects: Arc<Mutex<HashMap<SegmentId, Vec<u8>>>>,
}

impl ObjectStore {
    fn with<V>(&self, act: impl FnOnce(&mut HashMap<SegmentId, Vec<u8>>) -> V) -> V {
        act(&mut self.objects.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn error(operation: Operation, segment: SegmentId, kind: StorageErrorKind) -> StorageError {
    StorageError {
        operation,
        segment: Some(segment),
        kind,
    }
}

impl Storage for ObjectStore {
    type Reader = ObjectReader;

    async fn list(&mut self) -> Result<Vec<StoredSegment>, StorageError> {
        Ok(self.with(|objects| {
            let stored = |(id, bytes): (&SegmentId, &Vec<u8>)| StoredSegment {
                id: *id,
                size_bytes: bytes.len() as u64,
            };
            objects.iter().map(stored).collect()
        }))
    }

    async fn create(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.with(|objects| objects.insert(segment, Vec::new()));
        Ok(())
    }

    async fn append(&mut self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.with(|objects| {
            let missing = error(Operation::Append, segment, StorageErrorKind::NotFound);
            let object = objects.get_mut(&segment).ok_or(missing)?;
            for piece in &pieces {
                object.extend_from_slice(piece);
            }
            Ok(())
        })
    }

    async fn seal(&mut self, _segment: SegmentId) -> Result<(), StorageError> {
        Ok(())
    }

    async fn open(&mut self, segment: SegmentId) -> Result<ObjectReader, StorageError> {
        let missing = error(Operation::Open, segment, StorageErrorKind::NotFound);
        let copied = self.with(|objects| objects.get(&segment).map(|object| Bytes::copy_from_slice(object)));
        Ok(ObjectReader {
            object: copied.ok_or(missing)?,
        })
    }

    async fn remove(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.with(|objects| objects.remove(&segment));
        Ok(())
    }
}

/// Reads an object, also after it was removed from the store: a clone holds on to what it reads.
#[derive(Clone, Debug)]
struct ObjectReader {
    object: Bytes,
}

impl ObjectReader {
    fn slice(&self, range: Range<u64>) -> Result<Bytes, StorageError> {
        let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
        let within =
            |start, end| (start <= end && end <= self.object.len()).then(|| self.object.slice(start..end));
        let slice = start
            .ok()
            .zip(end.ok())
            .and_then(|(start, end)| within(start, end));
        slice.ok_or(StorageError {
            operation: Operation::Read,
            segment: None,
            kind: StorageErrorKind::OutOfRange {
                end: range.end,
                size_bytes: self.size_bytes(),
            },
        })
    }
}

impl SegmentReader for ObjectReader {
    /// Who knows what a remote store does: have everything verified.
    const MAY_CORRUPT: bool = true;

    fn size_bytes(&self) -> u64 {
        self.object.len() as u64
    }

    /// A store that has to be asked over a network would say `None`; then the cache waits for [`Self::read`].
    fn read_now(&self, _range: Range<u64>) -> Option<Result<Bytes, StorageError>> {
        None
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.slice(range)
    }

    /// What is removed from the store is gone from it at once, whoever reads on.
    fn is_last(&self) -> bool {
        true
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = Cluster::of_arguments().await?;
    let store = ObjectStore::default();
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default()))
        .size_limit_bytes(64 << 20)
        .segment_size_bytes(1 << 18)
        .storage(store.clone())
        .build();
    let client = Client::new(
        cache.clone(),
        vec![cluster.bootstrap.parse()?],
        ClientSettings::default(),
    )?;
    for pass in 1..=2 {
        let records: Vec<_> = client.records_from(&cluster.topic, 0, 0).try_collect().await?;
        cache.write_out().await;
        let (objects, bytes) =
            store.with(|objects| (objects.len(), objects.values().map(Vec::len).sum::<usize>()));
        let figures = cache.statistics();
        println!(
            "pass {pass}: {} records, {} fetches so far; the store holds {bytes} bytes in {objects} objects",
            records.len(),
            figures.upstream_fetches
        );
    }
    Ok(())
}
