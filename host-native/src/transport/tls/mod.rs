//! TLS, by rustls with the cryptography of ring.
//!
//! Versions 1.2 and 1.3. The certificate of a broker and its host name are verified on every connection, which is why
//! sessions are not resumed; a host may be an IP address. There is no way to turn that off: a CA of one's own is one
//! PEM file.

mod error;
mod handshake;
mod server;

use core::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, Error, RootCertStore};
use zeroize::Zeroizing;

pub(super) use error::ClientCertificate;
pub use error::{TlsError, TlsSettingsError};
pub(super) use handshake::{AtOnce, TlsPeer, TlsStream, shake_hands};
pub use server::TlsListenerSettings;

/// Files of certificates and keys are smaller; the bundle of all public authorities has a quarter of a mebibyte.
const FILE_LIMIT_BYTES: u64 = 8 << 20;

/// Whom to trust, and what to identify oneself by. Clones share.
#[derive(Clone)]
pub struct TlsSettings {
    config: Arc<ClientConfig>,
    identity: Option<Arc<CertifiedKey>>,
}

impl TlsSettings {
    /// Settings that trust the authorities of the system and have no client certificate, to begin with.
    pub fn builder() -> TlsSettingsBuilder {
        TlsSettingsBuilder::default()
    }
}

/// No keys, and nothing of rustls's long lists.
impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSettings")
            .field("client_certificate", &self.identity.is_some())
            .finish_non_exhaustive()
    }
}

/// Reads the files of [`TlsSettings`].
#[derive(Clone, Debug, Default)]
pub struct TlsSettingsBuilder {
    ca_file: Option<PathBuf>,
    /// The files of the certificate and of the key.
    client_certificate: Option<(PathBuf, PathBuf)>,
}

impl TlsSettingsBuilder {
    /// Trusts the authorities in a PEM file, in place of those of the system.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Identifies itself to brokers that ask for it (mutual TLS): a PEM file with the certificate and after it those
    /// that lead to an authority, and one with its private key as PKCS#8, PKCS#1 or SEC1, not encrypted. They may be
    /// one file.
    #[must_use]
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client_certificate = Some((certificate.into(), key.into()));
        self
    }

    /// Reads the files, and the system's authorities where no others are given. Blocks while it does.
    pub fn build(self) -> Result<TlsSettings, TlsSettingsError> {
        let provider = Arc::new(ring::default_provider());
        let roots = match &self.ca_file {
            Some(path) => authorities_in(path)?,
            None => authorities_of_the_system()?,
        };
        let identity = match &self.client_certificate {
            Some((certificate, key)) => Some(Arc::new(identity(certificate, key, &provider)?)),
            None => None,
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsSettingsError::Setup(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Resuming a session skips the verification of the certificate.
        config.resumption = Resumption::disabled();
        Ok(TlsSettings {
            config: Arc::new(config),
            identity,
        })
    }
}

fn authorities_in(path: &Path) -> Result<RootCertStore, TlsSettingsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsSettingsError::Certificate {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
    }
    Ok(roots)
}

/// Those that rustls cannot read are left out, as the system's lists hold some.
fn authorities_of_the_system() -> Result<RootCertStore, TlsSettingsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let reason = found
        .errors
        .first()
        .map_or_else(|| "there are none".to_owned(), ToString::to_string);
    Err(TlsSettingsError::NoSystemAuthorities { reason })
}

fn identity(
    certificate_path: &Path,
    key_path: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsSettingsError> {
    let chain = certificates_in(certificate_path)?;
    let key = key_in(key_path)?;
    let unusable = |reason: String| TlsSettingsError::Key {
        path: key_path.to_owned(),
        reason,
    };
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| unusable(error.to_string()))?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) => Ok(identity),
        Err(Error::InconsistentKeys(_)) => Err(TlsSettingsError::KeyMismatch {
            key: key_path.to_owned(),
            certificate: certificate_path.to_owned(),
        }),
        Err(error) => Err(TlsSettingsError::Certificate {
            path: certificate_path.to_owned(),
            reason: error.to_string(),
        }),
    }
}

/// One at least.
fn certificates_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsSettingsError> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| broken(path, &error))?;
    if certificates.is_empty() {
        return Err(TlsSettingsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}

fn key_in(path: &Path) -> Result<PrivateKeyDer<'static>, TlsSettingsError> {
    let text = read(path)?;
    let holds = |words: &[u8]| text.windows(words.len()).any(|window| window == words);
    // PKCS#8, and the older header inside of PKCS#1 and SEC1 (RFC 1421).
    if holds(b"BEGIN ENCRYPTED PRIVATE KEY") || holds(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsSettingsError::EncryptedKey {
            path: path.to_owned(),
        });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsSettingsError::NoKey {
            path: path.to_owned(),
        },
        error => broken(path, &error),
    })
}

fn broken(path: &Path, error: &pem::Error) -> TlsSettingsError {
    TlsSettingsError::Pem {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

/// May hold a key, so it is wiped.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsSettingsError> {
    let failed = |source| TlsSettingsError::File {
        path: path.to_owned(),
        source: Arc::new(source),
    };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(FILE_LIMIT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_LIMIT_BYTES {
        return Err(TlsSettingsError::FileTooLarge {
            path: path.to_owned(),
            limit_bytes: FILE_LIMIT_BYTES,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
