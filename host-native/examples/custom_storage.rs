//! A storage of one's own: segments as objects of a store that knows only whole-object operations and ranged reads.
//!
//! Here the store is a map; S3, Redis or a table would have the same six operations. Whatever a storage does wrong costs
//! misses, never a wrong answer: what comes back is verified before it is served.
//!
//! ```sh
//! cargo run --example custom_storage
//! cargo test --example custom_storage     # what every storage has to keep
//! ```

mod cluster;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
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

/// One segment.
#[derive(Debug, Default)]
struct Object {
    bytes: Vec<u8>,
    is_sealed: bool,
}

/// Shared by the storage, its readers and whoever looks on.
#[derive(Clone, Debug, Default)]
struct ObjectStore {
    objects: Arc<Mutex<HashMap<SegmentId, Object>>>,
}

impl ObjectStore {
    fn with<V>(&self, act: impl FnOnce(&mut HashMap<SegmentId, Object>) -> V) -> V {
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
            let stored = |(id, object): (&SegmentId, &Object)| StoredSegment {
                id: *id,
                size_bytes: object.bytes.len() as u64,
            };
            objects.iter().map(stored).collect()
        }))
    }

    async fn create(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.with(|objects| match objects.entry(segment) {
            Entry::Occupied(_) => Err(error(Operation::Create, segment, StorageErrorKind::Exists)),
            Entry::Vacant(free) => {
                free.insert(Object::default());
                Ok(())
            }
        })
    }

    async fn append(&mut self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.with(|objects| {
            let missing = error(Operation::Append, segment, StorageErrorKind::NotFound);
            let object = objects.get_mut(&segment).ok_or(missing)?;
            if object.is_sealed {
                return Err(error(Operation::Append, segment, StorageErrorKind::Sealed));
            }
            for piece in &pieces {
                object.bytes.extend_from_slice(piece);
            }
            Ok(())
        })
    }

    async fn seal(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.with(|objects| {
            let missing = error(Operation::Seal, segment, StorageErrorKind::NotFound);
            objects.get_mut(&segment).ok_or(missing)?.is_sealed = true;
            Ok(())
        })
    }

    async fn open(&mut self, segment: SegmentId) -> Result<ObjectReader, StorageError> {
        let missing = error(Operation::Open, segment, StorageErrorKind::NotFound);
        let copied = self.with(|objects| Some(Bytes::copy_from_slice(&objects.get(&segment)?.bytes)));
        Ok(ObjectReader {
            bytes: copied.ok_or(missing)?,
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
    bytes: Bytes,
}

impl ObjectReader {
    fn slice(&self, range: Range<u64>) -> Result<Bytes, StorageError> {
        let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
        let within =
            |start, end| (start <= end && end <= self.bytes.len()).then(|| self.bytes.slice(start..end));
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
        self.bytes.len() as u64
    }

    /// A store that has to be asked over a network would say `None`; then the cache waits for [`Self::read`].
    fn read_now(&self, _range: Range<u64>) -> Option<Result<Bytes, StorageError>> {
        None
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.slice(range)
    }

    /// Neither a clone nor a slice of what was read is about.
    fn is_last(&self) -> bool {
        self.bytes.is_empty() || self.bytes.is_unique()
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
        let (objects, bytes) = store.with(|objects| {
            (
                objects.len(),
                objects.values().map(|object| object.bytes.len()).sum::<usize>(),
            )
        });
        let figures = cache.statistics();
        println!(
            "pass {pass}: {} records, {} fetches so far; the store holds {bytes} bytes in {objects} objects",
            records.len(),
            figures.upstream_fetches
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    kachet_core::storage_conformance!(object_store, ObjectStore::default, |store: &ObjectStore| {
        std::future::ready(store.clone())
    });
}
