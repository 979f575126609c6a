//! What a mount point holds, by its segments' own directories.

use std::collections::BTreeMap;
use std::time::SystemTime;

use kachet::core::identity::PartitionKey;
use kachet::core::offset::OffsetSpan;
use kachet::core::segment::{
    DirectoryEntry, Recovered, Recovery, SegmentError, SegmentErrorKind, read_directory,
};
use kachet::core::storage::{Storage, StoredSegment};
use kachet::mount::MountPoint;

use super::CRC32C;
use crate::cli::failure::Failure;

/// A segment, and how its directory was found.
pub(super) struct Surveyed {
    pub(super) stored: StoredSegment,
    pub(super) modified: Option<SystemTime>,
    /// An error if nothing of it can be read.
    pub(super) recovery: Result<Recovery, SegmentError>,
}

impl Surveyed {
    /// Whether the process that wrote it did not come to seal it, or its footer is damaged.
    pub(super) fn is_scanned(&self) -> bool {
        matches!(self.recovery, Ok(Recovery::Scanned { .. }))
    }
}

/// All segments, and what they hold together.
pub(super) struct Survey {
    pub(super) segments: Vec<Surveyed>,
    pub(super) partitions: BTreeMap<PartitionKey, Contents>,
}

/// A batch, as little of it as is needed.
#[derive(Clone, Copy)]
struct Batch {
    sequence: u64,
    covers: OffsetSpan,
    size_bytes: u32,
}

/// What is held of one partition.
#[derive(Default)]
pub(super) struct Contents {
    batches: Vec<Batch>,
}

impl Contents {
    fn note(&mut self, entry: &DirectoryEntry) {
        self.batches.push(Batch {
            sequence: entry.sequence,
            covers: entry.covers,
            size_bytes: entry.batch_bytes,
        });
    }

    /// Of batches that overlap the newest stays, as when a cache takes the segments over.
    fn settle(&mut self) {
        self.batches
            .sort_unstable_by_key(|batch| core::cmp::Reverse(batch.sequence));
        let mut kept: BTreeMap<i64, Batch> = BTreeMap::new();
        for batch in &self.batches {
            let next = kept.range(batch.covers.base()..).next();
            if next.is_none_or(|(_, other)| !other.covers.overlaps(batch.covers)) {
                kept.insert(batch.covers.last(), *batch);
            }
        }
        self.batches = kept.into_values().collect();
    }

    pub(super) fn batches(&self) -> u64 {
        self.batches.len() as u64
    }

    pub(super) fn batch_bytes(&self) -> u64 {
        self.batches.iter().map(|batch| u64::from(batch.size_bytes)).sum()
    }

    /// The offsets that are held, as runs in ascending order.
    pub(super) fn ranges(&self) -> Vec<OffsetSpan> {
        let mut ranges: Vec<OffsetSpan> = Vec::new();
        for batch in &self.batches {
            let joined = ranges.last().and_then(|range| {
                let touches = range.last().checked_add(1) == Some(batch.covers.base());
                let joined = OffsetSpan::new(range.base(), batch.covers.last());
                joined.filter(|_| touches)
            });
            match (joined, ranges.last_mut()) {
                (Some(joined), Some(range)) => *range = joined,
                _ => ranges.push(batch.covers),
            }
        }
        ranges
    }
}

/// The segments of a mount point, the oldest first.
pub(super) async fn segments(mount: &mut MountPoint) -> Result<Vec<StoredSegment>, Failure> {
    let mut stored = mount.list().await.map_err(Failure::Storage)?;
    stored.sort_unstable_by_key(|segment| segment.id);
    Ok(stored)
}

/// Reads the directories of all segments. A damaged one hides no other; one of a later release is an error.
pub(super) async fn survey(mount: &mut MountPoint) -> Result<Survey, Failure> {
    let mut survey = Survey {
        segments: Vec::new(),
        partitions: BTreeMap::new(),
    };
    for stored in segments(mount).await? {
        let recovery = match directory(mount, stored).await {
            Ok(recovered) => {
                for entry in &recovered.directory.entries {
                    survey.partitions.entry(entry.key).or_default().note(entry);
                }
                Ok(recovered.recovery)
            }
            Err(error) if is_newer(&error) => return Err(Failure::Segment(error)),
            Err(error) => Err(error),
        };
        let metadata = std::fs::metadata(mount.segment_path(stored.id)).ok();
        survey.segments.push(Surveyed {
            stored,
            modified: metadata.and_then(|metadata| metadata.modified().ok()),
            recovery,
        });
    }
    survey.partitions.values_mut().for_each(Contents::settle);
    Ok(survey)
}

pub(super) fn is_newer(error: &SegmentError) -> bool {
    matches!(error.kind, SegmentErrorKind::NewerVersion { .. })
}

async fn directory(mount: &mut MountPoint, stored: StoredSegment) -> Result<Recovered, SegmentError> {
    let opened = mount.open(stored.id).await;
    let reader = opened.map_err(|error| SegmentError {
        segment: stored.id,
        at_byte: 0,
        kind: SegmentErrorKind::Storage(error),
    })?;
    read_directory(&reader, stored.id, CRC32C).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(batches: &[(u64, i64, i64)]) -> Contents {
        let batch = |&(sequence, base, last): &(u64, i64, i64)| Batch {
            sequence,
            covers: OffsetSpan::new(base, last).unwrap(),
            size_bytes: 100,
        };
        let mut contents = Contents {
            batches: batches.iter().map(batch).collect(),
        };
        contents.settle();
        contents
    }

    fn ranges(batches: &[(u64, i64, i64)]) -> Vec<(i64, i64)> {
        let ranges = contents(batches).ranges();
        ranges.iter().map(|range| (range.base(), range.last())).collect()
    }

    #[test]
    fn neighbours_are_one_range_and_gaps_are_between_ranges() {
        assert_eq!(ranges(&[]), []);
        assert_eq!(
            ranges(&[(2, 10, 19), (1, 0, 9), (3, 21, 30)]),
            [(0, 19), (21, 30)]
        );
        let end = i64::MAX;
        assert_eq!(ranges(&[(1, end - 1, end), (2, 0, 0)]), [(0, 0), (end - 1, end)]);
    }

    #[test]
    fn of_batches_that_overlap_the_newest_counts() {
        let held = contents(&[(1, 0, 9), (5, 0, 9), (2, 10, 19), (3, 15, 24), (4, 40, 40)]);
        assert_eq!((held.batches(), held.batch_bytes()), (3, 300));
        let overlapped = [(1, 0, 9), (5, 0, 9), (2, 10, 19), (3, 15, 24), (4, 40, 40)];
        assert_eq!(ranges(&overlapped), [(0, 9), (15, 24), (40, 40)]);
        // One that holds another within itself.
        assert_eq!(ranges(&[(1, 0, 99), (2, 10, 19)]), [(10, 19)]);
        assert_eq!(ranges(&[(2, 0, 99), (1, 10, 19)]), [(0, 99)]);
    }
}
