//! The core's cache over a folder: jobs are done as they come up, and a change is in the folder when it is over.

use std::path::Path;

use bytes::Bytes;
use futures_util::FutureExt;
use kachet_core::cache::{Absorbed, Cache, CacheSettings, Harvest, Plan, Restored};
use kachet_core::identity::PartitionKey;
use kachet_core::offset::OffsetSpan;
use kachet_core::statistics::Statistics;
use kachet_core::storage::{Operation, StorageError, StorageErrorKind};
use kachet_core::time::{Instant, MaxStaleness};
use kachet_core::wire::{Crc32c, FetchPartition, FetchRequest, FetchResponse, PartitionData, TopicId};

use crate::error::Error;
use crate::folder::Folder;
use crate::segments::{Access, FileReader, FolderStorage};

const CRC32C: Crc32c = Crc32c::PORTABLE;
/// Nothing here becomes too old, so that there is one moment only.
const NOW: Instant = Instant::from_start(core::time::Duration::ZERO);

/// A cache over a folder.
#[derive(Debug)]
pub struct Store {
    cache: Cache<FileReader>,
    storage: FolderStorage,
    restored: Restored,
    /// The first job that failed.
    fault: Option<StorageError>,
    /// Lets go of the folder last.
    folder: Folder,
}

/// What an answer brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Batches that are kept.
    pub batches: u64,
    /// Batches that are not: damaged, too large, or of old formats.
    pub refused: u64,
}

impl Store {
    /// Opens a folder to read from it.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        Self::open(folder, Access::Read, u64::MAX)
    }

    /// Opens a folder to change it, and brings it within the limit.
    pub fn change(folder: &Path, size_limit_bytes: u64) -> Result<Self, Error> {
        let mut store = Self::open(folder, Access::Change, size_limit_bytes)?;
        store.settle();
        Ok(store)
    }

    fn open(path: &Path, access: Access, size_limit_bytes: u64) -> Result<Self, Error> {
        let folder = Folder::open(path, access)?;
        let settings = CacheSettings {
            size_limit_bytes,
            segment_size_bytes: None,
            max_staleness: MaxStaleness::Forever,
            compacted_max_staleness: MaxStaleness::Forever,
        };
        let mut store = Self {
            cache: Cache::new(settings, CRC32C),
            storage: FolderStorage::new(path, access),
            restored: Restored::default(),
            fault: None,
            folder,
        };
        let restored = store.cache.restore(&mut store.storage, CRC32C).now_or_never();
        store.restored = restored
            .unwrap_or_else(|| Ok(Restored::default()))
            .map_err(Error::Restore)?;
        Ok(store)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What was found when it was opened.
    pub fn restored(&self) -> &Restored {
        &self.restored
    }

    /// Keeps what a broker answered.
    pub fn absorb(&mut self, request: &FetchRequest, response: &FetchResponse) -> Written {
        let before = self.cache.statistics();
        for mut harvest in Harvest::gather(request, response, CRC32C) {
            while self.cache.absorb(&mut harvest, NOW) == Absorbed::NeedsRoom {
                if !self.settle() {
                    self.cache.reject(&mut harvest);
                }
            }
        }
        self.settle();
        let after = self.cache.statistics();
        Written {
            batches: after.inserts - before.inserts,
            refused: after.rejected + after.errors - before.rejected - before.errors,
        }
    }

    /// Does what the storage has to do; says whether there was anything.
    fn settle(&mut self) -> bool {
        let mut any = false;
        while let Some(job) = self.cache.next_job() {
            let Some(done) = job.perform(&mut self.storage, CRC32C).now_or_never() else {
                // No operation of this storage waits.
                return false;
            };
            if let Some(error) = done.error() {
                self.fault.get_or_insert_with(|| fault(error));
            }
            self.cache.complete(done);
            any = true;
        }
        any
    }

    /// Looks a request up.
    pub fn plan(&self, request: FetchRequest) -> Plan {
        self.cache.plan(request, NOW)
    }

    /// Looks one partition up.
    pub fn hit(&self, topic_id: TopicId, asked: &FetchPartition) -> Option<PartitionData> {
        self.cache.hit(topic_id, asked, false, NOW)
    }

    /// The figures of this moment.
    pub fn statistics(&self) -> Statistics {
        self.cache.statistics()
    }

    /// The partitions of which anything is cached, and which offsets of each.
    pub fn covered(&self) -> Vec<(PartitionKey, Vec<OffsetSpan>)> {
        let keys = self.cache.partitions().into_iter();
        keys.map(|key| (key, self.cache.covered(key))).collect()
    }

    /// The cached batch that holds an offset, or the next one.
    pub fn batch(&self, key: &PartitionKey, offset: i64) -> Option<Bytes> {
        self.cache.batch(key, offset)
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.cache.clear();
        self.settle();
    }

    /// Brings everything into the folder, closed, so that the next program need not walk it.
    pub fn close(mut self) -> Result<(), Error> {
        self.cache.write_out(true);
        self.settle();
        match self.fault.take() {
            Some(fault) => Err(Error::Storage(fault)),
            None => Ok(()),
        }
    }
}

fn fault(error: &(dyn core::error::Error + 'static)) -> StorageError {
    error.downcast_ref().cloned().unwrap_or_else(|| StorageError {
        operation: Operation::Read,
        segment: None,
        kind: StorageErrorKind::Medium(error.to_string()),
    })
}
