//! Topics that hurt: what a cache of fetches is easily wrong with.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kachet_core::wire::TopicId;
use kachet_tests::java::TopicWriter;
use kachet_tests::kafka::KafkaBroker;

use crate::broker::Broker;
use crate::truth::{Topic, Truth};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// The cleaner runs at once and takes all that it may.
pub(crate) const COMPACTED: &str = "cleanup.policy=compact segment.ms=100 min.cleanable.dirty.ratio=0.01 \
                         delete.retention.ms=0 min.compaction.lag.ms=0";
/// For the cleaner, on a slow machine.
const CLEANER_PATIENCE: Duration = Duration::from_secs(90);

/// The topics by name, with their partitions, that requests are about.
const SETTLED: [(&str, i32); 9] = [
    ("codecs", 5),
    ("transactions", 1),
    ("open", 1),
    ("compacted", 2),
    ("cut", 2),
    ("many", 50),
    ("reborn", 2),
    ("large", 2),
    ("empty", 1),
];

/// Fills the topics and waits until nothing of them changes any more. Gives what is in them, and ids of topics that
/// were deleted.
pub(crate) async fn settle(
    kafka: &mut KafkaBroker,
    writer: &mut TopicWriter,
) -> Result<(Truth, Vec<TopicId>)> {
    let mut broker = Broker::at(&kafka.bootstrap())?;
    for (name, partitions) in SETTLED {
        let settings = match name {
            "compacted" => COMPACTED,
            "many" => "segment.bytes=1048576",
            _ => "",
        };
        writer.command(&format!("create {name} {partitions} {settings}"))?;
    }
    fill_first(writer)?;
    wait_for_the_cleaner(&mut broker, writer).await?;
    // What comes next is of another leader epoch.
    kafka.restart()?;
    let mut broker = Broker::at(&kafka.bootstrap())?;
    fill_second(writer)?;
    let buried = bury_and_create_anew(&broker, writer).await?;
    let mut truth = Truth::default();
    for (name, partitions) in SETTLED {
        learn(&mut broker, &mut truth, name, partitions).await?;
        truth.topics.last_mut().context("just learned")?.is_settled = true;
    }
    Ok((truth, buried))
}

fn fill_first(writer: &mut TopicWriter) -> Result<()> {
    for (partition, codec) in CODECS.iter().enumerate() {
        writer.command(&format!(
            "produce codecs {partition} {codec} 180 15 {partition} headers nullkeys nullvalues"
        ))?;
        writer.command(&format!("produce codecs {partition} {codec} 20 1 9"))?;
    }
    for (partition, (count, size)) in [(0, (30, 60_000)), (1, (300, 9_000))] {
        writer.command(&format!(
            "produce large {partition} none {count} 1 {partition} size={size}"
        ))?;
    }
    for partition in 0..50 {
        writer.command(&format!(
            "produce many {partition} lz4 {} 4 {partition}",
            4 + partition % 7 * 6
        ))?;
    }
    for partition in 0..2 {
        writer.command(&format!("produce cut {partition} none 120 12 {partition}"))?;
        for round in 0..4 {
            writer.command(&format!(
                "produce compacted {partition} none 60 6 {round} keys=11"
            ))?;
        }
        writer.command(&format!("produce reborn {partition} gzip 40 8 1"))?;
    }
    for command in [
        "transaction commit compacted 0 9 tx-compacted-1 1",
        "transaction abort compacted 0 9 tx-compacted-2 1",
        "transaction commit transactions 0 6 tx-1 1",
        "transaction abort transactions 0 5 tx-2 2",
        "produce transactions 0 lz4 12 4 3",
        "transaction open transactions 0 4 tx-3 4",
        "transaction open transactions 0 3 tx-4 5",
        "produce transactions 0 zstd 6 2 6",
        "end-transaction abort tx-3",
        "transaction open transactions 0 4 tx-5 4",
        "end-transaction commit tx-4",
        "produce transactions 0 none 6 2 6",
        "end-transaction abort tx-5",
    ] {
        writer.command(command)?;
    }
    Ok(())
}

fn fill_second(writer: &mut TopicWriter) -> Result<()> {
    for partition in 0..5 {
        writer.command(&format!("produce codecs {partition} lz4 60 20 77"))?;
    }
    for partition in 0..2 {
        writer.command(&format!("produce cut {partition} none 24 12 {partition}"))?;
        writer.command(&format!("produce compacted {partition} none 60 6 8 keys=9"))?;
    }
    for command in [
        // One cut goes through the middle of a batch, the other one to the end.
        "delete-records cut 0 31",
        "delete-records cut 1 144",
        "transaction abort transactions 0 3 tx-2 7",
        "transaction abort transactions 0 2 tx-2 8",
        "transaction commit transactions 0 2 tx-2 9",
        "transaction abort open 0 3 tx-6 1",
        "transaction open open 0 2 tx-7 1",
        "produce open 0 none 20 4 2",
        "transaction abort open 0 2 tx-6 3",
    ] {
        writer.command(command)?;
    }
    Ok(())
}

async fn bury_and_create_anew(broker: &Broker, writer: &mut TopicWriter) -> Result<Vec<TopicId>> {
    let buried = broker.describe("reborn").await?.topic_id;
    writer.command("delete reborn")?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while writer.command("create reborn 2").is_err() {
        ensure!(
            Instant::now() < deadline,
            "the topic does not come about a second time"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for partition in 0..2 {
        writer.command(&format!("produce reborn {partition} gzip 30 5 2"))?;
    }
    Ok(vec![buried])
}

/// Until the log is what it is going to stay, and the cleaner is told to leave it so.
async fn wait_for_the_cleaner(broker: &mut Broker, writer: &mut TopicWriter) -> Result<()> {
    let id = broker.describe("compacted").await?.topic_id;
    let deadline = Instant::now() + CLEANER_PATIENCE;
    for partition in 0..2 {
        for count in (80..).step_by(20) {
            // A segment ends by the time of the records that come, which begins anew with each command: so the last of
            // them is later each time.
            writer.command(&format!("produce compacted {partition} none {count} 5 8 keys=3"))?;
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut truth = Truth::default();
            truth.read_on(broker, id, partition, true).await?;
            let log = truth
                .logs
                .get(&(id, partition))
                .context("the compacted log is gone")?;
            if log.records_count() < log.end / 3 {
                break;
            }
            ensure!(Instant::now() < deadline, "the cleaner does not run");
        }
    }
    writer.command("config compacted min.compaction.lag.ms=9000000000 min.cleanable.dirty.ratio=1")?;
    // A run that is under way ends.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

/// Takes a topic in, with all that is in it.
pub(crate) async fn learn(
    broker: &mut Broker,
    truth: &mut Truth,
    name: &str,
    partitions: i32,
) -> Result<TopicId> {
    let described = broker.describe(name).await?;
    let id = described.topic_id;
    let epochs = described.partitions.values();
    // Whoever met it first has taken it in.
    if truth.topic_mut(id).is_none() {
        truth.topics.push(Topic {
            name: name.to_owned(),
            id,
            partitions,
            leader_epoch: epochs.map(|partition| partition.leader_epoch).max().unwrap_or(0),
            is_settled: false,
            is_compacted: name.contains("compacted"),
            deleted_at: None,
            events: Vec::new(),
        });
    }
    for partition in 0..partitions {
        truth.read_on(broker, id, partition, true).await?;
    }
    Ok(id)
}
