//! A relay in front of a listener, which counts connections and notes who ends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use tokio::io::copy;
use tokio::net::{TcpListener, TcpStream};

/// Runs until its runtime ends.
pub(crate) struct Relay {
    address: String,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    ended_by_broker: AtomicUsize,
}

impl Relay {
    pub(crate) async fn start(broker: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (counts, broker) = (Arc::<Counts>::default(), broker.to_owned());
        let relay = Self {
            address,
            counts: Arc::clone(&counts),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counts.accepted.fetch_add(1, Ordering::SeqCst);
                let (counts, broker) = (Arc::clone(&counts), broker.clone());
                tokio::spawn(async move {
                    let Ok(broker) = TcpStream::connect(broker).await else {
                        return;
                    };
                    if relay_between(client, broker).await == End::Broker {
                        counts.ended_by_broker.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        Ok(relay)
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    pub(crate) fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn ended_by_broker(&self) -> usize {
        self.counts.ended_by_broker.load(Ordering::SeqCst)
    }
}

#[derive(PartialEq, Eq)]
enum End {
    Client,
    Broker,
}

async fn relay_between(mut client: TcpStream, mut broker: TcpStream) -> End {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_broker, mut to_broker) = broker.split();
    tokio::select! {
        _ = copy(&mut from_client, &mut to_broker) => End::Client,
        _ = copy(&mut from_broker, &mut to_client) => End::Broker,
    }
}
