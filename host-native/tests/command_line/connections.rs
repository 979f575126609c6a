//! A proxy that thousands are connected to: what they take is within a stated bound, and those that read are served.

use core::time::Duration;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kachet::core::wire::{Chunks, FetchPartition, FetchRequest, FetchTopic, TaggedFields, TopicId, TopicRef};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Events, Packing, pack};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::abuse::resident_kib;
use super::proxy::Running;

/// Connections that have asked something, and from then on say nothing.
const IDLE: usize = 5_000;
/// Connections that fetch without a pause.
const BUSY: usize = 500;
const FETCHES_OF_EACH: usize = 20;
/// Both ends of the broker's connections and one end of the clients' are in this process.
const OPEN_FILES: u64 = 2 * (IDLE + BUSY) as u64 + 500;
/// Memory for all of them beyond what the proxy takes by itself, in KiB, as `docs/proxy.md` states it.
const MORE_KIB: u64 = 192 << 10;
const PATIENCE: Duration = Duration::from_mins(2);

fn raise_open_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= OPEN_FILES);
    if enough(limit.current) {
        return Ok(());
    }
    let maximum = if enough(limit.maximum) {
        limit.maximum
    } else {
        Some(OPEN_FILES)
    };
    let wanted = Rlimit {
        current: Some(OPEN_FILES),
        maximum,
    };
    setrlimit(Resource::Nofile, wanted)
        .with_context(|| format!("this test needs {OPEN_FILES} open files; raise the limit (ulimit -Hn)"))
}

fn frame(api_key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 4];
    frame.extend(api_key.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend([0, 0, 0, 7, 0xff, 0xff]);
    frame.extend(body);
    let size = u32::try_from(frame.len() - 4).expect("a small request");
    frame[..4].copy_from_slice(&size.to_be_bytes());
    frame
}

/// The batch that holds the offset, by id.
fn fetch(topic_id: TopicId, offset: i64) -> Result<Vec<u8>> {
    let request = FetchRequest {
        max_bytes: 1,
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic: TopicRef::Id(topic_id),
            partitions: vec![FetchPartition::new(0, offset, 1)],
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    };
    let mut body = Chunks::new();
    request.encode(13, &mut body)?;
    // The header of flexible versions ends in its tagged fields.
    Ok(frame(1, 13, &[&[0], &body.into_bytes()[..]].concat()))
}

async fn ask(stream: &mut TcpStream, request: &[u8]) -> Result<Bytes> {
    let answered = timeout(PATIENCE, async {
        stream.write_all(request).await?;
        let size = usize::try_from(stream.read_u32().await?)?;
        ensure!(size < 1 << 20, "an answer of {size} bytes");
        let mut answer = vec![0; size];
        stream.read_exact(&mut answer).await?;
        Ok(answer.into())
    });
    answered.await.context("no answer")?
}

async fn connect(address: &str) -> Result<TcpStream> {
    let mut stream = timeout(PATIENCE, TcpStream::connect(address)).await??;
    let versions = ask(&mut stream, &frame(18, 0, &[])).await?;
    ensure!(versions.len() > 10, "no versions");
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_idle_and_five_hundred_busy_connections_take_a_stated_memory() -> Result<()> {
    raise_open_files()?;
    let broker = EmbeddedBroker::start(BrokerSettings {
        connection_limit: 2 * (IDLE + BUSY),
        ..BrokerSettings::default()
    })
    .await?;
    let topic_id = broker.create_topic("orders", 1)?;
    let events: Vec<_> = Events::new(1).take(10).collect();
    broker.append("orders", 0, pack(&events, Packing::Lz4)?)?;
    let proxy = Running::in_front_of(&broker)?;
    let request: Arc<[u8]> = fetch(topic_id, 3)?.into();
    let mut first = connect(&proxy.address).await?;
    let expected = ask(&mut first, &request).await?;
    assert!(expected.len() > 200, "the batch itself");
    let before_kib = resident_kib(proxy.id())?;

    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        idle.push(connect(&proxy.address).await?);
    }
    let idle_kib = resident_kib(proxy.id())?;
    let mut busy = JoinSet::new();
    for _ in 0..BUSY {
        let (address, request, expected) = (proxy.address.clone(), Arc::clone(&request), expected.clone());
        busy.spawn(async move {
            let mut stream = connect(&address).await?;
            for _ in 0..FETCHES_OF_EACH {
                ensure!(ask(&mut stream, &request).await? == expected, "other bytes");
            }
            Ok(stream)
        });
    }
    let mut read = Vec::with_capacity(BUSY);
    while let Some(stream) = busy.join_next().await {
        read.push(stream??);
    }
    let most_kib = resident_kib(proxy.id())?;
    println!(
        "{before_kib} KiB without, {idle_kib} KiB with {IDLE} idle, {most_kib} KiB with {BUSY} busy beside them"
    );
    assert!(
        most_kib <= before_kib + MORE_KIB,
        "{before_kib} KiB, {idle_kib}, {most_kib}"
    );
    // They are all there still.
    for stream in idle.iter_mut().step_by(97) {
        assert_eq!(ask(stream, &request).await?, expected);
    }
    let (status, stderr) = proxy.end("-TERM")?;
    assert_eq!(status.code(), Some(0), "{stderr}");
    Ok(())
}
