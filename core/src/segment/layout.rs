//! Little-endian fields at fixed places, and what records and footers have in common.

use alloc::vec::Vec;

use crate::transactions::{Aborted, AbortedInBatch};

/// The bytes at `at`. The caller has proven that they are there; zeros stand for what is not, since nothing may panic.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(super) fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_le_bytes(array(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

pub(super) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(array(bytes, at))
}

/// Overwrites what stands at `at`, which the caller has written.
pub(super) fn put_at(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(field) = bytes.get_mut(at..at.saturating_add(value.len())) {
        field.copy_from_slice(value);
    }
}

/// Bytes of an aborted transaction.
pub(super) const ABORTED_BYTES: usize = 24;
/// Stands for the count of aborted transactions where nothing is known of them.
pub(super) const ABORTED_UNKNOWN: u32 = u32::MAX;
/// Stands for it where the batch is of no transaction.
pub(super) const ABORTED_PLAIN: u32 = u32::MAX - 1;
/// Stands for the offset of a marker that lies beyond the batch.
const MARKER_UNKNOWN: i64 = i64::MIN;

/// How many transactions stand behind a field that says `aborted`.
pub(super) fn aborted_count(aborted: u32) -> u32 {
    match aborted {
        ABORTED_UNKNOWN | ABORTED_PLAIN => 0,
        count => count,
    }
}

pub(super) fn put_aborted(out: &mut Vec<u8>, list: &[Aborted]) {
    for each in list {
        out.extend_from_slice(&each.producer_id.to_le_bytes());
        out.extend_from_slice(&each.first_offset.to_le_bytes());
        out.extend_from_slice(&each.marker_offset.unwrap_or(MARKER_UNKNOWN).to_le_bytes());
    }
}

/// What a field that says `aborted` and the bytes behind it mean.
pub(super) fn aborted_of(aborted: u32, list: &[u8]) -> AbortedInBatch {
    match aborted {
        ABORTED_UNKNOWN => AbortedInBatch::Unknown,
        ABORTED_PLAIN => AbortedInBatch::Plain,
        0 => AbortedInBatch::None,
        _ => AbortedInBatch::Some(list.chunks_exact(ABORTED_BYTES).map(one_aborted).collect()),
    }
}

fn one_aborted(bytes: &[u8]) -> Aborted {
    let marker_offset = i64_at(bytes, 16);
    Aborted {
        producer_id: i64_at(bytes, 0),
        first_offset: i64_at(bytes, 8),
        marker_offset: (marker_offset != MARKER_UNKNOWN).then_some(marker_offset),
    }
}
