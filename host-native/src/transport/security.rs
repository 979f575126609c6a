//! How connections are protected: Kafka's `security.protocol`, as two independent choices.

use super::sasl::SaslCredentials;
use super::tls::TlsSettings;

/// Whether connections are encrypted, and who logs in on them. Nothing and nobody by default, which is what a
/// PLAINTEXT listener takes; TLS alone is for SSL listeners, credentials alone for `SASL_PLAINTEXT`, both for
/// `SASL_SSL`.
///
/// ```no_run
/// use kachet::client::Client;
/// use kachet::transport::{SaslCredentials, Security, TlsSettings};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let security = Security {
///     tls: Some(TlsSettings::builder().ca_file("ca.pem").build()?),
///     sasl: Some(SaslCredentials::scram_sha_512("alice", std::env::var("PASSWORD")?)),
/// };
/// let client = Client::builder().bootstrap("broker.example:9093").security(security).build()?;
/// # Ok(())
/// # }
/// ```
///
/// PLAIN and OAUTHBEARER send what they prove themselves with as it is: anybody on the way can read it without TLS.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// For listeners of the protocols SSL and `SASL_SSL`.
    pub tls: Option<TlsSettings>,
    /// For listeners of the protocols `SASL_PLAINTEXT` and `SASL_SSL`.
    pub sasl: Option<SaslCredentials>,
}
