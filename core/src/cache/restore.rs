//! What a storage held before: found out segment by segment, and taken into the index.

use alloc::vec::Vec;

use foldhash::fast::FixedState;
use futures_util::future::join_all;
use hashbrown::HashMap;

use super::Cache;
use crate::freshness::PartitionState;
use crate::identity::PartitionKey;
use crate::segment::{DirectoryEntry, Recovered, Recovery, SegmentError, SegmentErrorKind, read_directory};
use crate::storage::{SegmentId, SegmentReader, Storage, StorageError};
use crate::wire::Crc32c;

/// What was found in a storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Segments that were taken over.
    pub segments: u64,
    /// Batches that are cached again.
    pub batches: u64,
    /// Segments that were not sealed, or whose footers were damaged, so that their records were walked one by one.
    pub scanned: u64,
    /// Batches that were damaged, and are not.
    pub corrupt: u64,
    /// Segments that could not be read, with the reason. They were removed.
    pub lost: Vec<(SegmentId, SegmentError)>,
}

/// Why nothing was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// The storage failed as a whole.
    Storage(StorageError),
    /// A segment was written by a newer version of this program. Nothing was changed.
    Newer(SegmentError),
}

impl core::fmt::Display for RestoreError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Storage(error) => error.fmt(f),
            Self::Newer(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for RestoreError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Storage(error) => Some(error),
            Self::Newer(error) => Some(error),
        }
    }
}

/// Epochs of a partition that are taken over at most; the first validation asks for each. Batches of older ones are left.
const EPOCHS_LIMIT: usize = 256;

/// So many segments are read at once: a medium that is far away, or cold, answers many questions as fast as one.
const READ_AT_ONCE: usize = 32;

/// The leader epochs of a partition's batches, and when the newest first showed.
#[derive(Debug, Default)]
struct FoundEpochs {
    /// In descending order.
    epochs: Vec<i32>,
    newest_first_sequence: u64,
}

impl FoundEpochs {
    fn note(&mut self, entry: &DirectoryEntry) {
        match self.epochs.first() {
            Some(newest) if *newest == entry.leader_epoch => {
                self.newest_first_sequence = self.newest_first_sequence.min(entry.sequence);
            }
            Some(newest) if *newest > entry.leader_epoch => {}
            _ => self.newest_first_sequence = entry.sequence,
        }
        let place = self
            .epochs
            .binary_search_by(|epoch| entry.leader_epoch.cmp(epoch));
        if let Err(place) = place
            && place < EPOCHS_LIMIT
        {
            self.epochs.insert(place, entry.leader_epoch);
            self.epochs.truncate(EPOCHS_LIMIT);
        }
    }

    /// Whether the validation to come tells if a batch still stands.
    fn can_be_validated(&self, entry: &DirectoryEntry) -> bool {
        self.epochs
            .last()
            .is_some_and(|oldest| entry.leader_epoch >= *oldest)
    }

    /// Whether an entry was written after the newest epoch showed.
    fn is_of_newest(&self, entry: &DirectoryEntry) -> bool {
        entry.sequence >= self.newest_first_sequence
    }
}

/// The epochs of all partitions. Entries come in runs of one partition, so the last one is at hand.
#[derive(Debug, Default)]
struct EpochsByPartition {
    places: HashMap<PartitionKey, usize, FixedState>,
    epochs: Vec<FoundEpochs>,
    last: Option<(PartitionKey, usize)>,
}

impl EpochsByPartition {
    fn of(&mut self, key: PartitionKey) -> Option<&mut FoundEpochs> {
        let place = match self.last {
            Some((last, place)) if last == key => place,
            _ => *self.places.entry(key).or_insert_with(|| {
                self.epochs.push(FoundEpochs::default());
                self.epochs.len() - 1
            }),
        };
        self.last = Some((key, place));
        self.epochs.get_mut(place)
    }

    fn note(&mut self, entries: &[DirectoryEntry]) {
        for entry in entries {
            if let Some(epochs) = self.of(entry.key) {
                epochs.note(entry);
            }
        }
    }
}

/// A segment as it was found.
struct Found<R> {
    id: SegmentId,
    reader: R,
    entries: Vec<DirectoryEntry>,
}

impl<R: SegmentReader> Cache<R> {
    /// Takes over what a storage holds, into a cache that is new. Nothing of it is served before it has been
    /// validated, unless the staleness bound is [`Forever`](crate::time::MaxStaleness::Forever). What is over the size limit goes with the jobs that come next.
    pub async fn restore<S: Storage<Reader = R>>(
        &mut self,
        storage: &mut S,
        crc32c: Crc32c,
    ) -> Result<Restored, RestoreError> {
        let mut restored = Restored::default();
        let mut stored = storage.list().await.map_err(RestoreError::Storage)?;
        stored.sort_unstable_by_key(|segment| segment.id);
        let mut found = Vec::with_capacity(stored.len());
        let mut epochs = EpochsByPartition::default();
        for segments in stored.chunks(READ_AT_ONCE) {
            let mut opened = Vec::with_capacity(segments.len());
            for segment in segments {
                self.engine.reserve_id(segment.id);
                opened.push((segment.id, storage.open(segment.id).await));
            }
            let directories = opened
                .into_iter()
                .map(|(id, opened)| directory(id, opened, crc32c));
            for (id, directory) in join_all(directories).await {
                match directory {
                    Ok((reader, recovered)) => {
                        // While they are in the processor's cache.
                        epochs.note(&recovered.directory.entries);
                        found.push(restored.found(id, reader, recovered));
                    }
                    Err(error) if matches!(error.kind, SegmentErrorKind::NewerVersion { .. }) => {
                        return Err(RestoreError::Newer(error));
                    }
                    Err(error) => restored.lost.push((id, error)),
                }
            }
        }
        for (segment, _) in &restored.lost {
            // One that cannot be removed either is found again next time.
            storage.remove(*segment).await.map_err(RestoreError::Storage)?;
        }
        restored.segments = found.len() as u64;
        self.take_over(found, epochs);
        restored.batches = self.engine.batches();
        Ok(restored)
    }

    /// Puts the entries of all segments into the index in the order in which they were written, so that of two that
    /// overlap the newer one stays.
    ///
    /// What was dropped is in the segments still, so that a batch which an election has cut off comes back with them (H7)
    /// until the validation finds it out.
    ///
    /// What was stored of aborted transactions before the newest leader epoch showed may be out of date (H2): an election
    /// in between may have cut the log in front of their markers, and what was forgotten then is in the segments still.
    fn take_over(&mut self, found: Vec<Found<R>>, mut epochs: EpochsByPartition) {
        let new = PartitionState::restored(self.settings.max_staleness);
        let mut order = Vec::with_capacity(found.iter().map(|segment| segment.entries.len()).sum());
        let mut entries = Vec::with_capacity(found.len());
        // Neither has more than 2³² of them: segments are files or objects, and positions in one have 32 bits.
        for (segment_at, segment) in (0_u32..).zip(found) {
            let slot = self.engine.adopt(segment.id, segment.reader);
            let of_segment = (0_u32..).zip(&segment.entries);
            order.extend(of_segment.map(|(at, entry)| (entry.sequence, segment_at, at)));
            entries.push((slot, segment.entries));
        }
        order.sort_unstable();
        for (_, segment, at) in order {
            if let Some((slot, entries)) = entries.get(segment as usize)
                && let Some(entry) = entries.get(at as usize)
                && let Some(epochs) = epochs.of(entry.key)
                && epochs.can_be_validated(entry)
            {
                self.engine
                    .adopt_entry(*slot, entry, epochs.is_of_newest(entry), &new);
            }
        }
        self.engine.drop_dead();
    }
}

impl Restored {
    fn found<R>(&mut self, id: SegmentId, reader: R, recovered: Recovered) -> Found<R> {
        if let Recovery::Scanned { corrupt, .. } = recovered.recovery {
            self.scanned += 1;
            self.corrupt += corrupt;
        }
        let entries = recovered.directory.entries;
        Found { id, reader, entries }
    }
}

async fn directory<R: SegmentReader>(
    id: SegmentId,
    opened: Result<R, StorageError>,
    crc32c: Crc32c,
) -> (SegmentId, Result<(R, Recovered), SegmentError>) {
    let reader = match opened {
        Ok(reader) => reader,
        Err(error) => return (id, Err(SegmentError::of_storage(id, error))),
    };
    let recovered = read_directory(&reader, id, crc32c).await;
    (id, recovered.map(|recovered| (reader, recovered)))
}
