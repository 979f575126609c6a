//! What brokers delete: segments by retention, and topics that come back under their names.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kachet::client::ClientError;
use kachet_core::identity::PartitionKey;
use kachet_tests::kafka::{shared_kafka, writer_for};
use kachet_tests::records;
use tokio::time::sleep;

use super::{BOUND, CACHE_BYTES, PATIENCE, cached, cluster, direct};

/// H4: segments that retention has removed are not served, and what it has left stays cached.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_took_is_not_served_past_the_bound() -> Result<()> {
    let Some(cluster) = cluster().await? else {
        return Ok(());
    };
    let Some(mut writer) = cluster.writer() else {
        return Ok(());
    };
    let topic = "retention-by-size";
    // A mebibyte is the least that brokers take for a segment.
    writer.command(&format!(
        "create-on {topic} 2 segment.bytes=1048576 cleanup.policy=delete"
    ))?;
    let (_, last) = writer.produce(topic, 0, "none", (3_000, 50), 1)?;
    writer.command(&format!("produce {topic} 0 none 200 10 2 size=8000"))?;
    let end = last + 201;
    let client = cached(&cluster.bootstrap(), CACHE_BYTES)?;
    let mut next = 0;
    while next < end {
        next = client.fetch(topic, 0, next).await?.next_offset().unwrap_or(end);
    }
    let key: PartitionKey = client.transport().partitions()[0];
    assert_eq!(client.transport().covered(key)[0].base(), 0);

    writer.command(&format!("config {topic} retention.bytes=1000000"))?;
    let deadline = Instant::now() + PATIENCE;
    let start = loop {
        let told = writer.command(&format!("start-offsets {topic}"))?;
        let start: i64 = told.rsplit('=').next().unwrap_or_default().parse()?;
        if start > 0 {
            break start;
        }
        ensure!(Instant::now() < deadline, "retention has removed nothing");
        sleep(Duration::from_millis(100)).await;
    };
    sleep(BOUND).await;
    for offset in [0, start / 2, start - 1] {
        let gone = client.fetch(topic, 0, offset).await;
        let says = matches!(&gone, Err(ClientError::OffsetOutOfRange { log_start_offset, .. }) if *log_start_offset >= start);
        ensure!(says, "{offset} below {start} gives {gone:?}");
    }
    let held = client.transport().covered(key);
    ensure!(
        held.iter().all(|run| run.last() >= start),
        "{held:?} reaches below {start}"
    );
    let kept = client.fetch(topic, 0, end - 1).await?;
    assert_eq!(
        kept.batches()?,
        direct(&cluster.bootstrap())?
            .fetch(topic, 0, end - 1)
            .await?
            .batches()?
    );
    Ok(())
}

/// One life of the topic.
#[derive(Clone, Copy)]
struct Life {
    seed: i64,
    begins_at: Instant,
    full_at: Option<Instant>,
    ends_at: Option<Instant>,
}

struct Seen {
    began_at: Instant,
    ended_at: Instant,
    index: u32,
    value: Result<Option<String>, String>,
}

/// H6: a name stands for one topic after the other while six tasks read; past the bound nobody reads of one that is gone,
/// and while a topic stands every read succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_created_anew_again_and_again_under_load_is_never_mixed_up_past_the_bound()
-> Result<()> {
    const RECORDS: u32 = 60;
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "again-and-again";
    let client = Arc::new(cached(&broker.bootstrap(), CACHE_BYTES)?);
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let readers: Vec<_> = (0..6_u32)
        .map(|task| {
            let (client, stop, seen) = (Arc::clone(&client), Arc::clone(&stop), Arc::clone(&seen));
            tokio::spawn(async move {
                for step in 0_u32.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let index = (step * 7 + task * 13) % RECORDS;
                    let began_at = Instant::now();
                    let value = client.record(topic, 0, index.into()).await;
                    let value = value.map(|record| record.and_then(|record| record.value));
                    let value =
                        value.map(|value| value.map(|value| String::from_utf8_lossy(&value).into_owned()));
                    let value = value.map_err(|error| error.to_string());
                    let ended_at = Instant::now();
                    if let Ok(mut seen) = seen.lock() {
                        seen.push(Seen {
                            began_at,
                            ended_at,
                            index,
                            value,
                        });
                    }
                    sleep(Duration::from_millis(3)).await;
                }
            })
        })
        .collect();
    let mut lives = Vec::new();
    for seed in 1..=4 {
        let mut life = Life {
            seed,
            begins_at: Instant::now(),
            full_at: None,
            ends_at: None,
        };
        writer.command(&format!("create {topic} 1"))?;
        writer.produce(topic, 0, "lz4", (RECORDS, 6), seed)?;
        life.full_at = Some(Instant::now());
        sleep(4 * BOUND).await;
        life.ends_at = Some(Instant::now());
        writer.command(&format!("delete {topic}"))?;
        lives.push(life);
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await?;
    }
    let seen = seen
        .lock()
        .map_err(|_| anyhow::anyhow!("a reader has panicked"))?;
    check(&seen, &lives)
}

/// How long the broker itself may go on with a topic after it has said that it is deleted.
const BROKER_DELAY: Duration = Duration::from_millis(500);

fn check(seen: &[Seen], lives: &[Life]) -> Result<()> {
    let mut steady = 0;
    for read in seen {
        let life = lives.iter().find(|life| {
            let (full_at, ends_at) = (life.full_at.map(|at| at + BOUND), life.ends_at);
            full_at.is_some_and(|at| read.began_at >= at) && ends_at.is_some_and(|at| read.ended_at <= at)
        });
        if let Some(life) = life {
            let wanted = records::value(life.seed, read.index);
            let is_right = read.value == Ok(Some(wanted));
            ensure!(is_right, "life {}, {}: {:?}", life.seed, read.index, read.value);
            steady += 1;
            continue;
        }
        let Ok(Some(value)) = &read.value else { continue };
        let of = lives
            .iter()
            .find(|life| *value == records::value(life.seed, read.index));
        let Some(life) = of else {
            anyhow::bail!("{} gives what was never written: {value}", read.index);
        };
        ensure!(read.ended_at >= life.begins_at, "read before it was written");
        let ends_at = life.ends_at.map(|at| at + BOUND + BROKER_DELAY);
        ensure!(
            ends_at.is_some_and(|at| read.began_at <= at),
            "life {} is over",
            life.seed
        );
    }
    ensure!(steady > 100, "only {steady} reads tell anything");
    Ok(())
}
