//! The program for WASI in wasmtime: what a real Apache Kafka 4.4.0 has answered goes into a folder and comes out of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::{BufMut, Bytes, BytesMut};
use kachet::core::cache::{Cache, CacheSettings, Warmed};
use kachet::core::time::{Instant, MaxStaleness};
use kachet::core::wire::{Crc32c, RecordBytes, TopicRef};
use kachet::mount::{MountOptions, MountPoint};
use kachet_tests::setup::or_skip;
use kachet_wasm::frame::{RequestFrame, decode_response};
use kachet_wasm_tests::wasi::{Ended, Folder, Program, Start};
use kachet_wasm_tests::wasi_program_path;
use tempfile::TempDir;

const CORRELATION_ID: i32 = 7;
const STATUS_FAILED: i32 = 1;
const STATUS_USAGE: i32 = 2;
const STATUS_NOT_CACHED: i32 = 3;

/// The program, and the folders that it is given.
struct Bench {
    program: Program,
    cache: TempDir,
    input: TempDir,
    may_change: bool,
}

impl Bench {
    fn new() -> Result<Option<Self>> {
        let Some(path) = or_skip(wasi_program_path()) else {
            return Ok(None);
        };
        Ok(Some(Self {
            program: Program::compile(&fs::read(path)?)?,
            cache: tempfile::tempdir()?,
            input: tempfile::tempdir()?,
            may_change: true,
        }))
    }

    fn start(&self, words: &str) -> Start {
        let folder = |host: &TempDir, guest: &str, may_change| Folder {
            host: host.path().to_owned(),
            guest: guest.to_owned(),
            may_change,
        };
        Start {
            arguments: ["kachet-wasi"]
                .into_iter()
                .chain(words.split_whitespace())
                .map(str::to_owned)
                .collect(),
            folders: vec![
                folder(&self.cache, "/cache", self.may_change),
                folder(&self.input, "/in", false),
            ],
            ..Start::default()
        }
    }

    fn run(&self, words: &str) -> Result<Ended> {
        self.program.run(&self.start(words), b"")
    }

    /// Runs it and expects it to do well.
    fn done(&self, words: &str) -> Result<Vec<u8>> {
        let ended = self.run(words)?;
        anyhow::ensure!(ended.status == 0, "{words}: {} {}", ended.status, ended.stderr);
        Ok(ended.stdout)
    }

    /// Puts a fixture where the program finds it, and gives its frames.
    fn give(&self, name: &str) -> Result<(Bytes, Bytes)> {
        let (request, response) = frames(name)?;
        fs::write(self.input.path().join(format!("{name}.request")), &request)?;
        fs::write(self.input.path().join(format!("{name}.response")), &response)?;
        Ok((request, response))
    }

    fn absorb(&self, name: &str) -> Result<(Bytes, Bytes)> {
        let frames = self.give(name)?;
        self.done(&format!("absorb /in/{name}.request /in/{name}.response"))?;
        Ok(frames)
    }

    fn segments(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.cache.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "segment") {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}

fn frames(name: &str) -> Result<(Bytes, Bytes)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../core/tests/fixtures");
    let version: i16 = name.get(1..3).context("a version")?.parse()?;
    let mut request = BytesMut::new();
    request.put_i16(1);
    request.put_i16(version);
    request.put_i32(CORRELATION_ID);
    request.put_i16(-1);
    let mut response = BytesMut::new();
    response.put_i32(CORRELATION_ID);
    if version >= 12 {
        request.put_u8(0);
        response.put_u8(0);
    }
    request.put_slice(&fs::read(folder.join(format!("{name}.request")))?);
    response.put_slice(&fs::read(folder.join(format!("{name}.response")))?);
    Ok((request.freeze(), response.freeze()))
}

/// The topic of a fixture and its partitions with the offsets of their first batches.
fn places(request: &Bytes) -> Result<Vec<(String, i32, i64)>> {
    let RequestFrame { request, .. } = RequestFrame::decode(request)?;
    let places = request.partitions().filter_map(|(topic, partition)| match topic {
        TopicRef::Id(id) => Some((id.to_string(), partition.partition, partition.fetch_offset)),
        TopicRef::Name(_) => None,
    });
    Ok(places.collect())
}

/// The batches of each partition of an answer. What the broker said of its watermarks is not in segments.
fn batches(version: i16, answer: &[u8]) -> Result<Vec<(i32, Option<Bytes>)>> {
    let response = decode_response(&Bytes::copy_from_slice(answer), version, CORRELATION_ID)?;
    let partitions = response.partitions();
    Ok(partitions
        .map(|(_, data)| {
            (
                data.partition_index,
                data.records.as_ref().map(RecordBytes::to_bytes),
            )
        })
        .collect())
}

fn lines(printed: &[u8]) -> Result<Vec<serde_json::Value>> {
    let text = std::str::from_utf8(printed)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[test]
fn what_a_broker_answered_is_answered_again_to_the_byte_and_its_records_are_read() -> Result<()> {
    let Some(bench) = Bench::new()? else { return Ok(()) };
    for version in 13..=18 {
        let name = format!("v{version}-codecs");
        bench.done("clear").or_else(|error| {
            // The first time it is no mount point yet.
            bench.segments()?.is_empty().then(Vec::new).ok_or(error)
        })?;
        let (request, response) = bench.absorb(&name)?;
        let again = bench.program.run(&bench.start("fetch"), &request)?;
        assert_eq!(again.status, 0, "{name}: {}", again.stderr);
        assert_eq!(
            batches(version, &again.stdout)?,
            batches(version, &response)?,
            "{name}"
        );
        for (topic, partition, offset) in places(&request)? {
            let all = lines(&bench.done(&format!("records {topic} {partition} {offset} --count 10000"))?)?;
            assert!(!all.is_empty(), "{name}: partition {partition}");
            for (at, line) in (offset..).zip(&all) {
                assert_eq!(line["offset"], at);
                assert_eq!(line["topic"], topic);
            }
            let one = all.get(all.len() / 2).context("a record")?;
            let at = &one["offset"];
            let alone = lines(&bench.done(&format!("record {topic} {partition} {at}"))?)?;
            assert_eq!(alone, std::slice::from_ref(one));
            let some = lines(&bench.done(&format!("records {topic} {partition} {at} --count 3"))?)?;
            assert_eq!(
                some,
                all[all.len() / 2..].iter().take(3).cloned().collect::<Vec<_>>()
            );
        }
    }
    Ok(())
}

#[test]
fn it_imports_nothing_but_wasi() -> Result<()> {
    let Some(bench) = Bench::new()? else { return Ok(()) };
    assert_eq!(bench.program.imported_modules(), ["wasi_snapshot_preview1"]);
    Ok(())
}

#[test]
fn a_native_mount_point_is_read_and_the_other_way_round() -> Result<()> {
    let Some(mut bench) = Bench::new()? else {
        return Ok(());
    };
    let (request, response) = bench.absorb("v17-codecs")?;
    // The native host finds what the program has absorbed.
    let RequestFrame {
        header,
        request: asked,
    } = RequestFrame::decode(&request)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let settings = CacheSettings {
        size_limit_bytes: 1 << 30,
        max_staleness: MaxStaleness::Forever,
        ..CacheSettings::default()
    };
    let open = || MountOptions::new().open(bench.cache.path());
    let restored = |mount: &mut MountPoint| -> Result<Cache<_>> {
        let mut cache = Cache::new(settings, Crc32c::PORTABLE);
        let found = runtime.block_on(cache.restore(mount, Crc32c::PORTABLE))?;
        assert_eq!((found.corrupt, found.scanned, found.lost.len()), (0, 0, 0));
        Ok(cache)
    };
    let mut mount = open()?;
    let cache = restored(&mut mount)?;
    let mut warmed = Warmed::default();
    for read in cache.cold_reads(&asked, Instant::default(), &mut warmed) {
        let read = runtime.block_on(read.perform(Crc32c::PORTABLE));
        warmed.insert(read.map_err(|fault| fault.error)?);
    }
    let plan = cache.plan_with(asked, Instant::default(), &warmed);
    let answer = plan.into_response().context("all of it is in the mount point")?;
    let answer = kachet_wasm::frame::encode_response(&header, &answer)?;
    assert_eq!(batches(17, &answer)?, batches(17, &response)?);
    drop((cache, mount));
    // And the program, given the folder to read only, what the native host left behind.
    bench.may_change = false;
    let again = bench.program.run(&bench.start("fetch"), &request)?;
    assert_eq!(again.status, 0, "{}", again.stderr);
    assert_eq!(batches(17, &again.stdout)?, batches(17, &response)?);
    let stat = &lines(&bench.done("stat")?)?[0];
    assert!(
        stat["batches"].as_u64().is_some_and(|batches| batches > 0),
        "{stat}"
    );
    assert_eq!(stat["lost_segments"], 0);
    Ok(())
}

#[test]
fn a_segment_with_a_flipped_bit_gives_a_miss_and_never_other_bytes() -> Result<()> {
    let Some(bench) = Bench::new()? else { return Ok(()) };
    let (request, response) = bench.absorb("v17-codecs")?;
    let segments = bench.segments()?;
    let segment = segments.first().context("a segment")?;
    let whole = fs::read(segment)?;
    let mut missed = 0;
    for at in (0..whole.len()).step_by(whole.len() / 20 + 1) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(segment, &damaged)?;
        let again = bench.program.run(&bench.start("fetch"), &request)?;
        match again.status {
            // As many of the broker's batches as there are in front of the damage.
            0 => {
                for (found, whole) in batches(17, &again.stdout)?.iter().zip(batches(17, &response)?) {
                    let (found, whole) = (found.1.clone().unwrap_or_default(), whole.1.unwrap_or_default());
                    assert!(whole.starts_with(&found), "byte {at}");
                    missed += u32::from(found.len() < whole.len());
                }
            }
            STATUS_NOT_CACHED => missed += 1,
            other => panic!("byte {at}: {other} {}", again.stderr),
        }
    }
    assert!(missed > 0, "no damage was met");
    fs::write(segment, &whole[..whole.len() / 2])?;
    let cut = bench.program.run(&bench.start("fetch"), &request)?;
    let is_less = cut.status == STATUS_NOT_CACHED || batches(17, &cut.stdout)? != batches(17, &response)?;
    assert!(is_less, "half a segment gave everything");
    Ok(())
}

#[test]
fn what_is_not_cached_and_what_makes_no_sense_end_with_their_own_status() -> Result<()> {
    let Some(bench) = Bench::new()? else { return Ok(()) };
    let none = bench.run("stat")?;
    assert_eq!(none.status, STATUS_FAILED);
    assert!(none.stderr.contains("no mount point"), "{}", none.stderr);
    let (request, _) = bench.absorb("v17-codecs")?;
    let (topic, partition, _) = places(&request)?.into_iter().next().context("a place")?;
    for (words, status, said) in [
        (
            format!("record {topic} {partition} 9999999"),
            STATUS_NOT_CACHED,
            "is not cached",
        ),
        (format!("record {topic} 77 0"), STATUS_NOT_CACHED, "partition 77"),
        ("record name 0 0".to_owned(), STATUS_USAGE, "topic id"),
        ("eat".to_owned(), STATUS_USAGE, "--help"),
        ("absorb /in/none /in/none".to_owned(), STATUS_FAILED, "/in/none"),
        (
            "absorb /in/v17-codecs.response /in/v17-codecs.request".to_owned(),
            STATUS_FAILED,
            "v17-codecs.response",
        ),
        ("--folder /elsewhere stat".to_owned(), STATUS_FAILED, "/elsewhere"),
        ("--folder /in stat".to_owned(), STATUS_FAILED, "mount point"),
    ] {
        let ended = bench.run(&words)?;
        assert_eq!(ended.status, status, "{words}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{words}: {}", ended.stderr);
        assert!(ended.stdout.is_empty(), "{words}");
    }
    let by_name = bench
        .give("v12-codecs")
        .map(|_| bench.run("absorb /in/v12-codecs.request /in/v12-codecs.response"))??;
    assert_eq!(by_name.status, STATUS_FAILED);
    assert!(by_name.stderr.contains("by name"), "{}", by_name.stderr);
    let help = String::from_utf8(bench.done("--help")?)?;
    assert!(help.starts_with("Keeps Kafka's Fetch responses"), "{help}");
    Ok(())
}

#[test]
fn a_second_program_is_kept_from_changing_the_folder_but_not_from_reading_it() -> Result<()> {
    let Some(bench) = Bench::new()? else { return Ok(()) };
    let (request, response) = bench.absorb("v17-codecs")?;
    assert!(
        !bench.cache.path().join("kachet-wasi.lock").exists(),
        "it lets go of the folder"
    );
    fs::write(bench.cache.path().join("kachet-wasi.lock"), "")?;
    let refused = bench.run("clear")?;
    assert_eq!(refused.status, STATUS_FAILED);
    assert!(refused.stderr.contains("kachet-wasi.lock"), "{}", refused.stderr);
    let read = bench.program.run(&bench.start("fetch"), &request)?;
    assert_eq!(read.status, 0, "{}", read.stderr);
    assert_eq!(batches(17, &read.stdout)?, batches(17, &response)?);
    Ok(())
}

#[test]
fn the_folder_stays_within_the_limit() -> Result<()> {
    let Some(bench) = Bench::new()? else { return Ok(()) };
    bench.give("v17-codecs")?;
    let limit_bytes = 20_000;
    for _ in 0..3 {
        let words =
            format!("absorb /in/v17-codecs.request /in/v17-codecs.response --size-limit {limit_bytes}");
        bench.done(&words)?;
        let mut held_bytes = 0;
        for segment in bench.segments()? {
            held_bytes += fs::metadata(segment)?.len();
        }
        assert!(held_bytes <= limit_bytes, "{held_bytes}");
    }
    Ok(())
}

#[test]
fn an_end_without_room_in_memory_leaves_the_host_and_the_folder_well() -> Result<()> {
    let Some(bench) = Bench::new()? else { return Ok(()) };
    let (request, response) = bench.absorb("v17-codecs")?;
    let start = Start {
        memory_bytes: 2 << 20,
        ..bench.start("fetch")
    };
    // Whatever comes of it, it comes of this program only.
    if let Ok(ended) = bench.program.run(&start, &request) {
        assert!(ended.status != 0 || batches(17, &ended.stdout)? == batches(17, &response)?);
    }
    let read = bench.program.run(&bench.start("fetch"), &request)?;
    assert_eq!(read.status, 0, "{}", read.stderr);
    assert_eq!(batches(17, &read.stdout)?, batches(17, &response)?);
    Ok(())
}
