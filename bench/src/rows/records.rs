//! From a batch as it lies in the cache to its records.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use kachet_core::wire::codec::{DEFAULT_DECOMPRESSED_LIMIT_BYTES, decompress};
use kachet_core::wire::{BatchEntry, Batches, RecordBatch};
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Record, RecordBatchDecoder,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use super::Scope;
use crate::contest::{Contest, Outcome, Role, Unit, count};
use crate::report::Section;

const RECORDS: u32 = 64;
const VALUE_BYTES: usize = 1 << 10;
const TURNS: usize = 50;

/// Every codec, in the order of the attributes.
const CODECS: [(&str, Compression); 5] = [
    ("uncompressed", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];

pub(super) fn section(scope: &Scope) -> Result<Section> {
    let mut section = Section::new(
        "records",
        "Records",
        "A batch of 64 records of 1 KiB, which look like JSON, is decompressed and its records are gone through; rates are of \
         decompressed bytes. kafka-protocol decodes with the decompressors of the floor, which are the unsafe or C ones that it \
         would bring, and makes a list of records. The floor decompresses, or copies, and looks at no record.",
    );
    for (name, codec) in CODECS {
        section.rows.push(row(scope, name, codec)?);
    }
    Ok(section)
}

fn row(scope: &Scope, name: &str, codec: Compression) -> Result<Outcome> {
    let batch = batch(codec)?;
    let (parsed, plain_bytes) = (RecordBatch::parse(&batch)?, decoded(&batch)?);
    ensure!(decoded_by_peer(&batch)? == usize::try_from(RECORDS)?);
    let packed = Bytes::copy_from_slice(parsed.payload());
    let total = count(plain_bytes * TURNS);
    let rate = |work: &dyn Fn() -> Result<usize>| -> Result<f64> {
        let started = std::time::Instant::now();
        for _ in 0..TURNS {
            black_box(work()?);
        }
        Ok(total / started.elapsed().as_secs_f64())
    };
    Contest::new(format!("records, {name}"), Unit::BytesPerSecond)
        .way("kachet", Role::Ours, || rate(&|| decoded(black_box(&batch))))
        .way("kafka-protocol", Role::Peer, || {
            rate(&|| decoded_by_peer(black_box(&batch)))
        })
        .way("decompression", Role::Floor, || {
            rate(&|| Ok(unpacked(codec, black_box(&packed))?.len()))
        })
        .run(scope.rounds)
}

/// Goes through the records of a batch; gives the size of what they were decompressed from, in bytes.
fn decoded(batch: &[u8]) -> Result<usize> {
    let Some(Ok(BatchEntry::Batch(batch))) = Batches::new(batch).next() else {
        anyhow::bail!("it is no batch");
    };
    let unpacked;
    let plain = match batch.codec()? {
        kachet_core::wire::codec::Codec::None => batch.payload(),
        codec => {
            unpacked = decompress(codec, batch.payload(), DEFAULT_DECOMPRESSED_LIMIT_BYTES)?;
            &unpacked
        }
    };
    let mut values = 0;
    for record in batch.records(plain) {
        values += record?.value.map_or(0, <[u8]>::len);
    }
    ensure!(values == usize::try_from(RECORDS)? * VALUE_BYTES);
    Ok(plain.len())
}

fn decoded_by_peer(batch: &Bytes) -> Result<usize> {
    let unpack = |packed: &mut Bytes, codec: Compression| {
        let taken = packed.split_off(0);
        unpacked(codec, &taken)
    };
    let set = RecordBatchDecoder::decode_with_custom_compression(&mut batch.clone(), Some(unpack))?;
    Ok(set.records.len())
}

/// A batch as a producer makes it.
///
/// # Errors
/// If it cannot be encoded.
fn batch(codec: Compression) -> Result<Bytes> {
    let mut rng = fastrand::Rng::with_seed(13);
    let records: Vec<Record> = (0..RECORDS).map(|number| record(number, &mut rng)).collect();
    let options = RecordEncodeOptions {
        version: 2,
        compression: codec,
    };
    let mut encoded = BytesMut::new();
    let pack = |plain: &mut BytesMut, out: &mut BytesMut, codec: Compression| {
        out.put_slice(&packed(codec, plain)?);
        Ok(())
    };
    RecordBatchEncoder::encode_with_custom_compression(&mut encoded, &records, &options, Some(pack))?;
    Ok(encoded.freeze())
}

/// A value of words and numbers, of which the words come again.
fn record(number: u32, rng: &mut fastrand::Rng) -> Record {
    const WORDS: [&str; 8] = [
        "sensor",
        "temperature",
        "humidity",
        "status",
        "location",
        "measured_at",
        "battery",
        "firmware",
    ];
    let mut value = String::from("{");
    while value.len() < VALUE_BYTES {
        let word = WORDS[rng.usize(..WORDS.len())];
        let _ = write!(value, "\"{word}\":{},", rng.u32(..));
    }
    value.truncate(VALUE_BYTES);
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: i64::from(number),
        // The encoder begins a batch where a sequence does not follow.
        sequence: i32::try_from(number).unwrap_or(i32::MAX),
        timestamp: 1_700_000_000_000,
        key: Some(Bytes::from(format!("key-{number}"))),
        value: Some(Bytes::from(value)),
        headers: kafka_protocol::indexmap::IndexMap::new(),
    }
}

fn packed(codec: Compression, plain: &[u8]) -> Result<Vec<u8>> {
    Ok(match codec {
        Compression::None => plain.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(plain)?;
            encoder.finish()?
        }
        Compression::Snappy => snap::raw::Encoder::new().compress_vec(plain)?,
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(plain)?;
            encoder.finish().context("a vector takes everything")?
        }
        Compression::Zstd => zstd::encode_all(plain, 3)?,
    })
}

fn unpacked(codec: Compression, packed: &Bytes) -> Result<Bytes> {
    let mut out = Vec::new();
    match codec {
        Compression::None => out.extend_from_slice(packed),
        Compression::Gzip => {
            flate2::read::MultiGzDecoder::new(packed.as_ref()).read_to_end(&mut out)?;
        }
        Compression::Snappy => out = snap::raw::Decoder::new().decompress_vec(packed)?,
        Compression::Lz4 => {
            lz4::Decoder::new(packed.as_ref())?.read_to_end(&mut out)?;
        }
        Compression::Zstd => out = zstd::decode_all(packed.as_ref())?,
    }
    Ok(out.into())
}
