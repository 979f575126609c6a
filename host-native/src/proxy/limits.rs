//! What bounds a connection, and why one ends.

use core::time::Duration;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use kachet_core::wire::DecodeError;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::splice::RewriteError;
use crate::transport::TransportError;

/// Bounds of all connections together and of each.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections of clients at a time; further ones are closed at once.
    pub connections: usize,
    /// Requests of one connection that are under way; beyond it nothing more is read from it.
    pub in_flight: usize,
    /// The largest request, in bytes; Kafka's `socket.request.max.bytes`.
    pub request_size_bytes: usize,
    /// The largest response that has to be held whole, in bytes.
    pub response_size_bytes: usize,
    /// What all requests and responses that are held whole may take together, in bytes: a third each for requests, for
    /// answers as they come in, and for answers as they go out. What needs none of it, such as the data of producers,
    /// flows through. Beyond the last third, clients have to take their answers within [`Self::request_timeout`].
    pub buffered_bytes: usize,
    /// How many bytes of records one fetch gives at most, beyond its first batch; Kafka's `fetch.max.bytes`.
    pub fetch_size_bytes: i32,
    /// Partitions that all fetch sessions may have together, some 200 bytes each; a client beyond it names all of its
    /// partitions in each fetch.
    pub session_partitions: usize,
    /// Within what time the first request has to come, and every request that has begun has to go on.
    pub request_timeout: Duration,
    /// For how long a client may say nothing, or take nothing of its answers; Kafka's `connections.max.idle.ms`.
    pub idle_timeout: Duration,
    /// For how long a broker may work on one request.
    pub answer_timeout: Duration,
    /// How long what is under way may take at the end of the proxy.
    pub shutdown_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            in_flight: 32,
            request_size_bytes: 100 << 20,
            response_size_bytes: 128 << 20,
            buffered_bytes: 512 << 20,
            fetch_size_bytes: 55 << 20,
            session_partitions: 1_000_000,
            request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(10),
            answer_timeout: Duration::from_hours(1),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Of [`Self::buffered_bytes`] each of the three.
    pub(super) fn third_bytes(&self) -> usize {
        self.buffered_bytes / 3
    }
}

/// Why a client's connection ends other than by the client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("there are as many connections as there may be")]
    TooMany,
    #[error("it announced a request of {0} bytes")]
    RequestSize(i64),
    #[error("it sent no whole request in time")]
    Slow,
    #[error("it was idle for too long, or took no answers")]
    Idle,
    #[error("it asked for API {api_key} in version {version}, which is not spoken")]
    NotSpoken { api_key: i16, version: i16 },
    #[error("its {api} request cannot be read: {reason}")]
    Request { api: &'static str, reason: String },
    #[error("the connection broke: {0}")]
    Client(io::Error),
    #[error("no broker can be reached for it: {0}")]
    Unreachable(TransportError),
    #[error("TLS does not come about: {0}")]
    Tls(io::Error),
    #[error("requests and answers that are held whole take all the room that they may")]
    NoRoom,
    #[error("its cluster knows no such broker")]
    NoBroker,
    #[error("the broker closed the connection, or it broke: {0}")]
    Upstream(io::Error),
    #[error("the broker answers something else than was asked, or too much")]
    Disorder,
    #[error("the broker did not answer a Fetch: {0}")]
    Fetch(TransportError),
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    #[error("a Fetch response cannot be read or written: {0}")]
    FetchResponse(DecodeError),
}

impl End {
    /// For the log and the figures, one of [`CLASSES`].
    pub(super) fn class(&self) -> usize {
        match self {
            Self::TooMany => 0,
            Self::RequestSize(_) => 1,
            Self::Slow => 2,
            Self::Idle => 3,
            Self::NotSpoken { .. } => 4,
            Self::Request { .. } => 5,
            Self::Client(_) => 6,
            Self::Unreachable(_) | Self::NoBroker => 7,
            Self::Upstream(_) => 8,
            Self::Disorder => 9,
            Self::Fetch(_) => 10,
            Self::Rewrite(_) => 11,
            Self::FetchResponse(_) => 12,
            Self::NoRoom => 13,
            Self::Tls(_) => 14,
        }
    }

    /// What happens all the time, and is nobody's fault.
    fn is_usual(&self) -> bool {
        matches!(self, Self::Idle | Self::Client(_) | Self::Upstream(_))
    }
}

/// The classes of [`End`].
pub(super) const CLASSES: [&str; 15] = [
    "too_many",
    "request_size",
    "slow",
    "idle",
    "not_spoken",
    "request",
    "client",
    "unreachable",
    "upstream",
    "disorder",
    "fetch",
    "rewrite",
    "fetch_response",
    "no_room",
    "tls",
];

/// Between two lines of one class at least.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Counts ends, and logs them: one line of a class in ten seconds, whatever clients do.
#[derive(Debug, Default)]
pub(super) struct Ends {
    counts: [AtomicU64; CLASSES.len()],
    logged: Mutex<[Option<Instant>; CLASSES.len()]>,
}

impl Ends {
    pub(super) fn note(&self, peer: impl core::fmt::Display, end: &End) {
        let class = end.class();
        let Some(count) = self.counts.get(class) else {
            return;
        };
        let count = count.fetch_add(1, Ordering::Relaxed) + 1;
        if end.is_usual() {
            return debug!(%peer, reason = %end, "a client's connection ends");
        }
        let now = Instant::now();
        let mut logged = super::lock(&self.logged);
        let Some(last) = logged.get_mut(class) else { return };
        if last.is_none_or(|last| now.duration_since(last) >= LINE_INTERVAL) {
            *last = Some(now);
            warn!(%peer, reason = %end, count, "a client's connection is closed");
        }
    }

    /// How many there were of each class.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        CLASSES.into_iter().zip(counts)
    }
}
