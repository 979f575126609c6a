//! Logins at brokers that are hostile, slow, or other than they say they are.

use core::time::Duration;

use bytes::{Buf, Bytes};
use kachet::transport::{
    BearerToken, Request, SaslCredentials, SaslError, Security, TcpSettings, TcpTransport, Transport,
    TransportError,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::server::{API_VERSIONS, LIST_OFFSETS, Peer, RANGES, Server, ask, echoed, within};

const SASL_HANDSHAKE: i16 = 17;
const SASL_AUTHENTICATE: i16 = 36;

/// `ApiVersions` v3 with the two of logins, `SaslAuthenticate` up to version 1.
fn versions() -> Vec<u8> {
    let logins = [(SASL_HANDSHAKE, 0, 1), (SASL_AUTHENTICATE, 0, 1)];
    let mut body = vec![0, 0, u8::try_from(RANGES.len() + logins.len() + 1).unwrap()];
    for (key, min, max) in RANGES.into_iter().chain(logins) {
        body.extend([key.to_be_bytes(), min.to_be_bytes(), max.to_be_bytes()].concat());
        body.push(0);
    }
    body.extend([0; 5]);
    body
}

/// `SaslAuthenticate` v1 without an error or a bound of the session.
fn authenticated(message: &[u8]) -> Vec<u8> {
    in_session(message, 0)
}

/// The same in a session of so many milliseconds.
fn in_session(message: &[u8], lifetime_ms: i64) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let lifetime_ms = lifetime_ms.to_be_bytes();
    [&[0, 0, 0xff, 0xff][..], &length, message, &lifetime_ms].concat()
}

/// `SaslAuthenticate` v1 that refuses the login.
fn refused(words: &str) -> Vec<u8> {
    let length = u16::try_from(words.len()).unwrap().to_be_bytes();
    [&[0, 58][..], &length, words.as_bytes(), &[0; 12]].concat()
}

/// The mechanism's message in a request.
async fn heard(peer: &mut Peer) -> Option<(i32, Bytes)> {
    let mut asked = peer.asked().await?;
    assert_eq!((asked.api_key, asked.version), (SASL_AUTHENTICATE, 1));
    let length = asked.body.get_u32();
    assert_eq!(asked.body.len(), usize::try_from(length).unwrap());
    Some((asked.correlation_id, asked.body))
}

async fn choose(peer: &mut Peer, answer: &[u8]) {
    let asked = peer.asked().await.unwrap();
    assert_eq!(asked.api_key, API_VERSIONS);
    peer.answer(asked.correlation_id, &versions()).await;
    let asked = peer.asked().await.unwrap();
    assert_eq!((asked.api_key, asked.version), (SASL_HANDSHAKE, 1));
    peer.answer(asked.correlation_id, answer).await;
}

const CHOSEN: &[u8] = &[0, 0, 0, 0, 0, 0];

fn transport(credentials: SaslCredentials) -> TcpTransport {
    TcpTransport::new(TcpSettings {
        request_timeout: Duration::from_millis(500),
        security: Security {
            tls: None,
            sasl: Some(credentials),
        },
        ..TcpSettings::default()
    })
}

async fn error_at(server: &Server, credentials: SaslCredentials) -> TransportError {
    let error = transport(credentials).api_versions(&server.address).await;
    error.unwrap_err()
}

fn scram() -> SaslCredentials {
    SaslCredentials::scram_sha_256("alice", "in the rabbit hole")
}

/// What comes of a broker whose first message of SCRAM is this, with `NONCE` for the client's, and whose last is that.
async fn scram_error(first: &'static str, last: &'static str) -> SaslError {
    within(async {
        let server = Server::start(move |_, mut peer: Peer| async move {
            choose(&mut peer, CHOSEN).await;
            let (id, message) = heard(&mut peer).await.unwrap();
            let message = String::from_utf8(message.to_vec()).unwrap();
            assert!(message.starts_with("n,,n=alice,r="), "{message}");
            let (_, nonce) = message.split_once(",r=").unwrap();
            let first = first.replace("NONCE", nonce);
            peer.answer(id, &authenticated(first.as_bytes())).await;
            let Some((id, message)) = heard(&mut peer).await else {
                return;
            };
            assert!(message.starts_with(b"c=biws,r="), "{message:?}");
            peer.answer(id, &authenticated(last.as_bytes())).await;
            peer.echo().await;
        })
        .await;
        match error_at(&server, scram()).await {
            TransportError::Sasl { source, .. } => source,
            other => panic!("{other:?}"),
        }
    })
    .await
}

#[tokio::test]
async fn a_broker_that_does_not_know_the_password_does_not_get_further() {
    let first = "r=NONCEx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    let error = scram_error(first, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").await;
    assert!(matches!(error, SaslError::ServerSignature), "{error}");
    for nothing in ["", "r=x"] {
        let error = scram_error(first, nothing).await;
        assert!(matches!(error, SaslError::Malformed { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_broker_that_asks_for_too_few_or_too_many_iterations_gets_no_proof() {
    for (first, asked) in [
        ("r=NONCEx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1", 1),
        ("r=NONCEx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=10000000", 10_000_000),
    ] {
        let error = scram_error(first, "no proof comes").await;
        assert!(
            matches!(error, SaslError::IterationCount { iterations, .. } if iterations == asked),
            "{error}"
        );
    }
    let error = scram_error("r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "").await;
    assert!(matches!(error, SaslError::Nonce), "{error}");
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_told_though_the_refusal_says_nothing() {
    within(async {
        let server = Server::start(async |_, mut peer: Peer| {
            choose(&mut peer, CHOSEN).await;
            let (id, message) = heard(&mut peer).await.unwrap();
            assert_eq!(message, "n,,\x01auth=Bearer t0ken\x01tenant=a\x01\x01");
            let json = br#"{"status":"insufficient_scope","scope":"read"}"#;
            peer.answer(id, &authenticated(json)).await;
            let (id, message) = heard(&mut peer).await.unwrap();
            assert_eq!(message, "\x01");
            peer.answer(id, &refused("")).await;
        })
        .await;
        let tokens = || async { Ok(BearerToken::new("t0ken").with_extension("tenant", "a")) };
        let error = error_at(&server, SaslCredentials::oauth_bearer(tokens)).await;
        let line = error.to_string();
        assert!(
            line.contains(r#"{"status":"insufficient_scope","scope":"read"}"#),
            "{line}"
        );
        assert!(!line.contains("t0ken"), "{line}");
    })
    .await;
}

#[tokio::test]
async fn a_login_that_is_not_answered_is_given_up_in_time() {
    within(async {
        let server = Server::start(async |_, mut peer: Peer| {
            choose(&mut peer, CHOSEN).await;
            while peer.asked().await.is_some() {}
        })
        .await;
        let error = error_at(&server, scram()).await;
        assert!(
            matches!(
                error,
                TransportError::Timeout {
                    api: "SaslAuthenticate",
                    ..
                }
            ),
            "{error}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_claimed_count_of_mechanisms_costs_nothing() {
    within(async {
        let server = Server::start(async |_, mut peer: Peer| {
            choose(&mut peer, &[0, 33, 0x7f, 0xff, 0xff, 0xff, 0, 1, b'X']).await;
            peer.asked().await;
        })
        .await;
        let error = error_at(&server, scram()).await;
        assert!(
            error
                .to_string()
                .contains("an array claims more elements than there are"),
            "{error}"
        );
    })
    .await;
}

#[tokio::test]
async fn what_the_mechanism_cannot_carry_is_not_sent() {
    within(async {
        let server = Server::start(async |_, mut peer: Peer| {
            let asked = peer.asked().await.unwrap();
            peer.answer(asked.correlation_id, &versions()).await;
            assert!(peer.asked().await.is_none());
        })
        .await;
        let error = error_at(&server, SaslCredentials::plain("alice", "")).await;
        assert!(
            matches!(
                error,
                TransportError::Sasl {
                    source: SaslError::Credentials { .. },
                    ..
                }
            ),
            "{error}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_broker_too_old_for_logins_is_told() {
    within(async {
        let server = Server::start(async |_, mut peer: Peer| {
            peer.shake_hands().await;
            peer.asked().await;
        })
        .await;
        let error = error_at(&server, scram()).await;
        assert!(
            matches!(
                error,
                TransportError::NoCommonVersion {
                    api: "SaslHandshake",
                    ..
                }
            ),
            "{error}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_session_is_used_to_its_end_while_no_other_login_succeeds() {
    within(async {
        let server = Server::start(async |number, mut peer: Peer| {
            choose(&mut peer, CHOSEN).await;
            let (id, _) = heard(&mut peer).await.unwrap();
            let answer = if number == 0 {
                in_session(b"", 2_000)
            } else {
                refused("the users\nare away\x07")
            };
            peer.answer(id, &answer).await;
            peer.echo().await;
        })
        .await;
        let transport = transport(SaslCredentials::plain("alice", "p"));
        let begun = Instant::now();
        let (error, lasted) = loop {
            match ask(&transport, &server, "a").await {
                Ok(answer) => assert_eq!(answer, echoed("a")),
                Err(error) => break (error, begun.elapsed()),
            }
            sleep(Duration::from_millis(10)).await;
        };
        // From 1.4 or 1.6 s on another login is tried, from 1.8 s on the session is not used any more.
        assert!(
            (1_750..2_500).contains(&lasted.as_millis()),
            "{lasted:?}: {error}"
        );
        assert!(error.to_string().contains("(the users are away )"), "{error}");
        assert!(error.is_refusal());
        assert_eq!(server.accepted(), 2);
    })
    .await;
}

#[tokio::test]
async fn connections_that_are_opened_together_share_the_first_refusal() {
    within(async {
        let server = Server::start(async |number, mut peer: Peer| {
            choose(&mut peer, CHOSEN).await;
            let (id, _) = heard(&mut peer).await.unwrap();
            sleep(Duration::from_millis(50)).await;
            let answer = if number == 0 {
                authenticated(b"")
            } else {
                refused("no more")
            };
            peer.answer(id, &answer).await;
            peer.echo().await;
        })
        .await;
        let transport = transport(SaslCredentials::plain("alice", "p"));
        transport.api_versions(&server.address).await.unwrap();
        let mut callers = JoinSet::new();
        for _ in 0..20 {
            let (transport, broker) = (transport.clone(), server.address.clone());
            callers.spawn(async move {
                let waits = Request::Other {
                    api_key: LIST_OFFSETS,
                    version: 1,
                    body: "a".into(),
                    broker_wait: Duration::from_millis(10),
                };
                transport.round_trip(&broker, waits).await.unwrap_err()
            });
        }
        for error in callers.join_all().await {
            assert!(error.to_string().contains("no more"), "{error}");
        }
        assert_eq!(server.accepted(), 2);
        // The one that was let in still serves.
        assert_eq!(ask(&transport, &server, "b").await.unwrap(), echoed("b"));
    })
    .await;
}
