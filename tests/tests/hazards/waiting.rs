//! Who waits, for whom, and who does not.

use core::time::Duration;

use anyhow::{Context, Result, ensure};
use kachet::client::{Client, ClientSettings};
use kachet::transport::{BrokerAddress, TcpSettings, TcpTransport};
use kachet_core::wire::TopicId;
use kachet_tests::kafka::{shared_kafka, writer_for};
use tokio::time::{Instant, sleep, timeout};

use super::{CACHE_BYTES, cached, fetch, request};

/// Long, so that a slow machine does not hide the difference.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// H14: a request for a cached partition and one at its end is answered without the wait; the reference takes all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_at_its_end_does_not_hold_back_a_cached_one() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "cached-beside-the-end";
    writer.command(&format!("create {topic} 2"))?;
    for partition in 0..2 {
        writer.produce(topic, partition, "lz4", (40, 10), 1)?;
    }
    let address: BrokerAddress = broker.bootstrap().parse()?;
    let client = cached(&broker.bootstrap(), CACHE_BYTES)?;
    let topic_id = client.fetch(topic, 0, 0).await?.topic_id();
    let cache = client.transport();
    let both = || request(&[(topic_id, 0, 5), (topic_id, 1, 40)], MAX_WAIT);
    fetch(cache, &address, both()).await?;
    let mut quickest = MAX_WAIT;
    for _ in 0..5 {
        let started = Instant::now();
        let answer = fetch(cache, &address, both()).await?;
        quickest = quickest.min(started.elapsed());
        let sizes: Vec<_> = answer
            .partitions()
            .map(|(_, data)| data.records_size_bytes() > 0)
            .collect();
        assert_eq!(sizes, [true, false]);
    }
    ensure!(
        quickest < Duration::from_millis(20),
        "{quickest:?}, where the wait would be {MAX_WAIT:?}"
    );
    // Alone at its end it does wait.
    let started = Instant::now();
    fetch(
        cache,
        &address,
        request(&[(topic_id, 1, 40)], Duration::from_millis(300)),
    )
    .await?;
    ensure!(
        started.elapsed() >= Duration::from_millis(290),
        "{:?}",
        started.elapsed()
    );
    Ok(())
}

/// H21: what was asked for is fetched to its end and kept, though nobody waits any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_is_kept_though_its_caller_has_gone() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "caller-has-gone";
    writer.command(&format!("create {topic} 1"))?;
    writer.produce(topic, 0, "lz4", (10, 10), 1)?;
    let settings = ClientSettings {
        max_wait: Duration::from_secs(20),
        ..ClientSettings::default()
    };
    let client = Client::builder()
        .bootstrap(&broker.bootstrap())
        .size_limit_bytes(CACHE_BYTES)
        .settings(settings)
        .build()?;
    let client = std::sync::Arc::new(client);
    client.record(topic, 0, 0).await?;
    // At the end, where the broker waits for the next record.
    let caller = tokio::spawn({
        let client = std::sync::Arc::clone(&client);
        async move { client.fetch(topic, 0, 10).await }
    });
    sleep(Duration::from_millis(150)).await;
    caller.abort();
    let gone = caller.await;
    ensure!(
        gone.is_err_and(|gone| gone.is_cancelled()),
        "it had its answer already"
    );
    let fetches = client.transport().statistics().upstream_fetches;
    writer.produce(topic, 0, "lz4", (10, 10), 2)?;
    let key = client
        .transport()
        .partitions()
        .first()
        .copied()
        .context("nothing is cached")?;
    timeout(Duration::from_secs(15), async {
        while client.transport().covered(key).iter().all(|run| run.last() < 19) {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .context("what the fetch brought was not kept")?;
    assert_eq!(client.transport().statistics().upstream_fetches, fetches);
    assert!(client.record(topic, 0, 15).await?.is_some());
    Ok(())
}

/// H28: a zero id and an unknown one make a broker fall silent; who asks for others is answered all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_topic_id_beside_a_known_one_holds_nobody_up() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "beside-poison";
    writer.command(&format!("create {topic} 1"))?;
    writer.produce(topic, 0, "lz4", (20, 10), 1)?;
    let address: BrokerAddress = broker.bootstrap().parse()?;
    let cache = kachet::cache::Cache::builder(TcpTransport::new(TcpSettings {
        request_timeout: Duration::from_secs(2),
        ..TcpSettings::default()
    }))
    .size_limit_bytes(CACHE_BYTES)
    .build();
    let direct = super::direct(&broker.bootstrap())?;
    let topic_id = direct.fetch(topic, 0, 0).await?.topic_id();
    let poison = request(
        &[
            (TopicId([0; 16]), 0, 0),
            (TopicId([9; 16]), 0, 0),
            (topic_id, 0, 20),
        ],
        MAX_WAIT,
    );
    let poisoned = tokio::spawn({
        let (cache, address) = (cache.clone(), address.clone());
        async move { fetch(&cache, &address, poison).await }
    });
    sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    let answer = fetch(&cache, &address, request(&[(topic_id, 0, 5)], Duration::ZERO)).await?;
    ensure!(answer.partitions().any(|(_, data)| data.records_size_bytes() > 0));
    ensure!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    // Whatever the broker does with it, it ends: an answer, or the deadline of its connection.
    let ended = timeout(Duration::from_secs(30), poisoned).await?;
    ended?.map_or(Ok(()), |answer| {
        let has_records = answer.partitions().any(|(_, data)| data.records_size_bytes() > 0);
        ensure!(!has_records, "there is nothing to be read at the end");
        Ok(())
    })
}
