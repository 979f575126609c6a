//! How requests reach brokers. Layers compose: [`TcpTransport`] talks to real brokers, and
//! [`Cache`](crate::cache::Cache) wraps any transport and is itself one.

pub(crate) mod array_counts;
mod connect;
mod connection;
mod error;
mod frame;
pub(crate) mod raw;
mod sasl;
mod secret;
mod security;
mod slot;
mod stream;
mod tcp;
mod tls;
mod versions;

use core::fmt;
use core::future::Future;
use core::str::FromStr;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use kachet_core::wire::{FETCH_API_KEY, FetchRequest, FetchResponse, TopicRef};

use crate::cluster::Topology;
pub use error::TransportError;
pub(crate) use frame::api_name;
pub use sasl::{BearerToken, FutureToken, SaslCredentials, SaslError, TokenError, TokenFile, TokenProvider};
pub use secret::Secret;
pub use security::Security;
pub use tcp::{TcpSettings, TcpTransport};
pub use tls::{TlsError, TlsListenerSettings, TlsSettings, TlsSettingsBuilder, TlsSettingsError};
pub use versions::{ApiVersions, call, call_with};

/// Sends requests to the brokers of one Kafka cluster.
pub trait Transport: Send + Sync + 'static {
    /// Sends one request and gives its response. Dropping the future gives up the answer, not the connection.
    fn round_trip(
        &self,
        broker: &BrokerAddress,
        request: Request,
    ) -> impl Future<Output = Result<Response, TransportError>> + Send;

    /// The API versions that the broker answers, asked once for each connection.
    fn api_versions(
        &self,
        broker: &BrokerAddress,
    ) -> impl Future<Output = Result<Arc<ApiVersions>, TransportError>> + Send;

    /// What is known of topics without asking, in place of what `broker` would say; `None` unless something is known of
    /// each of them, may be told however old it is, and is of the broker's cluster (H6). No transport but a cache knows
    /// anything.
    fn topology(&self, broker: &BrokerAddress, topics: &[TopicRef]) -> Option<Topology> {
        let _ = (broker, topics);
        None
    }

    /// Takes in what a broker has answered to somebody else (its body, without the header), for what it says of the
    /// cluster. No transport but a cache has a use for it.
    fn overhear(&self, broker: &BrokerAddress, api_key: i16, version: i16, body: &Bytes) {
        let _ = (broker, api_key, version, body);
    }

    /// Within what time an answer or a failure comes as a rule, on top of what the broker itself may wait; one minute
    /// unless a transport says otherwise. What has brought neither by then is taken for lost by the cache, which asks
    /// again for those who wait.
    fn answer_timeout(&self) -> Duration {
        Duration::from_mins(1)
    }
}

/// Sends a Fetch; a transport that answers something else is at fault.
pub(crate) async fn fetch<T: Transport>(
    transport: &T,
    broker: &BrokerAddress,
    version: i16,
    request: FetchRequest,
) -> Result<FetchResponse, TransportError> {
    match transport
        .round_trip(broker, Request::Fetch { version, request })
        .await?
    {
        Response::Fetch(response) => Ok(response),
        Response::Other(_) => Err(TransportError::Message {
            broker: broker.clone(),
            api: "Fetch",
            version,
            message: "the transport answered a Fetch with another response".into(),
        }),
    }
}

/// Many owners of one transport.
impl<T: Transport> Transport for Arc<T> {
    fn round_trip(
        &self,
        broker: &BrokerAddress,
        request: Request,
    ) -> impl Future<Output = Result<Response, TransportError>> + Send {
        T::round_trip(self, broker, request)
    }

    fn api_versions(
        &self,
        broker: &BrokerAddress,
    ) -> impl Future<Output = Result<Arc<ApiVersions>, TransportError>> + Send {
        T::api_versions(self, broker)
    }

    fn topology(&self, broker: &BrokerAddress, topics: &[TopicRef]) -> Option<Topology> {
        T::topology(self, broker, topics)
    }

    fn overhear(&self, broker: &BrokerAddress, api_key: i16, version: i16, body: &Bytes) {
        T::overhear(self, broker, api_key, version, body);
    }

    fn answer_timeout(&self) -> Duration {
        T::answer_timeout(self)
    }
}

/// A request without its header.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// A Fetch, decoded, because that is what caches look at.
    Fetch {
        /// The version in which it is sent.
        version: i16,
        /// The request.
        request: FetchRequest,
    },
    /// Any other request, passed on as it is.
    Other {
        /// Kafka's key of the API.
        api_key: i16,
        /// The version in which `body` is encoded.
        version: i16,
        /// The encoded body.
        body: Bytes,
        /// How long the broker itself may take before it begins to answer, on top of the request timeout.
        broker_wait: Duration,
    },
}

impl Request {
    /// Kafka's key of the API.
    pub fn api_key(&self) -> i16 {
        match self {
            Self::Fetch { .. } => FETCH_API_KEY,
            Self::Other { api_key, .. } => *api_key,
        }
    }

    /// The version in which it is sent.
    pub fn version(&self) -> i16 {
        match self {
            Self::Fetch { version, .. } | Self::Other { version, .. } => *version,
        }
    }
}

/// A response without its header.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// The response to a Fetch.
    Fetch(FetchResponse),
    /// The encoded body of any other response.
    Other(Bytes),
}

/// The host and port of a broker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerAddress {
    /// A host name or IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What is wrong with an address that a person wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is not a broker address; write HOST:PORT, such as localhost:9092 or [::1]:9092")]
pub struct BrokerAddressError {
    given: String,
}

impl FromStr for BrokerAddress {
    type Err = BrokerAddressError;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        let wrong = || BrokerAddressError { given: given.into() };
        let (host, port) = given.trim().rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let plain = || (!host.contains([':', '[', ']', '/', ' '])).then_some(host);
        let host = bracketed
            .or_else(plain)
            .filter(|host| !host.is_empty())
            .ok_or_else(wrong)?;
        Ok(Self {
            host: host.into(),
            port,
        })
    }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
