//! Logins: every mechanism, and what is said to those who are not let in.

use core::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kachet::transport::{
    BearerToken, SaslCredentials, SaslError, Security, TokenError, TokenFile, TransportError,
};
use kachet_tests::secure::{PASSWORD, SecureKafka, USER};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::relay::Relay;
use super::{
    TOPIC, alice, client, every_password_mechanism, kafka, login, reads_through_the_cache, refusal, trusting,
};

/// A token that the broker's validator for tests takes, and which ends so many seconds from now.
fn token(ends_in_s: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let now = i64::try_from(now).unwrap();
    let claims = format!(
        r#"{{"sub":"{USER}","iat":{},"exp":{}}}"#,
        now - 600,
        now + ends_in_s
    );
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(&claims))
}

fn bearer(ends_in_s: i64) -> SaslCredentials {
    SaslCredentials::oauth_bearer(move || async move { Ok(BearerToken::new(token(ends_in_s))) })
}

/// What the login failed at.
async fn login_error(bootstrap: &str, credentials: SaslCredentials) -> Result<SaslError> {
    let mechanism = credentials.mechanism();
    match refusal(bootstrap, login(credentials)).await? {
        TransportError::Sasl {
            source,
            mechanism: told,
            ..
        } if told == mechanism => Ok(source),
        other => panic!("{mechanism}: {other:?}"),
    }
}

#[tokio::test]
async fn records_come_through_the_cache_by_every_mechanism_with_and_without_tls() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    for credentials in alice().into_iter().chain([bearer(600)]) {
        let plaintext = login(credentials.clone());
        reads_through_the_cache(&kafka.bootstrap(SecureKafka::LOGIN), plaintext).await?;
        let both = Security {
            sasl: Some(credentials),
            ..trusting(kafka)?
        };
        reads_through_the_cache(&kafka.bootstrap(SecureKafka::TLS_LOGIN), both).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_token_comes_from_a_file_with_or_without_a_line_break() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    let file = kafka.folder().join("token");
    for end in ["", "\n"] {
        std::fs::write(&file, token(600) + end)?;
        let credentials = SaslCredentials::oauth_bearer(TokenFile::new(&file));
        reads_through_the_cache(&kafka.bootstrap(SecureKafka::LOGIN), login(credentials)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn wrong_passwords_and_unknown_users_are_refused_with_the_brokers_words() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    let bootstrap = kafka.bootstrap(SecureKafka::LOGIN);
    for (username, password) in [(USER, "guessed"), ("mallory", PASSWORD)] {
        for credentials in every_password_mechanism(username, password) {
            let error = login_error(&bootstrap, credentials).await?;
            assert!(
                matches!(&error, SaslError::Refused { message } if message.contains("Authentication failed")),
                "{error:?}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_token_that_has_ended_is_refused_with_the_brokers_json() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    let error = login_error(&kafka.bootstrap(SecureKafka::LOGIN), bearer(-60)).await?;
    assert!(
        matches!(&error, SaslError::Refused { message } if message.contains(r#""status":"invalid_token""#)),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_token_that_there_is_not_is_told_with_the_reason() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    let bootstrap = kafka.bootstrap(SecureKafka::LOGIN);
    let none = SaslCredentials::oauth_bearer(|| async {
        Err(TokenError::from("the authorization server is closed on sundays"))
    });
    let error = login_error(&bootstrap, none).await?;
    assert!(error.to_string().contains("closed on sundays"), "{error}");
    let late = SaslCredentials::oauth_bearer(|| async {
        sleep(Duration::from_mins(10)).await;
        Ok(BearerToken::new("late"))
    });
    let error = login_error(&bootstrap, late).await?;
    assert!(error.to_string().contains("none came within"), "{error}");
    let missing = TokenFile::new(kafka.folder().join("nothing"));
    let error = login_error(&bootstrap, SaslCredentials::oauth_bearer(missing)).await?;
    assert!(error.to_string().contains("nothing"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_mechanism_that_is_not_enabled_is_told_with_those_that_are() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    let bootstrap = kafka.bootstrap(SecureKafka::SCRAM_ONLY);
    for credentials in [SaslCredentials::plain(USER, PASSWORD), bearer(600)] {
        let error = login_error(&bootstrap, credentials).await?;
        assert!(
            matches!(&error, SaslError::MechanismNotEnabled { offered } if offered == &["SCRAM-SHA-512"]),
            "{error:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn logins_and_their_absence_on_the_wrong_listener_are_told() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    let [plain, ..] = alice();
    let error = login_error(&kafka.broker.bootstrap(), plain).await?;
    assert!(matches!(error, SaslError::NoSaslListener), "{error:?}");
    let error = refusal(&kafka.bootstrap(SecureKafka::LOGIN), Security::default()).await?;
    assert!(error.to_string().contains("login"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_readers_with_a_wrong_password_make_a_handful_of_attempts() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    let relay = Relay::start(&kafka.bootstrap(SecureKafka::LOGIN)).await?;
    let credentials = SaslCredentials::scram_sha_256(USER, "guessed");
    let client = std::sync::Arc::new(client(&relay.address(), login(credentials), 0)?);
    let end = Instant::now() + Duration::from_secs(2);
    let mut readers = JoinSet::new();
    for _ in 0..50 {
        let client = std::sync::Arc::clone(&client);
        readers.spawn(async move {
            let mut refused = 0;
            while Instant::now() < end {
                let error = client.record(TOPIC, 0, 0).await.unwrap_err();
                assert!(error.to_string().contains("refuses the credentials"), "{error}");
                refused += 1;
                sleep(Duration::from_millis(5)).await;
            }
            refused
        });
    }
    let refused: u32 = readers.join_all().await.into_iter().sum();
    assert!(refused > 1_000, "{refused}");
    // At once, after half a second at least, after another whole one at least.
    assert!((2..=3).contains(&relay.accepted()), "{}", relay.accepted());
    Ok(())
}
