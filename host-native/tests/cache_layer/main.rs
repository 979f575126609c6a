//! The cache as a layer over a transport, against the embedded broker, which moves leaders and truncates at will.
#![cfg(feature = "embedded-broker")]

mod faults;
mod freshness;
mod hand_over;
mod layers;
mod mounted;
mod names;
mod questions;
mod rack;
mod replica;
mod sealing;
mod single_flight;
mod spans;
mod waiting;

use core::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings};
use kachet::core::time::MaxStaleness;
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Events, Packing, pack};
use kachet::transport::{TcpSettings, TcpTransport};

type CachedClient = Client<Cache<TcpTransport>>;

const TOPIC: &str = "orders";
const RECORDS_PER_BATCH: usize = 10;

/// A broker with one topic of one partition that holds `batches` batches of ten records.
async fn broker_with(batches: u64) -> Result<EmbeddedBroker> {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    broker.create_topic(TOPIC, 1)?;
    append(&broker, 1, batches)?;
    Ok(broker)
}

fn append(broker: &EmbeddedBroker, seed: u64, batches: u64) -> Result<()> {
    let mut events = Events::new(seed);
    for _ in 0..batches {
        let batch: Vec<_> = events.by_ref().take(RECORDS_PER_BATCH).collect();
        broker.append(TOPIC, 0, pack(&batch, Packing::Lz4)?)?;
    }
    Ok(())
}

fn client_of(broker: &EmbeddedBroker, max_staleness: MaxStaleness) -> Result<CachedClient> {
    let client = Client::builder()
        .bootstrap(&broker.address().to_string())
        .size_limit_bytes(16 << 20);
    Ok(client.max_staleness(max_staleness).build()?)
}

fn direct_client_of(broker: &EmbeddedBroker) -> Result<Client<TcpTransport>> {
    let transport = TcpTransport::new(TcpSettings::default());
    Ok(Client::new(
        transport,
        vec![broker.address().clone()],
        ClientSettings::default(),
    )?)
}

async fn value(client: &CachedClient, offset: i64) -> Result<Option<Bytes>> {
    Ok(client
        .record(TOPIC, 0, offset)
        .await?
        .and_then(|record| record.value))
}

const fn within(millis: u64) -> MaxStaleness {
    MaxStaleness::Within(Duration::from_millis(millis))
}
