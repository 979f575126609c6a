//! A Kafka with a listener for every way to protect one.

use std::path::Path;
use std::sync::OnceLock;

use anyhow::Result;
use tempfile::TempDir;

use crate::certificates::{Authority, Identity, Validity};
use crate::kafka::{KafkaBroker, KafkaSettings, Listener, free_ports};
use crate::setup::kafka_is_there;

/// A user of PLAIN and of both SCRAM mechanisms.
pub const USER: &str = "alice";
/// Her password, for all of them. Normalised by `SASLprep`, it would be another one.
pub const PASSWORD: &str = "pässwörd ½ of alice";
/// How long a session lasts on [`SecureKafka::SHORT`].
pub const SHORT_SESSION_MS: u32 = 3_000;

const UNSECURED: &str = "org.apache.kafka.common.security.oauthbearer.internals.unsecured";

/// The broker, its authorities and its ports.
#[derive(Debug)]
pub struct SecureKafka {
    /// The broker. Its plaintext listener is there as ever.
    pub broker: KafkaBroker,
    /// The authority that signed the broker's certificates, and that it trusts.
    pub authority: Authority,
    /// Another one.
    pub other_authority: Authority,
    /// A client's certificate that the broker trusts.
    pub client: Identity,
    /// The same, of the other authority.
    pub stranger: Identity,
    listeners: Vec<Listener>,
    folder: TempDir,
}

impl SecureKafka {
    /// TLS 1.2 and 1.3, for `localhost` and `127.0.0.1`.
    pub const TLS: &str = "TLS";
    /// The same with TLS 1.2 only.
    pub const TLS12: &str = "TLSOLD";
    /// Clients have to have a certificate.
    pub const MUTUAL: &str = "MUTUAL";
    /// The same with TLS 1.2 only.
    pub const MUTUAL12: &str = "MUTUALOLD";
    /// Its certificate has expired.
    pub const EXPIRED: &str = "EXPIRED";
    /// Its certificate is for `broker.example`.
    pub const ELSEWHERE: &str = "ELSEWHERE";
    /// Every mechanism, without TLS.
    pub const LOGIN: &str = "LOGIN";
    /// Every mechanism, with TLS.
    pub const TLS_LOGIN: &str = "TLSLOGIN";
    /// SCRAM-SHA-512 only, without TLS.
    pub const SCRAM_ONLY: &str = "SCRAMONLY";
    /// Every mechanism, without TLS, in sessions of [`SHORT_SESSION_MS`].
    pub const SHORT: &str = "SHORT";

    /// The address of a listener, `host:port`.
    ///
    /// # Panics
    /// Where there is no such listener.
    pub fn bootstrap(&self, listener: &str) -> String {
        let found = self.listeners.iter().find(|found| found.name == listener);
        let port = found
            .unwrap_or_else(|| panic!("there is no listener {listener}"))
            .port;
        format!("127.0.0.1:{port}")
    }

    /// A folder for files of a test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn start() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("kachet-certificates-")
            .tempdir()?;
        let authority = Authority::new(folder.path(), "authority")?;
        let other_authority = Authority::new(folder.path(), "other-authority")?;
        let here = ["localhost", "127.0.0.1"];
        let valid = authority.sign("broker", &here, Validity::Current)?;
        let expired = authority.sign("expired", &here, Validity::Expired)?;
        let elsewhere = authority.sign("elsewhere", &["broker.example"], Validity::Current)?;
        let ports: [u16; 10] = free_ports()?;
        let names = [
            (Self::TLS, "SSL"),
            (Self::TLS12, "SSL"),
            (Self::MUTUAL, "SSL"),
            (Self::MUTUAL12, "SSL"),
            (Self::EXPIRED, "SSL"),
            (Self::ELSEWHERE, "SSL"),
            (Self::LOGIN, "SASL_PLAINTEXT"),
            (Self::TLS_LOGIN, "SASL_SSL"),
            (Self::SCRAM_ONLY, "SASL_PLAINTEXT"),
            (Self::SHORT, "SASL_PLAINTEXT"),
        ];
        let listeners: Vec<Listener> = names
            .into_iter()
            .zip(ports)
            .map(|((name, protocol), port)| Listener {
                name: name.to_owned(),
                protocol,
                port,
            })
            .collect();
        let mut settings = KafkaSettings {
            extra_listeners: listeners.clone(),
            scram_users: ["SCRAM-SHA-256", "SCRAM-SHA-512"]
                .map(|mechanism| format!("{mechanism}=[name={USER},password={PASSWORD}]"))
                .to_vec(),
            removes: Some(folder.path().to_owned()),
            ..KafkaSettings::default()
        };
        for (listener, identity) in [
            (Self::TLS, &valid),
            (Self::TLS12, &valid),
            (Self::MUTUAL, &valid),
            (Self::MUTUAL12, &valid),
            (Self::EXPIRED, &expired),
            (Self::ELSEWHERE, &elsewhere),
            (Self::TLS_LOGIN, &valid),
        ] {
            settings = with_tls(settings, listener, identity, &authority);
        }
        for listener in [Self::TLS12, Self::MUTUAL12] {
            settings = with(settings, listener, "ssl.enabled.protocols", "TLSv1.2");
        }
        for listener in [Self::MUTUAL, Self::MUTUAL12] {
            settings = with(settings, listener, "ssl.client.auth", "required");
        }
        for listener in [Self::LOGIN, Self::TLS_LOGIN, Self::SHORT] {
            let every = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];
            settings = with_logins(settings, listener, &every);
        }
        settings = with_logins(settings, Self::SCRAM_ONLY, &["SCRAM-SHA-512"]);
        let short = SHORT_SESSION_MS.to_string();
        settings = with(settings, Self::SHORT, "connections.max.reauth.ms", &short);
        Ok(Self {
            broker: KafkaBroker::start(&settings)?,
            client: authority.sign("client", &["client"], Validity::Current)?,
            stranger: other_authority.sign("stranger", &["stranger"], Validity::Current)?,
            authority,
            other_authority,
            listeners,
            folder,
        })
    }
}

/// The one secure broker of this test process; None like [`shared_kafka`](crate::kafka::shared_kafka).
///
/// # Panics
/// Like [`shared_kafka`](crate::kafka::shared_kafka).
pub fn secure_kafka() -> Option<&'static SecureKafka> {
    static SHARED: OnceLock<std::result::Result<SecureKafka, String>> = OnceLock::new();
    if !kafka_is_there() {
        return None;
    }
    let kafka = SHARED.get_or_init(|| SecureKafka::start().map_err(|error| format!("{error:#}")));
    Some(
        kafka
            .as_ref()
            .unwrap_or_else(|error| panic!("the secure Kafka does not start: {error}")),
    )
}

fn with(settings: KafkaSettings, listener: &str, name: &str, value: &str) -> KafkaSettings {
    settings.with(
        &format!("listener.name.{}.{name}", listener.to_lowercase()),
        value,
    )
}

fn with_tls(
    settings: KafkaSettings,
    listener: &str,
    identity: &Identity,
    trusted: &Authority,
) -> KafkaSettings {
    let keystore = identity.keystore.display().to_string();
    let truststore = trusted.file.display().to_string();
    let settings = with(settings, listener, "ssl.keystore.type", "PEM");
    let settings = with(settings, listener, "ssl.keystore.location", &keystore);
    let settings = with(settings, listener, "ssl.truststore.type", "PEM");
    with(settings, listener, "ssl.truststore.location", &truststore)
}

fn with_logins(mut settings: KafkaSettings, listener: &str, mechanisms: &[&str]) -> KafkaSettings {
    const MODULES: &str = "org.apache.kafka.common.security";
    settings = with(
        settings,
        listener,
        "sasl.enabled.mechanisms",
        &mechanisms.join(","),
    );
    for mechanism in mechanisms {
        let login = match *mechanism {
            // Properties are read as ISO 8859-1, with other characters spelt out.
            "PLAIN" => format!(
                "{MODULES}.plain.PlainLoginModule required user_{USER}=\"{}\";",
                escaped(PASSWORD)
            ),
            "OAUTHBEARER" => format!(
                "{MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";"
            ),
            _ => format!("{MODULES}.scram.ScramLoginModule required;"),
        };
        let mechanism = mechanism.to_lowercase();
        settings = with(
            settings,
            listener,
            &format!("{mechanism}.sasl.jaas.config"),
            &login,
        );
        if mechanism == "oauthbearer" {
            let validator = format!("{UNSECURED}.OAuthBearerUnsecuredValidatorCallbackHandler");
            let name = "oauthbearer.sasl.server.callback.handler.class";
            settings = with(settings, listener, name, &validator);
            let login = format!("{UNSECURED}.OAuthBearerUnsecuredLoginCallbackHandler");
            let name = "oauthbearer.sasl.login.callback.handler.class";
            settings = with(settings, listener, name, &login);
        }
    }
    settings
}

/// As `java.util.Properties` reads it.
fn escaped(text: &str) -> String {
    let escape = |unit: u16| match u8::try_from(unit) {
        Ok(ascii) if ascii.is_ascii() => char::from(ascii).to_string(),
        _ => format!("\\u{unit:04x}"),
    };
    text.encode_utf16().map(escape).collect()
}
