//! Records out of answers: a table that says where each record's parts lie, and the bytes that they lie in, which are those of
//! the batches as they stand in the cache or were decompressed.
//!
//! Every byte of a record passes through here, so this is a crate by itself: modules are built for size, and it for speed.
//!
//! Six 64-bit words are one record:
//!
//! ```text
//! offset · timestamp · key · value · first header and their count · 0
//! ```
//!
//! and two are one header: key · value. A key or a value is a place in the bytes of all pieces, one behind another: its start in
//! the low 32 bits and its length in the high 32; −1 for null. The headers of a record are the index of the first in the low half
//! and their count in the high half.

#![no_std]

extern crate alloc;

mod error;

use alloc::vec::Vec;
use core::mem;

use bytes::Bytes;
use kachet_core::wire::codec::{Codec, decompress};
use kachet_core::wire::{
    AbortedWalk, BatchEntry, Batches, Crc32c, PartitionData, Record, RecordBatch, RecordBytes,
};

pub use self::error::Error;

const RECORD_WORDS: usize = 6;
const NULL: u64 = u64::MAX;

/// Which records of an answer are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Records before it are left out.
    pub from_offset: i64,
    /// So many at most.
    pub count_limit: usize,
    /// How large the block may become, in bytes; it ends behind the first record that passes it.
    pub size_limit_bytes: usize,
    /// What one batch may expand to, in bytes.
    pub decompressed_limit_bytes: usize,
    /// Whether checksums are verified; what comes from the cache was when it came.
    pub verifies: bool,
}

/// A record of a [`Block`].
#[derive(Debug)]
pub struct RecordView<'b, H> {
    /// Its offset in the partition.
    pub offset: i64,
    /// Its time, in milliseconds since 1970.
    pub timestamp: i64,
    /// Its key, or null.
    pub key: Option<&'b [u8]>,
    /// Its value, or null.
    pub value: Option<&'b [u8]>,
    /// Its headers.
    pub headers: H,
}

/// Bytes that records lie in.
#[derive(Debug)]
struct Piece {
    /// How many bytes lie in the pieces before it.
    start: usize,
    bytes: Bytes,
}

/// Collects records.
#[derive(Debug, Default)]
pub struct Block {
    records: Vec<u64>,
    headers: Vec<u64>,
    pieces: Vec<Piece>,
    /// Bytes of all pieces.
    size_bytes: usize,
    /// The piece at the end, as long as it grows: records of which not the whole batch is wanted.
    picked: Vec<u8>,
    next_offset: Option<i64>,
    is_full: bool,
}

impl Block {
    /// How many records there are.
    pub fn count(&self) -> usize {
        self.records.len() / RECORD_WORDS
    }

    /// Where to read on; `None` if there was nothing to read.
    pub fn next_offset(&self) -> Option<i64> {
        self.next_offset
    }

    /// Whether a limit was reached.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Takes the records of an answer in, without markers, and without those of aborted transactions if committed data
    /// was asked for.
    pub fn read(&mut self, data: &PartitionData, wanted: &Wanted) -> Result<(), Error> {
        let partition = data.partition_index;
        if data.error_code != 0 {
            let error_code = data.error_code;
            return Err(Error::Broker {
                partition,
                error_code,
            });
        }
        let mut aborted = AbortedWalk::new(data.aborted_transactions.as_deref());
        let slices = data.records.iter().flat_map(RecordBytes::slices);
        for (slice, entry) in slices.flat_map(|slice| Batches::new(slice).map(move |entry| (slice, entry))) {
            let batch = match entry.map_err(|source| Error::Batch { partition, source })? {
                BatchEntry::Batch(batch) => batch,
                BatchEntry::Legacy(message) => {
                    return Err(Error::LegacyFormat {
                        partition,
                        offset: message.offset,
                        magic: message.magic,
                    });
                }
            };
            self.read_batch(partition, slice, &batch, &mut aborted, wanted)?;
            if self.is_full {
                break;
            }
        }
        self.end_picked();
        Ok(())
    }

    fn read_batch(
        &mut self,
        partition: i32,
        slice: &Bytes,
        batch: &RecordBatch<'_>,
        aborted: &mut AbortedWalk,
        wanted: &Wanted,
    ) -> Result<(), Error> {
        let source = |source| Error::Batch { partition, source };
        if wanted.verifies {
            batch.verify(Crc32c::COMPACT).map_err(source)?;
        }
        if batch.is_control() {
            let payload = payload(partition, slice, batch, wanted)?;
            aborted.pass_marker(batch, &payload);
        } else if !aborted.holds(batch) && batch.last_offset() >= wanted.from_offset {
            let payload = payload(partition, slice, batch, wanted)?;
            let whole = self.takes_whole(batch, &payload, wanted);
            for record in batch.records(&payload) {
                let record = record.map_err(source)?;
                if record.offset < wanted.from_offset {
                    continue;
                }
                if whole.is_none() && self.reaches(wanted) {
                    self.is_full = true;
                    return Ok(());
                }
                self.push(&record, whole.map(|start| (start, &*payload)));
                self.next_offset = record.offset.checked_add(1);
            }
        }
        self.next_offset = batch.last_offset().checked_add(1);
        // No batch behind it is looked at to find that out.
        self.is_full = self.reaches(wanted);
        Ok(())
    }

    fn reaches(&self, wanted: &Wanted) -> bool {
        self.count() >= wanted.count_limit || self.size_bytes >= wanted.size_limit_bytes
    }

    /// Takes the bytes of a batch in as they are, if all of its records are wanted: nothing is copied. Gives where they begin.
    fn takes_whole(&mut self, batch: &RecordBatch<'_>, payload: &Bytes, wanted: &Wanted) -> Option<usize> {
        let count = usize::try_from(batch.records_count()).ok()?;
        let start = self.size_bytes;
        let fits = batch.base_offset() >= wanted.from_offset
            && self.count().checked_add(count)? <= wanted.count_limit
            && start.checked_add(payload.len())? <= wanted.size_limit_bytes;
        if fits {
            self.end_picked();
            self.pieces.push(Piece {
                start,
                bytes: payload.clone(),
            });
            self.size_bytes += payload.len();
        }
        fits.then_some(start)
    }

    /// Makes a piece of what was picked out of batches.
    fn end_picked(&mut self) {
        let bytes = Bytes::from(mem::take(&mut self.picked));
        if !bytes.is_empty() {
            let start = self.size_bytes - bytes.len();
            self.pieces.push(Piece { start, bytes });
        }
    }

    /// `whole`: where the bytes begin that the record is a part of, and these.
    fn push(&mut self, record: &Record<'_>, whole: Option<(usize, &[u8])>) {
        let key = self.place(record.key, whole);
        let value = self.place(record.value, whole);
        let first_header = self.headers.len() / 2;
        for (key, value) in record.headers.iter() {
            let (key, value) = (self.place(Some(key), whole), self.place(value, whole));
            self.headers.extend([key, value]);
        }
        self.records.extend([
            record.offset.cast_unsigned(),
            record.timestamp.cast_unsigned(),
            key,
            value,
            pair(first_header, record.headers.len()),
            0,
        ]);
    }

    fn place(&mut self, bytes: Option<&[u8]>, whole: Option<(usize, &[u8])>) -> u64 {
        let Some(bytes) = bytes else { return NULL };
        if let Some((start, payload)) = whole {
            // Records are views of the payload.
            let within = (bytes.as_ptr() as usize).saturating_sub(payload.as_ptr() as usize);
            return pair(start + within, bytes.len());
        }
        let start = self.size_bytes;
        self.picked.extend_from_slice(bytes);
        self.size_bytes += bytes.len();
        pair(start, bytes.len())
    }

    /// The records, for those who are on the same side of the border.
    pub fn records(
        &self,
    ) -> impl Iterator<Item = RecordView<'_, impl Iterator<Item = (&[u8], Option<&[u8]>)>>> {
        let (records, _) = self.records.as_chunks::<RECORD_WORDS>();
        records
            .iter()
            .map(|[offset, timestamp, key, value, headers, _]| RecordView {
                offset: offset.cast_signed(),
                timestamp: timestamp.cast_signed(),
                key: self.at(*key),
                value: self.at(*value),
                headers: self.headers_at(*headers),
            })
    }

    fn headers_at(&self, place: u64) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let (headers, _) = self.headers.as_chunks::<2>();
        let (first, count) = unpair(place);
        let headers = headers.get(first..).unwrap_or_default().iter().take(count);
        headers.map(|[key, value]| (self.at(*key).unwrap_or_default(), self.at(*value)))
    }

    fn at(&self, place: u64) -> Option<&[u8]> {
        if place == NULL {
            return None;
        }
        let (start, length) = unpair(place);
        let behind = self.pieces.partition_point(|piece| piece.start <= start);
        let Some(piece) = self.pieces.get(behind.saturating_sub(1)) else {
            // Nothing but empty keys and values was picked.
            return Some(&[]);
        };
        piece.bytes.get(start - piece.start..)?.get(..length)
    }

    /// Where all of it lies, for whoever sees this memory: address and number of words of the records' table, of the headers'
    /// table, all bytes, the number of pieces, and address and length of each.
    pub fn layout(&self) -> Vec<usize> {
        let mut layout = Vec::with_capacity(6 + 2 * self.pieces.len());
        for words in [&self.records, &self.headers] {
            layout.extend([words.as_ptr() as usize, words.len()]);
        }
        layout.extend([self.size_bytes, self.pieces.len()]);
        for Piece { bytes, .. } in &self.pieces {
            layout.extend([bytes.as_ptr() as usize, bytes.len()]);
        }
        layout
    }
}

/// Both lie within what an answer expands to, which has less than 2³² bytes.
fn pair(low: usize, high: usize) -> u64 {
    low as u64 | (high as u64) << 32
}

fn unpair(pair: u64) -> (usize, usize) {
    let half = |bits: u64| usize::try_from(bits & u64::from(u32::MAX)).unwrap_or(usize::MAX);
    (half(pair), half(pair >> 32))
}

/// The batch's records, decompressed; `slice` is what the batch lies in.
fn payload(partition: i32, slice: &Bytes, batch: &RecordBatch<'_>, wanted: &Wanted) -> Result<Bytes, Error> {
    let expanded = match batch.codec() {
        Ok(Codec::None) => return Ok(slice.slice_ref(batch.payload())),
        Ok(codec) => decompress(codec, batch.payload(), wanted.decompressed_limit_bytes),
        Err(error) => Err(error),
    };
    expanded.map(Bytes::from).map_err(|source| Error::Codec {
        partition,
        base_offset: batch.base_offset(),
        source,
    })
}
