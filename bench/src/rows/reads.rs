//! Single records of a real Kafka at random: what this is for.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings};
use kachet::transport::{TcpSettings, TcpTransport, Transport};
use kachet_core::time::MaxStaleness;
use kachet_tests::java::TopicWriter;
use tokio::runtime::Runtime;

use super::{Scope, broker};
use crate::contest::{Contest, Outcome, Role, Unit, count};
use crate::report::Section;

const TOPIC: &str = "reads";
const BATCH_RECORDS: u32 = 16;
/// One batch in so many is hot, and of the hot ones are so many reads of so many.
const HOT_SHARE: u32 = 5;
const HOT_READS: (u32, u32) = (4, 5);
/// The first reads of a client find its cluster, and do not count.
const WARMING: usize = 16;

pub(super) fn section(scope: &Scope) -> Result<Section> {
    let mut section = Section::new(
        "reads",
        "Reads",
        "Single records of a real Kafka on the same machine, one after the other by the native client, of lz4 batches of 16 records \
         of 1 KB; four fifths of the reads are of a fifth of the batches. Each read decompresses its batch. *first time* begins with \
         an empty cache in each round. With a broker behind a network the first way takes longer and the last does not.",
    );
    let Some(broker) = broker::start(&mut section)? else {
        return Ok(section);
    };
    let runtime = Runtime::new()?;
    let batches: u32 = if scope.is_quick { 1 << 9 } else { 2_500 };
    let records = batches * BATCH_RECORDS;
    let mut writer = TopicWriter::start(&broker.bootstrap())?;
    writer.command(&format!("create {TOPIC} 1"))?;
    writer.command(&format!(
        "produce {TOPIC} 0 lz4 {records} {BATCH_RECORDS} 1 size=1000"
    ))?;
    let offsets = offsets(batches, if scope.is_quick { 1_000 } else { 20_000 });
    section
        .rows
        .extend(rows(scope, &runtime, &broker.bootstrap(), &offsets)?);
    Ok(section)
}

fn offsets(batches: u32, reads: usize) -> Vec<i64> {
    let mut random = fastrand::Rng::with_seed(23);
    let hot = batches / HOT_SHARE;
    (0..reads)
        .map(|_| {
            let among = if random.u32(..HOT_READS.1) < HOT_READS.0 {
                hot
            } else {
                batches
            };
            // So that what is hot does not lie together.
            let batch = u64::from(random.u32(..among)) * 7_919 % u64::from(batches);
            i64::from(BATCH_RECORDS) * batch.cast_signed() + i64::from(random.u32(..BATCH_RECORDS))
        })
        .collect()
}

/// What a way of reading all offsets came to.
#[derive(Clone, Copy)]
struct Took {
    median: f64,
    per_second: f64,
}

fn rows(scope: &Scope, runtime: &Runtime, bootstrap: &str, offsets: &[i64]) -> Result<Vec<Outcome>> {
    let tcp = || TcpTransport::new(TcpSettings::default());
    let straight = client(tcp(), bootstrap)?;
    // So that no round of another way makes what is cached too old.
    let cached = || {
        Cache::builder(tcp())
            .size_limit_bytes(256 << 20)
            .max_staleness(MaxStaleness::Within(Duration::from_mins(10)))
            .build()
    };
    let warm = client(cached(), bootstrap)?;
    runtime.block_on(read(&warm, offsets))?;
    let straight = || runtime.block_on(read(&straight, offsets));
    let warm = || runtime.block_on(read(&warm, offsets));
    let first = || runtime.block_on(read(&client(cached(), bootstrap)?, offsets));
    let rows = [
        (
            "a record at random, p50",
            Unit::Seconds,
            (|took| took.median) as fn(Took) -> f64,
        ),
        ("records at random by one reader", Unit::PerSecond, |took| {
            took.per_second
        }),
    ];
    let row = |(what, unit, value): (&str, Unit, fn(Took) -> f64)| {
        Contest::new(what, unit)
            .way("kachet", Role::Ours, || warm().map(value))
            .way("kachet, first time", Role::Ours, || first().map(value))
            .way("without a cache", Role::Peer, || straight().map(value))
            .run(scope.rounds)
    };
    rows.into_iter().map(row).collect()
}

fn client<T: Transport>(transport: T, bootstrap: &str) -> Result<Client<T>> {
    Ok(Client::new(
        transport,
        vec![bootstrap.parse()?],
        ClientSettings::default(),
    )?)
}

async fn read<T: Transport>(client: &Client<T>, offsets: &[i64]) -> Result<Took> {
    for offset in offsets.iter().take(WARMING) {
        client.record(TOPIC, 0, *offset).await?;
    }
    let mut times = Vec::with_capacity(offsets.len());
    let started = Instant::now();
    for offset in offsets {
        let began = Instant::now();
        let record = client.record(TOPIC, 0, *offset).await?;
        times.push(began.elapsed().as_secs_f64());
        ensure!(
            record.is_some_and(|record| record.offset == *offset),
            "no record at {offset}"
        );
    }
    let took = started.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    Ok(Took {
        median: times[times.len() / 2],
        per_second: count(times.len()) / took,
    })
}
