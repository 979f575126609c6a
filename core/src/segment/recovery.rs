//! What a segment holds, found out from its bytes alone.

use bytes::Bytes;

use super::Place;
use super::error::{Part, SegmentError, SegmentErrorKind};
use super::footer::{Directory, TRAILER_BYTES, decode_footer, footer_start};
use super::header::{SEGMENT_HEADER_BYTES, check_segment_header};
use super::record::{RECORD_HEADER_BYTES, RecordView, stated_size_bytes};
use crate::storage::{SegmentId, SegmentReader};
use crate::wire::Crc32c;

/// What is read at once while scanning, in bytes, if no single record is larger.
const SCAN_BLOCK_BYTES: u64 = 1 << 20;

/// What a segment holds, and how that was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// What it holds.
    pub directory: Directory,
    /// How that was found out.
    pub recovery: Recovery,
}

/// How it was found out what a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// By its footer. The batches themselves were not looked at.
    Sealed,
    /// By walking its records, each of which was verified.
    Scanned {
        /// How many records were intact.
        intact: u64,
        /// How many records were skipped because their batches were damaged.
        corrupt: u64,
        /// At which byte the walk ended before the end of the segment, at what is not an intact record: a torn write,
        /// or a damaged header or footer.
        torn_at: Option<u64>,
    },
}

/// Finds out what a segment holds: by its footer if that is intact, else by walking its records from the front until
/// the first whose length cannot be trusted.
///
/// Fails if the storage does, if the segment is of a newer version, or if neither its footer nor its header is intact.
pub async fn read_directory<R: SegmentReader>(
    reader: &R,
    segment: SegmentId,
    crc32c: Crc32c,
) -> Result<Recovered, SegmentError> {
    let size_bytes = reader.size_bytes();
    let header_bytes = size_bytes.min(SEGMENT_HEADER_BYTES as u64);
    let header = read(reader, segment, 0, header_bytes).await?;
    let checked = check_segment_header(&header, segment, crc32c);
    if let Err(error) = &checked
        && matches!(error.kind, SegmentErrorKind::NewerVersion { .. })
    {
        return Err(error.clone());
    }
    match read_footer(reader, segment, crc32c).await {
        Ok(directory) => Ok(Recovered {
            directory,
            recovery: Recovery::Sealed,
        }),
        Err(error) if is_of_storage(&error) => Err(error),
        Err(_) => {
            checked?;
            scan(reader, segment, crc32c).await
        }
    }
}

fn is_of_storage(error: &SegmentError) -> bool {
    matches!(
        error.kind,
        SegmentErrorKind::Storage(_) | SegmentErrorKind::ReadLength { .. }
    )
}

async fn read<R: SegmentReader>(
    reader: &R,
    segment: SegmentId,
    from: u64,
    to: u64,
) -> Result<Bytes, SegmentError> {
    let wrong = |kind| SegmentError {
        segment,
        at_byte: from,
        kind,
    };
    let read = reader.read(from..to).await;
    let bytes = read.map_err(|error| wrong(SegmentErrorKind::Storage(error)))?;
    let (expected_bytes, found_bytes) = (to.saturating_sub(from), bytes.len() as u64);
    if expected_bytes != found_bytes {
        return Err(wrong(SegmentErrorKind::ReadLength {
            expected_bytes,
            found_bytes,
        }));
    }
    Ok(bytes)
}

async fn read_footer<R: SegmentReader>(
    reader: &R,
    segment: SegmentId,
    crc32c: Crc32c,
) -> Result<Directory, SegmentError> {
    let size_bytes = reader.size_bytes();
    let Some(trailer_at) = size_bytes.checked_sub(TRAILER_BYTES as u64) else {
        return Err(SegmentError {
            segment,
            at_byte: 0,
            kind: SegmentErrorKind::Length {
                part: Part::Footer,
                expected_bytes: TRAILER_BYTES as u64,
                found_bytes: size_bytes,
            },
        });
    };
    let trailer = read(reader, segment, trailer_at, size_bytes).await?;
    let start = footer_start(&trailer, segment, size_bytes)?;
    let footer = read(reader, segment, start, size_bytes).await?;
    decode_footer(&footer, segment, start, crc32c)
}

/// Walks the records. Reads a bounded block at once, and never beyond the segment.
async fn scan<R: SegmentReader>(
    reader: &R,
    segment: SegmentId,
    crc32c: Crc32c,
) -> Result<Recovered, SegmentError> {
    let mut window = Window {
        reader,
        segment,
        size_bytes: reader.size_bytes(),
        at: 0,
        block: Bytes::new(),
    };
    let mut directory = Directory::default();
    let (mut at, mut corrupt) = (SEGMENT_HEADER_BYTES as u64, 0);
    while let Some((record, place)) = window.record(at).await? {
        let Ok(view) = RecordView::parse(&record, place) else {
            break;
        };
        if view.verify_header(crc32c).is_err() {
            break;
        }
        // The header is intact, so the length is: a damaged batch hides none of those behind it.
        match view.verify_batch(crc32c) {
            Ok(()) => directory.entries.push(view.entry()),
            Err(_) => corrupt += 1,
        }
        at += record.len() as u64;
    }
    let recovery = Recovery::Scanned {
        intact: directory.entries.len() as u64,
        corrupt,
        torn_at: (at != window.size_bytes).then_some(at),
    };
    Ok(Recovered { directory, recovery })
}

/// The block of a segment that was read last.
struct Window<'r, R> {
    reader: &'r R,
    segment: SegmentId,
    size_bytes: u64,
    at: u64,
    block: Bytes,
}

impl<R: SegmentReader> Window<'_, R> {
    /// The bytes that a record at `at` takes by its own account; `None` if it is not one or not all there.
    async fn record(&mut self, at: u64) -> Result<Option<(Bytes, Place)>, SegmentError> {
        let Ok(position) = u32::try_from(at) else {
            return Ok(None);
        };
        let place = Place {
            segment: self.segment,
            position,
        };
        let Some(header) = self.get(at, RECORD_HEADER_BYTES as u64).await? else {
            return Ok(None);
        };
        let Ok(size_bytes) = stated_size_bytes(&header, place) else {
            return Ok(None);
        };
        Ok(self.get(at, size_bytes).await?.map(|record| (record, place)))
    }

    /// The bytes from `at` on; `None` if the segment ends before.
    async fn get(&mut self, at: u64, length_bytes: u64) -> Result<Option<Bytes>, SegmentError> {
        let Some(end) = at.checked_add(length_bytes).filter(|end| *end <= self.size_bytes) else {
            return Ok(None);
        };
        if at < self.at || end > self.at + self.block.len() as u64 {
            let block_end = at.saturating_add(SCAN_BLOCK_BYTES).min(self.size_bytes).max(end);
            // The old block goes before the new one comes, so that one at most is held.
            self.block = Bytes::new();
            self.block = read(self.reader, self.segment, at, block_end).await?;
            self.at = at;
        }
        let from = usize::try_from(at - self.at);
        let to = usize::try_from(end - self.at);
        Ok(match (from, to) {
            (Ok(from), Ok(to)) if from <= to && to <= self.block.len() => Some(self.block.slice(from..to)),
            _ => None,
        })
    }
}
