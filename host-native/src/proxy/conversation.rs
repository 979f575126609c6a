//! One client's connection: its requests in order to where they are answered, the answers in order back.
//!
//! Everything but Fetch goes to the broker on a connection that is this client's alone, so that the order of what is
//! produced, logins and the broker's own bounds are as without a proxy. A Fetch waits until everything before it has been
//! answered, as a broker works on one request after the other, and is then answered by the cache.

use core::pin::pin;
use core::time::Duration;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::answers::Answers;
use super::brokers::{Home, ToClient};
use super::fetch::FetchTurn;
use super::fetch_session::FetchSessions;
use super::limits::End;
use super::request::Head;
use super::requests::Requests;
use super::trust::Trust;
use super::{Shared, lock};
use crate::transport::raw::RawReader;
use crate::transport::{BrokerAddress, Transport};

/// Frames up to this size need no room among those that are held whole.
pub(super) const SMALL_BYTES: usize = 64 << 10;
/// One read from a client takes in this much.
const CLIENT_BUFFER_BYTES: usize = 8 << 10;

/// What a client is going to be sent, in the order of its requests.
pub(super) enum Expected {
    /// From here on the broker's answers come on this connection.
    Upstream(RawReader),
    /// The broker's next answer.
    Forwarded(Head),
    /// An answer that is there, with its header.
    Ready(Bytes),
    /// The answer to a Fetch.
    Fetch(Box<FetchTurn>),
}

/// What both directions of a connection know.
pub(super) struct Conversation<'s, T> {
    pub(super) shared: &'s Shared<T>,
    pub(super) home: Home,
    /// What this client is told in place of brokers' hosts.
    pub(super) host: String,
    pub(super) sessions: Mutex<FetchSessions>,
    pub(super) trust: Mutex<Trust>,
    /// Whether the broker holds something of this connection that another one would lack, such as a login.
    pub(super) is_stateful: AtomicBool,
    pub(super) upstream_is_open: AtomicBool,
    /// Where it leads; which broker that is shows only when there is one.
    upstream: Mutex<Option<BrokerAddress>>,
    in_flight: AtomicUsize,
}

impl<'s, T: Transport> Conversation<'s, T> {
    pub(super) fn new(shared: &'s Shared<T>, home: Home, host: String, is_authenticated: bool) -> Self {
        Self {
            shared,
            home,
            host,
            sessions: Mutex::new(FetchSessions::new(&shared.sessions_room)),
            trust: Mutex::new(Trust::new(is_authenticated)),
            is_stateful: AtomicBool::new(false),
            upstream_is_open: AtomicBool::new(false),
            upstream: Mutex::default(),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// Goes on until the client leaves, the proxy ends, or something is wrong.
    pub(super) async fn hold(
        &self,
        reader: impl AsyncRead + Unpin + Send,
        writer: impl AsyncWrite + Unpin + Send,
    ) -> Result<(), End> {
        let (expect, expected) = mpsc::channel(self.shared.settings.limits.in_flight.max(1));
        let reader = BufReader::with_capacity(CLIENT_BUFFER_BYTES, reader);
        let mut requests = Requests::new(self, reader, expect);
        let mut answers = pin!(Answers::new(self, writer, expected).give());
        let heard = tokio::select! {
            heard = requests.pass_on() => heard?,
            given = &mut answers => return given,
        };
        if let Heard::Left = heard {
            return Ok(());
        }
        // Held, because a broker that sees the end of the requests answers no more of them.
        let _upstream = requests.end();
        // The proxy ends: what was asked before is answered, for which there is a bound outside.
        answers.await
    }

    pub(super) fn to_client(&self) -> ToClient<'_> {
        ToClient {
            brokers: &self.shared.brokers,
            host: &self.host,
        }
    }

    /// Where to try to connect, in order.
    pub(super) fn addresses(&self) -> Vec<BrokerAddress> {
        self.shared.brokers.upstream(self.home)
    }

    /// The broker that is asked for what is not cached.
    pub(super) fn fetches_from(&self) -> Option<BrokerAddress> {
        let connected = match self.home {
            Home::Any => lock(&self.upstream).clone(),
            Home::Node(_) => None,
        };
        connected.or_else(|| self.addresses().into_iter().next())
    }

    pub(super) fn has_connected_to(&self, broker: BrokerAddress) {
        *lock(&self.upstream) = Some(broker);
        self.upstream_is_open.store(true, Ordering::Relaxed);
    }

    pub(super) fn one_more(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn one_less(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn is_waiting_for_answers(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }
}

/// Why no more requests come.
pub(super) enum Heard {
    /// The client has gone.
    Left,
    /// The proxy ends.
    Stopped,
}

/// Room for a frame that is held whole. Fails where there is none for too long.
pub(super) async fn room(
    places: &std::sync::Arc<tokio::sync::Semaphore>,
    limit_bytes: usize,
    size_bytes: usize,
    patience: Duration,
) -> Result<Option<OwnedSemaphorePermit>, End> {
    if size_bytes <= SMALL_BYTES {
        return Ok(None);
    }
    let kibibytes = size_bytes.min(limit_bytes).div_ceil(1024);
    let kibibytes = u32::try_from(kibibytes).unwrap_or(u32::MAX);
    let acquired = timeout(
        patience,
        std::sync::Arc::clone(places).acquire_many_owned(kibibytes),
    )
    .await;
    match acquired {
        Ok(Ok(permit)) => Ok(Some(permit)),
        _ => Err(End::NoRoom),
    }
}

/// The broker closed the connection while something of it was waited for.
pub(super) fn hung_up() -> End {
    End::Upstream(io::ErrorKind::UnexpectedEof.into())
}
