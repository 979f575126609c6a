//! What the fuzz targets have in common.

use kachet_core::wire::codec::decompress;
use kachet_core::wire::{BatchEntry, Batches, ControlRecord, Crc32c, RecordBatch};

/// Small, so that a bomb costs a run little and the limit itself is met often.
pub const DECOMPRESSED_LIMIT_BYTES: usize = 1 << 20;

/// Walks record data to its end and reads all that is there, whatever the checksums say.
///
/// # Panics
/// If the walk skips bytes, reads some twice or goes on after an error.
pub fn walk_batches(data: &[u8]) {
    let mut batches = Batches::new(data);
    let mut failed = false;
    let mut walked_bytes = 0;
    while let Some(entry) = batches.next() {
        assert!(!failed, "goes on after an error");
        match entry {
            Ok(BatchEntry::Batch(batch)) => {
                walked_bytes += batch.size_bytes();
                read_batch(&batch);
            }
            Ok(BatchEntry::Legacy(legacy)) => walked_bytes += legacy.bytes.len(),
            Err(_) => failed = true,
        }
        assert_eq!(batches.at_byte(), walked_bytes);
    }
    assert_eq!(walked_bytes + batches.rest().len(), data.len());
    assert!(batches.next().is_none());
}

/// Reads one batch: checksum, every record by its codec.
///
/// # Panics
/// If what is read contradicts itself.
pub fn read_batch(batch: &RecordBatch<'_>) {
    assert!(batch.base_offset() >= 0 && batch.base_offset() <= batch.last_offset());
    assert_eq!(RecordBatch::parse(batch.as_bytes()).as_ref(), Ok(batch));
    let _ = batch.verify(Crc32c::PORTABLE);
    let Ok(codec) = batch.codec() else { return };
    if let Ok(records) = decompress(codec, batch.payload(), DECOMPRESSED_LIMIT_BYTES) {
        assert!(records.len() <= DECOMPRESSED_LIMIT_BYTES, "{codec}");
        read_records(batch, &records);
    }
}

/// Reads every record of a batch, its headers and its key as that of a control record.
///
/// # Panics
/// If bytes are read twice or the walk goes on after an error.
pub fn read_records(batch: &RecordBatch<'_>, records: &[u8]) {
    let mut held_bytes = 0;
    let mut failed = false;
    for record in batch.records(records) {
        assert!(!failed, "goes on after an error");
        let Ok(record) = record else {
            failed = true;
            continue;
        };
        assert_eq!(record.headers.iter().count(), record.headers.len());
        let headers = record
            .headers
            .iter()
            .map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len));
        held_bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        held_bytes += headers.sum::<usize>();
        assert!(held_bytes <= records.len(), "bytes are read twice");
        if let Some(key) = record.key {
            let _ = ControlRecord::from_key(key);
        }
    }
}
