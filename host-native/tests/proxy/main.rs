//! The proxy between clients on sockets and brokers that do as a test wants.
#![cfg(feature = "embedded-broker")]

mod admin;
mod client;
mod fetches;
mod forwarding;
mod limits;
mod logins;
mod page;
mod scripted;
mod shutdown;
mod tls;

use core::time::Duration;

use anyhow::Result;
use kachet::cache::Cache;
use kachet::core::time::MaxStaleness;
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Events, Packing, pack};
use kachet::proxy::{Limits, Proxy, ProxySettings};
use kachet::transport::{BrokerAddress, TcpSettings, TcpTransport};

type CachingProxy = Proxy<Cache<TcpTransport>>;

const TOPIC: &str = "orders";
/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// A broker with one topic of `partitions` partitions, each with `batches` batches of ten records.
async fn broker_with(partitions: u16, batches: u64) -> Result<EmbeddedBroker> {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    broker.create_topic(TOPIC, partitions)?;
    let mut events = Events::new(1);
    for partition in 0..i32::from(partitions) {
        for _ in 0..batches {
            append(&broker, partition, &mut events)?;
        }
    }
    Ok(broker)
}

fn append(broker: &EmbeddedBroker, partition: i32, events: &mut Events) -> Result<()> {
    let batch: Vec<_> = events.by_ref().take(10).collect();
    broker.append(TOPIC, partition, pack(&batch, Packing::Lz4)?)?;
    Ok(())
}

fn settings(broker: &BrokerAddress, limits: Limits) -> ProxySettings {
    ProxySettings {
        limits,
        ..ProxySettings::new(([127, 0, 0, 1], 0).into(), vec![broker.clone()])
    }
}

/// A proxy with a cache of so many bytes before a broker.
async fn proxy_before(broker: &BrokerAddress, size_limit_bytes: u64, limits: Limits) -> Result<CachingProxy> {
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default()))
        .size_limit_bytes(size_limit_bytes)
        .max_staleness(MaxStaleness::Forever);
    Ok(Proxy::start(settings(broker, limits), cache.build()).await?)
}

/// The address of the proxy's listener for a broker.
fn broker_port(proxy: &CachingProxy, node_id: i32) -> core::net::SocketAddr {
    let mut address = proxy.address();
    address.set_port(proxy.ports()[&node_id]);
    address
}

fn ends(proxy: &CachingProxy, class: &str) -> u64 {
    proxy.ends().find(|(name, _)| *name == class).unwrap().1
}
