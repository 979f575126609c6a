//! Why the command failed, and the exit code that says so.

use core::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use kachet::client::ClientError;
use kachet::transport::TlsSettingsError;
use tracing_subscriber::filter::ParseError;

use super::proxy::ServeFailure;

/// Why the command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The tokio runtime did not start.
    Runtime(io::Error),
    /// The filter of `--log` cannot be read.
    LogFilter { given: String, error: ParseError },
    /// Arguments that do not go together, or are not enough.
    Usage(&'static str),
    /// The files for TLS cannot be used.
    Tls(TlsSettingsError),
    /// The password cannot be read.
    PasswordFile { path: PathBuf, error: io::Error },
    /// The client could not answer.
    Client(ClientError),
    /// Standard output cannot be written.
    Output(io::Error),
    /// The proxy did not start.
    Serve(ServeFailure),
    /// The demo's own broker did not start.
    EmbeddedBroker(io::Error),
    /// The demo's topic could not be written.
    DemoTopic(String),
    /// The demo read something else through the cache than without it.
    DemoMismatch { partition: i32, offset: i64 },
}

impl Failure {
    /// Whether the reader of standard output has gone, which is no failure of ours.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        use ClientError as E;
        ExitCode::from(match self {
            Self::Serve(failure) => failure.exit_code(),
            Self::LogFilter { .. }
            | Self::Usage(_)
            | Self::Tls(_)
            | Self::PasswordFile { .. }
            | Self::Client(E::Address(_) | E::NoBootstrap) => 2,
            Self::Client(
                E::InvalidTopicName { .. }
                | E::UnknownTopic { .. }
                | E::UnknownPartition { .. }
                | E::OffsetOutOfRange { .. }
                | E::NoSuchTimestamp { .. },
            ) => 3,
            Self::Client(E::Transport(_) | E::NoLeader { .. }) => 4,
            _ => 1,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime(error) => write!(f, "the async runtime does not start: {error}"),
            Self::LogFilter { given, error } => write!(f, "--log '{given}': {error}"),
            Self::Usage(what) => f.write_str(what),
            Self::Tls(error) => write!(f, "{error}"),
            Self::PasswordFile { path, error } => {
                write!(f, "cannot read the password in {}: {error}", path.display())
            }
            Self::Client(error) => write!(f, "{error}"),
            Self::Serve(failure) => write!(f, "{failure}"),
            Self::Output(error) => write!(f, "cannot write to standard output: {error}"),
            Self::EmbeddedBroker(error) => {
                write!(
                    f,
                    "the demo's broker does not start on the loopback interface: {error}"
                )
            }
            Self::DemoTopic(error) => write!(f, "the demo's records cannot be written: {error}"),
            Self::DemoMismatch { partition, offset } => {
                write!(
                    f,
                    "partition {partition}, offset {offset}: the cache gave another record; please report this"
                )
            }
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}
