//! TLS: who trusts whom.

use anyhow::Result;
use kachet::transport::{Security, TlsError, TlsSettings, TransportError};
use kachet_tests::certificates::{Authority, Identity};
use kachet_tests::secure::SecureKafka;

use super::{kafka, reads_through_the_cache, refusal, trusting};

fn identified(authority: &Authority, identity: &Identity) -> Result<Security> {
    let tls = TlsSettings::builder()
        .ca_file(&authority.file)
        .client_certificate(&identity.certificate, &identity.key)
        .build()?;
    Ok(Security {
        tls: Some(tls),
        sasl: None,
    })
}

/// What TLS failed at.
async fn tls_error(kafka: &SecureKafka, listener: &str, security: Security) -> Result<TlsError> {
    match refusal(&kafka.bootstrap(listener), security).await? {
        TransportError::Tls { source, .. } => Ok(source),
        other => panic!("{listener}: {other:?}"),
    }
}

#[tokio::test]
async fn records_come_through_the_cache_by_name_and_by_address_in_both_versions() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    for listener in [SecureKafka::TLS, SecureKafka::TLS12] {
        let by_address = kafka.bootstrap(listener);
        let by_name = by_address.replace("127.0.0.1", "localhost");
        reads_through_the_cache(&by_address, trusting(kafka)?).await?;
        reads_through_the_cache(&by_name, trusting(kafka)?).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_certificate_lets_in_in_both_versions() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    for listener in [SecureKafka::MUTUAL, SecureKafka::MUTUAL12] {
        let security = identified(&kafka.authority, &kafka.client)?;
        reads_through_the_cache(&kafka.bootstrap(listener), security).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_broker_of_another_authority_is_not_trusted() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    let other = TlsSettings::builder()
        .ca_file(&kafka.other_authority.file)
        .build()?;
    let security = Security {
        tls: Some(other),
        sasl: None,
    };
    let error = tls_error(kafka, SecureKafka::TLS, security).await?;
    assert!(matches!(error, TlsError::UnknownIssuer), "{error}");
    Ok(())
}

#[tokio::test]
async fn an_expired_certificate_is_refused() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    let error = tls_error(kafka, SecureKafka::EXPIRED, trusting(kafka)?).await?;
    assert!(matches!(error, TlsError::Expired), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused_with_both_names() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    let error = tls_error(kafka, SecureKafka::ELSEWHERE, trusting(kafka)?).await?;
    assert!(
        matches!(&error, TlsError::WrongHost { host, names } if host == "127.0.0.1" && names == &["broker.example"]),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_demanded_client_certificate_that_is_missing_or_not_trusted_is_told() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    for listener in [SecureKafka::MUTUAL, SecureKafka::MUTUAL12] {
        let error = tls_error(kafka, listener, trusting(kafka)?).await?;
        assert!(
            matches!(error, TlsError::ClientCertificateRequired),
            "{listener}: {error}"
        );
        let stranger = identified(&kafka.authority, &kafka.stranger)?;
        let error = tls_error(kafka, listener, stranger).await?;
        assert!(
            matches!(error, TlsError::ClientCertificateRefused { .. }),
            "{listener}: {error}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn tls_to_a_plaintext_port_and_plaintext_to_a_tls_port_are_told() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    let error = refusal(&kafka.broker.bootstrap(), trusting(kafka)?).await?;
    assert!(
        matches!(
            error,
            TransportError::Tls {
                source: TlsError::NotSpoken { .. },
                ..
            }
        ),
        "{error:?}"
    );
    let error = tls_error(kafka, SecureKafka::LOGIN, trusting(kafka)?).await?;
    assert!(matches!(error, TlsError::NotSpoken { .. }), "{error:?}");
    for listener in [SecureKafka::TLS, SecureKafka::TLS12, SecureKafka::TLS_LOGIN] {
        let error = refusal(&kafka.bootstrap(listener), Security::default()).await?;
        assert!(
            matches!(error, TransportError::TlsExpected { .. }),
            "{listener}: {error:?}"
        );
    }
    Ok(())
}
