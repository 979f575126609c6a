//! The end of the proxy, and what keeps it from starting.

use core::time::Duration;
use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use kachet::cache::Cache;
use kachet::demo::broker::NODE_ID as EMBEDDED_ID;
use kachet::proxy::{BrokersError, Limits, Proxy, ProxyError};
use kachet::transport::{TcpSettings, TcpTransport};

use crate::client::{Client, fetch_of, sizes};
use crate::scripted::{Does, NODE_ID, Scripted};
use crate::{broker_port, broker_with, proxy_before, settings};

#[tokio::test]
async fn what_is_under_way_is_answered_and_nobody_else_is_accepted() -> Result<()> {
    let broker = broker_with(1, 1).await?;
    let proxy = proxy_before(broker.address(), 1 << 20, Limits::default()).await?;
    let address = broker_port(&proxy, EMBEDDED_ID);
    let mut client = Client::to(address).await;
    let mut idle = Client::to(address).await;
    idle.metadata(5).await;
    let mut tail = fetch_of(&[(0, 10)]);
    tail.max_wait_ms = 500;
    client.metadata(5).await;
    let sent = client.send_fetch(11, &tail).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    proxy.stop().await;
    assert!(started.elapsed() >= Duration::from_millis(300) && started.elapsed() < Duration::from_secs(5));
    let answer = client
        .receive()
        .await
        .expect("the answer to what was asked before");
    assert_eq!(answer[..4], sent.to_be_bytes());
    assert!(client.receive().await.is_none() && idle.receive().await.is_none());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    Ok(())
}

#[tokio::test]
async fn what_is_never_answered_holds_the_end_up_no_longer_than_its_grace() -> Result<()> {
    let broker = Scripted::start(|asked| {
        if asked.api_key == 8 {
            Does::Nothing
        } else {
            Does::Answer(Bytes::new())
        }
    })
    .await;
    let limits = Limits {
        shutdown_grace: Duration::from_millis(300),
        ..Limits::default()
    };
    let proxy = proxy_before(&broker.address, 0, limits).await?;
    let mut client = Client::to(broker_port(&proxy, NODE_ID)).await;
    client.send(8, 7, b"").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    proxy.stop().await;
    assert!(started.elapsed() >= Duration::from_millis(300) && started.elapsed() < Duration::from_secs(5));
    assert!(client.receive().await.is_none());
    Ok(())
}

/// A listener whose two neighbours below are free, at this moment at least.
fn taken_port() -> Result<std::net::TcpListener> {
    loop {
        let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
        let port = taken.local_addr()?.port();
        let is_free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if port > 2_000 && is_free(port - 1) && is_free(port - 2) {
            return Ok(taken);
        }
    }
}

#[tokio::test]
async fn a_port_that_is_taken_and_one_that_is_none_are_told() -> Result<()> {
    let broker = broker_with(1, 1).await?;
    let cache = || Cache::builder(TcpTransport::new(TcpSettings::default())).build();
    // Other tests take ports meanwhile.
    for _ in 0..20 {
        let taken = taken_port()?;
        let address = taken.local_addr()?;
        let mut settings = settings(broker.address(), Limits::default());
        // The broker's port is two above that of the proxy.
        settings.listen.set_port(address.port() - 2);
        let error = match Proxy::start(settings.clone(), cache()).await.err().unwrap() {
            ProxyError::Listen { .. } => continue,
            error => error,
        };
        let is_told = matches!(
            &error,
            ProxyError::Brokers(BrokersError::Listen {
                node_id: EMBEDDED_ID,
                ..
            })
        );
        assert!(
            is_told && error.to_string().contains(&address.to_string()),
            "{error}"
        );
        settings.lowest_node_id = EMBEDDED_ID + 1;
        let error = match Proxy::start(settings.clone(), cache()).await.err().unwrap() {
            ProxyError::Listen { .. } => continue,
            error => error,
        };
        assert!(
            matches!(error, ProxyError::Brokers(BrokersError::NoSuchPort { .. })),
            "{error}"
        );
        return Ok(());
    }
    panic!("no ports are free");
}

#[tokio::test]
async fn the_lowest_node_is_on_the_port_after_that_of_the_proxy() -> Result<()> {
    let broker = broker_with(1, 1).await?;
    for _ in 0..20 {
        let taken = taken_port()?;
        let mut settings = settings(broker.address(), Limits::default());
        settings.listen.set_port(taken.local_addr()?.port() - 2);
        settings.lowest_node_id = EMBEDDED_ID;
        let cache = Cache::builder(TcpTransport::new(TcpSettings::default())).build();
        let Ok(proxy) = Proxy::start(settings, cache).await else {
            continue;
        };
        assert_eq!(proxy.ports()[&EMBEDDED_ID], proxy.address().port() + 1);
        let mut client = Client::to(broker_port(&proxy, EMBEDDED_ID)).await;
        assert!(sizes(&client.fetch(11, &fetch_of(&[(0, 0)])).await)[0].1 > 0);
        return Ok(());
    }
    panic!("no ports are free");
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_told() -> Result<()> {
    let gone = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default())).build();
    let settings = settings(&gone.to_string().parse()?, Limits::default());
    let error = Proxy::start(settings, cache).await.err().unwrap();
    assert!(matches!(error, ProxyError::Cluster(_)), "{error}");
    Ok(())
}
