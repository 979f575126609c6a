//! Certificates for tests, made on the spot: an authority, and whatever it signs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// An authority, with its certificate as a PEM file in a folder that others own.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    /// Its certificate.
    pub file: PathBuf,
}

/// A certificate with its key, as PEM files.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key as PKCS#8.
    pub key: PathBuf,
    /// Both, as Kafka's keystores of the type PEM are.
    pub keystore: PathBuf,
}

/// Until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// For longer than any test runs.
    Current,
    /// Until 2020.
    Expired,
}

impl Authority {
    /// A new authority, whose certificate is `{name}.pem` in `folder`.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let file = write(folder, &format!("{name}.pem"), &issuer.pem())?;
        Ok(Self {
            issuer,
            folder: folder.to_owned(),
            file,
        })
    }

    /// A certificate for `hosts`, names or addresses, good for servers and clients alike; its files begin with `name`.
    pub fn sign(&self, name: &str, hosts: &[&str], validity: Validity) -> Result<Identity> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        if validity == Validity::Expired {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let key = key.serialize_pem();
        let both = format!("{key}{certificate}{}", self.issuer.pem());
        Ok(Identity {
            certificate: write(&self.folder, &format!("{name}.certificate.pem"), &certificate)?,
            key: write(&self.folder, &format!("{name}.key.pem"), &key)?,
            keystore: write(&self.folder, &format!("{name}.keystore.pem"), &both)?,
        })
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
