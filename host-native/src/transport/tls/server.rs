//! The other side of TLS, for a listener of one's own.

use core::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;

use super::{TlsSettingsError, authorities_in, identity};
use crate::reloaded::Reloaded;

/// The certificate of a listener, and which clients it lets in. Clones share, also what [`Self::reload`] has read.
#[derive(Clone)]
pub struct TlsListenerSettings {
    shared: Arc<Shared>,
}

struct Shared {
    files: Files,
    /// What the next handshake goes by.
    config: Reloaded<ServerConfig>,
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl Files {
    fn read(&self) -> Result<ServerConfig, TlsSettingsError> {
        let provider = Arc::new(ring::default_provider());
        let setup = |error: &dyn fmt::Display| TlsSettingsError::Setup(error.to_string());
        let identity = identity(&self.certificate, &self.key, &provider)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| setup(&error))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(authorities_in(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| setup(&error))?)
            }
        };
        Ok(builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity))))
    }
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
        let files = Files {
            certificate: certificate.as_ref().to_owned(),
            key: key.as_ref().to_owned(),
            client_ca: client_ca.map(Path::to_owned),
        };
        let config = Reloaded::new(files.read()?);
        Ok(Self {
            shared: Arc::new(Shared { files, config }),
        })
    }

    /// Reads the same files anew, for handshakes that begin from then on; connections that there are stay. Where anything
    /// is wrong with them, everything stays as it was. Blocks while it reads.
    pub fn reload(&self) -> Result<(), TlsSettingsError> {
        self.shared.config.take_over(self.shared.files.read())
    }

    /// How often [`Self::reload`] has read the files, and how often it has failed to.
    pub fn reloads(&self) -> (u64, u64) {
        self.shared.config.counts()
    }

    /// For rustls.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.shared.config.get()
    }

    /// Whether clients have to have a certificate.
    pub fn demands_certificate(&self) -> bool {
        self.shared.files.client_ca.is_some()
    }
}

/// No keys, and nothing of rustls's long lists.
impl fmt::Debug for TlsListenerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsListenerSettings")
            .field("demands_certificate", &self.demands_certificate())
            .finish_non_exhaustive()
    }
}
