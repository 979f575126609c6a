//! The transport to real brokers over TCP.

use core::mem;
use core::time::Duration;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kachet_core::wire::{FETCH_API_KEY, FetchResponse};
use tracing::debug;

use super::connection::{Again, lock};
use super::frame::Outgoing;
use super::slot::{Broker, Found};
use super::{ApiVersions, BrokerAddress, Request, Response, Security, Transport, TransportError};

/// How often one request is sent at most. The first connection may have been closed while idle, and the second
/// may break before the request's turn comes.
const ATTEMPTS: u32 = 3;
/// Beyond this many brokers, those without a connection are forgotten.
const BROKERS_KEPT: usize = 256;

/// How to connect to brokers, and when to give up.
#[derive(Clone, Debug)]
pub struct TcpSettings {
    /// The name that brokers see in each request, for quotas and logs.
    pub client_id: String,
    /// For a connection to come about, over all addresses that the broker's name has, TLS included.
    pub connect_timeout: Duration,
    /// For an answer, on top of what the broker itself may wait. The broker's waits over earlier requests on
    /// the same connection count too, because it works on one request after the other. A login has as long.
    pub request_timeout: Duration,
    /// How many requests are under way on one connection at once; more of them wait.
    pub in_flight_limit: usize,
    /// How many more connections to one broker may be opened for requests that the broker may hold back, such as
    /// fetches at the end of a log; beyond it they share.
    pub waiting_connections_limit: usize,
    /// The largest response that is taken.
    pub response_limit_bytes: usize,
    /// For this long after a failed connection attempt requests fail at once, with the same error.
    pub backoff_min: Duration,
    /// The back-off doubles with each failure in a row up to this.
    pub backoff_max: Duration,
    /// The same in place of [`Self::backoff_min`] where the broker or this client [refuses](TransportError::is_refusal)
    /// the other, because of a password or certificate for instance.
    pub refusal_backoff_min: Duration,
    /// The same in place of [`Self::backoff_max`].
    pub refusal_backoff_max: Duration,
    /// Whether connections are encrypted, and who logs in on them.
    pub security: Security,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self {
            client_id: "kachet".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            in_flight_limit: 64,
            waiting_connections_limit: 8,
            response_limit_bytes: 128 << 20,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            refusal_backoff_min: Duration::from_secs(1),
            refusal_backoff_max: Duration::from_secs(30),
            security: Security::default(),
        }
    }
}

/// Talks to brokers over TCP, in plaintext or with TLS. Keeps one connection to each, opened when it is first needed and
/// again after it broke; requests are pipelined on it. A broker answers in order, so requests that it may hold back
/// get connections of their own, and hold back nobody else (H14).
///
/// Connections live on the tokio runtime on which they were first needed. Clones share them; they are closed
/// when the last clone is dropped.
#[derive(Clone)]
pub struct TcpTransport {
    settings: Arc<TcpSettings>,
    brokers: Arc<Mutex<HashMap<BrokerAddress, Arc<Broker>>>>,
}

impl TcpTransport {
    /// Connects to nothing yet.
    pub fn new(settings: TcpSettings) -> Self {
        Self {
            settings: Arc::new(settings),
            brokers: Arc::default(),
        }
    }

    /// The settings.
    pub fn settings(&self) -> &TcpSettings {
        &self.settings
    }

    fn broker(&self, address: &BrokerAddress) -> Arc<Broker> {
        let mut brokers = lock(&self.brokers);
        if let Some(broker) = brokers.get(address) {
            return Arc::clone(broker);
        }
        if brokers.len() >= BROKERS_KEPT {
            brokers.retain(|_, broker| Arc::strong_count(broker) > 1 || broker.is_connected());
        }
        let broker = Arc::new(Broker::new(address, &self.settings));
        brokers.insert(address.clone(), Arc::clone(&broker));
        broker
    }

    /// Gives the response with its header. Sends again what was certainly not sent, and once what a broker
    /// most likely did not see, because it had closed an idle connection.
    async fn send(&self, broker: &BrokerAddress, outgoing: &Outgoing) -> Result<Bytes, TransportError> {
        let chosen = self.broker(broker).choose(outgoing.broker_wait());
        let mut may_repeat = outgoing.only_reads();
        let mut attempt = 1;
        loop {
            let Found { connection, kept } = chosen.slot().connection().await?;
            let failure = match connection.request(outgoing).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            let again = match failure.again {
                Again::No => false,
                Again::NotSent => true,
                Again::Unanswered => kept && mem::take(&mut may_repeat),
            };
            if !again || attempt == ATTEMPTS {
                return Err(failure.error);
            }
            attempt += 1;
            debug!(%broker, reason = %failure.error, "request sent again");
        }
    }
}

impl Transport for TcpTransport {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        let outgoing = Outgoing::new(broker, request)?;
        let response = self.send(broker, &outgoing).await?;
        let body = outgoing.response_body(broker, response)?;
        if outgoing.api_key() != FETCH_API_KEY {
            return Ok(Response::Other(body));
        }
        let version = outgoing.version();
        FetchResponse::decode(body, version)
            .map(Response::Fetch)
            .map_err(|source| TransportError::Fetch {
                broker: broker.clone(),
                version,
                source,
            })
    }

    async fn api_versions(&self, broker: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        let found = self.broker(broker).prompt().connection().await?;
        Ok(Arc::clone(found.connection.versions()))
    }

    /// For a connection to come about, for a login and for the answer. A request that is sent again may take longer.
    fn answer_timeout(&self) -> Duration {
        let settings = &self.settings;
        let requests = if settings.security.sasl.is_some() { 2 } else { 1 };
        settings
            .connect_timeout
            .saturating_add(settings.request_timeout.saturating_mul(requests))
    }
}
