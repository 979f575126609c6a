//! TLS and logins against a real Kafka: every way in, and every way to be kept out with its own error.

mod logins;
mod relay;
mod sessions;
mod tls;

use core::time::Duration;
use std::sync::OnceLock;

use anyhow::{Result, bail};
use kachet::cache::Cache;
use kachet::client::{Client, ClientError, ClientSettings};
use kachet::core::time::MaxStaleness;
use kachet::transport::{SaslCredentials, Security, TcpSettings, TcpTransport, TlsSettings, TransportError};
use kachet_tests::kafka::writer_for;
use kachet_tests::records;
use kachet_tests::secure::{PASSWORD, SecureKafka, USER, secure_kafka};

const TOPIC: &str = "behind-locks";
const RECORDS: u32 = 200;
const SEED: i64 = 11;
/// For an answer, for a login and for a token.
const PATIENCE: Duration = Duration::from_secs(4);

/// The broker, with the topic filled.
fn kafka() -> Option<&'static SecureKafka> {
    static FILLED: OnceLock<Option<Result<(), String>>> = OnceLock::new();
    let kafka = secure_kafka()?;
    let filled = FILLED.get_or_init(|| {
        let mut writer = writer_for(&kafka.broker)?;
        let mut fill = || -> Result<()> {
            writer.command(&format!("create {TOPIC} 1"))?;
            writer.produce(TOPIC, 0, "lz4", (RECORDS, 10), SEED)?;
            Ok(())
        };
        Some(fill().map_err(|error| format!("{error:#}")))
    });
    match filled {
        Some(Ok(())) => Some(kafka),
        Some(Err(error)) => panic!("{TOPIC} cannot be filled: {error}"),
        None => None,
    }
}

fn client(bootstrap: &str, security: Security, size_limit_bytes: u64) -> Result<Client<Cache<TcpTransport>>> {
    let tcp = TcpSettings {
        connect_timeout: Duration::from_secs(10),
        request_timeout: PATIENCE,
        ..TcpSettings::default()
    };
    // What fails is not tried again behind the test's back.
    let settings = ClientSettings {
        retry_timeout: Duration::ZERO,
        ..ClientSettings::default()
    };
    Ok(Client::builder()
        .bootstrap(bootstrap)
        .settings(settings)
        .size_limit_bytes(size_limit_bytes)
        .max_staleness(MaxStaleness::Forever)
        .tcp(tcp)
        .security(security)
        .build()?)
}

/// Reads every record twice; the second time comes from the cache.
async fn reads_through_the_cache(bootstrap: &str, security: Security) -> Result<()> {
    let client = client(bootstrap, security, 16 << 20)?;
    let mut fetched = 0;
    for pass in 0..2 {
        let page = client.records(TOPIC, 0, 0, RECORDS as usize).await?;
        assert_eq!(page.len(), RECORDS as usize);
        for (index, record) in (0..).zip(&page) {
            let expected = records::value(SEED, index);
            assert_eq!(record.value.as_deref(), Some(expected.as_bytes()), "{index}");
        }
        let statistics = client.transport().statistics();
        if pass == 0 {
            fetched = statistics.upstream_fetches;
            assert!(fetched > 0);
        }
        assert_eq!(statistics.upstream_fetches, fetched, "{statistics:?}");
    }
    Ok(())
}

/// Why nothing can be read.
async fn refusal(bootstrap: &str, security: Security) -> Result<TransportError> {
    let client = client(bootstrap, security, 0)?;
    let begun = tokio::time::Instant::now();
    match client.record(TOPIC, 0, 0).await {
        Ok(record) => bail!("it was let in, and read {record:?}"),
        Err(ClientError::Transport(error)) => {
            let (took, line) = (begun.elapsed(), error.to_string());
            assert!(took < PATIENCE + Duration::from_secs(2), "{took:?}: {line}");
            assert!(line.contains(bootstrap) && !line.contains('\n'), "{line}");
            assert!(!line.contains(PASSWORD), "{line}");
            println!("{line}");
            Ok(error)
        }
        Err(error) => bail!("{error}"),
    }
}

fn trusting(kafka: &SecureKafka) -> Result<Security> {
    let tls = TlsSettings::builder().ca_file(&kafka.authority.file).build()?;
    Ok(Security {
        tls: Some(tls),
        sasl: None,
    })
}

fn login(credentials: SaslCredentials) -> Security {
    Security {
        tls: None,
        sasl: Some(credentials),
    }
}

fn every_password_mechanism(username: &str, password: &str) -> [SaslCredentials; 3] {
    [
        SaslCredentials::plain(username, password),
        SaslCredentials::scram_sha_256(username, password),
        SaslCredentials::scram_sha_512(username, password),
    ]
}

fn alice() -> [SaslCredentials; 3] {
    every_password_mechanism(USER, PASSWORD)
}
