//! What each command does.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kachet_core::wire::{
    FETCH_VERSION_TOPIC_IDS, FetchPartition, FetchRequest, FetchTopic, PartitionData, TaggedFields, TopicRef,
};
use kachet_wasm::frame::{RequestFrame, RequestHeader, decode_response, encode_response};
use serde_json::{Map, Value, json};

use crate::arguments::{Arguments, Command, HELP, Place};
use crate::error::Error;
use crate::records::write_records;
use crate::store::{Store, Written};

/// The longest request that is read, in bytes.
const REQUEST_LIMIT_BYTES: u64 = 1 << 20;
/// The longest response that is read, in bytes.
const RESPONSE_LIMIT_BYTES: u64 = 256 << 20;
/// How many bytes of batches are looked at at a time, unless one batch is larger.
const STEP_BYTES: i32 = 1 << 20;

/// Does what the arguments say.
pub fn run(arguments: &Arguments, input: &mut impl Read, out: &mut impl Write) -> Result<(), Error> {
    let folder = &arguments.folder;
    match &arguments.command {
        Command::Help => out.write_all(HELP.as_bytes()).map_err(Error::Output),
        Command::Version => writeln!(out, "kachet-wasi {}", env!("CARGO_PKG_VERSION")).map_err(Error::Output),
        Command::Request {
            place,
            max_bytes,
            committed,
        } => {
            let request = request_for(place, *max_bytes, *committed);
            let header = RequestHeader::new(FETCH_VERSION_TOPIC_IDS, 0);
            let frame = RequestFrame::encode(&header, &request).map_err(Error::Request)?;
            out.write_all(&frame).map_err(Error::Output)
        }
        Command::Absorb {
            pairs,
            size_limit_bytes,
        } => absorb(folder, pairs, *size_limit_bytes, input, out),
        Command::Records { place, count } => records(&Store::read(folder)?, place, *count, out),
        Command::Fetch { request } => fetch(&Store::read(folder)?, request, input, out),
        Command::Stat => stat(&Store::read(folder)?, out),
        Command::Clear => {
            let mut store = Store::change(folder, u64::MAX)?;
            store.clear();
            store.close()
        }
    }
}

fn request_for(place: &Place, max_bytes: i32, committed: bool) -> FetchRequest {
    FetchRequest {
        min_bytes: 1,
        max_bytes,
        isolation_level: committed.into(),
        topics: vec![FetchTopic {
            topic: TopicRef::Id(place.topic_id),
            partitions: vec![FetchPartition::new(place.partition, place.offset, max_bytes)],
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    }
}

fn absorb(
    folder: &Path,
    pairs: &[(PathBuf, PathBuf)],
    size_limit_bytes: u64,
    input: &mut impl Read,
    out: &mut impl Write,
) -> Result<(), Error> {
    let mut store = Store::change(folder, size_limit_bytes)?;
    let mut sum = Written::default();
    // What came before a pair that cannot be used is kept.
    let absorbed = pairs.iter().try_for_each(|(request, response)| {
        let written = absorb_pair(&mut store, request, response, input)?;
        sum.batches += written.batches;
        sum.refused += written.refused;
        Ok(())
    });
    store.close().and(absorbed)?;
    let line = json!({ "batches": sum.batches, "refused": sum.refused });
    writeln!(out, "{line}").map_err(Error::Output)
}

fn absorb_pair(
    store: &mut Store,
    request_path: &Path,
    response_path: &Path,
    input: &mut impl Read,
) -> Result<Written, Error> {
    let message = |path: &Path| {
        let path = path.to_owned();
        |source| Error::Message { path, source }
    };
    let frame = read_file(request_path, REQUEST_LIMIT_BYTES, input)?;
    let RequestFrame { header, request } = RequestFrame::decode(&frame).map_err(message(request_path))?;
    if header.version < FETCH_VERSION_TOPIC_IDS {
        return Err(Error::ByName {
            path: request_path.into(),
            version: header.version,
        });
    }
    let frame = read_file(response_path, RESPONSE_LIMIT_BYTES, input)?;
    let response =
        decode_response(&frame, header.version, header.correlation_id).map_err(message(response_path))?;
    if response.error_code != 0 {
        return Err(Error::Broker {
            partition: -1,
            error_code: response.error_code,
        });
    }
    let written = store.absorb(&request, &response);
    // What the error says about the cache is heeded; whoever asked is to hear of it all the same.
    match response.partitions().find(|(_, data)| data.error_code != 0) {
        Some((_, data)) => Err(Error::Broker {
            partition: data.partition_index,
            error_code: data.error_code,
        }),
        None => Ok(written),
    }
}

fn records(store: &Store, place: &Place, count: Option<usize>, out: &mut impl Write) -> Result<(), Error> {
    let Some(count) = count else {
        return record(store, place, out);
    };
    let mut next = *place;
    let mut left = count;
    while left > 0 {
        let Some(data) = hit(store, &next, STEP_BYTES) else {
            break;
        };
        let read = write_records(&data, &next, left, out)?;
        left = left.saturating_sub(read.count);
        match read.next_offset {
            Some(offset) if offset > next.offset => next.offset = offset,
            _ => break,
        }
    }
    if next.offset == place.offset {
        return Err(not_cached(place));
    }
    Ok(())
}

fn record(store: &Store, place: &Place, out: &mut impl Write) -> Result<(), Error> {
    // With a limit of 0 the first batch comes whole, and nothing else.
    let data = hit(store, place, 0).ok_or_else(|| not_cached(place))?;
    let mut line = Vec::new();
    write_records(&data, place, 1, &mut line)?;
    // The next one is not the one.
    let offset = serde_json::from_slice::<Value>(&line).map(|record| record["offset"].as_i64());
    if offset.ok().flatten() != Some(place.offset) {
        return Err(Error::NoRecord { offset: place.offset });
    }
    out.write_all(&line).map_err(Error::Output)
}

/// What the cache answers to a fetch of one place, if there is anything.
fn hit(store: &Store, place: &Place, max_bytes: i32) -> Option<PartitionData> {
    let asked = FetchPartition::new(place.partition, place.offset, max_bytes);
    store.hit(place.topic_id, &asked)
}

fn not_cached(place: &Place) -> Error {
    let Place {
        topic_id,
        partition,
        offset,
    } = place;
    Error::NotCached(format!(
        "offset {offset} of partition {partition} of topic {topic_id}"
    ))
}

fn fetch(store: &Store, path: &Path, input: &mut impl Read, out: &mut impl Write) -> Result<(), Error> {
    let message = |source| Error::Message {
        path: path.into(),
        source,
    };
    let frame = read_file(path, REQUEST_LIMIT_BYTES, input)?;
    let RequestFrame { header, request } = RequestFrame::decode(&frame).map_err(message)?;
    let response = store.plan(request).into_response();
    let response = response.ok_or_else(|| Error::NotCached("what the request asks for".to_owned()))?;
    let frame = encode_response(&header, &response).map_err(message)?;
    out.write_all(&frame).map_err(Error::Output)
}

fn stat(store: &Store, out: &mut impl Write) -> Result<(), Error> {
    let partitions = store.covered().into_iter().map(|(key, spans)| {
        json!({
            "topic": key.topic_id.to_string(),
            "partition": key.partition,
            "spans": spans.iter().map(|span| [span.base(), span.last()]).collect::<Vec<_>>(),
        })
    });
    let figures = store.statistics();
    let restored = store.restored();
    let mut object = Map::new();
    object.insert("folder".into(), store.folder().to_string_lossy().into());
    object.insert("size_bytes".into(), figures.size_bytes.into());
    object.insert("batches".into(), figures.batches.into());
    object.insert("segments".into(), restored.segments.into());
    // What a crash or a fault of the medium has left: read all the same, as far as it goes.
    object.insert("scanned_segments".into(), restored.scanned.into());
    object.insert("lost_segments".into(), restored.lost.len().into());
    object.insert("corrupt_batches".into(), restored.corrupt.into());
    object.insert("partitions".into(), partitions.collect());
    writeln!(out, "{}", Value::Object(object)).map_err(Error::Output)
}

fn read_file(path: &Path, limit_bytes: u64, input: &mut impl Read) -> Result<Bytes, Error> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        input.take(limit_bytes + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit_bytes + 1).read_to_end(&mut bytes))
    };
    match read {
        Err(source) => Err(Error::of_io("cannot read", path)(source)),
        Ok(length) if length as u64 > limit_bytes => Err(Error::TooLong {
            path: path.into(),
            limit_bytes,
        }),
        Ok(_) => Ok(bytes.into()),
    }
}
