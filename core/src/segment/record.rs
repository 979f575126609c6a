//! A record: one batch, whose it is, and what is known of it.

use alloc::vec::Vec;

use bytes::Bytes;

use super::Place;
use super::error::{Part, SegmentError, SegmentErrorKind};
use super::footer::DirectoryEntry;
use super::header::SEGMENT_HEADER_BYTES;
use super::layout::{
    ABORTED_BYTES, ABORTED_PLAIN, ABORTED_UNKNOWN, aborted_count, aborted_of, array, i32_at, i64_at,
    put_aborted, put_at, u32_at, u64_at,
};
use crate::identity::PartitionKey;
use crate::offset::OffsetSpan;
use crate::storage::SegmentId;
use crate::transactions::AbortedInBatch;
use crate::wire::{BATCH_HEADER_BYTES, BatchError, Crc32c, RecordBatch, TopicId};

/// Bytes of a record's header, without the aborted transactions.
pub const RECORD_HEADER_BYTES: usize = 64;
/// The most aborted transactions that a record carries. So that a damaged count cannot ask for much, and because a
/// batch that more of them touch was never seen; it is stored as if nothing were known of them.
pub const ABORTED_PER_RECORD_MAX: usize = 65_535;

/// Not text, and not what unwritten blocks hold.
pub(super) const MAGIC: u32 = 0xc05e_9d8b;
/// The first bytes of a batch, which its own CRC does not cover (H24).
const BATCH_UNCOVERED_BYTES: usize = 21;

mod field {
    pub(super) const MAGIC: usize = 0;
    pub(super) const CHECKSUM: usize = 4;
    pub(super) const CHECKED_FROM: usize = 8;
    pub(super) const SEQUENCE: usize = 8;
    pub(super) const TOPIC_ID: usize = 16;
    pub(super) const PARTITION: usize = 32;
    pub(super) const BATCH_LENGTH: usize = 36;
    pub(super) const COVERS_BASE: usize = 40;
    pub(super) const LAST_OFFSET: usize = 48;
    pub(super) const LEADER_EPOCH: usize = 56;
    pub(super) const ABORTED: usize = 60;
}

/// What a record says beside what its batch says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose batch it is.
    pub key: PartitionKey,
    /// Tells this insertion from an earlier one at the same offsets; the larger one is newer.
    pub sequence: u64,
    /// The first offset that the batch answers: its base offset, or the first of the gap in front of it (H5). What
    /// lies behind the base offset is taken for that.
    pub covers_base: i64,
    /// The aborted transactions that touch what it covers (H2).
    pub aborted: AbortedInBatch,
}

/// What a record takes, in bytes.
pub fn record_size_bytes(aborted: &AbortedInBatch, batch_bytes: usize) -> usize {
    let list = storable(aborted).as_slice().len() * ABORTED_BYTES;
    (RECORD_HEADER_BYTES + list).saturating_add(batch_bytes)
}

/// Nothing known, if there are more than a record carries: readers of committed data then ask upstream.
pub(super) fn storable(aborted: &AbortedInBatch) -> &AbortedInBatch {
    if aborted.as_slice().len() > ABORTED_PER_RECORD_MAX {
        &AbortedInBatch::Unknown
    } else {
        aborted
    }
}

/// How the state of the aborted transactions is written.
pub(super) fn aborted_field(aborted: &AbortedInBatch) -> u32 {
    match aborted {
        AbortedInBatch::Unknown => ABORTED_UNKNOWN,
        AbortedInBatch::Plain => ABORTED_PLAIN,
        AbortedInBatch::None => 0,
        // It fits: `storable` bounds it.
        AbortedInBatch::Some(list) => u32::try_from(list.len()).unwrap_or(ABORTED_UNKNOWN),
    }
}

/// The record, to be written at `place` and nowhere else, in one allocation of its size.
pub fn encode_record(place: Place, record: &Record, batch: RecordBatch<'_>, crc32c: Crc32c) -> Vec<u8> {
    let mut out = Vec::new();
    append_record(&mut out, place, record, batch, crc32c);
    out
}

/// Appends the record to what stands right before `place`.
pub(crate) fn append_record(
    out: &mut Vec<u8>,
    place: Place,
    record: &Record,
    batch: RecordBatch<'_>,
    crc32c: Crc32c,
) {
    let bytes = batch.as_bytes();
    out.reserve_exact(record_size_bytes(&record.aborted, bytes.len()));
    append_record_head(out, place, record, batch, crc32c);
    out.extend_from_slice(bytes);
}

/// Appends what a record has in front of its batch.
pub(crate) fn append_record_head(
    out: &mut Vec<u8>,
    place: Place,
    record: &Record,
    batch: RecordBatch<'_>,
    crc32c: Crc32c,
) {
    let aborted = storable(&record.aborted);
    let bytes = batch.as_bytes();
    let from = out.len();
    out.reserve(record_size_bytes(aborted, BATCH_UNCOVERED_BYTES));
    // It fits: a batch states its length in 31 bits.
    let batch_length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let covers_base = record.covers_base.min(batch.base_offset());
    let mut header = [0; RECORD_HEADER_BYTES];
    put_at(&mut header, field::MAGIC, &MAGIC.to_le_bytes());
    put_at(&mut header, field::SEQUENCE, &record.sequence.to_le_bytes());
    put_at(&mut header, field::TOPIC_ID, &record.key.topic_id.0);
    put_at(&mut header, field::PARTITION, &record.key.partition.to_le_bytes());
    put_at(&mut header, field::BATCH_LENGTH, &batch_length.to_le_bytes());
    put_at(&mut header, field::COVERS_BASE, &covers_base.to_le_bytes());
    put_at(
        &mut header,
        field::LAST_OFFSET,
        &batch.last_offset().to_le_bytes(),
    );
    let leader_epoch = batch.partition_leader_epoch();
    put_at(&mut header, field::LEADER_EPOCH, &leader_epoch.to_le_bytes());
    put_at(&mut header, field::ABORTED, &aborted_field(aborted).to_le_bytes());
    out.extend_from_slice(&header);
    put_aborted(out, aborted.as_slice());
    // For a moment, so that what the checksum covers lies in one piece.
    let head_bytes = out.len();
    out.extend_from_slice(bytes.get(..BATCH_UNCOVERED_BYTES).unwrap_or(bytes));
    let checksum = checksum(out.get(from..).unwrap_or_default(), place, crc32c);
    out.truncate(head_bytes);
    put_at(out, from + field::CHECKSUM, &checksum.to_le_bytes());
}

/// The checksum of a record of which `bytes` hold everything but what the CRC of the batch covers.
fn checksum(bytes: &[u8], place: Place, crc32c: Crc32c) -> u32 {
    let mut at = [0; 12];
    put_at(&mut at, 0, &place.segment.0.to_le_bytes());
    put_at(&mut at, 8, &place.position.to_le_bytes());
    crc32c.of(bytes.get(field::CHECKED_FROM..).unwrap_or_default()) ^ crc32c.of(&at)
}

/// A record as it lies in a segment. Its lengths are proven to fit, and its offsets to be in order; whether it is
/// intact only [`Self::verify`] tells.
#[derive(Clone, Copy)]
pub struct RecordView<'a> {
    /// The whole record and nothing else.
    bytes: &'a [u8],
    place: Place,
    /// Where the batch begins in `bytes`.
    batch_at: usize,
    span: OffsetSpan,
    covers: OffsetSpan,
}

impl<'a> RecordView<'a> {
    /// The record at the beginning of `bytes`, which may go on behind it and lie at `place`.
    pub fn parse(bytes: &'a [u8], place: Place) -> Result<Self, SegmentError> {
        let size_bytes = stated_size_bytes(bytes, place)?;
        let Some(record) = usize::try_from(size_bytes)
            .ok()
            .and_then(|size| bytes.get(..size))
        else {
            return Err(wrong_length(place, size_bytes, bytes.len()));
        };
        let aborted = aborted_count(u32_at(record, field::ABORTED));
        // The list lies within the record, so its size is a usize.
        let batch_at = RECORD_HEADER_BYTES + usize::try_from(aborted).unwrap_or_default() * ABORTED_BYTES;
        let base = i64::from_be_bytes(array(record, batch_at));
        let last = i64_at(record, field::LAST_OFFSET);
        let covers_base = i64_at(record, field::COVERS_BASE);
        let Some(span) = OffsetSpan::new(base, last) else {
            return Err(wrong_field(place, "last offset", last.into()));
        };
        let Some(covers) = OffsetSpan::new(covers_base, last).filter(|covers| covers.contains(base)) else {
            return Err(wrong_field(place, "covers from", covers_base.into()));
        };
        Ok(Self {
            bytes: record,
            place,
            batch_at,
            span,
            covers,
        })
    }

    /// Where it lies.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Size of the record, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whose batch it is.
    pub fn key(&self) -> PartitionKey {
        PartitionKey {
            topic_id: TopicId(array(self.bytes, field::TOPIC_ID)),
            partition: i32_at(self.bytes, field::PARTITION),
        }
    }

    /// Tells this insertion from an earlier one at the same offsets; the larger one is newer.
    pub fn sequence(&self) -> u64 {
        u64_at(self.bytes, field::SEQUENCE)
    }

    /// The batch's own offsets.
    pub fn span(&self) -> OffsetSpan {
        self.span
    }

    /// The offsets that the batch answers: its own and those of the gap in front of it (H5).
    pub fn covers(&self) -> OffsetSpan {
        self.covers
    }

    /// The epoch of the leader that appended the batch.
    pub fn leader_epoch(&self) -> i32 {
        i32_at(self.bytes, field::LEADER_EPOCH)
    }

    /// The aborted transactions that touch what it covers.
    pub fn aborted(&self) -> AbortedInBatch {
        let list = self.bytes.get(RECORD_HEADER_BYTES..self.batch_at);
        aborted_of(u32_at(self.bytes, field::ABORTED), list.unwrap_or_default())
    }

    /// The batch, to the byte as the broker sent it (H27).
    pub fn batch(&self) -> &'a [u8] {
        self.bytes.get(self.batch_at..).unwrap_or_default()
    }

    /// What to write when the batch moves to another place, under the same sequence.
    pub fn record(&self) -> Record {
        Record {
            key: self.key(),
            sequence: self.sequence(),
            covers_base: self.covers.base(),
            aborted: self.aborted(),
        }
    }

    /// What a directory says of it.
    pub fn entry(&self) -> DirectoryEntry {
        DirectoryEntry {
            key: self.key(),
            sequence: self.sequence(),
            position: self.place.position,
            // It fits: a record states the length in 32 bits.
            batch_bytes: u32_at(self.bytes, field::BATCH_LENGTH),
            span: self.span,
            covers: self.covers,
            leader_epoch: self.leader_epoch(),
            aborted: self.aborted(),
        }
    }

    /// Whether it was written to this place just as it stands, and its header agrees with its batch.
    pub fn verify(&self, crc32c: Crc32c) -> Result<(), SegmentError> {
        self.verify_header(crc32c)?;
        self.verify_batch(crc32c)
    }

    /// Whether all is intact but what the CRC of the batch covers; the length of the record then is.
    pub(super) fn verify_header(&self, crc32c: Crc32c) -> Result<(), SegmentError> {
        let stored = u32_at(self.bytes, field::CHECKSUM);
        let checked = self.bytes.get(..self.batch_at + BATCH_UNCOVERED_BYTES);
        let computed = checksum(checked.unwrap_or_default(), self.place, crc32c);
        if stored == computed {
            return Ok(());
        }
        let part = Part::Record;
        Err(self.error(SegmentErrorKind::Checksum {
            part,
            stored,
            computed,
        }))
    }

    /// Whether what the CRC of the batch covers is intact, and is what the header says.
    pub(super) fn verify_batch(&self, crc32c: Crc32c) -> Result<(), SegmentError> {
        let damaged = |error: BatchError| self.error(SegmentErrorKind::Batch(error));
        let batch = RecordBatch::parse(self.batch()).map_err(damaged)?;
        batch.verify(crc32c).map_err(damaged)?;
        let agree = |field, header: i64, batch: i64| {
            if header == batch {
                return Ok(());
            }
            Err(self.error(SegmentErrorKind::Disagreement { field, header, batch }))
        };
        let stated_bytes = u32_at(self.bytes, field::BATCH_LENGTH);
        agree(
            "batch length",
            stated_bytes.into(),
            i64::try_from(batch.size_bytes()).unwrap_or(i64::MAX),
        )?;
        agree("last offset", self.span.last(), batch.last_offset())?;
        let epoch = batch.partition_leader_epoch();
        agree("leader epoch", self.leader_epoch().into(), epoch.into())
    }

    fn error(&self, kind: SegmentErrorKind) -> SegmentError {
        error(self.place, kind)
    }
}

impl core::fmt::Debug for RecordView<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RecordView")
            .field("place", &self.place)
            .field("key", &self.key())
            .field("sequence", &self.sequence())
            .field("span", &self.span)
            .field("covers", &self.covers)
            .field("size_bytes", &self.size_bytes())
            .finish_non_exhaustive()
    }
}

/// What the record at the beginning of `bytes` takes by its own account, which may be more than is there.
pub(super) fn stated_size_bytes(bytes: &[u8], place: Place) -> Result<u64, SegmentError> {
    let Some(header) = bytes.get(..RECORD_HEADER_BYTES) else {
        return Err(wrong_length(place, RECORD_HEADER_BYTES as u64, bytes.len()));
    };
    let magic = u32_at(header, field::MAGIC);
    if magic != MAGIC {
        let (part, found) = (Part::Record, magic.into());
        return Err(error(place, SegmentErrorKind::Magic { part, found }));
    }
    let batch_bytes = u64::from(u32_at(header, field::BATCH_LENGTH));
    if batch_bytes < BATCH_HEADER_BYTES as u64 {
        return Err(wrong_field(place, "batch length", batch_bytes.into()));
    }
    let aborted = u64::from(aborted_count(u32_at(header, field::ABORTED)));
    if aborted > ABORTED_PER_RECORD_MAX as u64 {
        return Err(wrong_field(place, "aborted", aborted.into()));
    }
    Ok(RECORD_HEADER_BYTES as u64 + aborted * ABORTED_BYTES as u64 + batch_bytes)
}

fn error(place: Place, kind: SegmentErrorKind) -> SegmentError {
    SegmentError {
        segment: place.segment,
        at_byte: place.position.into(),
        kind,
    }
}

fn wrong_field(place: Place, field: &'static str, found: i128) -> SegmentError {
    let part = Part::Record;
    error(place, SegmentErrorKind::Field { part, field, found })
}

fn wrong_length(place: Place, expected_bytes: u64, found_bytes: usize) -> SegmentError {
    error(
        place,
        SegmentErrorKind::Length {
            part: Part::Record,
            expected_bytes,
            found_bytes: found_bytes as u64,
        },
    )
}

/// Which batch is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its partition.
    pub key: PartitionKey,
    /// Its own offsets.
    pub span: OffsetSpan,
}

/// The batch in `record`, which was read from `place` and must hold exactly one record, if all of it is intact and it
/// is the batch that is asked for. A slice, not a copy.
pub fn verified_batch(
    record: &Bytes,
    place: Place,
    expected: &Expected,
    crc32c: Crc32c,
) -> Result<Bytes, SegmentError> {
    let view = RecordView::parse(record, place)?;
    if view.size_bytes() != record.len() {
        return Err(wrong_length(place, view.size_bytes() as u64, record.len()));
    }
    view.verify(crc32c)?;
    let (expected, found) = ((expected.key, expected.span), (view.key(), view.span()));
    if found != expected {
        return Err(error(place, SegmentErrorKind::OtherBatch { expected, found }));
    }
    Ok(record.slice(view.batch_at..))
}

/// Walks the records of a whole segment, header included, that lies in memory and is trusted: no checksum is
/// computed. Ends at the footer, at the end, or at whatever is no record.
pub fn records(segment: SegmentId, bytes: &[u8]) -> Records<'_> {
    Records {
        segment,
        bytes,
        at: SEGMENT_HEADER_BYTES,
    }
}

/// See [`records`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    segment: SegmentId,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordView<'a>;

    fn next(&mut self) -> Option<RecordView<'a>> {
        let place = Place {
            segment: self.segment,
            position: u32::try_from(self.at).ok()?,
        };
        let view = RecordView::parse(self.bytes.get(self.at..)?, place).ok()?;
        self.at += view.size_bytes();
        Some(view)
    }
}
