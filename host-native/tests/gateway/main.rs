//! The gateway between clients by HTTP and a broker that does as a test wants.
#![cfg(all(feature = "embedded-broker", feature = "gateway"))]

mod access;
mod client;
mod connections;
mod fetch;
mod listing;
mod records;
mod tls;
mod topics;

use core::time::Duration;

use anyhow::Result;
use kachet::cache::Cache;
use kachet::core::time::MaxStaleness;
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Event, Events, Packing, pack};
use kachet::gateway::{Gateway, GatewayLimits, GatewaySettings};
use kachet::transport::{BrokerAddress, TcpSettings, TcpTransport};
use kachet_core::storage::MemoryStorage;

type CachingGateway = Gateway<TcpTransport, MemoryStorage>;

const TOPIC: &str = "orders";
/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);
const MINUTE: MaxStaleness = MaxStaleness::Within(Duration::from_secs(60));

/// A broker with one topic of one partition, and in it batches of ten records.
async fn broker_with(batches: usize) -> Result<(EmbeddedBroker, Vec<Event>)> {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    broker.create_topic(TOPIC, 1)?;
    let events: Vec<_> = Events::new(1).take(10 * batches).collect();
    for batch in events.chunks(10) {
        broker.append(TOPIC, 0, pack(batch, Packing::Lz4)?)?;
    }
    Ok((broker, events))
}

fn settings(broker: &BrokerAddress) -> GatewaySettings {
    GatewaySettings {
        retry_timeout: Duration::from_secs(1),
        ..GatewaySettings::new(([127, 0, 0, 1], 0).into(), vec![broker.clone()])
    }
}

async fn start(settings: GatewaySettings, max_staleness: MaxStaleness) -> Result<CachingGateway> {
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default()))
        .size_limit_bytes(8 << 20)
        .max_staleness(max_staleness);
    Ok(Gateway::start(settings, cache.build()).await?)
}

async fn gateway_before(broker: &EmbeddedBroker) -> Result<CachingGateway> {
    start(settings(broker.address()), MINUTE).await
}

async fn limited(broker: &EmbeddedBroker, limits: GatewayLimits) -> Result<CachingGateway> {
    let settings = GatewaySettings {
        limits,
        ..settings(broker.address())
    };
    start(settings, MINUTE).await
}
