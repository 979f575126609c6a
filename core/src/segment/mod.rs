//! The log-structured format in which batches are kept, the same in memory and on any medium, and how a segment is
//! read back after a restart or a crash.
//!
//! A segment is written once from front to back: a header, records one right behind the other, and, when it is sealed,
//! a footer. All integers are little-endian but those of the batches, which stay to the byte as the broker sent
//! them (H27). The 1 % that this adds to batches of 16 KiB is what a restart without reading them costs.
//!
//! ```text
//! segment header, 32 bytes             record, 64 bytes + 24 for each aborted transaction + the batch
//!   0  magic            8 bytes          0  magic            u32
//!   8  version          u16              4  checksum         u32
//!  10  header length    u16              8  sequence         u64
//!  12  zero             u32             16  topic id         16 bytes
//!  16  segment id       u64             32  partition        i32
//!  24  zero             u32             36  batch length     u32
//!  28  checksum         u32             40  covers from      i64
//!                                       48  last offset      i64
//! footer, then its trailer              56  leader epoch     i32
//!   0  partitions       u32             60  aborted          u32, 0xffff_ffff if unknown,
//!   4  zero             u32                 0xffff_fffe if the batch is of no transaction
//!   8  first sequence   u64             64  aborted transactions: producer id, first offset,
//!  16  aborted          u32                 marker's offset (i64::MIN: beyond the batch), i64 each
//!  20  zero             u32              …  the batch
//!  24  partitions: topic id, index
//!   …  entries, 44 bytes each           entry of the footer, 44 bytes
//!   …  aborted, 24 bytes each            0  partition, as its place in the table  u32
//! trailer, the last 32 bytes             4  position of the record                u32
//!   0  magic            8 bytes          8  batch length                          u32
//!   8  version          u16             12  last offset − base offset             u32
//!  10  zero             u16             16  base offset                           i64
//!  12  footer length    u32             24  covers from                           i64
//!  16  entries          u32             32  leader epoch                          i32
//!  20  segment id       u64             36  aborted, as in the record             u32
//!  28  checksum         u32             40  sequence − first sequence             u32
//! ```
//!
//! **Checksums** are CRC-32C. A record's covers its header from byte 8 on, the aborted transactions and the first 21
//! bytes of the batch, which Kafka's own CRC leaves out (H24); that one covers the rest. So writing reads the batch's
//! payload only to copy it, and verifying reads each byte once. Into a record's checksum goes the place for which it
//! was written, [`Place`], so that a block of a deleted file that turns up behind a torn write, or a read that went
//! astray, is not taken for a record. The footer's covers all of the footer and of its trailer.
//!
//! **Versions.** The first 32 bytes keep their meaning in every version, so that a newer segment is told from a
//! damaged one and refused by [`SegmentErrorKind::NewerVersion`].
//!
//! **Recovery**, [`read_directory`]: an intact footer names what the segment holds; without one, the records are
//! walked from the front and verified one by one. The footer need not name all records: what was dropped before the
//! segment was sealed is left out and stays dropped.

mod error;
mod footer;
mod header;
mod layout;
mod record;
mod recovery;

pub use error::{Part, SegmentError, SegmentErrorKind};
pub use footer::{Directory, DirectoryEntry, FOOTER_FIXED_BYTES, encode_footer, footer_share_bytes_max};
pub use header::{SEGMENT_HEADER_BYTES, SEGMENT_VERSION, check_segment_header, encode_segment_header};
pub use record::{
    ABORTED_PER_RECORD_MAX, Expected, RECORD_HEADER_BYTES, Record, RecordView, Records, encode_record,
    record_size_bytes, records, verified_batch,
};
pub(crate) use record::{append_record, append_record_head};
pub use recovery::{Recovered, Recovery, read_directory};

pub use crate::transactions::{Aborted, AbortedInBatch};

use crate::storage::SegmentId;
use crate::transactions::AbortedState;

/// What precedes the batch in a record, in bytes.
pub(crate) fn before_batch_bytes(aborted: AbortedState) -> usize {
    let count = match aborted {
        AbortedState::Unknown | AbortedState::Plain => 0,
        AbortedState::Known { count } | AbortedState::Forgotten { count } => usize::from(count),
    };
    RECORD_HEADER_BYTES + count * layout::ABORTED_BYTES
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// In which segment.
    pub segment: SegmentId,
    /// At which byte of it the record begins.
    pub position: u32,
}

#[cfg(test)]
mod tests;
