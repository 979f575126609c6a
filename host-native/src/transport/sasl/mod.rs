//! Logins: SASL, in Kafka's messages.
//!
//! Source: KIP-43, KIP-152 (`SaslHandshake` version 1, after which `SaslAuthenticate` carries the mechanism's
//! messages), KIP-368 (sessions that end).

mod error;
mod oauth_bearer;
mod scram;

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiKey, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::array_counts::response_arrays_are_whole;
use super::connection::Connection;
use super::frame::{Outgoing, message_error};
use super::secret::Secret;
use super::{BrokerAddress, Request, TransportError};

pub use error::SaslError;
pub use oauth_bearer::{BearerToken, FutureToken, TokenError, TokenFile, TokenProvider};
use scram::{ClientFirst, Hash};

/// From this version on the messages of a mechanism travel in `SaslAuthenticate`.
const HANDSHAKE_VERSION: i16 = 1;
const AUTHENTICATE_VERSION_MAX: i16 = 2;
const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
const ILLEGAL_SASL_STATE: i16 = 34;
const SASL_AUTHENTICATION_FAILED: i16 = 58;
/// Of what a broker says, this much is shown.
const SHOWN_CHARACTERS: usize = 300;
/// Mechanisms of a broker that are shown at most.
const OFFERED_SHOWN: usize = 16;
/// A session that ends sooner is used for so long all the same, lest each request opens a connection.
const SESSION_MIN: Duration = Duration::from_secs(1);
/// Longer sessions are cut to this, so that adding one to the clock cannot overflow.
const SESSION_MAX: Duration = Duration::from_hours(30 * 24);

/// Who logs in, and by which mechanism. Clones share; `Debug` shows no secret.
#[derive(Clone)]
pub struct SaslCredentials {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Plain {
        username: String,
        password: Secret,
    },
    Scram {
        hash: Hash,
        username: String,
        password: Secret,
    },
    OauthBearer {
        provider: Arc<dyn TokenProvider>,
    },
}

impl SaslCredentials {
    /// PLAIN (RFC 4616): user name and password as they are, which only TLS keeps from being read on the way.
    pub fn plain(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self {
            kind: Kind::Plain {
                username: username.into(),
                password: password.into(),
            },
        }
    }

    /// SCRAM-SHA-256 (RFC 5802, RFC 7677). The password is taken as it is, without `SASLprep`, because that is how
    /// Kafka stores it.
    pub fn scram_sha_256(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::scram(Hash::Sha256, username.into(), password.into())
    }

    /// SCRAM-SHA-512 (RFC 5802); the password as in [`Self::scram_sha_256`].
    pub fn scram_sha_512(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::scram(Hash::Sha512, username.into(), password.into())
    }

    /// OAUTHBEARER (RFC 7628, KIP-255): a token, asked for at each login.
    pub fn oauth_bearer(provider: impl TokenProvider) -> Self {
        Self {
            kind: Kind::OauthBearer {
                provider: Arc::new(provider),
            },
        }
    }

    fn scram(hash: Hash, username: String, password: Secret) -> Self {
        Self {
            kind: Kind::Scram {
                hash,
                username,
                password,
            },
        }
    }

    /// Kafka's name of the mechanism.
    pub fn mechanism(&self) -> &'static str {
        match self.kind {
            Kind::Plain { .. } => "PLAIN",
            Kind::Scram {
                hash: Hash::Sha256, ..
            } => "SCRAM-SHA-256",
            Kind::Scram {
                hash: Hash::Sha512, ..
            } => "SCRAM-SHA-512",
            Kind::OauthBearer { .. } => "OAUTHBEARER",
        }
    }
}

impl fmt::Debug for SaslCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("SaslCredentials");
        debug.field("mechanism", &self.mechanism());
        if let Kind::Plain { username, .. } | Kind::Scram { username, .. } = &self.kind {
            debug.field("username", username);
        }
        debug.finish_non_exhaustive()
    }
}

/// When a broker wants another login (KIP-368). It closes a connection on which a request comes later than that.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionEnd {
    /// From here on another connection is opened. Spread, so that many clients do not return at one moment.
    pub(super) replace_at: Instant,
    /// From here on nothing is sent.
    pub(super) unusable_at: Instant,
}

impl SessionEnd {
    /// `None` for a session without end. `begun` is no later than the broker's beginning.
    fn new(begun: Instant, lifetime_ms: i64) -> Option<Self> {
        let lifetime_ms = u64::try_from(lifetime_ms)
            .ok()
            .filter(|lifetime_ms| *lifetime_ms > 0)?;
        let lifetime = Duration::from_millis(lifetime_ms).clamp(SESSION_MIN, SESSION_MAX);
        Some(Self {
            replace_at: begun + lifetime.mul_f64(0.7 + 0.1 * fastrand::f64()),
            unusable_at: begun + lifetime.mul_f64(0.9),
        })
    }
}

/// Logs in on a new connection, and says when the broker wants another login. Both the token and the broker's answers
/// have to come within `time`.
pub(super) async fn log_in(
    connection: &Connection,
    broker: &BrokerAddress,
    credentials: &SaslCredentials,
    time: Duration,
) -> Result<Option<SessionEnd>, TransportError> {
    let login = Login {
        connection,
        broker,
        mechanism: credentials.mechanism(),
        time,
    };
    let prepared = login
        .prepare(&credentials.kind)
        .await
        .map_err(|error| login.failed(error))?;
    let outcome = timeout(time, login.run(prepared)).await;
    outcome.unwrap_or_else(|_| {
        Err(TransportError::Timeout {
            broker: broker.clone(),
            api: "SaslAuthenticate",
            timeout: time,
        })
    })
}

struct Login<'c> {
    connection: &'c Connection,
    broker: &'c BrokerAddress,
    mechanism: &'static str,
    time: Duration,
}

/// What is there before the broker is asked for anything.
enum Prepared {
    Plain(Zeroizing<Vec<u8>>),
    Scram(ClientFirst),
    OauthBearer(Zeroizing<Vec<u8>>),
}

/// What a broker says to a message of the mechanism.
struct Answer {
    message: Bytes,
    session_end: Option<SessionEnd>,
}

impl Login<'_> {
    async fn prepare(&self, kind: &Kind) -> Result<Prepared, SaslError> {
        match kind {
            Kind::Plain { username, password } => plain_message(username, password).map(Prepared::Plain),
            Kind::Scram {
                hash,
                username,
                password,
            } => ClientFirst::new(*hash, username, password).map(Prepared::Scram),
            Kind::OauthBearer { provider } => {
                let token = timeout(self.time, provider.token()).await;
                let token = token.unwrap_or_else(|_| Err(format!("none came within {:?}", self.time).into()));
                let token = token.map_err(|source| SaslError::Token {
                    source: source.into(),
                })?;
                token.message().map(Prepared::OauthBearer)
            }
        }
    }

    async fn run(&self, prepared: Prepared) -> Result<Option<SessionEnd>, TransportError> {
        self.choose().await?;
        match prepared {
            Prepared::Plain(message) => Ok(self.say(&message).await?.session_end),
            Prepared::Scram(client) => self.scram(client).await,
            Prepared::OauthBearer(message) => self.oauth_bearer(&message).await,
        }
    }

    /// Tells the broker the mechanism.
    async fn choose(&self) -> Result<(), TransportError> {
        let request =
            SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(self.mechanism));
        let response: SaslHandshakeResponse = self
            .ask(
                ApiKey::SaslHandshake,
                HANDSHAKE_VERSION..=HANDSHAKE_VERSION,
                &request,
            )
            .await?;
        Err(self.failed(match response.error_code {
            0 => return Ok(()),
            UNSUPPORTED_SASL_MECHANISM => SaslError::MechanismNotEnabled {
                offered: response
                    .mechanisms
                    .iter()
                    .take(OFFERED_SHOWN)
                    .map(|mechanism| shown(mechanism))
                    .collect(),
            },
            ILLEGAL_SASL_STATE => SaslError::NoSaslListener,
            code => broker_error(code),
        }))
    }

    /// Sends a message of the mechanism.
    async fn say(&self, message: &[u8]) -> Result<Answer, TransportError> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::copy_from_slice(message));
        let begun = Instant::now();
        let response: SaslAuthenticateResponse = self
            .ask(ApiKey::SaslAuthenticate, 0..=AUTHENTICATE_VERSION_MAX, &request)
            .await?;
        match response.error_code {
            0 => Ok(Answer {
                message: response.auth_bytes,
                session_end: SessionEnd::new(begun, response.session_lifetime_ms),
            }),
            SASL_AUTHENTICATION_FAILED => {
                let message = response.error_message.as_ref();
                Err(self.failed(SaslError::Refused {
                    message: message.map_or_else(|| "it says no more".to_owned(), |message| shown(message)),
                }))
            }
            ILLEGAL_SASL_STATE => Err(self.failed(SaslError::NoSaslListener)),
            code => Err(self.failed(broker_error(code))),
        }
    }

    async fn scram(&self, client: ClientFirst) -> Result<Option<SessionEnd>, TransportError> {
        let server_first = self.say(client.message().as_bytes()).await?.message;
        // Many thousand hashes, which would hold up other tasks.
        let proved = tokio::task::spawn_blocking(move || client.prove(&server_first)).await;
        let client = match proved {
            Ok(proved) => proved.map_err(|error| self.failed(error))?,
            // The runtime ends.
            Err(_) => {
                return Err(TransportError::Closed {
                    broker: self.broker.clone(),
                });
            }
        };
        let last = self.say(client.message().as_bytes()).await?;
        client.verify(&last.message).map_err(|error| self.failed(error))?;
        Ok(last.session_end)
    }

    async fn oauth_bearer(&self, message: &[u8]) -> Result<Option<SessionEnd>, TransportError> {
        let answer = self.say(message).await?;
        if answer.message.is_empty() {
            return Ok(answer.session_end);
        }
        // What is wrong, as JSON (RFC 7628, 3.2.2). The broker fails the login once that is acknowledged; whatever it
        // says then, the login has failed.
        let _broker_says_less = self.say(oauth_bearer::ACKNOWLEDGED).await;
        Err(self.failed(SaslError::Refused {
            message: shown(&String::from_utf8_lossy(&answer.message)),
        }))
    }

    /// Sends a request in the newest version that the broker answers too.
    async fn ask<Q: Encodable, A: Decodable>(
        &self,
        api: ApiKey,
        spoken: core::ops::RangeInclusive<i16>,
        request: &Q,
    ) -> Result<A, TransportError> {
        let api_key = api as i16;
        let version = self
            .connection
            .versions()
            .version_for(self.broker, api_key, spoken)?;
        let failed = |message: &str| message_error(self.broker, api_key, version, message);
        let mut body = BytesMut::new();
        request
            .encode(&mut body, version)
            .map_err(|error| failed(&format!("request: {error}")))?;
        let request = Request::Other {
            api_key,
            version,
            body: body.freeze(),
            broker_wait: Duration::ZERO,
        };
        let outgoing = Outgoing::new(self.broker, request)?;
        let response = self
            .connection
            .request(&outgoing)
            .await
            .map_err(|failure| failure.error)?;
        let mut body = outgoing.response_body(self.broker, response)?;
        if !response_arrays_are_whole(api_key, version, &body) {
            return Err(failed("response: an array claims more elements than there are"));
        }
        A::decode(&mut body, version).map_err(|error| failed(&format!("response: {error}")))
    }

    fn failed(&self, source: SaslError) -> TransportError {
        TransportError::Sasl {
            broker: self.broker.clone(),
            mechanism: self.mechanism,
            source,
        }
    }
}

/// RFC 4616: no identity to act for, user name, password.
fn plain_message(username: &str, password: &Secret) -> Result<Zeroizing<Vec<u8>>, SaslError> {
    let password = password.expose();
    if username.contains('\0') || password.contains('\0') {
        return Err(SaslError::Credentials {
            what: "a user name or password with a NUL in it cannot be sent by PLAIN",
        });
    }
    if username.is_empty() || password.is_empty() {
        return Err(SaslError::Credentials {
            what: "PLAIN has neither empty user names nor empty passwords",
        });
    }
    let mut message = Zeroizing::new(Vec::with_capacity(username.len() + password.len() + 2));
    message.push(0);
    message.extend_from_slice(username.as_bytes());
    message.push(0);
    message.extend_from_slice(password.as_bytes());
    Ok(message)
}

fn broker_error(code: i16) -> SaslError {
    let name = ResponseError::try_from_code(code)
        .map_or_else(|| format!("error {code}"), |error| format!("{error:?} ({code})"));
    SaslError::Broker { error: name }
}

/// What a broker says, as one line of bounded length.
fn shown(text: &str) -> String {
    let text = text.trim_end();
    let mut line: String = text
        .chars()
        .take(SHOWN_CHARACTERS)
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    if text.chars().nth(SHOWN_CHARACTERS).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown_by_debug() {
        let secret = "hunter2";
        let token = BearerToken::new(secret);
        let credentials = [
            SaslCredentials::plain("alice", secret),
            SaslCredentials::scram_sha_256("alice", secret),
            SaslCredentials::scram_sha_512("alice", secret),
            SaslCredentials::oauth_bearer({
                let token = token.clone();
                move || {
                    let token = token.clone();
                    async { Ok(token) }
                }
            }),
        ];
        for credentials in credentials {
            let mechanism = credentials.mechanism();
            let settings = crate::transport::TcpSettings {
                security: crate::transport::Security {
                    sasl: Some(credentials),
                    ..Default::default()
                },
                ..Default::default()
            };
            let shown = format!("{settings:?} {settings:#?}");
            assert!(!shown.contains(secret), "{shown}");
            assert!(shown.contains(mechanism), "{shown}");
        }
        let shown = format!("{token:?} {:?}", Secret::new(secret));
        assert!(!shown.contains(secret) && shown.contains("***"), "{shown}");
    }

    #[test]
    fn plain_is_what_rfc_4616_says_and_nothing_ambiguous_is_sent() {
        let message = plain_message("tim", &"tanstaaftanstaaf".into()).unwrap();
        assert_eq!(&message[..], b"\0tim\0tanstaaftanstaaf");
        for (username, password) in [("a\0b", "c"), ("a", "b\0c"), ("", "b"), ("a", "")] {
            let error = plain_message(username, &password.into()).unwrap_err();
            assert!(matches!(error, SaslError::Credentials { .. }), "{error}");
        }
    }

    #[test]
    fn what_a_broker_says_is_one_short_line() {
        assert_eq!(shown("a\nb\x1b[31m\n"), "a b [31m");
        assert_eq!(shown(&"ä".repeat(1000)).chars().count(), 301);
    }

    #[test]
    fn a_session_is_left_before_its_end() {
        let begun = Instant::now();
        assert!(SessionEnd::new(begun, 0).is_none());
        assert!(SessionEnd::new(begun, -1).is_none());
        for (lifetime_ms, used) in [
            (10_000, Duration::from_secs(10)),
            (1, SESSION_MIN),
            (i64::MAX, SESSION_MAX),
        ] {
            let end = SessionEnd::new(begun, lifetime_ms).unwrap();
            let share = |at: Instant| (at - begun).as_secs_f64() / used.as_secs_f64();
            assert!((0.69..=0.81).contains(&share(end.replace_at)), "{lifetime_ms}");
            assert!((0.89..=0.91).contains(&share(end.unusable_at)), "{lifetime_ms}");
        }
    }
}
