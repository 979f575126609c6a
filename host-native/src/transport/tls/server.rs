//! The other side of TLS, for a listener of one's own.

use core::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;

use super::{TlsSettingsError, authorities_in, identity};

/// The certificate of a listener, and which clients it lets in. Clones share.
#[derive(Clone)]
pub struct TlsListenerSettings {
    config: Arc<ServerConfig>,
    demands_certificate: bool,
}

impl TlsListenerSettings {
    /// Reads a PEM file with the certificate and after it those that lead to an authority, one with its private key as for
    /// [`TlsSettingsBuilder::client_certificate`](super::TlsSettingsBuilder::client_certificate), and where clients are to
    /// have a certificate, too, one with the authorities that sign those. Blocks while it does.
    pub fn read(
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
        client_ca: Option<&Path>,
    ) -> Result<Self, TlsSettingsError> {
        let provider = Arc::new(ring::default_provider());
        let setup = |error: &dyn fmt::Display| TlsSettingsError::Setup(error.to_string());
        let identity = identity(certificate.as_ref(), key.as_ref(), &provider)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| setup(&error))?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(authorities_in(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| setup(&error))?)
            }
        };
        let config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        Ok(Self {
            config: Arc::new(config),
            demands_certificate: client_ca.is_some(),
        })
    }

    /// For rustls.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Whether clients have to have a certificate.
    pub fn demands_certificate(&self) -> bool {
        self.demands_certificate
    }
}

/// No keys, and nothing of rustls's long lists.
impl fmt::Debug for TlsListenerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsListenerSettings")
            .field("demands_certificate", &self.demands_certificate)
            .finish_non_exhaustive()
    }
}
