//! Why a request got no response.

use core::time::Duration;
use std::io;
use std::sync::Arc;

use kachet_core::wire::DecodeError;

use super::BrokerAddress;
use super::sasl::SaslError;
use super::tls::TlsError;

/// A request got no usable response. Every variant names the broker; `Clone`, because one failed connection
/// fails every request that waits on it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection came about.
    #[error("cannot connect to {broker}: {source}; is the broker running there, and is the port right?")]
    Connect {
        /// The broker.
        broker: BrokerAddress,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// No connection within the time allowed.
    #[error(
        "no connection to {broker} within {timeout:?}; is the address right, and does a firewall let it through?"
    )]
    ConnectTimeout {
        /// The broker.
        broker: BrokerAddress,
        /// The time allowed.
        timeout: Duration,
    },
    /// TLS did not come about, or broke off.
    #[error("TLS with {broker}: {source}")]
    Tls {
        /// The broker.
        broker: BrokerAddress,
        /// What is wrong, and what to do.
        source: TlsError,
    },
    /// The broker speaks TLS on this port, and was spoken to without.
    #[error(
        "{broker} speaks TLS, and was asked in plaintext; turn TLS on, or use the port of a plaintext listener"
    )]
    TlsExpected {
        /// The broker.
        broker: BrokerAddress,
    },
    /// The login did not succeed (SASL).
    #[error("login at {broker} by {mechanism}: {source}")]
    Sasl {
        /// The broker.
        broker: BrokerAddress,
        /// Kafka's name of the mechanism.
        mechanism: &'static str,
        /// What is wrong, and what to do.
        source: SaslError,
    },
    /// The connection broke while requests were under way.
    #[error("the connection to {broker} broke: {source}")]
    Connection {
        /// The broker.
        broker: BrokerAddress,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The broker closed the connection without an answer to the very first request.
    #[error(
        "{broker} closed the connection at the first request; a TLS or SASL listener does that to a plaintext client: turn TLS on, give a login, or check that the port is a PLAINTEXT listener"
    )]
    ClosedAtStart {
        /// The broker.
        broker: BrokerAddress,
    },
    /// The broker closed the connection while requests were under way.
    #[error(
        "{broker} closed the connection before it answered; it may be restarting, or its listener may want a login (SASL)"
    )]
    Closed {
        /// The broker.
        broker: BrokerAddress,
    },
    /// No answer in time. The connection has been given up, because a broker answers in order (H28).
    #[error("{broker} did not answer {api} within {timeout:?}")]
    Timeout {
        /// The broker.
        broker: BrokerAddress,
        /// The request's API.
        api: &'static str,
        /// The time allowed.
        timeout: Duration,
    },
    /// The request was under way for several callers, and stopped each time before there was an answer or a failure.
    #[error(
        "a Fetch from {broker} broke off {times} times before it was answered: the tasks that ask panic, or their runtimes have ended"
    )]
    BrokenOff {
        /// The broker.
        broker: BrokerAddress,
        /// How often it was tried.
        times: usize,
    },
    /// The answer is not Kafka's protocol.
    #[error("{broker} does not speak Kafka's protocol ({what}); is another service on that port, or TLS?")]
    NotKafka {
        /// The broker.
        broker: BrokerAddress,
        /// What came instead.
        what: String,
    },
    /// The answer is larger than is allowed.
    #[error(
        "{broker} announced a response of {size_bytes} bytes, more than the limit of {limit_bytes}; raise the limit or ask for less"
    )]
    ResponseTooLarge {
        /// The broker.
        broker: BrokerAddress,
        /// The size that the frame states.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// A Fetch request that cannot be encoded, or a Fetch response that cannot be decoded.
    #[error("Fetch v{version} with {broker}: {source}")]
    Fetch {
        /// The broker.
        broker: BrokerAddress,
        /// The version.
        version: i16,
        /// What is wrong, and where.
        source: DecodeError,
    },
    /// Any other message that cannot be encoded or decoded.
    #[error("{api} v{version} with {broker}: {message}")]
    Message {
        /// The broker.
        broker: BrokerAddress,
        /// The API.
        api: &'static str,
        /// The version.
        version: i16,
        /// What is wrong.
        message: String,
    },
    /// The broker answers no version of an API that is spoken here.
    #[error(
        "{broker} answers {api} in versions {broker_min} to {broker_max}, here {min} to {max} are spoken; brokers from Kafka 2.8 on work"
    )]
    NoCommonVersion {
        /// The broker.
        broker: BrokerAddress,
        /// The API.
        api: &'static str,
        /// The broker's oldest version, −1 if it has none.
        broker_min: i16,
        /// The broker's newest version, −1 if it has none.
        broker_max: i16,
        /// The oldest version spoken here.
        min: i16,
        /// The newest version spoken here.
        max: i16,
    },
}

impl TransportError {
    /// Whether the broker or this client refuses the other for good: until somebody changes a certificate, a password
    /// or a setting, another try comes to the same. Such an address is held back for longer.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Tls { source, .. } => source.is_refusal(),
            Self::Sasl { .. } | Self::TlsExpected { .. } => true,
            _ => false,
        }
    }

    /// Whether the broker may have closed the connection because it does not speak the version of a request.
    pub(crate) fn may_be_of_version(&self) -> bool {
        matches!(
            self,
            Self::Closed { .. }
                | Self::ClosedAtStart { .. }
                | Self::Connection { .. }
                | Self::NotKafka { .. }
        )
    }

    /// The connection broke, or its TLS did.
    pub(super) fn from_stream(broker: &BrokerAddress, error: io::Error) -> Self {
        let broker = broker.clone();
        match error.downcast::<TlsError>() {
            Ok(source) => Self::Tls { broker, source },
            Err(error) => Self::Connection {
                broker,
                source: Arc::new(error),
            },
        }
    }
}
