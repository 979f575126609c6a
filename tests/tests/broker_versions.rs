//! Brokers of older releases: what the client and the cache negotiate with them, and that it is right.
//!
//! Every run starts the oldest and one of the generation before this one; `cargo xtask broker-versions` starts others.

use core::time::Duration;

use anyhow::{Context, Result, ensure};
use kachet::cache::Cache;
use kachet::client::{Client, ClientError, ClientSettings, Isolation, Position};
use kachet::transport::{TcpSettings, TcpTransport};
use kachet_core::time::MaxStaleness;
use kachet_tests::java::{self, TopicWriter};
use kachet_tests::old_kafka::{OldKafka, releases};
use kachet_tests::records;
use kachet_tests::setup::{classpath_of, kafka_is_there, or_skip};
use tokio::time::sleep;

const BOUND: Duration = Duration::from_millis(400);
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

fn cached(bootstrap: &str, isolation: Isolation) -> Result<Client<Cache<TcpTransport>>> {
    Ok(Client::builder()
        .bootstrap(bootstrap)
        .size_limit_bytes(16 << 20)
        .max_staleness(MaxStaleness::Within(BOUND))
        .settings(settings(isolation))
        .build()?)
}

fn settings(isolation: Isolation) -> ClientSettings {
    ClientSettings {
        isolation,
        ..ClientSettings::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_brokers_are_read_through_the_cache_like_the_newest() -> Result<()> {
    if !kafka_is_there() {
        return Ok(());
    }
    for release in releases() {
        if or_skip(classpath_of(&release)).is_none() {
            continue;
        }
        let kafka = OldKafka::start(&release)?;
        let mut writer = TopicWriter::start(&kafka.bootstrap())?;
        let bootstrap = kafka.bootstrap();
        every_codec(&bootstrap, &mut writer)
            .await
            .context(release.clone())?;
        transactions(&bootstrap, &mut writer)
            .await
            .context(release.clone())?;
        created_anew(&bootstrap, &mut writer)
            .await
            .context(release.clone())?;
        deleted_records(&bootstrap, &mut writer).await.context(release)?;
    }
    Ok(())
}

/// To the byte, twice, the second time from the cache; and by timestamp.
async fn every_codec(bootstrap: &str, writer: &mut TopicWriter) -> Result<()> {
    let topic = "codecs";
    writer.command(&format!("create {topic} 1"))?;
    for (seed, codec) in (1..).zip(CODECS) {
        writer.command(&format!("produce {topic} 0 {codec} 40 10 {seed} headers"))?;
    }
    let direct = Client::new(
        TcpTransport::new(TcpSettings::default()),
        vec![bootstrap.parse()?],
        settings(Isolation::ReadUncommitted),
    )?;
    let client = cached(bootstrap, Isolation::ReadUncommitted)?;
    let mut after_first_pass = 0;
    for pass in 0..2 {
        for offset in 0..200_u32 {
            let wanted = direct.fetch_batch(topic, 0, offset.into()).await?.batches()?;
            let given = client.fetch_batch(topic, 0, offset.into()).await?.batches()?;
            ensure!(given == wanted, "pass {pass}, offset {offset}");
            let record = client.record(topic, 0, offset.into()).await?;
            let value = record.and_then(|record| record.value).context("no value")?;
            let (seed, index) = (i64::from(offset / 40 + 1), offset % 40);
            ensure!(
                *value == *records::value(seed, index).as_bytes(),
                "offset {offset}"
            );
        }
        if pass == 0 {
            sleep(BOUND).await;
            after_first_pass = client.transport().statistics().upstream_fetches;
        }
    }
    let statistics = client.transport().statistics();
    ensure!(statistics.hits >= 200 && statistics.errors == 0, "{statistics:?}");
    // An answer of an older version names no topic, so its id is asked for before and after, and it is kept only then.
    let again = statistics.upstream_fetches - after_first_pass;
    ensure!(again <= 5, "{again} fetches in the second pass: {statistics:?}");
    let at = client
        .offset_of(topic, 0, Position::Timestamp(records::timestamp_ms(17)))
        .await?;
    ensure!(at == 17, "found {at} by its time");
    Ok(())
}

/// Each offset under both isolation levels gives what the Java consumer reads.
async fn transactions(bootstrap: &str, writer: &mut TopicWriter) -> Result<()> {
    let topic = "transactions";
    writer.command(&format!("create {topic} 1"))?;
    for command in [
        "transaction commit transactions 0 3 tx-1 1",
        "transaction abort transactions 0 4 tx-2 2",
        "transaction open transactions 0 2 tx-3 3",
        "produce transactions 0 lz4 5 5 4",
        "end-transaction abort tx-3",
        "transaction commit transactions 0 2 tx-2 5",
        "transaction open transactions 0 2 tx-4 6",
    ] {
        writer.command(command)?;
    }
    for (isolation, java_isolation) in [
        (Isolation::ReadUncommitted, java::Isolation::ReadUncommitted),
        (Isolation::ReadCommitted, java::Isolation::ReadCommitted),
    ] {
        let read = java::read_records(bootstrap, topic, 0, 0, java_isolation)?;
        let seen: Vec<i64> = read
            .iter()
            .filter_map(|record| record["offset"].as_i64())
            .collect();
        let last = seen.last().copied().context("nothing is committed")?;
        let client = cached(bootstrap, isolation)?;
        for _ in 0..2 {
            for offset in 0..=last {
                let found = client.record(topic, 0, offset).await?.map(|record| record.offset);
                let wanted = seen.contains(&offset).then_some(offset);
                ensure!(found == wanted, "{isolation:?}@{offset}: {found:?}");
            }
        }
    }
    Ok(())
}

/// A name that comes to stand for another topic.
async fn created_anew(bootstrap: &str, writer: &mut TopicWriter) -> Result<()> {
    let topic = "anew";
    let client = cached(bootstrap, Isolation::ReadUncommitted)?;
    for seed in 1..=3 {
        writer.command(&format!("create {topic} 1"))?;
        writer.produce(topic, 0, "lz4", (20, 10), seed)?;
        sleep(BOUND).await;
        for index in [0, 7, 19, 7] {
            let record = client.record(topic, 0, index.into()).await?;
            let value = record.and_then(|record| record.value);
            let wanted = records::value(seed, index);
            ensure!(
                value.as_deref() == Some(wanted.as_bytes()),
                "life {seed}, {index}: {value:?}"
            );
        }
        writer.command(&format!("delete {topic}"))?;
        // An older broker deletes in the background, and refuses the name until it has.
        sleep(4 * BOUND).await;
    }
    Ok(())
}

async fn deleted_records(bootstrap: &str, writer: &mut TopicWriter) -> Result<()> {
    let topic = "deleted-records";
    writer.command(&format!("create {topic} 1"))?;
    writer.produce(topic, 0, "lz4", (40, 10), 1)?;
    let client = cached(bootstrap, Isolation::ReadUncommitted)?;
    client.records(topic, 0, 0, 40).await?;
    writer.command(&format!("delete-records {topic} 0 25"))?;
    sleep(BOUND).await;
    for gone in [0, 24] {
        let found = client.record(topic, 0, gone).await;
        let says = matches!(
            found,
            Err(ClientError::OffsetOutOfRange {
                log_start_offset: 25,
                ..
            })
        );
        ensure!(says, "{gone}: {found:?}");
    }
    ensure!(client.record(topic, 0, 25).await?.is_some());
    Ok(())
}
