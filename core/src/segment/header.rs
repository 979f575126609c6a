//! The header at the beginning of a segment.

use super::error::{Part, SegmentError, SegmentErrorKind};
use super::layout::{put_at, u16_at, u32_at, u64_at};
use crate::storage::SegmentId;
use crate::wire::Crc32c;

/// Bytes of the header of a segment.
pub const SEGMENT_HEADER_BYTES: usize = 32;
/// The version of the format that is written here, and the newest that is read.
pub const SEGMENT_VERSION: u16 = 1;

/// Neither text nor anything that a transfer as text would leave whole.
const MAGIC: u64 = u64::from_le_bytes(*b"\x8bkachet\n");

mod field {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 8;
    pub(super) const HEADER_LENGTH: usize = 10;
    pub(super) const ID: usize = 16;
    pub(super) const CHECKSUM: usize = 28;
}

/// The header of the segment.
pub fn encode_segment_header(segment: SegmentId, crc32c: Crc32c) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    put_at(&mut header, field::MAGIC, &MAGIC.to_le_bytes());
    put_at(&mut header, field::VERSION, &SEGMENT_VERSION.to_le_bytes());
    // It fits: it is the constant 32.
    let header_length = u16::try_from(SEGMENT_HEADER_BYTES).unwrap_or_default();
    put_at(&mut header, field::HEADER_LENGTH, &header_length.to_le_bytes());
    put_at(&mut header, field::ID, &segment.0.to_le_bytes());
    let checksum = checksum(&header, crc32c);
    put_at(&mut header, field::CHECKSUM, &checksum.to_le_bytes());
    header
}

fn checksum(header: &[u8], crc32c: Crc32c) -> u32 {
    crc32c.of(header.get(..field::CHECKSUM).unwrap_or_default())
}

/// Whether `bytes` begin with the intact header of the segment, in a version that is read here.
pub fn check_segment_header(bytes: &[u8], segment: SegmentId, crc32c: Crc32c) -> Result<(), SegmentError> {
    let part = Part::SegmentHeader;
    let wrong = |kind| {
        Err(SegmentError {
            segment,
            at_byte: 0,
            kind,
        })
    };
    let Some(header) = bytes.get(..SEGMENT_HEADER_BYTES) else {
        return wrong(SegmentErrorKind::Length {
            part,
            expected_bytes: SEGMENT_HEADER_BYTES as u64,
            found_bytes: bytes.len() as u64,
        });
    };
    let magic = u64_at(header, field::MAGIC);
    if magic != MAGIC {
        return wrong(SegmentErrorKind::Magic { part, found: magic });
    }
    // Before the version: a damaged one must not pass for a newer one, which a host would leave alone for ever.
    let (stored, computed) = (u32_at(header, field::CHECKSUM), checksum(header, crc32c));
    if stored != computed {
        return wrong(SegmentErrorKind::Checksum {
            part,
            stored,
            computed,
        });
    }
    let version = u16_at(header, field::VERSION);
    if version > SEGMENT_VERSION {
        return wrong(SegmentErrorKind::NewerVersion {
            version,
            newest: SEGMENT_VERSION,
        });
    }
    let unexpected = |field, found: u64| {
        wrong(SegmentErrorKind::Field {
            part,
            field,
            found: found.into(),
        })
    };
    if version != SEGMENT_VERSION {
        return unexpected("version", version.into());
    }
    let header_length = u16_at(header, field::HEADER_LENGTH);
    if usize::from(header_length) != SEGMENT_HEADER_BYTES {
        return unexpected("header length", header_length.into());
    }
    let id = u64_at(header, field::ID);
    if id != segment.0 {
        return unexpected("segment id", id);
    }
    Ok(())
}
