//! Leaders that change: cleanly and under load, and uncleanly with records lost.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use kachet::cache::Cache;
use kachet::client::Client;
use kachet::cluster::describe;
use kachet::transport::{BrokerAddress, TcpSettings, TcpTransport};
use kachet_core::wire::{TopicRef, WireStr};
use kachet_tests::java::TopicWriter;
use kachet_tests::records;
use tokio::time::sleep;

use super::{BOUND, CACHE_BYTES, PATIENCE, cached, cluster};

/// A read of one record: when it began, and which value it gave.
struct Seen {
    began_at: Instant,
    index: u32,
    value: Option<String>,
}

type Reader = Arc<Client<Cache<TcpTransport>>>;

async fn value(client: &Reader, topic: &str, partition: i32, offset: u32) -> Result<Option<String>> {
    let record = client.record(topic, partition, offset.into()).await?;
    let value = record.and_then(|record| record.value);
    Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
}

/// Elects this node, once the controller knows that it is there and that the leader is not.
async fn elect_uncleanly(
    writer: &mut TopicWriter,
    bootstrap: &str,
    topic: &'static str,
    node_id: i32,
) -> Result<()> {
    let transport = TcpTransport::new(TcpSettings::default());
    // Node 1, which is up all the time.
    let broker: BrokerAddress = bootstrap.split(',').next().context("no address")?.parse()?;
    let asked = [TopicRef::Name(WireStr::from_static(topic))];
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Needless, or not possible, as long as the controller takes the dead leader for alive, or this one for dead.
        let election = writer.command(&format!("elect unclean {topic} 0"));
        let topology = describe(&transport, &broker, &asked).await?;
        let partitions = topology.topics.iter().flat_map(|topic| topic.partitions.values());
        if partitions
            .into_iter()
            .any(|partition| partition.leader_id == node_id)
        {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "node {node_id} does not lead: {election:?}"
        );
        sleep(Duration::from_millis(200)).await;
    }
}

/// H7: what only the dead leader had is gone once another is elected; the same offsets hold other records then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_unclean_election_cut_off_is_not_served_past_the_bound() -> Result<()> {
    let Some(mut cluster) = cluster().await? else {
        return Ok(());
    };
    let Some(mut writer) = cluster.writer() else {
        return Ok(());
    };
    let topic = "unclean-election";
    writer.command(&format!("create-on {topic} 2,3"))?;
    assert_eq!(writer.produce(topic, 0, "lz4", (40, 10), 1)?, (0, 39));
    cluster.node(3)?.kill();
    // Only the leader has these.
    assert_eq!(writer.produce(topic, 0, "lz4", (40, 10), 2)?, (40, 79));

    let client: Reader = Arc::new(cached(&cluster.bootstrap(), CACHE_BYTES)?);
    for index in 0..80 {
        let seed = if index < 40 { 1 } else { 2 };
        let written = if index < 40 { index } else { index - 40 };
        assert_eq!(
            value(&client, topic, 0, index).await?,
            Some(records::value(seed, written))
        );
    }
    // One that does not see how the log shrinks: when it looks again, the log has grown beyond what it knew.
    let idle: Reader = Arc::new(cached(&cluster.bootstrap(), CACHE_BYTES)?);
    for index in 40..80 {
        value(&idle, topic, 0, index).await?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let reader = {
        let (client, stop) = (Arc::clone(&client), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut seen = Vec::new();
            for index in (40..80).cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let began_at = Instant::now();
                let value = value(&client, topic, 0, index).await.ok().flatten();
                seen.push(Seen {
                    began_at,
                    index,
                    value,
                });
                sleep(Duration::from_millis(2)).await;
            }
            seen
        })
    };
    cluster.node(2)?.kill();
    cluster.node(3)?.restart()?;
    elect_uncleanly(&mut writer, &cluster.bootstrap(), topic, 3).await?;
    let elected_at = Instant::now();
    // In batches of another size at the same offsets.
    assert_eq!(writer.produce(topic, 0, "zstd", (42, 7), 3)?, (40, 81));
    let written_at = Instant::now();
    cluster.node(2)?.restart()?;
    sleep(BOUND).await;
    for client in [&idle, &client] {
        for index in 40..80 {
            let found = value(client, topic, 0, index).await?;
            assert_eq!(found, Some(records::value(3, index - 40)), "{index}");
        }
    }
    for index in 0..40 {
        assert_eq!(
            value(&client, topic, 0, index).await?,
            Some(records::value(1, index)),
            "{index}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    let seen = reader.await?;
    check_cut_off(&seen, elected_at, written_at)
}

fn check_cut_off(seen: &[Seen], elected_at: Instant, written_at: Instant) -> Result<()> {
    let mut after = 0;
    for Seen {
        began_at,
        index,
        value,
    } in seen
    {
        let lost = records::value(2, index - 40);
        if *began_at >= elected_at + BOUND {
            ensure!(
                value.as_ref() != Some(&lost),
                "offset {index} was cut off, and is served"
            );
        }
        if *began_at >= written_at + BOUND {
            let now = records::value(3, index - 40);
            ensure!(value.as_ref() == Some(&now), "offset {index} gives {value:?}");
            after += 1;
        }
    }
    ensure!(after > 0, "nothing was read after the bound");
    Ok(())
}

/// Leaders move while 8 tasks read: each read gives the record that was written, and none fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_that_move_under_load_fail_no_read() -> Result<()> {
    const PARTITIONS: i32 = 3;
    const RECORDS: u32 = 200;
    let Some(cluster) = cluster().await? else {
        return Ok(());
    };
    let Some(mut writer) = cluster.writer() else {
        return Ok(());
    };
    let topic = "moving-under-load";
    writer.command(&format!("create {topic} {PARTITIONS}"))?;
    for partition in 0..PARTITIONS {
        writer.produce(topic, partition, "none", (RECORDS, 5), partition.into())?;
    }
    // Room for a part of it, so that there are hits and misses all the time.
    let client: Reader = Arc::new(cached(&cluster.bootstrap(), 48 << 10)?);
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..8_u32)
        .map(|task| {
            let (client, stop, reads) = (Arc::clone(&client), Arc::clone(&stop), Arc::clone(&reads));
            tokio::spawn(async move {
                for step in 0_u32.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let at = (step * 37 + task * 11) % RECORDS;
                    let partition = i32::try_from((step + task) % 3)?;
                    let found = value(&client, topic, partition, at).await;
                    let found = found.with_context(|| format!("{partition}@{at}"))?;
                    let wanted = records::value(partition.into(), at);
                    ensure!(
                        found.as_ref() == Some(&wanted),
                        "{partition}@{at} gives {found:?}"
                    );
                    reads.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(1)).await;
                }
                Ok(())
            })
        })
        .collect();
    for round in 0..4 {
        for partition in 0..PARTITIONS {
            let order = ["1,2,3", "2,3,1", "3,1,2"][(round + usize::try_from(partition)?) % 3];
            writer.command(&format!("move {topic} {partition} {order}"))?;
        }
        // A replica goes and comes back, with its data deleted meanwhile.
        writer.command(&format!("move {topic} 0 {}", ["2,3", "1,3", "1,2", "2,1"][round]))?;
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await??;
    }
    let (reads, statistics) = (reads.load(Ordering::Relaxed), client.transport().statistics());
    if reads < 100 || statistics.hits == 0 || statistics.misses < 50 {
        bail!("too little was read to tell anything: {reads} reads, {statistics:?}");
    }
    assert_eq!(statistics.errors, 0, "{statistics:?}");
    Ok(())
}

/// Who leads no more goes on answering fetches, and may be behind: it does not say what is beyond the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_was_just_written_is_read_though_a_former_leader_is_asked() -> Result<()> {
    let Some(cluster) = cluster().await? else {
        return Ok(());
    };
    let Some(mut writer) = cluster.writer() else {
        return Ok(());
    };
    let topic = "former-leader";
    writer.command(&format!("create-on {topic} 2,3"))?;
    writer.produce(topic, 0, "none", (10, 10), 1)?;
    let client: Reader = Arc::new(cached(&cluster.bootstrap(), CACHE_BYTES)?);
    for round in 0..10 {
        // Now the client knows who leads, and will not hear that another does.
        value(&client, topic, 0, 0).await?;
        writer.command(&format!(
            "move {topic} 0 {}",
            if round % 2 == 0 { "3,2" } else { "2,3" }
        ))?;
        let seed = 100 + i64::from(round);
        let (offset, _) = writer.produce(topic, 0, "none", (1, 1), seed)?;
        let found = value(&client, topic, 0, u32::try_from(offset)?).await;
        let found = found.with_context(|| format!("round {round}, the record at {offset}, just written"))?;
        assert_eq!(found, Some(records::value(seed, 0)), "{offset}");
    }
    Ok(())
}
