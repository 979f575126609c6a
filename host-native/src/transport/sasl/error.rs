//! What goes wrong with a login, and what to do about it.

use core::ops::RangeInclusive;
use std::sync::Arc;

/// A login did not succeed. The broker's address and the mechanism are in
/// [`TransportError::Sasl`](crate::transport::TransportError::Sasl). No variant holds a password or a token.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaslError {
    /// The listener takes no logins.
    #[error(
        "the listener takes no logins; leave the credentials out, or use the port of a SASL_PLAINTEXT or SASL_SSL listener"
    )]
    NoSaslListener,
    /// The listener has other mechanisms.
    #[error("the listener does not offer this mechanism, but {}", list(.offered))]
    MechanismNotEnabled {
        /// Those that it offers.
        offered: Vec<String>,
    },
    /// The broker does not accept the credentials.
    #[error("the broker refuses the credentials ({message}); check user name, password or token")]
    Refused {
        /// What the broker said.
        message: String,
    },
    /// The broker answered with an error that has nothing to do with the credentials.
    #[error("the broker answers {error}")]
    Broker {
        /// Kafka's name of the error.
        error: String,
    },
    /// The broker's iteration count is not accepted: a small one would make the password easy to guess from what is
    /// sent, a large one would keep this machine busy.
    #[error(
        "the broker asks for {iterations} iterations, accepted are {} to {}; is this the right broker?",
        accepted.start(), accepted.end()
    )]
    IterationCount {
        /// The broker's count.
        iterations: u64,
        /// Those that are accepted.
        accepted: RangeInclusive<u32>,
    },
    /// The broker answers to another login than the one that was begun.
    #[error("the broker's nonce does not begin with the client's; somebody may be in between")]
    Nonce,
    /// The broker did not prove that it knows the password.
    #[error(
        "the broker's signature is wrong: it does not know the password, and may be another than it says it is"
    )]
    ServerSignature,
    /// The broker's message is not one of the mechanism.
    #[error("the broker's message makes no sense: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A user name, password or token that the mechanism cannot carry.
    #[error("{what}")]
    Credentials {
        /// What is wrong with it.
        what: &'static str,
    },
    /// There is no token.
    #[error("no token: {source}")]
    Token {
        /// What the [`TokenProvider`](super::TokenProvider) said.
        source: Arc<dyn core::error::Error + Send + Sync>,
    },
    /// The system gives no random numbers.
    #[error("this system gives no random numbers")]
    Random,
}

fn list(offered: &[String]) -> String {
    if offered.is_empty() {
        "none at all".to_owned()
    } else {
        offered.join(", ")
    }
}
