//! What can go wrong, and how the program ends then.

use std::io;
use std::path::PathBuf;

use kachet_core::cache::RestoreError;
use kachet_core::storage::StorageError;
use kachet_core::wire::BatchError;
use kachet_core::wire::codec::CodecError;

/// What the program ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Something failed.
    Failed = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// What was asked for is not cached.
    NotCached = 3,
    /// It is known that there is no record at the offset.
    NoRecord = 4,
}

/// Why the program did not do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The arguments make no sense.
    #[error("{0}\nTry `--help`.")]
    Usage(String),
    /// A file or the folder cannot be used.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no such folder.
    #[error(
        "there is no folder {}; a WASI runtime gives one, such as `wasmtime run --dir HERE::{}`", path.display(), path.display()
    )]
    NoFolder {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Nothing was absorbed into the folder yet.
    #[error("{} is no mount point; `absorb` makes one of an empty folder", path.display())]
    NotAMount {
        /// The folder.
        path: PathBuf,
    },
    /// The folder is somebody else's.
    #[error("{} holds {found} and is no mount point; give an empty folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// What lies in it.
        found: String,
    },
    /// The file that makes the folder a mount point is of another format, or damaged.
    #[error("{} cannot be used: {why}", path.display())]
    Superblock {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another program changes the folder.
    #[error(
        "another program writes to the folder, or was stopped while it did: remove {} if none does", path.display()
    )]
    Locked {
        /// The file that says so.
        path: PathBuf,
    },
    /// A file is longer than anything that is read here.
    #[error("{} has more than {limit_bytes} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// What would be read, in bytes.
        limit_bytes: u64,
    },
    /// A message is not Kafka's, or not one that is understood.
    #[error("{}: {source}", path.display())]
    Message {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: kachet_wasm::Error,
    },
    /// A request names topics by name.
    #[error("{}: Fetch of version {version} names topics by name, and which topic that was is not known; 13 and later name ids", path.display())]
    ByName {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i16,
    },
    /// The request cannot be made.
    #[error("the request cannot be made: {0}")]
    Request(kachet_wasm::Error),
    /// What the folder holds cannot be taken over.
    #[error("the folder cannot be read: {0}")]
    Restore(RestoreError),
    /// A segment was not written or not removed.
    #[error("what was absorbed is not all in the folder: {0}")]
    Storage(StorageError),
    /// What was asked for is not cached.
    #[error("{0} is not cached")]
    NotCached(String),
    /// It is known that there is no record there.
    #[error(
        "there is no record at offset {offset}: the cleaner has taken it, or a transaction's marker stands there"
    )]
    NoRecord {
        /// The offset.
        offset: i64,
    },
    /// The broker answered with an error.
    #[error("partition {partition}: the broker answered with error {error_code}")]
    Broker {
        /// The partition, −1 if the error is of the whole response.
        partition: i32,
        /// Kafka's code of it.
        error_code: i16,
    },
    /// A batch is not what Kafka writes.
    #[error("partition {partition}: {source}")]
    Batch {
        /// The partition.
        partition: i32,
        /// What is wrong.
        source: BatchError,
    },
    /// A batch cannot be decompressed.
    #[error("partition {partition}, batch at offset {base_offset}: {source}")]
    Codec {
        /// The partition.
        partition: i32,
        /// The first offset of the batch.
        base_offset: i64,
        /// What is wrong.
        source: CodecError,
    },
    /// What was to be printed was not taken.
    #[error("cannot write to stdout: {0}")]
    Output(io::Error),
}

impl Error {
    /// What the program ends with.
    pub fn status(&self) -> Status {
        match self {
            Self::Usage(_) => Status::Usage,
            Self::NotCached(_) => Status::NotCached,
            Self::NoRecord { .. } => Status::NoRecord,
            _ => Status::Failed,
        }
    }

    pub(crate) fn of_io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}
