//! The settings of TLS and of the login, for every command that connects.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum};
use kachet::transport::{SaslCredentials, Secret, Security, TlsListenerSettings, TlsSettings, TokenFile};
use tracing::{error, info};

use super::failure::Failure;

/// In place of `--sasl-password-file`. There is no argument for the password itself, because arguments are seen by
/// everybody on the machine.
const PASSWORD_VARIABLE: &str = "KACHET_SASL_PASSWORD";
const PASSWORD_HELP: &str = "A file with the password, whose last line break is left out; without it the password is \
taken from the environment variable KACHET_SASL_PASSWORD";
/// Passwords are shorter.
const PASSWORD_LIMIT_BYTES: u64 = 64 << 10;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Security")]
pub(crate) struct SecurityArguments {
    /// Speak TLS, and trust the system's certificate authorities unless others are named
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    tls: bool,
    /// Trust the certificate authorities in this PEM file, in place of the system's
    #[arg(long, value_name = "FILE", requires = "tls")]
    tls_ca: Option<PathBuf>,
    /// The client's certificate for brokers that demand one, as PEM, followed by those that lead to its authority
    #[arg(long, value_name = "FILE", requires_all = ["tls", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// Its private key, as PEM and not encrypted
    #[arg(long, value_name = "FILE", requires_all = ["tls", "tls_cert"])]
    tls_key: Option<PathBuf>,
    /// Log in by this mechanism (SASL)
    #[arg(long, value_enum, value_name = "MECHANISM", ignore_case = true)]
    sasl_mechanism: Option<Mechanism>,
    /// The user name, for every mechanism but OAUTHBEARER
    #[arg(long, value_name = "NAME", requires = "sasl_mechanism", required_if_eq_any = [
        ("sasl_mechanism", "PLAIN"), ("sasl_mechanism", "SCRAM-SHA-256"), ("sasl_mechanism", "SCRAM-SHA-512"),
    ])]
    sasl_username: Option<String>,
    #[arg(long, value_name = "FILE", requires = "sasl_username", help = PASSWORD_HELP)]
    sasl_password_file: Option<PathBuf>,
    /// A file with the token for OAUTHBEARER, read anew for each connection
    #[arg(
        long,
        value_name = "FILE",
        requires = "sasl_mechanism",
        required_if_eq("sasl_mechanism", "OAUTHBEARER"),
        conflicts_with_all = ["sasl_username", "sasl_password_file"],
    )]
    sasl_token_file: Option<PathBuf>,
}

/// TLS towards those who connect here.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_field_names, reason = "options are named after their fields")]
pub(crate) struct TlsListenArguments {
    /// Have clients speak TLS: the certificate as PEM, followed by those that lead to its authority
    #[arg(long, value_name = "FILE", requires = "tls_listen_key")]
    tls_listen_cert: Option<PathBuf>,
    /// Its private key, as PEM and not encrypted
    #[arg(long, value_name = "FILE", requires = "tls_listen_cert")]
    tls_listen_key: Option<PathBuf>,
    /// Let in only clients with a certificate of the authorities in this PEM file
    #[arg(long, value_name = "FILE", requires = "tls_listen_cert")]
    tls_listen_client_ca: Option<PathBuf>,
}

impl TlsListenArguments {
    /// Reads the files that are named.
    pub(crate) fn read(&self) -> Result<Option<TlsListenerSettings>, Failure> {
        let (Some(certificate), Some(key)) = (&self.tls_listen_cert, &self.tls_listen_key) else {
            return Ok(None);
        };
        TlsListenerSettings::read(certificate, key, self.tls_listen_client_ca.as_deref())
            .map(Some)
            .map_err(Failure::Tls)
    }
}

/// Reads certificates for clients anew. What is wrong with them is told, and those from before go on.
pub(crate) async fn reload_certificates(tls: TlsListenerSettings) {
    // Files may be slow.
    let failure = match tokio::task::spawn_blocking(move || tls.reload()).await {
        Ok(Ok(())) => return info!("new connections get the certificates that were read anew"),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    error!(error = %failure, "the certificates for clients were not read anew; those from before go on");
}

/// By Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mechanism {
    #[value(name = "PLAIN", help = "User name and password; use it with TLS only")]
    Plain,
    #[value(name = "SCRAM-SHA-256", help = "Proves the password without sending it")]
    ScramSha256,
    #[value(name = "SCRAM-SHA-512", help = "The same with a longer hash")]
    ScramSha512,
    #[value(name = "OAUTHBEARER", help = "A token; use it with TLS only")]
    OauthBearer,
}

impl SecurityArguments {
    /// Reads the files that are named.
    pub(crate) fn read(&self) -> Result<Security, Failure> {
        Ok(Security {
            tls: self.tls()?,
            sasl: self.sasl()?,
        })
    }

    fn tls(&self) -> Result<Option<TlsSettings>, Failure> {
        if !self.tls {
            let named = [&self.tls_ca, &self.tls_cert, &self.tls_key];
            if named.iter().any(|file| file.is_some()) {
                return Err(Failure::Usage(
                    "--tls is false, but files for TLS are named; leave --tls-ca, --tls-cert and --tls-key out",
                ));
            }
            return Ok(None);
        }
        let mut builder = TlsSettings::builder();
        if let Some(ca) = &self.tls_ca {
            builder = builder.ca_file(ca);
        }
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            builder = builder.client_certificate(certificate, key);
        }
        builder.build().map(Some).map_err(Failure::Tls)
    }

    fn sasl(&self) -> Result<Option<SaslCredentials>, Failure> {
        let Some(mechanism) = self.sasl_mechanism else {
            return Ok(None);
        };
        let credentials: fn(String, Secret) -> SaslCredentials = match mechanism {
            Mechanism::Plain => SaslCredentials::plain,
            Mechanism::ScramSha256 => SaslCredentials::scram_sha_256,
            Mechanism::ScramSha512 => SaslCredentials::scram_sha_512,
            Mechanism::OauthBearer => {
                let file = self.sasl_token_file.clone().unwrap_or_default();
                return Ok(Some(SaslCredentials::oauth_bearer(TokenFile::new(file))));
            }
        };
        if self.sasl_token_file.is_some() {
            return Err(Failure::Usage(
                "--sasl-token-file is for --sasl-mechanism OAUTHBEARER",
            ));
        }
        let username = self.sasl_username.clone().unwrap_or_default();
        Ok(Some(credentials(username, self.password()?)))
    }

    fn password(&self) -> Result<Secret, Failure> {
        match (&self.sasl_password_file, std::env::var(PASSWORD_VARIABLE)) {
            (Some(file), _) => read_password(file).map_err(|error| Failure::PasswordFile {
                path: file.clone(),
                error,
            }),
            (None, Ok(password)) => Ok(password.into()),
            (None, Err(std::env::VarError::NotPresent)) => Err(Failure::Usage(
                "no password: name a file by --sasl-password-file, or set KACHET_SASL_PASSWORD",
            )),
            (None, Err(std::env::VarError::NotUnicode(_))) => {
                Err(Failure::Usage("KACHET_SASL_PASSWORD is not UTF-8"))
            }
        }
    }
}

fn read_password(path: &Path) -> io::Result<Secret> {
    let mut text = String::new();
    File::open(path)?
        .take(PASSWORD_LIMIT_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > PASSWORD_LIMIT_BYTES {
        return Err(io::Error::other("it is too large for a password"));
    }
    let kept = text.strip_suffix('\n').map_or(text.len(), str::len);
    text.truncate(kept);
    if text.ends_with('\r') && kept > 0 {
        text.pop();
    }
    Ok(text.into())
}
