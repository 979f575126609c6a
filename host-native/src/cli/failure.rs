//! Why the command failed, and the exit code that says so.

use core::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use kachet::client::ClientError;
use kachet::core::cache::RestoreError;
use kachet::core::segment::SegmentError;
use kachet::core::storage::StorageError;
use kachet::mount::MountError;
use kachet::transport::TlsSettingsError;
use tracing_subscriber::filter::ParseError;

use super::gateway::GatewayFailure;
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
    /// No broker answers, and what lies in the mount point is not enough.
    Unanswered { error: ClientError, hint: &'static str },
    /// The mount point cannot be opened, or not be written to.
    Mount(MountError),
    /// What lies in the mount point cannot be taken over.
    Restore(RestoreError),
    /// The segments of the mount point cannot be listed or removed.
    Storage(StorageError),
    /// A segment of the mount point cannot be looked at.
    Segment(SegmentError),
    /// Records of the mount point are damaged.
    Damaged { count: u64 },
    /// Whoever started the command has ended it.
    Interrupted,
    /// A task of the command did not come to its end.
    Task(tokio::task::JoinError),
    /// Standard input cannot be read.
    Input(io::Error),
    /// Standard output cannot be written.
    Output(io::Error),
    /// The proxy did not start.
    Serve(ServeFailure),
    /// The gateway did not start.
    Gateway(GatewayFailure),
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
            Self::Gateway(failure) => failure.exit_code(),
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
            Self::Client(E::Transport(_) | E::NoLeader { .. }) | Self::Unanswered { .. } => 4,
            Self::Interrupted => 130,
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
            Self::Unanswered { error, hint } => write!(f, "{error}; {hint}"),
            Self::Mount(error) => write!(f, "{error}"),
            Self::Restore(error) => write!(f, "{error}"),
            Self::Storage(error) => write!(f, "{error}"),
            Self::Segment(error) => write!(f, "{error}"),
            Self::Damaged { count } => write!(
                f,
                "damaged records or segments: {count}; they are never served, and fetched again when they are asked for"
            ),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Task(error) => write!(f, "a task did not come to its end: {error}"),
            Self::Input(error) => write!(f, "cannot read from standard input: {error}"),
            Self::Serve(failure) => write!(f, "{failure}"),
            Self::Gateway(failure) => write!(f, "{failure}"),
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
