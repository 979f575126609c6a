//! Faults of the network between a client and a real broker.

use core::time::Duration;
use std::sync::Arc;

use anyhow::{Result, ensure};
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings};
use kachet::transport::{TcpSettings, TcpTransport};
use kachet_tests::kafka::{shared_kafka, writer_for};
use kachet_tests::records;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::toxic_proxy::{Detour, ToxicProxy, Toxin};

const RECORDS: u32 = 400;
const REQUEST_TIMEOUT: Duration = Duration::from_millis(700);
const RETRY_TIMEOUT: Duration = Duration::from_millis(1_500);
/// A read may begin its last try just before it is to give up, and each try asks some questions, one after the other: the
/// cache's own among them, for which a caller waits as long as two fetches take. And the machine may be slow.
const READ_LIMIT: Duration = Duration::from_secs(15);

/// When the fault is over, what is under way may still fail, once for each connection; and after a connection that did not
/// come about, none is tried for as long as [`TcpSettings::backoff_max`], a second, in which reads fail at once.
const RECOVERY_LIMIT: Duration = Duration::from_secs(5);

/// Each fault, and how many answers it spares for each that it meets.
const FAULTS: [(Toxin, usize); 11] = [
    (Toxin::ResetInside, 1),
    (Toxin::ResetInside, 5),
    (Toxin::Trickle, 3),
    (Toxin::Stall, 7),
    (Toxin::Silence, 7),
    (Toxin::Length(-1), 4),
    (Toxin::Length(i32::MIN), 4),
    (Toxin::Length(i32::MAX), 4),
    (Toxin::Length(3), 4),
    (Toxin::WrongCorrelationId, 4),
    (Toxin::OneByteShort, 4),
];

type Reader = Arc<Client<Cache<Detour>>>;

fn reader(proxy: &ToxicProxy, bootstrap: &str, retry_timeout: Duration) -> Result<Reader> {
    let tcp = TcpTransport::new(TcpSettings {
        connect_timeout: REQUEST_TIMEOUT,
        request_timeout: REQUEST_TIMEOUT,
        ..TcpSettings::default()
    });
    // Room for a part of the topic, so that most reads need the broker.
    let cache = Cache::builder(proxy.transport(tcp))
        .size_limit_bytes(24 << 10)
        .build();
    let settings = ClientSettings {
        retry_timeout,
        ..ClientSettings::default()
    };
    Ok(Arc::new(Client::new(cache, vec![bootstrap.parse()?], settings)?))
}

/// Reads one record: true if it came, false for an error. What is wrong, or late, fails.
async fn read(client: &Reader, topic: &str, index: u32) -> Result<bool> {
    let started = Instant::now();
    let read = tokio::time::timeout(2 * READ_LIMIT, client.record(topic, 0, index.into())).await?;
    ensure!(
        started.elapsed() < READ_LIMIT,
        "{:?} for {read:?}",
        started.elapsed()
    );
    let Ok(record) = read else { return Ok(false) };
    let value = record.and_then(|record| record.value);
    let wanted = records::value(1, index);
    ensure!(
        value.as_deref() == Some(wanted.as_bytes()),
        "{index} gives {value:?}"
    );
    Ok(true)
}

/// H23: no fault hangs a read or gives it wrong bytes; when the fault is over, so are its effects; nothing is left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_the_network_ends_in_time_with_the_right_bytes_or_an_error() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "through-faults";
    writer.command(&format!("create {topic} 1"))?;
    writer.produce(topic, 0, "none", (RECORDS, 4), 1)?;
    let proxy = ToxicProxy::start(&broker.bootstrap()).await?;
    let tasks_before = Handle::current().metrics().num_alive_tasks();
    for (toxin, every) in FAULTS {
        let client = reader(&proxy, &broker.bootstrap(), RETRY_TIMEOUT)?;
        ensure!(read(&client, topic, 0).await?, "without a fault");
        proxy.poison(toxin, every);
        let tasks = (0..16_u32).map(|task| {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                let mut came = 0;
                for step in 0..4 {
                    came += usize::from(read(&client, topic, (task * 97 + step * 53) % RECORDS).await?);
                }
                anyhow::Ok(came)
            })
        });
        let mut came = 0;
        for task in tasks.collect::<Vec<_>>() {
            came += task.await??;
        }
        ensure!(proxy.treated() > 0, "{toxin:?} met no answer");
        eprintln!(
            "{toxin:?}, one in {every}: {came} of 64 reads came, {} answers met",
            proxy.treated()
        );
        if toxin == Toxin::Trickle {
            ensure!(came == 64, "slow is no fault: {came} of 64");
        }
        proxy.poison(Toxin::None, 1);
        let deadline = Instant::now() + RECOVERY_LIMIT;
        while !read(&client, topic, 0).await? {
            ensure!(Instant::now() < deadline, "{toxin:?} has gone, and nothing comes");
            sleep(Duration::from_millis(20)).await;
        }
        for index in 0..16 {
            let came = read(&client, topic, index * 23).await? || read(&client, topic, index * 23).await?;
            ensure!(came, "{toxin:?} has gone, and {index} does not come");
        }
        drop(client);
        settle(&proxy, tasks_before, toxin).await?;
    }
    Ok(())
}

/// A client that has found its cluster goes on trying while every connection breaks, as when its only broker restarts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_outlast_a_time_in_which_every_answer_breaks_off() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "through-an-outage";
    writer.command(&format!("create {topic} 1"))?;
    writer.produce(topic, 0, "none", (RECORDS, 4), 1)?;
    let proxy = ToxicProxy::start(&broker.bootstrap()).await?;
    let client = reader(&proxy, &broker.bootstrap(), READ_LIMIT)?;
    ensure!(read(&client, topic, 0).await?, "without a fault");
    proxy.poison(Toxin::ResetInside, 1);
    let tasks = (0..16_u32).map(|task| {
        let client = Arc::clone(&client);
        tokio::spawn(async move { read(&client, topic, task * 20 + 8).await })
    });
    let tasks: Vec<_> = tasks.collect();
    sleep(Duration::from_secs(2)).await;
    ensure!(proxy.treated() > 1, "only {} answers were met", proxy.treated());
    proxy.poison(Toxin::None, 1);
    for task in tasks {
        ensure!(task.await??, "a read has given up");
    }
    Ok(())
}

/// Waits until no connection is left and no task that was not there before.
async fn settle(proxy: &ToxicProxy, tasks_before: usize, toxin: Toxin) -> Result<()> {
    let deadline = Instant::now() + READ_LIMIT;
    loop {
        let (open, tasks) = (proxy.open(), Handle::current().metrics().num_alive_tasks());
        if open == 0 && tasks <= tasks_before {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{toxin:?} leaves {open} connections and {tasks} tasks, not {tasks_before}"
        );
        sleep(Duration::from_millis(20)).await;
    }
}
