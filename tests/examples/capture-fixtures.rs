//! Captures Fetch requests and responses of every version from a real Kafka into `core/tests/fixtures`.
//!
//! `cargo run -p kachet-tests --example capture-fixtures`, after `cargo xtask setup`. What lies there is checked in;
//! run this again only to add cases or for a newer Kafka.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes};
use kachet_core::wire::{
    Chunks, FETCH_API_KEY, FETCH_VERSION_FLEXIBLE, FETCH_VERSION_MAX, FETCH_VERSION_MIN,
    FETCH_VERSION_TOPIC_IDS, FetchPartition, FetchRequest, FetchResponse, FetchTopic, TaggedFields, TopicId,
    TopicRef, WireStr,
};
use kachet_tests::java::TopicWriter;
use kachet_tests::kafka::{KafkaBroker, KafkaSettings};

struct Topic {
    name: &'static str,
    id: TopicId,
}

fn main() -> Result<()> {
    let mut broker = KafkaBroker::start(&KafkaSettings::default())?;
    let mut writer = TopicWriter::start(&broker.bootstrap())?;
    let topics = write_topics(&mut writer)?;
    drop(writer);
    // A second life of the broker raises the leader epoch, so that the first epoch is fenced.
    broker.restart()?;

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/fixtures");
    for version in FETCH_VERSION_MIN..=FETCH_VERSION_MAX {
        for (case, request) in cases(version, &topics) {
            let (body, response) = exchange_with_leader(&broker.bootstrap(), version, &request)?;
            let file = |kind| -> PathBuf { folder.join(format!("v{version:02}-{case}.{kind}")) };
            fs::write(file("request"), &body)?;
            fs::write(file("response"), &response)?;
            println!("v{version} {case}: {} bytes", response.len());
        }
    }
    Ok(())
}

fn write_topics(writer: &mut TopicWriter) -> Result<Vec<Topic>> {
    let mut topics = Vec::new();
    for name in ["codecs", "transactions", "small-batches"] {
        let answer = writer.command(&format!("create {name} 2"))?;
        let id = answer
            .rsplit(' ')
            .next()
            .and_then(parse_kafka_uuid)
            .context("no topic id in the answer")?;
        topics.push(Topic { name, id });
    }
    for (seed, codec) in (1..).zip(["none", "gzip", "snappy", "lz4", "zstd"]) {
        writer.command(&format!(
            "produce codecs 0 {codec} 3 3 {seed} headers nullkeys nullvalues size=40"
        ))?;
    }
    for command in [
        "produce codecs 1 none 2 2 9 size=10",
        "transaction commit transactions 0 2 tx-1 1",
        "transaction abort transactions 0 2 tx-2 2",
        "transaction abort transactions 0 1 tx-1 3",
        "produce small-batches 0 none 6 2 4 size=20",
    ] {
        writer.command(command)?;
    }
    Ok(topics)
}

/// Kafka prints UUIDs in URL-safe base64 without padding.
fn parse_kafka_uuid(text: &str) -> Option<TopicId> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bits = 0_u128;
    let mut count = 0;
    for byte in text.bytes() {
        let value = ALPHABET.iter().position(|&letter| letter == byte)?;
        count += 1;
        // 22 letters carry 132 bits; the last four are zero.
        bits = if count == 22 {
            bits << 2 | (value >> 4) as u128
        } else {
            bits << 6 | value as u128
        };
    }
    (count == 22).then(|| TopicId(bits.to_be_bytes()))
}

fn cases(version: i16, topics: &[Topic]) -> Vec<(&'static str, FetchRequest)> {
    let asked = |index: usize, partitions: Vec<FetchPartition>| {
        let topic = if version >= FETCH_VERSION_TOPIC_IDS {
            TopicRef::Id(topics[index].id)
        } else {
            TopicRef::Name(WireStr::from_static(topics[index].name))
        };
        FetchTopic {
            topic,
            partitions,
            unknown_tags: TaggedFields::default(),
        }
    };
    let unknown = |partitions| {
        let mut topic = asked(0, partitions);
        topic.topic = match topic.topic {
            TopicRef::Id(_) => TopicRef::Id(TopicId([9; 16])),
            TopicRef::Name(_) => TopicRef::Name(WireStr::from_static("no-such-topic")),
        };
        topic
    };
    let request = |topics| FetchRequest {
        max_wait_ms: 100,
        min_bytes: 1,
        topics,
        ..FetchRequest::default()
    };
    let read = |partition, offset| FetchPartition::new(partition, offset, 1 << 20);

    let mut cases = vec![
        ("codecs", request(vec![asked(0, vec![read(0, 0), read(1, 1)])])),
        (
            "transactions",
            FetchRequest {
                isolation_level: 1,
                ..request(vec![asked(1, vec![read(0, 2), read(1, 0)])])
            },
        ),
        // Room for one batch and half of the next.
        (
            "truncated",
            request(vec![asked(2, vec![FetchPartition::new(0, 0, 220)])]),
        ),
        (
            "errors",
            request(vec![
                unknown(vec![read(0, 0)]),
                asked(0, vec![read(0, 1_000), read(7, 0), read(1, 0)]),
            ]),
        ),
        ("end", request(vec![asked(0, vec![read(0, 15)])])),
    ];
    if version >= 7 {
        cases.push((
            "session",
            FetchRequest {
                session_epoch: 0,
                ..request(vec![asked(0, vec![read(1, 0)])])
            },
        ));
    }
    if version >= 9 {
        let fenced = FetchPartition {
            current_leader_epoch: 0,
            ..read(0, 0)
        };
        let unknown = FetchPartition {
            current_leader_epoch: 99,
            ..read(1, 0)
        };
        cases.push(("epochs", request(vec![asked(0, vec![fenced, unknown])])));
    }
    if version >= 12 {
        let diverging = FetchPartition {
            last_fetched_epoch: 0,
            ..read(0, 1_000)
        };
        cases.push(("diverging", request(vec![asked(0, vec![diverging])])));
    }
    cases
}

/// Sends a request until no partition answers that the broker does not lead it, as it does for a while after it has
/// started.
fn exchange_with_leader(bootstrap: &str, version: i16, request: &FetchRequest) -> Result<(Bytes, Bytes)> {
    const NOT_LEADER_OR_FOLLOWER: i16 = 6;
    for _ in 0..100 {
        let (body, response) = exchange(bootstrap, version, request)?;
        let decoded = FetchResponse::decode(response.clone(), version)?;
        if decoded
            .partitions()
            .all(|(_, partition)| partition.error_code != NOT_LEADER_OR_FOLLOWER)
        {
            return Ok((body, response));
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("the broker leads no partition 10 s after it started")
}

/// Sends one request on a connection of its own; gives its body and the body of the response.
fn exchange(bootstrap: &str, version: i16, request: &FetchRequest) -> Result<(Bytes, Bytes)> {
    let mut body = Chunks::new();
    request.encode(version, &mut body)?;
    let body = body.into_bytes();
    let flexible = version >= FETCH_VERSION_FLEXIBLE;

    let client = b"fixtures";
    let mut frame = Vec::new();
    frame.extend(FETCH_API_KEY.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(7_i32.to_be_bytes());
    frame.extend(i16::try_from(client.len())?.to_be_bytes());
    frame.extend(client);
    frame.extend(flexible.then_some(0_u8));
    frame.extend(&body);

    let mut stream = TcpStream::connect(bootstrap)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&i32::try_from(frame.len())?.to_be_bytes())?;
    stream.write_all(&frame)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length))?];
    stream.read_exact(&mut answer)?;
    let mut answer = Bytes::from(answer);
    ensure!(answer.get_i32() == 7, "another correlation id");
    if flexible {
        ensure!(answer.get_u8() == 0, "tagged fields in the response header");
    }
    Ok((body, answer))
}
