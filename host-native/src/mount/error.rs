//! Why a folder cannot be used as a mount point.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A mount point could not be opened, or a note in it not be written or read. Every variant names the path; what was
/// refused was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// Somebody has it open: another process, or this one already.
    #[error("{} is in use by {}; stop that, or give this one a folder of its own", .path.display(), holder_words(.holder.as_ref()))]
    Locked {
        /// The mount point.
        path: PathBuf,
        /// Who has it open, by their own account; `None` if they have not written it yet.
        holder: Option<Holder>,
    },
    /// The folder holds something, and nothing says that it is a mount point.
    #[error("{} is no mount point of Kachet, and not empty: it holds {}; name an empty folder, or one that does not exist yet", .path.display(), .found.display())]
    NotAMount {
        /// The folder.
        path: PathBuf,
        /// Something that lies in it, by name.
        found: PathBuf,
    },
    /// There is no mount point, where one was to be there already.
    #[error("{} is no mount point of Kachet: {why}", .path.display())]
    NoMount {
        /// What is none.
        path: PathBuf,
        /// Why it is none.
        why: &'static str,
    },
    /// It is not a folder.
    #[error("{} is not a folder; name an empty folder, or one that does not exist yet", .path.display())]
    NotAFolder {
        /// What is none.
        path: PathBuf,
    },
    /// A later release of Kachet made it.
    #[error("{} was made by a later release of Kachet: its format is {version}, this release reads up to {supported}; update Kachet, or name another folder", .path.display())]
    Newer {
        /// The mount point.
        path: PathBuf,
        /// Its format.
        version: u32,
        /// The newest format that is understood here.
        supported: u32,
    },
    /// The file that says what the folder is does not hold what was written.
    #[error("{} is damaged: {why}; if nothing but a cache lies in its folder, empty the folder", .path.display())]
    DamagedSuperblock {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It cannot be written to, for want of permission or because the file system is mounted read-only.
    #[error("{} cannot be written to ({source}); a cache has to write, so mend its permissions or name another folder", .path.display())]
    ReadOnly {
        /// What cannot be written to.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The medium has no room left for the little that is written here.
    #[error("no room is left for {} ({source}); make room, or name another folder", .path.display())]
    NoRoom {
        /// What had no room.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A note's name is not of one to 32 small letters and hyphens.
    #[error("{name:?} is no name of a note; one to 32 of a to z and hyphens are")]
    NoteName {
        /// The name.
        name: String,
    },
    /// A note is too large.
    #[error("{size_bytes} bytes are too many for the note {}; {limit_bytes} are the most", .path.display())]
    NoteTooLarge {
        /// Where it would be.
        path: PathBuf,
        /// What was to be written, in bytes.
        size_bytes: u64,
        /// The most, in bytes.
        limit_bytes: u64,
    },
    /// The operating system failed at something else.
    #[error("{operation} {} failed: {source}", .path.display())]
    Io {
        /// On what.
        path: PathBuf,
        /// What was tried, such as `reading`.
        operation: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}

impl MountError {
    /// What an error of the operating system means here.
    pub(super) fn of_io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Self::ReadOnly { path, source }
            }
            kind if is_no_room(kind) => Self::NoRoom { path, source },
            io::ErrorKind::NotADirectory => Self::NotAFolder { path },
            _ => Self::Io {
                path,
                operation,
                source,
            },
        }
    }
}

/// Whether the medium, or what one user may take of it, is used up.
pub(super) fn is_no_room(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Who has a mount point open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The number of the process.
    pub pid: u32,
    /// The name of its program.
    pub program: String,
    /// When it opened the mount point, to the second.
    pub since: SystemTime,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, program, since } = self;
        let seconds = since.elapsed().unwrap_or_default().as_secs();
        write!(f, "process {pid} ({program}), which opened it {seconds} s ago")
    }
}

fn holder_words(holder: Option<&Holder>) -> String {
    holder.map_or_else(
        || "a process that is just opening it".to_owned(),
        Holder::to_string,
    )
}
