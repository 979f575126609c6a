//! What a real Apache Kafka 4.4.0 was asked and answered, through the cache. What comes of it is written down in
//! `answers.txt`, and the tests in Node and in wasmtime find the same there, to the byte.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};
use kachet_core::time::MaxStaleness;
use kachet_wasm::{EmbeddedCache, Moment, Settings};

const NOW: Moment = Moment {
    monotonic_ms: 1000.0,
    unix_ms: 1_700_000_000_000,
};
const CORRELATION_ID: i32 = 7;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/fixtures")
}

fn names() -> Vec<String> {
    let files = fs::read_dir(folder()).unwrap();
    let names = files.filter_map(|file| {
        let name = file.unwrap().file_name().into_string().unwrap();
        name.strip_suffix(".request").map(str::to_owned)
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn request_frame(name: &str) -> Bytes {
    let version: i16 = name[1..3].parse().unwrap();
    let mut frame = BytesMut::new();
    frame.put_i16(1);
    frame.put_i16(version);
    frame.put_i32(CORRELATION_ID);
    frame.put_i16(4);
    frame.put_slice(b"test");
    if version >= 12 {
        frame.put_u8(0);
    }
    frame.put_slice(&fs::read(folder().join(format!("{name}.request"))).unwrap());
    frame.freeze()
}

fn response_frame(name: &str) -> Bytes {
    let version: i16 = name[1..3].parse().unwrap();
    let mut frame = BytesMut::new();
    frame.put_i32(CORRELATION_ID);
    if version >= 12 {
        frame.put_u8(0);
    }
    frame.put_slice(&fs::read(folder().join(format!("{name}.response"))).unwrap());
    frame.freeze()
}

fn line(name: &str) -> String {
    let settings = Settings {
        max_staleness: MaxStaleness::Forever,
        ..Settings::default()
    };
    let mut cache = EmbeddedCache::new(settings);
    let (request, response) = (request_frame(name), response_frame(name));
    let planned = cache.plan(&request, NOW).unwrap();
    let asked = planned.upstream().unwrap().unwrap();
    let understood = cache.absorb(&planned, &response, NOW).unwrap();
    assert!(planned.is_all_upstream());
    let answer = planned.merge(understood).unwrap();
    assert_eq!(answer, response, "{name}: the first answer is the broker's");
    let again = cache.plan(&request, NOW).unwrap();
    let second = match again.upstream().unwrap() {
        Some(asked) => format!("asks {:08x}", crc32fast::hash(&asked)),
        None => format!(
            "cached {:08x}",
            crc32fast::hash(&again.into_response().unwrap().unwrap())
        ),
    };
    let snapshot = {
        let mut cursor = cache.begin_snapshot();
        let mut snapshot = Vec::new();
        while let Some(piece) = cache.next_of_snapshot(&mut cursor, NOW).unwrap() {
            snapshot.extend(piece);
        }
        snapshot
    };
    let batches = cache.statistics().batches;
    format!(
        "{name} asks {:08x} then {second} keeps {batches} snapshot {}",
        crc32fast::hash(&asked),
        snapshot.len()
    )
}

#[test]
fn answers_are_those_that_are_written_down() {
    let mut text = String::new();
    for name in names() {
        writeln!(text, "{}", line(&name)).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/answers.txt");
    if std::env::var_os("KACHET_WRITE_ANSWERS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(path).unwrap());
    let cached = text.lines().filter(|line| line.contains("then cached")).count();
    assert!(
        cached >= 12,
        "the codecs and the transactions of v13 to v18, but not {cached}"
    );
}
