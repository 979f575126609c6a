//! Hits that have to wait for the storage: what is to be read, and what was read, beside the cache.
//!
//! A host whose storage may wait asks [`Cache::cold_reads`] first, performs the reads without holding the cache, and
//! plans with what they brought. What a storage does not give back, or gives back damaged, is a miss (H23).

use alloc::vec::Vec;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Cache;
use crate::identity::PartitionKey;
use crate::index::IndexedBatch;
use crate::segment::{Expected, Place, SegmentError, verified_batch};
use crate::storage::SegmentReader;
use crate::time::Instant;
use crate::wire::{Crc32c, FetchRequest};

/// A batch that is to be read from the storage.
#[derive(Clone, Debug)]
pub struct ColdRead<R> {
    pub(super) key: PartitionKey,
    pub(super) batch: IndexedBatch,
    pub(super) place: Place,
    pub(super) reader: R,
}

/// A batch that the storage did not give back.
#[derive(Clone, Debug)]
pub struct ReadFault {
    key: PartitionKey,
    batch: IndexedBatch,
    /// What went wrong.
    pub error: SegmentError,
}

/// Batches that were read from the storage for one request.
#[derive(Clone, Debug, Default)]
pub struct Warmed(HashMap<Place, Bytes, FixedState>);

impl Warmed {
    pub(super) fn get(&self, place: &Place) -> Option<&Bytes> {
        // The common case, in memory, hashes nothing.
        if self.0.is_empty() {
            return None;
        }
        self.0.get(place)
    }

    /// How many batches were read.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a batch in that was read.
    pub fn insert(&mut self, (place, batch): (Place, Bytes)) {
        self.0.insert(place, batch);
    }
}

impl<R: SegmentReader> ColdRead<R> {
    /// Reads the batch and verifies it.
    pub async fn perform(self, crc32c: Crc32c) -> Result<(Place, Bytes), ReadFault> {
        let Self {
            key,
            batch,
            place,
            reader,
        } = self;
        let fault = |error| ReadFault { key, batch, error };
        let record = reader.read(batch.location.record()).await;
        let record = record.map_err(|error| fault(SegmentError::of_storage(place.segment, error)))?;
        let expected = Expected {
            key,
            span: batch.span,
        };
        match verified_batch(&record, place, &expected, crc32c) {
            Ok(batch) => Ok((place, batch)),
            Err(error) => Err(fault(error)),
        }
    }
}

impl<R: SegmentReader> Cache<R> {
    /// What has to be read before [`Self::plan_with`] can answer from the cache all that it holds of the request, beside
    /// what `warmed` holds, which what the storage gives at once is added to. Empty in memory.
    pub fn cold_reads(&self, request: &FetchRequest, now: Instant, warmed: &mut Warmed) -> Vec<ColdRead<R>> {
        let mut cold = Vec::new();
        if R::MAY_CORRUPT {
            self.look(request, now, warmed, &mut cold);
        }
        cold
    }

    /// Takes note that a batch could not be read: it is a miss from now on.
    pub fn note_fault(&self, fault: &ReadFault) {
        self.counters.errors.add(1);
        let partition = self.engine.partitions.get(&fault.key);
        let found = partition.and_then(|partition| partition.index.by_last_offset(fault.batch.covers.last()));
        if let Some((batch, mark)) = found
            && batch.location == fault.batch.location
        {
            mark.mark_faulty();
        }
    }
}
