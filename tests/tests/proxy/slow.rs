//! A cluster that is slow to answer: what is cached comes as fast as ever (H14).

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use kachet::client::{Client, ClientSettings};
use kachet::transport::{TcpSettings, TcpTransport};
use kachet_core::time::MaxStaleness;
use kachet_tests::kafka::{KafkaSettings, free_ports, own_kafka, writer_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::{blocking, proxy_before};

const DELAY: Duration = Duration::from_millis(700);
const READS: usize = 200;

/// Passes bytes on after as many milliseconds as `delay_ms` says.
async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay_ms: Arc<AtomicU64>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        tokio::time::sleep(Duration::from_millis(delay_ms.load(Ordering::Relaxed))).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
}

/// A relay to `broker`, whose answers are delayed.
fn relay(listener: TcpListener, broker: String, delay_ms: &Arc<AtomicU64>) {
    let delay_ms = Arc::clone(delay_ms);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(upstream) = TcpStream::connect(&broker).await else {
                continue;
            };
            let (from_client, to_client) = client.into_split();
            let (from_broker, to_broker) = upstream.into_split();
            tokio::spawn(pass_on(from_client, to_broker, Arc::default()));
            tokio::spawn(pass_on(from_broker, to_client, Arc::clone(&delay_ms)));
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hits_are_as_fast_as_ever_while_the_cluster_is_slow() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let through_relay = listener.local_addr()?.to_string();
    let [port] = free_ports()?;
    let settings = KafkaSettings {
        port: Some(port),
        ..KafkaSettings::default()
    };
    // So that the proxy is told of no way around the relay.
    let settings = settings.with("advertised.listeners", &format!("PLAINTEXT://{through_relay}"));
    let delay_ms = Arc::<AtomicU64>::default();
    relay(listener, format!("127.0.0.1:{port}"), &delay_ms);
    let Some(broker) = blocking(move || Ok(own_kafka(&settings))).await? else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(&broker) else {
        return Ok(());
    };
    blocking(move || {
        writer.command("create proxy-slow 1")?;
        writer.command("produce proxy-slow 0 lz4 100 5 1")
    })
    .await?;
    let proxy = proxy_before(&through_relay, MaxStaleness::Within(Duration::from_secs(60))).await?;
    let transport = TcpTransport::new(TcpSettings::default());
    let bootstrap = vec![proxy.address().to_string().parse()?];
    let client = Client::new(transport, bootstrap, ClientSettings::default())?;
    let warm = client.fetch("proxy-slow", 0, 0).await?.batches()?;
    delay_ms.store(u64::try_from(DELAY.as_millis())?, Ordering::Relaxed);

    let begun = Instant::now();
    for read in 0..READS {
        let offset = read % 100;
        let got = client.fetch("proxy-slow", 0, i64::try_from(offset)?).await?;
        assert_eq!(got.batches()?, warm[offset / 5..]);
    }
    let hits_took = begun.elapsed();
    // What is not cached shows that it is slow indeed: the end of the log, where there is nothing yet.
    let begun = Instant::now();
    let nothing = client.fetch("proxy-slow", 0, 100).await?;
    let miss_took = begun.elapsed();
    assert!(
        nothing.is_empty() && miss_took >= DELAY,
        "a miss took {miss_took:?}"
    );
    let one = hits_took / u32::try_from(READS).context("few")?;
    assert!(one < DELAY / 4, "a hit took {one:?}, a miss {miss_took:?}");
    let statistics = proxy.cache().statistics();
    assert!(statistics.hits >= u64::try_from(READS)?, "{statistics:?}");
    println!("a hit took {one:?}, a miss {miss_took:?}");
    Ok(())
}
