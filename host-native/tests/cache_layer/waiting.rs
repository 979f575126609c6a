//! Fetches that wait at the end of a log hold back nobody else (H14).

use core::time::Duration;
use std::sync::Arc;

use anyhow::Result;
use kachet::client::{Client, ClientSettings};
use kachet::transport::{TcpSettings, TcpTransport};
use tokio::time::Instant;

use super::{TOPIC, broker_with, client_of, within};

const MAX_WAIT: Duration = Duration::from_millis(1_600);

fn patient() -> ClientSettings {
    ClientSettings {
        max_wait: MAX_WAIT,
        ..ClientSettings::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_read_at_once_while_others_wait_at_the_end() -> Result<()> {
    let broker = broker_with(6).await?;
    let transport = TcpTransport::new(TcpSettings::default());
    let client = Arc::new(Client::new(transport, vec![broker.address().clone()], patient())?);
    assert!(client.record(TOPIC, 0, 1).await?.is_some());
    let at_the_end: Vec<_> = (0..3)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.fetch(TOPIC, 0, 60).await })
        })
        .collect();
    tokio::time::sleep(MAX_WAIT / 4).await;
    let started = Instant::now();
    assert!(client.record(TOPIC, 0, 33).await?.is_some());
    assert!(started.elapsed() < MAX_WAIT / 4, "{:?}", started.elapsed());
    for fetch in at_the_end {
        assert!(fetch.await??.is_empty());
    }
    // The three waited beside each other, not one after the other.
    assert!(started.elapsed() < MAX_WAIT * 2, "{:?}", started.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_connections_are_used_again_and_bounded() -> Result<()> {
    let broker = broker_with(1).await?;
    let settings = TcpSettings {
        waiting_connections_limit: 2,
        ..TcpSettings::default()
    };
    let client = Client::new(
        TcpTransport::new(settings),
        vec![broker.address().clone()],
        patient(),
    )?;
    let client = Arc::new(client);
    for _ in 0..3 {
        assert!(!client.fetch(TOPIC, 0, 5).await?.is_empty());
    }
    assert_eq!(
        broker.requests().connections,
        2,
        "one for prompt requests, one for those that may wait"
    );
    let fetches: Vec<_> = (0..5)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.fetch(TOPIC, 0, 5).await })
        })
        .collect();
    for fetch in fetches {
        assert!(!fetch.await??.is_empty());
    }
    assert!(
        broker.requests().connections <= 3,
        "{}",
        broker.requests().connections
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_was_given_up_does_not_hold_back_the_next() -> Result<()> {
    let broker = broker_with(1).await?;
    let transport = TcpTransport::new(TcpSettings::default());
    let client = Client::new(transport, vec![broker.address().clone()], patient())?;
    let given_up = tokio::time::timeout(MAX_WAIT / 4, client.fetch(TOPIC, 0, 10)).await;
    assert!(given_up.is_err());
    let started = Instant::now();
    assert!(!client.fetch(TOPIC, 0, 5).await?.is_empty());
    assert!(started.elapsed() < MAX_WAIT / 4, "{:?}", started.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_wait_at_one_end_through_the_cache_make_one_fetch() -> Result<()> {
    let broker = broker_with(1).await?;
    let client = Arc::new(client_of(&broker, within(1_000))?);
    assert!(client.record(TOPIC, 0, 1).await?.is_some());
    let before = broker.requests().fetch;
    let started = Instant::now();
    let fetches: Vec<_> = (0..20)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.fetch(TOPIC, 0, 10).await })
        })
        .collect();
    for fetch in fetches {
        assert!(fetch.await??.is_empty());
    }
    assert_eq!(broker.requests().fetch - before, 1);
    assert!(
        started.elapsed() < ClientSettings::default().max_wait * 2,
        "{:?}",
        started.elapsed()
    );
    Ok(())
}
