//! What a storage has to do, as values: the cache hands them out, the host has them done, one at a time and in order,
//! without holding the cache, and reports what came of them.

use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;

use crate::segment::{DirectoryEntry, SegmentError, encode_footer, read_directory, records};
use crate::storage::{SegmentId, SegmentReader, Storage, StorageError};
use crate::wire::Crc32c;

/// One thing that the storage has to do. Whoever takes it from
/// [`Cache::next_job`](crate::cache::Cache::next_job) performs it and gives the outcome to
/// [`Cache::complete`](crate::cache::Cache::complete).
#[derive(Clone, Debug)]
pub struct Job<R> {
    pub(super) slot: u32,
    pub(super) segment: SegmentId,
    pub(super) task: Task<R>,
}

#[derive(Clone, Debug)]
pub(super) enum Task<R> {
    /// Append to a segment, which is to be created first, or sealed behind it with a footer that names these; and open it.
    Write {
        creates: bool,
        pieces: Vec<Bytes>,
        seals: Option<Vec<DirectoryEntry>>,
    },
    /// Find out what a segment holds that is to be evicted.
    Survey { reader: R },
    /// Read the records that are to move on.
    Rescue { reader: R, records: Vec<Range<u64>> },
    /// Remove a segment.
    Remove,
}

/// What came of a [`Job`].
#[derive(Debug)]
pub struct Done<R> {
    pub(super) slot: u32,
    pub(super) segment: SegmentId,
    pub(super) outcome: Outcome<R>,
}

#[derive(Debug)]
pub(super) enum Outcome<R> {
    Written {
        result: Result<R, StorageError>,
        is_sealed: bool,
    },
    Surveyed(Result<Vec<DirectoryEntry>, SegmentError>),
    /// The records, or nothing for one that could not be read.
    Rescued(Vec<Option<Bytes>>),
    Removed(Result<(), StorageError>),
}

impl<R> Done<R> {
    /// What failed, if anything did.
    pub fn error(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match &self.outcome {
            Outcome::Written {
                result: Err(error), ..
            }
            | Outcome::Removed(Err(error)) => Some(error),
            Outcome::Surveyed(Err(error)) => Some(error),
            Outcome::Written { result: Ok(_), .. }
            | Outcome::Surveyed(Ok(_))
            | Outcome::Rescued(_)
            | Outcome::Removed(Ok(())) => None,
        }
    }
}

impl<R: SegmentReader> Job<R> {
    /// Has the job done. Takes as long as the storage does. The future has to be driven to its end: a job of which
    /// nothing is reported keeps its segment, and the cache from evicting any other.
    pub async fn perform<S: Storage<Reader = R>>(self, storage: &mut S, crc32c: Crc32c) -> Done<R> {
        let Self { slot, segment, task } = self;
        let outcome = match task {
            Task::Write {
                creates,
                pieces,
                seals,
            } => Outcome::Written {
                is_sealed: seals.is_some(),
                result: write(storage, segment, creates, pieces, seals, crc32c).await,
            },
            Task::Survey { reader } => Outcome::Surveyed(survey(&reader, segment, crc32c).await),
            Task::Rescue { reader, records } => Outcome::Rescued(rescue(&reader, records).await),
            Task::Remove => Outcome::Removed(storage.remove(segment).await),
        };
        Done {
            slot,
            segment,
            outcome,
        }
    }
}

async fn write<S: Storage>(
    storage: &mut S,
    segment: SegmentId,
    creates: bool,
    mut pieces: Vec<Bytes>,
    seals: Option<Vec<DirectoryEntry>>,
    crc32c: Crc32c,
) -> Result<S::Reader, StorageError> {
    if let Some(entries) = &seals
        && S::Reader::MAY_CORRUPT
    {
        // What outlives the process has a footer, so that it need not be read whole when it is opened.
        pieces.extend(encode_footer(segment, entries, crc32c).map(Bytes::from));
    }
    if creates {
        storage.create(segment).await?;
    }
    if !pieces.is_empty() {
        storage.append(segment, pieces).await?;
    }
    if seals.is_some() {
        storage.seal(segment).await?;
    }
    storage.open(segment).await
}

async fn survey<R: SegmentReader>(
    reader: &R,
    segment: SegmentId,
    crc32c: Crc32c,
) -> Result<Vec<DirectoryEntry>, SegmentError> {
    match reader.as_slice() {
        // What lies in memory is trusted and has no footer.
        Some(bytes) if !R::MAY_CORRUPT => Ok(records(segment, bytes).map(|record| record.entry()).collect()),
        _ => read_directory(reader, segment, crc32c)
            .await
            .map(|recovered| recovered.directory.entries),
    }
}

async fn rescue<R: SegmentReader>(reader: &R, records: Vec<Range<u64>>) -> Vec<Option<Bytes>> {
    let mut rescued = Vec::with_capacity(records.len());
    for range in records {
        let read = match reader.read_now(range.clone()) {
            Some(read) => read,
            None => reader.read(range).await,
        };
        rescued.push(read.ok());
    }
    rescued
}
