//! A layer over any transport that counts and times requests: below the cache it sees what brokers are asked, above it
//! what readers wait for.
//!
//! ```sh
//! cargo run --example custom_transport
//! cargo run --example custom_transport -- --bootstrap localhost:9092 --topic numbers
//! ```

mod cluster;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings, Position};
use kachet::cluster::Topology;
use kachet::core::wire::TopicRef;
use kachet::transport::{
    ApiVersions, BrokerAddress, Request, Response, TcpSettings, TcpTransport, Transport, TransportError,
};

use cluster::Cluster;

/// Counts the requests that pass through.
struct Metered<T> {
    below: T,
    /// By API key: how many there were, how many failed, and how long they took in all.
    figures: Mutex<BTreeMap<i16, (u64, u64, Duration)>>,
}

impl<T> Metered<T> {
    fn over(below: T) -> Self {
        Self {
            below,
            figures: Mutex::default(),
        }
    }

    fn print(&self, title: &str) {
        println!("{title}:");
        for (api_key, (count, failed, took)) in &*self.figures.lock().unwrap_or_else(PoisonError::into_inner)
        {
            let name = match api_key {
                1 => "Fetch",
                2 => "ListOffsets",
                3 => "Metadata",
                23 => "OffsetForLeaderEpoch",
                32 => "DescribeConfigs",
                _ => "another",
            };
            println!("  {name}: {count} requests, {failed} failed, {took:?} in all");
        }
    }
}

impl<T: Transport> Transport for Metered<T> {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        let (api_key, started) = (request.api_key(), Instant::now());
        let response = self.below.round_trip(broker, request).await;
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, failed, took) = figures.entry(api_key).or_default();
        *count += 1;
        *failed += u64::from(response.is_err());
        *took += started.elapsed();
        response
    }

    async fn api_versions(&self, broker: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        self.below.api_versions(broker).await
    }

    // A layer hands on what it has no opinion of, or what lies below loses a feature: here what a cache knows without
    // asking, and how long it may take.
    fn topology(&self, broker: &BrokerAddress, topics: &[TopicRef]) -> Option<Topology> {
        self.below.topology(broker, topics)
    }

    fn answer_timeout(&self) -> Duration {
        self.below.answer_timeout()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = Cluster::of_arguments().await?;
    let brokers = Arc::new(Metered::over(TcpTransport::new(TcpSettings::default())));
    let cache = Cache::builder(Arc::clone(&brokers))
        .size_limit_bytes(64 << 20)
        .build();
    let readers = Arc::new(Metered::over(cache));
    let client = Client::new(
        Arc::clone(&readers),
        vec![cluster.bootstrap.parse()?],
        ClientSettings::default(),
    )?;
    let start = client.offset_of(&cluster.topic, 0, Position::Earliest).await?;
    for _ in 0..10 {
        let replay = client.records_from(&cluster.topic, 0, start);
        let _records: Vec<_> = replay.try_collect().await?;
    }
    readers.print("what readers asked the cache");
    brokers.print("what the cache asked brokers");
    Ok(())
}
