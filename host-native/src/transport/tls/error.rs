//! What goes wrong with TLS, and what to do about it.

use core::time::Duration;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

/// Of the names in a certificate, this many are told.
const NAMES_SHOWN: usize = 8;

/// TLS with a broker failed. The broker's address is in
/// [`TransportError::Tls`](crate::transport::TransportError::Tls).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The broker's certificate leads to none of the trusted authorities.
    #[error(
        "its certificate is issued by no authority that is trusted here; trust the CA that signed it, or check that this is the right broker"
    )]
    UnknownIssuer,
    /// The broker's certificate is too old.
    #[error("its certificate has expired; the broker needs a new one, unless the clock here is wrong")]
    Expired,
    /// The broker's certificate is not valid yet.
    #[error("its certificate is not valid yet; is the clock here right?")]
    NotValidYet,
    /// The broker's certificate is for other hosts.
    #[error(
        "its certificate is for {}, not for '{host}'; connect by a name that it holds, or have the broker advertise one",
        names_or_nobody(.names)
    )]
    WrongHost {
        /// The host name or IP address that was connected to.
        host: String,
        /// What the certificate is for.
        names: Vec<String>,
    },
    /// The broker's certificate is wrong in another way.
    #[error("its certificate is not accepted: {reason}")]
    Certificate {
        /// What is wrong with it.
        reason: String,
    },
    /// The host of an address can be in no certificate.
    #[error("'{host}' is neither a host name nor an IP address, so no certificate can be for it")]
    HostName {
        /// The host.
        host: String,
    },
    /// The broker does not speak TLS.
    #[error(
        "it speaks no TLS ({what}); use the port of an SSL or SASL_SSL listener, or turn TLS off for a plaintext one"
    )]
    NotSpoken {
        /// What came in place of TLS.
        what: &'static str,
    },
    /// The broker wants the client to have a certificate.
    #[error(
        "it demands a client certificate and none was given; give a certificate and its key, or use a listener that demands none"
    )]
    ClientCertificateRequired,
    /// The broker does not accept the client's certificate.
    #[error(
        "it refuses the client certificate ({reason}); is it signed by an authority that the broker trusts, and still valid?"
    )]
    ClientCertificateRefused {
        /// The broker's TLS alert.
        reason: String,
    },
    /// The two sides have no version of TLS or no cipher suite in common.
    #[error(
        "it has no TLS version or cipher suite in common with this client, which speaks TLS 1.2 and 1.3 ({reason})"
    )]
    NothingInCommon {
        /// What it failed at.
        reason: String,
    },
    /// The handshake took too long.
    #[error("the handshake was not done within {timeout:?}; is another service on that port?")]
    Timeout {
        /// The time allowed, in which the connection had to come about too.
        timeout: Duration,
    },
    /// The connection broke during the handshake.
    #[error("the connection broke during the handshake: {0}")]
    Broken(Arc<io::Error>),
    /// Any other violation of the protocol.
    #[error("{0}")]
    Protocol(String),
}

fn names_or_nobody(names: &[String]) -> String {
    if names.is_empty() {
        "no host at all".to_owned()
    } else {
        names.join(", ")
    }
}

/// What the client's side knows that decides what an alert means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum ClientCertificate {
    /// The broker has not asked for one.
    NotAsked,
    /// It has, and there is none.
    Missing,
    /// It has, and was given one.
    Given,
}

impl TlsError {
    /// Whether the broker, or the certificate of one side, has to change before another try can succeed.
    pub(in crate::transport) fn is_refusal(&self) -> bool {
        !matches!(
            self,
            Self::NotSpoken { .. } | Self::Timeout { .. } | Self::Broken(_)
        )
    }

    pub(in crate::transport) fn from_rustls(error: Error, host: &str, client: ClientCertificate) -> Self {
        match error {
            Error::InvalidCertificate(error) => Self::from_certificate(error, host),
            Error::AlertReceived(alert) => Self::from_alert(alert, client),
            Error::InvalidMessage(_) => Self::NotSpoken {
                what: "its answer is no TLS record",
            },
            Error::PeerIncompatible(reason @ PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
                Self::NothingInCommon {
                    reason: format!("{reason:?}"),
                }
            }
            other => Self::Protocol(other.to_string()),
        }
    }

    fn from_certificate(error: CertificateError, host: &str) -> Self {
        use CertificateError as E;
        match error {
            E::UnknownIssuer => Self::UnknownIssuer,
            E::Expired | E::ExpiredContext { .. } => Self::Expired,
            E::NotValidYet | E::NotValidYetContext { .. } => Self::NotValidYet,
            E::NotValidForName => Self::WrongHost {
                host: host.to_owned(),
                names: Vec::new(),
            },
            E::NotValidForNameContext { presented, .. } => Self::WrongHost {
                host: host.to_owned(),
                names: presented
                    .iter()
                    .take(NAMES_SHOWN)
                    .map(|name| readable_name(name))
                    .collect(),
            },
            other => Self::Certificate {
                reason: other.to_string(),
            },
        }
    }

    fn from_alert(alert: AlertDescription, client: ClientCertificate) -> Self {
        use AlertDescription as A;
        let reason = format!("alert {alert:?}");
        let about_certificates = matches!(
            alert,
            A::NoCertificate
                | A::BadCertificate
                | A::UnsupportedCertificate
                | A::CertificateRevoked
                | A::CertificateExpired
                | A::CertificateUnknown
                | A::UnknownCA
                | A::AccessDenied
                | A::CertificateRequired
        );
        match (alert, client) {
            (A::CertificateRequired, ClientCertificate::NotAsked) => Self::ClientCertificateRequired,
            // Of TLS 1.2, a broker that misses the certificate says no more than that it cannot go on.
            (_, ClientCertificate::Missing) if about_certificates || alert == A::HandshakeFailure => {
                Self::ClientCertificateRequired
            }
            (_, ClientCertificate::Given) if about_certificates => Self::ClientCertificateRefused { reason },
            (A::ProtocolVersion | A::HandshakeFailure | A::InsufficientSecurity, _) => {
                Self::NothingInCommon { reason }
            }
            _ => Self::Protocol(format!("it broke off with {reason}")),
        }
    }
}

/// `DnsName("broker.example")` as `broker.example`.
fn readable_name(name: &str) -> String {
    let quoted = name.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
    quoted
        .map_or(name, |(inner, _)| inner.trim_matches('"'))
        .to_owned()
}

/// Settings of TLS that cannot be used. Every variant names the file.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsSettingsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// A file is too large to be what it is given for.
    #[error("{} is larger than {limit_bytes} bytes; is it a PEM file?", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit_bytes: u64,
    },
    /// A file looks like PEM and is not.
    #[error("{} is no PEM file: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file holds no certificate.
    #[error(
        "{} holds no certificate; a PEM file with one has a line '-----BEGIN CERTIFICATE-----' (keystores of Java, JKS and PKCS#12, have to be converted)",
        path.display()
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate cannot be used.
    #[error("a certificate in {} cannot be used: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file holds no private key.
    #[error(
        "{} holds no private key; a PEM file with one has a line '-----BEGIN PRIVATE KEY-----', or the same with RSA or EC",
        path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A private key is encrypted with a passphrase.
    #[error(
        "the private key in {} is encrypted, which is not supported; decrypt it, for instance by 'openssl pkey -in FILE -out PLAIN'",
        path.display()
    )]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// A private key cannot be used.
    #[error("the private key in {} cannot be used: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A private key and a certificate do not belong together.
    #[error(
        "the private key in {} does not belong to the first certificate in {}",
        key.display(),
        certificate.display()
    )]
    KeyMismatch {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        certificate: PathBuf,
    },
    /// The system has no authorities that it trusts.
    #[error(
        "this system offers no trusted certificate authorities ({reason}); name a PEM file of those to trust"
    )]
    NoSystemAuthorities {
        /// Why not.
        reason: String,
    },
    /// The cryptography that is built in does not fit.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_about_the_clients_certificate_where_the_broker_has_asked_for_one() {
        use AlertDescription as A;
        use ClientCertificate as C;
        let kind = |alert, client| match TlsError::from_alert(alert, client) {
            TlsError::ClientCertificateRequired => "required",
            TlsError::ClientCertificateRefused { .. } => "refused",
            TlsError::NothingInCommon { .. } => "nothing in common",
            TlsError::Protocol(_) => "protocol",
            other => panic!("{other:?}"),
        };
        for (alert, not_asked, missing, given) in [
            (A::CertificateRequired, "required", "required", "refused"),
            (A::BadCertificate, "protocol", "required", "refused"),
            (A::UnknownCA, "protocol", "required", "refused"),
            (
                A::HandshakeFailure,
                "nothing in common",
                "required",
                "nothing in common",
            ),
            (
                A::ProtocolVersion,
                "nothing in common",
                "nothing in common",
                "nothing in common",
            ),
            (A::InternalError, "protocol", "protocol", "protocol"),
        ] {
            let kinds = [C::NotAsked, C::Missing, C::Given].map(|client| kind(alert, client));
            assert_eq!(kinds, [not_asked, missing, given], "{alert:?}");
        }
    }

    #[test]
    fn names_in_certificates_are_told_as_people_write_them() {
        assert_eq!(readable_name("DnsName(\"broker.example\")"), "broker.example");
        assert_eq!(readable_name("IpAddress(10.0.0.1)"), "10.0.0.1");
        assert_eq!(readable_name("anything"), "anything");
    }
}
