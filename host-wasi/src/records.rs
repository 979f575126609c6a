//! Records of an answer, as the lines that `kachet fetch` prints.

use std::borrow::Cow;
use std::io::{self, Write};

use kachet_core::record_json::RecordJson;
use kachet_core::wire::codec::{Codec, DEFAULT_DECOMPRESSED_LIMIT_BYTES, decompress};
use kachet_core::wire::{BatchEntry, Batches, PartitionData, Record, RecordBatch, RecordBytes};

use crate::arguments::Place;
use crate::error::Error;

/// What came of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    /// Lines that were written.
    pub(crate) count: usize,
    /// Where to go on; `None` if there was no batch.
    pub(crate) next_offset: Option<i64>,
}

/// Writes the records from `place` on, `count` at most. Markers are left out.
pub(crate) fn write_records(
    data: &PartitionData,
    place: &Place,
    count: usize,
    out: &mut impl Write,
) -> Result<Read, Error> {
    let partition = data.partition_index;
    if data.error_code != 0 {
        let error_code = data.error_code;
        return Err(Error::Broker {
            partition,
            error_code,
        });
    }
    let mut read = Read::default();
    let slices = data.records.iter().flat_map(RecordBytes::slices);
    for entry in slices.flat_map(|slice| Batches::new(slice)) {
        // Older formats are never cached.
        let BatchEntry::Batch(batch) = entry.map_err(|source| Error::Batch { partition, source })? else {
            continue;
        };
        if !batch.is_control() && batch.last_offset() >= place.offset {
            for record in batch.records(&payload(partition, &batch)?) {
                let record = record.map_err(|source| Error::Batch { partition, source })?;
                if record.offset < place.offset {
                    continue;
                }
                if read.count >= count {
                    return Ok(read);
                }
                write_record(&record, &batch, place, out).map_err(Error::Output)?;
                read.count += 1;
                read.next_offset = record.offset.checked_add(1);
            }
        }
        read.next_offset = batch.last_offset().checked_add(1);
    }
    Ok(read)
}

fn payload<'b>(partition: i32, batch: &RecordBatch<'b>) -> Result<Cow<'b, [u8]>, Error> {
    let expanded = match batch.codec() {
        Ok(Codec::None) => return Ok(Cow::Borrowed(batch.payload())),
        Ok(codec) => decompress(codec, batch.payload(), DEFAULT_DECOMPRESSED_LIMIT_BYTES),
        Err(error) => Err(error),
    };
    expanded.map(Cow::Owned).map_err(|source| Error::Codec {
        partition,
        base_offset: batch.base_offset(),
        source,
    })
}

fn write_record(
    record: &Record<'_>,
    batch: &RecordBatch<'_>,
    place: &Place,
    out: &mut impl Write,
) -> io::Result<()> {
    let json = RecordJson {
        // The name is not known here.
        topic: &place.topic_id.to_string(),
        partition: place.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp,
        is_log_append_time: batch.is_log_append_time(),
        key: record.key,
        value: record.value,
        headers: record.headers.iter().collect(),
    };
    out.write_all(json.to_line().as_bytes())
}
