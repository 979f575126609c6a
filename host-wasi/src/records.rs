//! Records of an answer, as the lines that `kachet fetch` prints.

use std::borrow::Cow;
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kachet_core::wire::codec::{Codec, DEFAULT_DECOMPRESSED_LIMIT_BYTES, decompress};
use kachet_core::wire::{BatchEntry, Batches, PartitionData, Record, RecordBatch, RecordBytes};
use serde_json::{Map, Value, json};

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
    let mut object = Map::new();
    // The name is not known here.
    object.insert("topic".into(), place.topic_id.to_string().into());
    object.insert("partition".into(), place.partition.into());
    object.insert("offset".into(), record.offset.into());
    let timestamp_type = match (record.timestamp, batch.is_log_append_time()) {
        (..0, _) => "unknown",
        (_, true) => "logappend",
        (_, false) => "create",
    };
    object.insert("tstype".into(), timestamp_type.into());
    object.insert("ts".into(), record.timestamp.into());
    if !record.headers.is_empty() {
        insert_headers(&mut object, record);
    }
    insert_bytes(&mut object, "key", record.key);
    insert_bytes(&mut object, "payload", record.value);
    serde_json::to_writer(&mut *out, &Value::Object(object))?;
    out.write_all(b"\n")
}

/// Bytes that are not UTF-8 come as base64, and a field says so.
fn insert_bytes(object: &mut Map<String, Value>, field: &str, bytes: Option<&[u8]>) {
    let value = match bytes.map(|bytes| (bytes, core::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => text.into(),
        Some((bytes, Err(_))) => {
            object.insert(field.into(), STANDARD.encode(bytes).into());
            object.insert(format!("{field}_encoding"), "base64".into());
            return;
        }
    };
    object.insert(field.into(), value);
}

/// Keys and values by turns; if one of them is not UTF-8, all are base64.
fn insert_headers(object: &mut Map<String, Value>, record: &Record<'_>) {
    let parts: Vec<Option<&[u8]>> = record
        .headers
        .iter()
        .flat_map(|(key, value)| [Some(key), value])
        .collect();
    let is_text = parts
        .iter()
        .flatten()
        .all(|part| core::str::from_utf8(part).is_ok());
    let encode = |part: Option<&[u8]>| match part {
        None => Value::Null,
        Some(part) if is_text => json!(String::from_utf8_lossy(part)),
        Some(part) => json!(STANDARD.encode(part)),
    };
    object.insert("headers".into(), parts.into_iter().map(encode).collect());
    if !is_text {
        object.insert("headers_encoding".into(), "base64".into());
    }
}
