//! Any bytes as record data: as batches, as one batch whatever its checksum says, and as the compressed records
//! of each codec.
#![no_main]

use kachet_core::wire::codec::{Codec, decompress};
use kachet_core::wire::{BATCH_HEADER_BYTES, RecordBatch};
use kachet_fuzz::{DECOMPRESSED_LIMIT_BYTES, read_records, walk_batches};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    walk_batches(data);

    // As the payload of a batch that states as many records as it can, so that the bytes alone end the walk.
    let header = header_of_any_count();
    let batch = RecordBatch::parse(&header).expect("a batch without payload");
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        if let Ok(records) = decompress(codec, data, DECOMPRESSED_LIMIT_BYTES) {
            assert!(records.len() <= DECOMPRESSED_LIMIT_BYTES, "{codec}");
            read_records(&batch, &records);
        }
    }
});

fn header_of_any_count() -> [u8; BATCH_HEADER_BYTES] {
    let mut header = [0; BATCH_HEADER_BYTES];
    header[8..12].copy_from_slice(&49_i32.to_be_bytes());
    header[16] = 2;
    header[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    header
}
