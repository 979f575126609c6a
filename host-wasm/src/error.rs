//! What can go wrong, with a code for programs and words for people.

use core::fmt;

use kachet_core::wire::DecodeError;

use crate::records;

/// Why a call failed. The cache is as usable after it as it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The bytes of a request are not those of a Fetch request of a version that is spoken here.
    Request(DecodeError),
    /// The request is of another API than Fetch.
    NotAFetch {
        /// Its API key.
        api_key: i16,
    },
    /// What upstream answered is no Fetch response of the request's version.
    Response(DecodeError),
    /// What upstream answered belongs to another request.
    CorrelationId {
        /// Of the request.
        expected: i32,
        /// Of the response.
        found: i32,
    },
    /// A message is longer than the settings allow.
    TooLong {
        /// `request` or `response`.
        message: &'static str,
        /// How long it is, in bytes.
        size_bytes: usize,
        /// How long it may be, in bytes.
        limit_bytes: usize,
    },
    /// Records cannot be read.
    Records(records::Error),
    /// Bytes are no snapshot, or a damaged one.
    Snapshot {
        /// What would have been right.
        expected: &'static str,
    },
    /// A snapshot of a version that is not known here.
    SnapshotVersion {
        /// Its version.
        version: u8,
    },
    /// A snapshot of another cluster than that of the cache.
    SnapshotCluster,
    /// A plan was used up already.
    PlanIsSpent,
    /// An argument makes no sense.
    Argument {
        /// Which.
        name: &'static str,
        /// What would.
        expected: &'static str,
    },
}

impl Error {
    /// A word for programs, the same on every platform.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Request(_) => "MALFORMED_REQUEST",
            Self::NotAFetch { .. } => "NOT_A_FETCH",
            Self::Response(_) => "MALFORMED_RESPONSE",
            Self::CorrelationId { .. } => "CORRELATION_MISMATCH",
            Self::TooLong { .. } => "TOO_LONG",
            Self::Records(source) => source.code(),
            Self::Snapshot { .. } => "MALFORMED_SNAPSHOT",
            Self::SnapshotVersion { .. } => "SNAPSHOT_VERSION",
            Self::SnapshotCluster => "SNAPSHOT_CLUSTER",
            Self::PlanIsSpent => "PLAN_SPENT",
            Self::Argument { .. } => "INVALID_ARGUMENT",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(source) => write!(f, "the request is no Fetch request: {source}"),
            Self::NotAFetch { api_key } => {
                write!(
                    f,
                    "the request has the API key {api_key}, only Fetch (1) is cached"
                )
            }
            Self::Response(source) => write!(f, "upstream's answer is no Fetch response: {source}"),
            Self::CorrelationId { expected, found } => {
                write!(f, "upstream answered request {found}, this one is {expected}")
            }
            Self::TooLong {
                message,
                size_bytes,
                limit_bytes,
            } => {
                write!(
                    f,
                    "the {message} takes {size_bytes} bytes, the settings allow {limit_bytes}"
                )
            }
            Self::Records(source) => source.fmt(f),
            Self::Snapshot { expected } => write!(f, "this is no whole snapshot: {expected}"),
            Self::SnapshotVersion { version } => {
                write!(f, "the snapshot is of version {version}; take a new one")
            }
            Self::SnapshotCluster => f.write_str("the snapshot is of another cluster than the cache"),
            Self::PlanIsSpent => f.write_str("the plan was used already; make a new one"),
            Self::Argument { name, expected } => write!(f, "{name}: {expected}"),
        }
    }
}

impl core::error::Error for Error {}

impl From<records::Error> for Error {
    fn from(source: records::Error) -> Self {
        Self::Records(source)
    }
}
