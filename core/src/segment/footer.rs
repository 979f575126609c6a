//! The directory of a segment, and the footer that holds it.

use alloc::vec::Vec;
use core::ops::Range;

use hashbrown::HashMap;

use super::error::{Part, SegmentError, SegmentErrorKind};
use super::header::{SEGMENT_HEADER_BYTES, SEGMENT_VERSION};
use super::layout::{
    ABORTED_BYTES, aborted_count, aborted_of, array, i32_at, i64_at, put_aborted, put_at, u16_at, u32_at,
    u64_at,
};
use super::record::{ABORTED_PER_RECORD_MAX, aborted_field, record_size_bytes, storable};
use crate::identity::PartitionKey;
use crate::offset::OffsetSpan;
use crate::storage::SegmentId;
use crate::transactions::AbortedInBatch;
use crate::wire::{BATCH_HEADER_BYTES, Crc32c, TopicId};

/// What a directory says of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Whose batch it is.
    pub key: PartitionKey,
    /// Tells this insertion from an earlier one at the same offsets; the larger one is newer.
    pub sequence: u64,
    /// At which byte of the segment the record begins.
    pub position: u32,
    /// Size of the batch, in bytes.
    pub batch_bytes: u32,
    /// The batch's own offsets.
    pub span: OffsetSpan,
    /// The offsets that the batch answers: its own and those of the gap in front of it (H5).
    pub covers: OffsetSpan,
    /// The epoch of the leader that appended the batch.
    pub leader_epoch: i32,
    /// The aborted transactions that touch what it covers (H2).
    pub aborted: AbortedInBatch,
}

impl DirectoryEntry {
    /// Where the record lies in its segment.
    pub fn record_range(&self) -> Range<u64> {
        let from = u64::from(self.position);
        // On any target: the aborted transactions are few, and the batch is counted in 32 bits.
        let before_batch = record_size_bytes(&self.aborted, 0) as u64;
        from..from + before_batch + u64::from(self.batch_bytes)
    }

    /// Where the batch lies in its segment.
    pub fn batch_range(&self) -> Range<u64> {
        let record = self.record_range();
        record.end - u64::from(self.batch_bytes)..record.end
    }
}

/// What a segment holds, in the order in which it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// One for each record that was not dropped before the segment was sealed.
    pub entries: Vec<DirectoryEntry>,
}

const MAGIC: u64 = u64::from_le_bytes(*b"\x8bk-end\r\n");
const FOOTER_HEADER_BYTES: usize = 24;
const PARTITION_BYTES: usize = 20;
const ENTRY_BYTES: usize = 44;
/// Bytes at the end of a sealed segment by which its footer is found.
pub(super) const TRAILER_BYTES: usize = 32;

/// What a footer takes without any entry, in bytes.
pub const FOOTER_FIXED_BYTES: usize = FOOTER_HEADER_BYTES + TRAILER_BYTES;

/// What one record makes a footer grow at most, in bytes: its entry, and its partition if no other record is of it.
pub fn footer_share_bytes_max(aborted: &AbortedInBatch) -> usize {
    ENTRY_BYTES + PARTITION_BYTES + storable(aborted).as_slice().len() * ABORTED_BYTES
}

mod header_field {
    pub(super) const PARTITIONS: usize = 0;
    pub(super) const FIRST_SEQUENCE: usize = 8;
    pub(super) const ABORTED: usize = 16;
}

mod entry_field {
    pub(super) const SLOT: usize = 0;
    pub(super) const POSITION: usize = 4;
    pub(super) const BATCH_LENGTH: usize = 8;
    pub(super) const LAST_OFFSET_DELTA: usize = 12;
    pub(super) const BASE_OFFSET: usize = 16;
    pub(super) const COVERS_BASE: usize = 24;
    pub(super) const LEADER_EPOCH: usize = 32;
    pub(super) const ABORTED: usize = 36;
    pub(super) const SEQUENCE_DELTA: usize = 40;
}

mod trailer_field {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 8;
    pub(super) const FOOTER_LENGTH: usize = 12;
    pub(super) const ENTRIES: usize = 16;
    pub(super) const ID: usize = 20;
    pub(super) const CHECKSUM: usize = 28;
}

/// The footer of a segment that holds these, trailer included. `None` if they do not fit one: sequences that lie 2³²
/// apart, or 4 GiB of entries; the segment is then sealed without, and scanned when it is opened.
pub fn encode_footer(segment: SegmentId, entries: &[DirectoryEntry], crc32c: Crc32c) -> Option<Vec<u8>> {
    let first_sequence = entries
        .iter()
        .map(|entry| entry.sequence)
        .min()
        .unwrap_or_default();
    let (partitions, slots) = partition_table(entries)?;
    let aborted: usize = entries
        .iter()
        .map(|entry| storable(&entry.aborted).as_slice().len())
        .sum();
    let footer_bytes = FOOTER_HEADER_BYTES
        + partitions.len() * PARTITION_BYTES
        + entries.len() * ENTRY_BYTES
        + aborted * ABORTED_BYTES;
    let mut out = Vec::with_capacity(footer_bytes + TRAILER_BYTES);
    let mut header = [0; FOOTER_HEADER_BYTES];
    let partition_count = u32::try_from(partitions.len()).ok()?;
    put_at(
        &mut header,
        header_field::PARTITIONS,
        &partition_count.to_le_bytes(),
    );
    put_at(
        &mut header,
        header_field::FIRST_SEQUENCE,
        &first_sequence.to_le_bytes(),
    );
    put_at(
        &mut header,
        header_field::ABORTED,
        &u32::try_from(aborted).ok()?.to_le_bytes(),
    );
    out.extend_from_slice(&header);
    for key in partitions {
        out.extend_from_slice(&key.topic_id.0);
        out.extend_from_slice(&key.partition.to_le_bytes());
    }
    for (entry, slot) in entries.iter().zip(slots) {
        out.extend_from_slice(&encode_entry(entry, slot, first_sequence)?);
    }
    for entry in entries {
        put_aborted(&mut out, storable(&entry.aborted).as_slice());
    }
    let mut trailer = [0; TRAILER_BYTES];
    put_at(&mut trailer, trailer_field::MAGIC, &MAGIC.to_le_bytes());
    put_at(
        &mut trailer,
        trailer_field::VERSION,
        &SEGMENT_VERSION.to_le_bytes(),
    );
    let (footer_bytes, count) = (
        u32::try_from(footer_bytes).ok()?,
        u32::try_from(entries.len()).ok()?,
    );
    put_at(
        &mut trailer,
        trailer_field::FOOTER_LENGTH,
        &footer_bytes.to_le_bytes(),
    );
    put_at(&mut trailer, trailer_field::ENTRIES, &count.to_le_bytes());
    put_at(&mut trailer, trailer_field::ID, &segment.0.to_le_bytes());
    out.extend_from_slice(trailer.get(..trailer_field::CHECKSUM).unwrap_or_default());
    let checksum = crc32c.of(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    Some(out)
}

/// Every partition once, and for each entry the place of its own among them.
fn partition_table(entries: &[DirectoryEntry]) -> Option<(Vec<PartitionKey>, Vec<u32>)> {
    let mut partitions: Vec<PartitionKey> = Vec::new();
    let mut known: HashMap<PartitionKey, u32> = HashMap::new();
    let mut slots = Vec::with_capacity(entries.len());
    for entry in entries {
        let next = u32::try_from(partitions.len()).ok()?;
        let slot = *known.entry(entry.key).or_insert(next);
        if slot == next {
            partitions.push(entry.key);
        }
        slots.push(slot);
    }
    Some((partitions, slots))
}

fn encode_entry(entry: &DirectoryEntry, slot: u32, first_sequence: u64) -> Option<[u8; ENTRY_BYTES]> {
    let span = entry.span;
    let last_offset_delta = u32::try_from(span.last().abs_diff(span.base())).ok()?;
    let sequence_delta = u32::try_from(entry.sequence - first_sequence).ok()?;
    let covers_base = entry.covers.base().min(span.base());
    let aborted = aborted_field(storable(&entry.aborted));
    let mut out = [0; ENTRY_BYTES];
    put_at(&mut out, entry_field::SLOT, &slot.to_le_bytes());
    put_at(&mut out, entry_field::POSITION, &entry.position.to_le_bytes());
    put_at(
        &mut out,
        entry_field::BATCH_LENGTH,
        &entry.batch_bytes.to_le_bytes(),
    );
    put_at(
        &mut out,
        entry_field::LAST_OFFSET_DELTA,
        &last_offset_delta.to_le_bytes(),
    );
    put_at(&mut out, entry_field::BASE_OFFSET, &span.base().to_le_bytes());
    put_at(&mut out, entry_field::COVERS_BASE, &covers_base.to_le_bytes());
    put_at(
        &mut out,
        entry_field::LEADER_EPOCH,
        &entry.leader_epoch.to_le_bytes(),
    );
    put_at(&mut out, entry_field::ABORTED, &aborted.to_le_bytes());
    put_at(
        &mut out,
        entry_field::SEQUENCE_DELTA,
        &sequence_delta.to_le_bytes(),
    );
    Some(out)
}

/// By its trailer, the last bytes of the segment: where the footer begins.
pub(super) fn footer_start(trailer: &[u8], segment: SegmentId, size_bytes: u64) -> Result<u64, SegmentError> {
    let at_byte = size_bytes.saturating_sub(TRAILER_BYTES as u64);
    let wrong = |kind| SegmentError {
        segment,
        at_byte,
        kind,
    };
    let magic = u64_at(trailer, trailer_field::MAGIC);
    if magic != MAGIC || trailer.len() != TRAILER_BYTES {
        let part = Part::Footer;
        return Err(wrong(SegmentErrorKind::Magic { part, found: magic }));
    }
    let footer_bytes = u64::from(u32_at(trailer, trailer_field::FOOTER_LENGTH));
    at_byte
        .checked_sub(footer_bytes)
        .filter(|start| *start >= SEGMENT_HEADER_BYTES as u64 && footer_bytes >= FOOTER_HEADER_BYTES as u64)
        .ok_or_else(|| wrong_field_kind("footer length", footer_bytes.into()))
        .map_err(wrong)
}

fn wrong_field_kind(field: &'static str, found: i128) -> SegmentErrorKind {
    let part = Part::Footer;
    SegmentErrorKind::Field { part, field, found }
}

/// The directory in `bytes`, which are the footer with its trailer and begin at byte `start` of the segment.
pub(super) fn decode_footer(
    bytes: &[u8],
    segment: SegmentId,
    start: u64,
    crc32c: Crc32c,
) -> Result<Directory, SegmentError> {
    let wrong = |kind| SegmentError {
        segment,
        at_byte: start,
        kind,
    };
    let (stored, computed) = checksums(bytes, crc32c);
    if stored != computed {
        return Err(wrong(SegmentErrorKind::Checksum {
            part: Part::Footer,
            stored,
            computed,
        }));
    }
    let (footer, trailer) = bytes.split_at(bytes.len().saturating_sub(TRAILER_BYTES));
    let unexpected = |field, found| Err(wrong(wrong_field_kind(field, found)));
    let version = u16_at(trailer, trailer_field::VERSION);
    if version != SEGMENT_VERSION {
        return unexpected("version", version.into());
    }
    let id = u64_at(trailer, trailer_field::ID);
    if id != segment.0 {
        return unexpected("segment id", id.into());
    }
    let count = u32_at(trailer, trailer_field::ENTRIES);
    let Some(tables) = Tables::of(footer, count) else {
        return unexpected("entries", count.into());
    };
    tables.decode(start).map_err(wrong)
}

/// What the footer's trailer says, and what is.
fn checksums(bytes: &[u8], crc32c: Crc32c) -> (u32, u32) {
    let (checked, stored) = bytes.split_at(bytes.len().saturating_sub(4));
    (u32_at(stored, 0), crc32c.of(checked))
}

/// The parts of a footer, whose counts are proven to agree with its length.
struct Tables<'a> {
    header: &'a [u8],
    partitions: &'a [[u8; PARTITION_BYTES]],
    entries: &'a [[u8; ENTRY_BYTES]],
    aborted: &'a [u8],
}

impl<'a> Tables<'a> {
    fn of(footer: &'a [u8], entries: u32) -> Option<Self> {
        let (header, rest) = footer.split_at_checked(FOOTER_HEADER_BYTES)?;
        let bytes_of = |count: u32, each: usize| usize::try_from(count).ok()?.checked_mul(each);
        let partitions = bytes_of(u32_at(header, header_field::PARTITIONS), PARTITION_BYTES)?;
        let (partitions, rest) = rest.split_at_checked(partitions)?;
        let (entries, aborted) = rest.split_at_checked(bytes_of(entries, ENTRY_BYTES)?)?;
        let aborted_bytes = bytes_of(u32_at(header, header_field::ABORTED), ABORTED_BYTES)?;
        (aborted.len() == aborted_bytes).then_some(Self {
            header,
            partitions: partitions.as_chunks().0,
            entries: entries.as_chunks().0,
            aborted,
        })
    }

    /// The entries, if each lies between the segment's header and the footer, which begins at `start`.
    fn decode(&self, start: u64) -> Result<Directory, SegmentErrorKind> {
        let partitions: Vec<PartitionKey> = self.partitions.iter().map(partition).collect();
        let mut aborted = self.aborted;
        // Sized by entries that are there, not by a count.
        let mut entries = Vec::with_capacity(self.entries.len());
        for bytes in self.entries {
            let slot = u32_at(bytes, entry_field::SLOT);
            let key = usize::try_from(slot).ok().and_then(|slot| partitions.get(slot));
            let key = *key.ok_or_else(|| wrong_field_kind("partition", slot.into()))?;
            let entry = self.entry(bytes, key, &mut aborted)?;
            let record = entry.record_range();
            if record.start < SEGMENT_HEADER_BYTES as u64 || record.end > start {
                return Err(wrong_field_kind("position", entry.position.into()));
            }
            entries.push(entry);
        }
        Ok(Directory { entries })
    }

    fn entry(
        &self,
        bytes: &[u8; ENTRY_BYTES],
        key: PartitionKey,
        aborted: &mut &[u8],
    ) -> Result<DirectoryEntry, SegmentErrorKind> {
        let batch_bytes = u32_at(bytes, entry_field::BATCH_LENGTH);
        if (batch_bytes as usize) < BATCH_HEADER_BYTES {
            return Err(wrong_field_kind("batch length", batch_bytes.into()));
        }
        let base = i64_at(bytes, entry_field::BASE_OFFSET);
        let delta = u32_at(bytes, entry_field::LAST_OFFSET_DELTA);
        let last = base.checked_add(delta.into());
        let span = last.and_then(|last| OffsetSpan::new(base, last));
        let span = span.ok_or_else(|| wrong_field_kind("last offset", delta.into()))?;
        let covers_base = i64_at(bytes, entry_field::COVERS_BASE);
        let covers = OffsetSpan::new(covers_base, span.last()).filter(|covers| covers.contains(base));
        let covers = covers.ok_or_else(|| wrong_field_kind("covers from", covers_base.into()))?;
        let sequence = u64_at(self.header, header_field::FIRST_SEQUENCE)
            .saturating_add(u32_at(bytes, entry_field::SEQUENCE_DELTA).into());
        Ok(DirectoryEntry {
            key,
            sequence,
            position: u32_at(bytes, entry_field::POSITION),
            batch_bytes,
            span,
            covers,
            leader_epoch: i32_at(bytes, entry_field::LEADER_EPOCH),
            aborted: take_aborted(u32_at(bytes, entry_field::ABORTED), aborted)?,
        })
    }
}

fn partition(bytes: &[u8; PARTITION_BYTES]) -> PartitionKey {
    PartitionKey {
        topic_id: TopicId(array(bytes, 0)),
        partition: i32_at(bytes, 16),
    }
}

/// Takes the transactions of one entry off the front of `rest`.
fn take_aborted(field: u32, rest: &mut &[u8]) -> Result<AbortedInBatch, SegmentErrorKind> {
    let count = usize::try_from(aborted_count(field)).unwrap_or(usize::MAX);
    let (list, behind) = Some(count)
        .filter(|count| *count <= ABORTED_PER_RECORD_MAX)
        .and_then(|count| rest.split_at_checked(count * ABORTED_BYTES))
        .ok_or_else(|| wrong_field_kind("aborted", field.into()))?;
    *rest = behind;
    Ok(aborted_of(field, list))
}
