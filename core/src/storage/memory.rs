//! Segments in memory.

use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use bytes::Bytes;

use super::{Operation, SegmentId, SegmentReader, Storage, StorageError, StorageErrorKind, StoredSegment};

/// Keeps segments in memory; they are gone with the process.
///
/// A sealed segment is one allocation of its size, so that it frees as a whole and is sliced without a copy. While it
/// is being sealed its bytes are there twice. A segment that was appended as a single piece is kept as that piece,
/// and with it whatever the piece is a slice of (H26).
#[derive(Debug, Default)]
pub struct MemoryStorage {
    /// By number.
    segments: Vec<(SegmentId, Held)>,
}

#[derive(Debug)]
struct Held {
    pieces: Vec<Bytes>,
    is_sealed: bool,
}

impl Held {
    fn size_bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// All of it in one piece, which is kept in the place of the many.
    fn joined(&mut self) -> Bytes {
        if let [piece] = self.pieces.as_slice() {
            return piece.clone();
        }
        let mut bytes = Vec::with_capacity(self.size_bytes());
        for piece in mem::take(&mut self.pieces) {
            bytes.extend_from_slice(&piece);
        }
        let joined = Bytes::from(bytes);
        self.pieces = Vec::from([joined.clone()]);
        joined
    }
}

impl MemoryStorage {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where a segment stands, or is to be inserted, which mostly is behind all others: numbers are given in ascending order.
    fn place(&self, segment: SegmentId) -> Result<usize, usize> {
        self.segments.binary_search_by_key(&segment, |(id, _)| *id)
    }

    fn held(&mut self, operation: Operation, segment: SegmentId) -> Result<&mut Held, StorageError> {
        let place = self.place(segment).ok();
        let held = place.and_then(|place| self.segments.get_mut(place));
        held.map(|(_, held)| held)
            .ok_or_else(|| error(operation, segment, StorageErrorKind::NotFound))
    }
}

fn error(operation: Operation, segment: SegmentId, kind: StorageErrorKind) -> StorageError {
    StorageError {
        operation,
        segment: Some(segment),
        kind,
    }
}

impl Storage for MemoryStorage {
    type Reader = Bytes;

    async fn list(&mut self) -> Result<Vec<StoredSegment>, StorageError> {
        let stored = self.segments.iter().map(|(id, held)| StoredSegment {
            id: *id,
            size_bytes: held.size_bytes() as u64,
        });
        Ok(stored.collect())
    }

    async fn create(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        let Err(place) = self.place(segment) else {
            return Err(error(Operation::Create, segment, StorageErrorKind::Exists));
        };
        let empty = Held {
            pieces: Vec::new(),
            is_sealed: false,
        };
        self.segments.insert(place, (segment, empty));
        Ok(())
    }

    async fn append(&mut self, segment: SegmentId, mut pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let held = self.held(Operation::Append, segment)?;
        if held.is_sealed {
            return Err(error(Operation::Append, segment, StorageErrorKind::Sealed));
        }
        pieces.retain(|piece| !piece.is_empty());
        held.pieces.append(&mut pieces);
        Ok(())
    }

    async fn seal(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        let held = self.held(Operation::Seal, segment)?;
        held.joined();
        held.is_sealed = true;
        Ok(())
    }

    async fn open(&mut self, segment: SegmentId) -> Result<Bytes, StorageError> {
        Ok(self.held(Operation::Open, segment)?.joined())
    }

    async fn remove(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        if let Ok(place) = self.place(segment) {
            self.segments.remove(place);
        }
        Ok(())
    }
}

/// A segment in memory. It does not know its number, so its errors name none.
impl SegmentReader for Bytes {
    const MAY_CORRUPT: bool = false;

    fn as_slice(&self) -> Option<&[u8]> {
        Some(self)
    }

    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_now(&self, range: Range<u64>) -> Option<Result<Bytes, StorageError>> {
        Some(slice(self, &range))
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StorageError> {
        slice(self, &range)
    }

    fn is_last(&self) -> bool {
        // Nothing is held by what is empty, and `Bytes` says of it that it is shared.
        self.is_empty() || self.is_unique()
    }
}

fn slice(bytes: &Bytes, range: &Range<u64>) -> Result<Bytes, StorageError> {
    let within = usize::try_from(range.start)
        .ok()
        .zip(usize::try_from(range.end).ok())
        .filter(|(start, end)| start <= end && *end <= bytes.len());
    match within {
        Some((start, end)) => Ok(bytes.slice(start..end)),
        None => Err(StorageError {
            operation: Operation::Read,
            segment: None,
            kind: StorageErrorKind::OutOfRange {
                end: range.end,
                size_bytes: bytes.len() as u64,
            },
        }),
    }
}
