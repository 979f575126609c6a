//! Settings from files, and what is said of files that do not fit.

use std::fs;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kachet_tests::certificates::{Authority, Identity, Validity};
use tempfile::TempDir;

use super::*;

struct Files {
    folder: TempDir,
    authority: Authority,
    client: Identity,
}

fn files() -> Files {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority").unwrap();
    let client = authority.sign("client", &["client"], Validity::Current).unwrap();
    Files {
        folder,
        authority,
        client,
    }
}

impl Files {
    fn with(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn builder(&self) -> TlsSettingsBuilder {
        TlsSettings::builder().ca_file(&self.authority.file)
    }

    fn error_of_client(&self, certificate: &Path, key: &Path) -> TlsSettingsError {
        self.builder()
            .client_certificate(certificate, key)
            .build()
            .unwrap_err()
    }
}

fn error_of_ca(ca: &Path) -> TlsSettingsError {
    let error = TlsSettings::builder().ca_file(ca).build().unwrap_err();
    assert!(error.to_string().contains(ca.to_str().unwrap()), "{error}");
    error
}

#[test]
fn a_ca_file_that_is_none_is_told_by_its_path() {
    use TlsSettingsError as E;
    let files = files();
    let missing = files.folder.path().join("missing.pem");
    assert!(matches!(error_of_ca(&missing), E::File { .. }));
    assert!(matches!(
        error_of_ca(&files.with("empty.pem", "")),
        E::NoCertificate { .. }
    ));
    assert!(matches!(error_of_ca(&files.client.key), E::NoCertificate { .. }));
    let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    assert!(matches!(error_of_ca(&files.with("cut.pem", cut)), E::Pem { .. }));
    let other = format!("{cut}-----END CERTIFICATE-----\n");
    assert!(matches!(
        error_of_ca(&files.with("other.pem", other)),
        E::Certificate { .. }
    ));
    let limit = usize::try_from(FILE_LIMIT_BYTES).unwrap();
    assert!(matches!(
        error_of_ca(&files.with("large.pem", vec![b'\n'; limit + 1])),
        E::FileTooLarge { .. }
    ));
    assert!(files.builder().build().is_ok());
}

#[test]
fn a_key_that_is_none_or_anothers_is_told() {
    use TlsSettingsError as E;
    let files = files();
    let Identity { certificate, key, .. } = &files.client;
    let missing = files.folder.path().join("missing.pem");
    assert!(matches!(
        files.error_of_client(certificate, &missing),
        E::File { .. }
    ));
    assert!(matches!(files.error_of_client(&missing, key), E::File { .. }));
    assert!(matches!(
        files.error_of_client(certificate, certificate),
        E::NoKey { .. }
    ));
    assert!(matches!(files.error_of_client(key, key), E::NoCertificate { .. }));
    let of_another = files
        .authority
        .sign("another", &["another"], Validity::Current)
        .unwrap();
    let error = files.error_of_client(certificate, &of_another.key);
    assert!(matches!(error, E::KeyMismatch { .. }), "{error}");
    for encrypted in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
    ] {
        let error = files.error_of_client(certificate, &files.with("encrypted.pem", encrypted));
        assert!(matches!(error, E::EncryptedKey { .. }), "{error}");
    }
    let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let error = files.error_of_client(certificate, &files.with("nonsense.pem", nonsense));
    assert!(matches!(error, E::Key { .. }), "{error}");
}

#[test]
fn certificate_and_key_may_be_one_file() {
    let files = files();
    let both = &files.client.keystore;
    files.builder().client_certificate(both, both).build().unwrap();
}

/// The key of RFC 5915 inside of the one of RFC 5208, in which it is the last field.
#[test]
fn a_key_may_be_sec1() {
    let files = files();
    let pem = fs::read_to_string(&files.client.key).unwrap();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let pkcs8 = STANDARD.decode(base64).unwrap();
    // An octet string of 0x6d bytes, as every key on P-256 with its public half has.
    let at = pkcs8
        .windows(2)
        .position(|window| window == [0x04, 0x6d])
        .unwrap();
    let sec1 = format!(
        "-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n",
        STANDARD.encode(&pkcs8[at + 2..])
    );
    let key = files.with("sec1.pem", sec1);
    files
        .builder()
        .client_certificate(&files.client.certificate, &key)
        .build()
        .unwrap();
}

/// Only OpenSSL makes one here.
#[test]
fn a_key_may_be_pkcs1() {
    let files = files();
    let (key, certificate) = (files.folder.path().join("rsa.pem"), files.with("rsa.crt", ""));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=client",
            "-keyout",
        ])
        .arg(files.folder.path().join("pkcs8.pem"))
        .arg("-out")
        .arg(&certificate)
        .output()
        .and_then(|_| {
            let mut convert = Command::new("openssl");
            convert.args(["rsa", "-traditional", "-in"]);
            convert
                .arg(files.folder.path().join("pkcs8.pem"))
                .arg("-out")
                .arg(&key);
            convert.output()
        });
    let pem = fs::read_to_string(&key).unwrap_or_default();
    if made.is_err() || !pem.contains("BEGIN RSA PRIVATE KEY") {
        eprintln!("skipped: there is no OpenSSL that writes PKCS#1");
        return;
    }
    files
        .builder()
        .client_certificate(&certificate, &key)
        .build()
        .unwrap();
}

#[test]
fn no_key_is_shown_by_debug() {
    let files = files();
    let Identity { certificate, key, .. } = &files.client;
    let settings = files
        .builder()
        .client_certificate(certificate, key)
        .build()
        .unwrap();
    assert_eq!(
        format!("{settings:?}"),
        "TlsSettings { client_certificate: true, .. }"
    );
}
