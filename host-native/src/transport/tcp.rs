//! The transport to real brokers over TCP.

use core::mem;
use core::time::Duration;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kachet_core::wire::{FETCH_API_KEY, FetchResponse};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::connection::{Again, Connection, lock};
use super::frame::Outgoing;
use super::{ApiVersions, BrokerAddress, Request, Response, Transport, TransportError};

/// How often one request is sent at most. The first connection may have been closed while idle, and the second
/// may break before the request's turn comes.
const ATTEMPTS: u32 = 3;
/// Of the addresses that a name has, this many are tried.
const ADDRESSES_LIMIT: usize = 16;
/// Beyond this many brokers, those without a connection are forgotten.
const BROKERS_KEPT: usize = 256;

/// How to connect to brokers, and when to give up.
#[derive(Clone, Debug)]
pub struct TcpSettings {
    /// The name that brokers see in each request, for quotas and logs.
    pub client_id: String,
    /// For a connection to come about, over all addresses that the broker's name has.
    pub connect_timeout: Duration,
    /// For an answer, on top of what the broker itself may wait. The broker's waits over earlier requests on
    /// the same connection count too, because it works on one request after the other.
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
        }
    }
}

/// Talks to brokers over TCP, in plaintext. Keeps one connection to each, opened when it is first needed and
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

/// The connections to one broker.
struct Broker {
    /// For requests that are answered at once.
    prompt: Arc<Slot>,
    /// For requests that the broker may hold back.
    waiting: Mutex<Vec<Arc<Slot>>>,
}

/// The place of one connection.
struct Slot {
    /// How many callers have chosen it for a request that the broker may hold back.
    chosen: AtomicUsize,
    broker: BrokerAddress,
    settings: Arc<TcpSettings>,
    state: Mutex<State>,
}

enum State {
    /// Never asked for.
    New,
    /// An attempt is under way, for everybody who waits.
    Opening {
        attempt: watch::Receiver<Option<Opened>>,
        failures: u32,
    },
    /// There is a connection, though it may have been closed since.
    Open(Arc<Connection>),
    /// The last attempts failed.
    Failed {
        until: Instant,
        error: TransportError,
        failures: u32,
    },
}

type Opened = Result<Arc<Connection>, TransportError>;

/// A connection, and whether it was there before.
struct Found {
    connection: Arc<Connection>,
    kept: bool,
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
        let broker = Arc::new(Broker {
            prompt: Arc::new(Slot::new(address, &self.settings)),
            waiting: Mutex::default(),
        });
        brokers.insert(address.clone(), Arc::clone(&broker));
        broker
    }

    /// Gives the response with its header. Sends again what was certainly not sent, and once what a broker
    /// most likely did not see, because it had closed an idle connection.
    async fn send(&self, broker: &BrokerAddress, outgoing: &Outgoing) -> Result<Bytes, TransportError> {
        let chosen = self.broker(broker).choose(outgoing.broker_wait());
        let slot = &chosen.slot;
        let mut may_repeat = outgoing.only_reads();
        let mut attempt = 1;
        loop {
            let Found { connection, kept } = slot.connection().await?;
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
        let found = self.broker(broker).prompt.connection().await?;
        Ok(Arc::clone(found.connection.versions()))
    }

    /// For a connection to come about and for the answer. A request that is sent again may take longer.
    fn answer_timeout(&self) -> Duration {
        let settings = &self.settings;
        settings.connect_timeout.saturating_add(settings.request_timeout)
    }
}

/// A connection that was chosen for a request.
struct Chosen {
    slot: Arc<Slot>,
}

impl Chosen {
    fn new(slot: &Arc<Slot>) -> Self {
        slot.chosen.fetch_add(1, Ordering::Relaxed);
        Self {
            slot: Arc::clone(slot),
        }
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        self.slot.chosen.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Broker {
    /// The connection for a request that the broker may hold back for so long: one on which nothing else waits, as
    /// long as there may be another.
    fn choose(&self, broker_wait: Duration) -> Chosen {
        let settings = &self.prompt.settings;
        if broker_wait.is_zero() || settings.waiting_connections_limit == 0 {
            return Chosen::new(&self.prompt);
        }
        let mut waiting = lock(&self.waiting);
        if let Some(free) = waiting.iter().find(|slot| slot.is_free()) {
            return Chosen::new(free);
        }
        if waiting.len() < settings.waiting_connections_limit {
            let new = Arc::new(Slot::new(&self.prompt.broker, settings));
            waiting.push(Arc::clone(&new));
            return Chosen::new(&new);
        }
        let least = waiting
            .iter()
            .min_by_key(|slot| slot.chosen.load(Ordering::Relaxed));
        Chosen::new(least.unwrap_or(&self.prompt))
    }

    fn is_connected(&self) -> bool {
        self.prompt.is_open() || lock(&self.waiting).iter().any(|slot| slot.is_open())
    }
}

impl Slot {
    fn new(broker: &BrokerAddress, settings: &Arc<TcpSettings>) -> Self {
        Self {
            chosen: AtomicUsize::new(0),
            broker: broker.clone(),
            settings: Arc::clone(settings),
            state: Mutex::new(State::New),
        }
    }

    /// Whether no request is under way, nor one that a caller has given up and the broker still holds back.
    fn is_free(&self) -> bool {
        let idle = !matches!(&*lock(&self.state), State::Open(connection) if !connection.is_idle());
        idle && self.chosen.load(Ordering::Relaxed) == 0
    }

    fn is_open(&self) -> bool {
        matches!(&*lock(&self.state), State::Open(connection) if connection.is_open())
    }

    /// The connection that is there, or the outcome of the attempt that is under way, which this may start.
    async fn connection(self: &Arc<Self>) -> Result<Found, TransportError> {
        let mut attempt = match self.look() {
            Look::Found(connection) => {
                return Ok(Found {
                    connection,
                    kept: true,
                });
            }
            Look::Failed(error) => return Err(error),
            Look::Opening(attempt) => attempt,
        };
        let opened = attempt
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|opened| opened.clone());
        // None if the runtime of the attempt has ended.
        let closed = || {
            Err(TransportError::Closed {
                broker: self.broker.clone(),
            })
        };
        opened.unwrap_or_else(closed).map(|connection| Found {
            connection,
            kept: false,
        })
    }

    fn look(self: &Arc<Self>) -> Look {
        let mut state = lock(&self.state);
        let failures = match &*state {
            State::Open(connection) if connection.is_open() => return Look::Found(Arc::clone(connection)),
            State::Opening { attempt, .. } if attempt.has_changed().is_ok() => {
                return Look::Opening(attempt.clone());
            }
            State::Failed { until, error, .. } if Instant::now() < *until => {
                return Look::Failed(error.clone());
            }
            State::Opening { failures, .. } | State::Failed { failures, .. } => *failures,
            State::Open(_) | State::New => 0,
        };
        let (outcome, attempt) = watch::channel(None);
        *state = State::Opening {
            attempt: attempt.clone(),
            failures,
        };
        // A task of its own, so that it goes on when the caller who started it gives up.
        let slot = Arc::clone(self);
        tokio::spawn(async move {
            let opened = open(&slot.broker, &slot.settings).await.map(Arc::new);
            slot.settle(opened.clone(), failures);
            outcome.send_replace(Some(opened));
        });
        Look::Opening(attempt)
    }

    fn settle(&self, opened: Opened, failures: u32) {
        let state = match opened {
            Ok(connection) => {
                debug!(broker = %self.broker, "connected");
                State::Open(connection)
            }
            Err(error) => {
                debug!(broker = %self.broker, reason = %error, "not connected");
                let until = Instant::now() + self.backoff(failures);
                State::Failed {
                    until,
                    error,
                    failures: failures.saturating_add(1),
                }
            }
        };
        *lock(&self.state) = state;
    }

    /// How long to wait after so many earlier failures: half of it for certain, half at random, so that many
    /// clients do not return to a broker at one moment.
    fn backoff(&self, failures: u32) -> Duration {
        let most = self.settings.backoff_max.min(Duration::from_hours(1));
        let whole = self
            .settings
            .backoff_min
            .saturating_mul(1 << failures.min(16))
            .min(most);
        whole.mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

enum Look {
    Found(Arc<Connection>),
    Opening(watch::Receiver<Option<Opened>>),
    Failed(TransportError),
}

async fn open(broker: &BrokerAddress, settings: &TcpSettings) -> Result<Connection, TransportError> {
    let stream = connect(broker, settings.connect_timeout).await?;
    // Without it a small request waits for the acknowledgement of the last one. A socket that refuses the
    // option still works.
    let _slower = stream.set_nodelay(true);
    Connection::open(stream, broker, settings).await
}

async fn connect(broker: &BrokerAddress, timeout: Duration) -> Result<TcpStream, TransportError> {
    let deadline = Instant::now() + timeout.min(Duration::from_hours(1));
    let addresses = timeout_at(deadline, lookup_host((broker.host.as_str(), broker.port))).await;
    let error = match addresses {
        Ok(Ok(addresses)) => {
            let addresses: Vec<SocketAddr> = addresses.take(ADDRESSES_LIMIT).collect();
            match connect_to_any(&addresses, deadline).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            }
        }
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    };
    let broker = broker.clone();
    Err(match error {
        Some(error) => TransportError::Connect {
            broker,
            source: Arc::new(error),
        },
        None => TransportError::ConnectTimeout { broker, timeout },
    })
}

/// Tries one address after the other, each with an equal share of the time that is left, so that one that
/// swallows packets does not use it all. An error of `None` stands for a lack of time at every address.
async fn connect_to_any(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Option<io::Error>> {
    let mut last_error = None;
    for (index, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let addresses_left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(now) / addresses_left;
        match timeout_at(now + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last_error = Some(error),
            Err(_) => {}
        }
    }
    if addresses.is_empty() {
        last_error = Some(io::Error::new(io::ErrorKind::NotFound, "its name has no address"));
    }
    Err(last_error)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn every_address_is_tried() {
        let refusing = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listening = listener.local_addr().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let stream = connect_to_any(&[refusing, listening], deadline).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listening);
        let error = connect_to_any(&[refusing, refusing], deadline).await.unwrap_err();
        assert_eq!(error.unwrap().kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect_to_any(&[], deadline).await.unwrap_err().is_some());
    }

    #[tokio::test]
    async fn back_off_doubles_up_to_its_limit_with_jitter() {
        let broker = BrokerAddress {
            host: "b".into(),
            port: 1,
        };
        let slot = Slot::new(&broker, &Arc::default());
        for (failures, most_ms) in [(0, 50), (1, 100), (4, 800), (5, 1000), (u32::MAX, 1000)] {
            for _ in 0..100 {
                let backoff_ms = slot.backoff(failures).as_millis();
                assert!(
                    (most_ms / 2..=most_ms).contains(&backoff_ms),
                    "{failures}: {backoff_ms}"
                );
            }
        }
    }
}
