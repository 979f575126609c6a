//! Truncation, new leaders, retention: what is cached is validated within the bound, and no more often than that.

use core::time::Duration;

use anyhow::Result;
use kachet::client::ClientError;
use kachet::core::time::MaxStaleness;
use tokio::time::sleep;

use super::{TOPIC, append, broker_with, client_of, direct_client_of, value, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_truncated_by_an_unclean_election_is_read_anew_even_where_it_has_grown_again() -> Result<()> {
    let broker = broker_with(6).await?;
    let client = client_of(&broker, within(100))?;
    for offset in [5, 25, 35, 55] {
        value(&client, offset).await?;
    }
    // Offsets 30 to 59 are lost, and others take their place: the high watermark is higher than before.
    broker.elect_unclean_leader(TOPIC, 0, 30)?;
    append(&broker, 2, 6)?;
    sleep(Duration::from_millis(120)).await;
    let direct = direct_client_of(&broker)?;
    for offset in [5, 25, 35, 55, 85] {
        let expected = direct
            .record(TOPIC, 0, offset)
            .await?
            .and_then(|record| record.value);
        assert_eq!(value(&client, offset).await?, expected, "offset {offset}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_election_costs_no_cached_batch() -> Result<()> {
    let broker = broker_with(6).await?;
    let client = client_of(&broker, within(50))?;
    client.records(TOPIC, 0, 0, 60).await?;
    let before = client.transport().statistics();
    for _ in 0..3 {
        broker.elect_leader(TOPIC, 0)?;
        sleep(Duration::from_millis(60)).await;
        assert!(value(&client, 33).await?.is_some());
    }
    let after = client.transport().statistics();
    assert_eq!(
        (after.batches, after.upstream_fetches),
        (before.batches, before.upstream_fetches)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_below_the_log_start_are_gone_and_their_memory_with_them() -> Result<()> {
    let broker = broker_with(6).await?;
    let client = client_of(&broker, within(50))?;
    client.records(TOPIC, 0, 0, 60).await?;
    broker.truncate_before(TOPIC, 0, 45)?;
    sleep(Duration::from_millis(60)).await;
    let gone = client.record(TOPIC, 0, 44).await;
    assert!(
        matches!(
            gone,
            Err(ClientError::OffsetOutOfRange {
                log_start_offset: 45,
                ..
            })
        ),
        "{gone:?}"
    );
    assert!(value(&client, 45).await?.is_some());
    assert_eq!(client.transport().statistics().batches, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_cache_asks_once_a_bound_and_an_idle_one_asks_nothing() -> Result<()> {
    let broker = broker_with(2).await?;
    let client = client_of(&broker, within(200))?;
    value(&client, 3).await?;
    let before = broker.requests();
    let until = tokio::time::Instant::now() + Duration::from_millis(1_000);
    let mut reads = 0_u64;
    while tokio::time::Instant::now() < until {
        value(&client, 3).await?;
        reads += 1;
        tokio::task::yield_now().await;
    }
    let busy = broker.requests();
    assert!(reads > 100, "{reads}");
    assert_eq!(busy.fetch, before.fetch);
    // In the background, past half of the bound: some ten rounds, each of three questions between two Metadata, and the
    // clean-up policy once, between two as well.
    let rounds = busy.offset_for_leader_epoch - before.offset_for_leader_epoch;
    assert!((3..=12).contains(&rounds), "{rounds} rounds for {reads} reads");
    assert_eq!(busy.list_offsets - before.list_offsets, 2 * rounds);
    let metadata = busy.metadata - before.metadata;
    assert!((2 * rounds..=2 * rounds + 3).contains(&metadata), "{metadata}");
    sleep(Duration::from_millis(400)).await;
    let idle = broker.requests();
    assert!(
        idle.metadata <= busy.metadata + 1,
        "an answer may have been under way"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_of_a_doubtful_partition_share_one_round_of_questions() -> Result<()> {
    let broker = broker_with(2).await?;
    let client = std::sync::Arc::new(client_of(&broker, within(150))?);
    value(&client, 3).await?;
    sleep(Duration::from_millis(200)).await;
    let before = broker.requests();
    let readers: Vec<_> = (0..50)
        .map(|_| {
            let client = std::sync::Arc::clone(&client);
            tokio::spawn(async move { value(&client, 3).await })
        })
        .collect();
    for reader in readers {
        assert!(reader.await??.is_some());
    }
    let after = broker.requests();
    assert_eq!(after.fetch, before.fetch);
    let rounds = after.offset_for_leader_epoch - before.offset_for_leader_epoch;
    assert!(rounds <= 2, "{rounds} rounds");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn always_ask_still_answers_from_the_cache() -> Result<()> {
    let broker = broker_with(2).await?;
    let client = client_of(&broker, within(0))?;
    for _ in 0..5 {
        assert!(value(&client, 3).await?.is_some());
    }
    let requests = broker.requests();
    assert_eq!(requests.fetch, 1);
    assert_eq!(
        requests.offset_for_leader_epoch, 4,
        "asked before each of the four hits"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serving_for_ever_asks_nothing_and_works_without_the_broker() -> Result<()> {
    let broker = broker_with(2).await?;
    let client = client_of(&broker, MaxStaleness::Forever)?;
    let first = value(&client, 3).await?;
    let before = broker.requests();
    assert_eq!(value(&client, 3).await?, first);
    assert_eq!(broker.requests(), before);
    broker.stop().await;
    assert_eq!(value(&client, 3).await?, first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_broker_a_bounded_cache_stops_serving() -> Result<()> {
    let broker = broker_with(2).await?;
    let tcp = kachet::transport::TcpSettings {
        request_timeout: Duration::from_millis(300),
        connect_timeout: Duration::from_millis(300),
        ..Default::default()
    };
    let settings = kachet::client::ClientSettings {
        retry_timeout: Duration::from_millis(300),
        ..Default::default()
    };
    let client = kachet::client::Client::builder()
        .bootstrap(&broker.address().to_string())
        .size_limit_bytes(1 << 20)
        .max_staleness(within(100))
        .tcp(tcp)
        .settings(settings)
        .build()?;
    assert!(value(&client, 3).await?.is_some());
    broker.stop().await;
    sleep(Duration::from_millis(150)).await;
    let down = client.record(TOPIC, 0, 3).await;
    assert!(matches!(down, Err(ClientError::Transport(_))), "{down:?}");
    Ok(())
}
