//! What a folder is, and what lies in it: nothing is changed before it is known to be a mount point, or empty.

use std::fs::DirBuilder;
use std::io;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::error::MountError;
use super::files;
use super::lock::{self, Lock};
use super::names::{Named, SUPERBLOCK};
use super::superblock::{self, SUPERBLOCK_BYTES, Superblock};

/// How many paths a list of [`Opened`] names at most.
const NAMED_MAX: usize = 32;

/// What was found when a mount point was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// Whether there was none before.
    pub is_new: bool,
    /// What lies in the folder and is not the mount point's: left alone. The first 32 that were met.
    pub stray: Vec<PathBuf>,
    /// How much of that there is.
    pub stray_count: u64,
    /// What a crash had left half written and was removed. The first 32 that were met.
    pub cleaned: Vec<PathBuf>,
}

/// A folder that is a mount point, locked.
pub(super) struct Locked {
    pub(super) folder: PathBuf,
    pub(super) lock: Lock,
    pub(super) opened: Opened,
}

/// Makes sure that `path` is a mount point and nobody else's, and tidies it up.
pub(super) fn open(path: &Path) -> Result<Locked, MountError> {
    create(path)?;
    // So that a process that goes to another folder finds it still.
    let folder = path
        .canonicalize()
        .map_err(|source| MountError::of_io("finding", path, source))?;
    let is_known = check(&folder)?;
    let lock = lock::take(&folder)?;
    // Somebody may have made it one, or put something there, before the lock was taken.
    let is_known = check(&folder)? || is_known;
    if !is_known {
        files::replace(&folder, SUPERBLOCK, &[&superblock::encode()])?;
        info!(path = %folder.display(), "made a mount point");
    }
    let mut opened = look(&folder, true)?;
    opened.is_new = !is_known;
    Ok(Locked { folder, lock, opened })
}

/// Makes sure that `path` is a mount point already and nobody else's, and changes nothing in it.
pub(super) fn open_existing(path: &Path) -> Result<Locked, MountError> {
    let none = |why| MountError::NoMount {
        path: path.to_owned(),
        why,
    };
    let folder = path.canonicalize().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => none("there is no such folder"),
        _ => MountError::of_io("finding", path, source),
    })?;
    if !folder.is_dir() {
        return Err(none("it is not a folder"));
    }
    if !check(&folder)? {
        return Err(none("the folder is empty"));
    }
    let lock = lock::take(&folder)?;
    let opened = look(&folder, false)?;
    Ok(Locked { folder, lock, opened })
}

fn create(path: &Path) -> Result<(), MountError> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        is_created(parent, std::fs::create_dir_all(parent))?;
    }
    #[cfg_attr(not(unix), expect(unused_mut, reason = "only Unix has modes"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    is_created(path, builder.create(path))
}

/// A folder that was there already is as good as one that was created.
fn is_created(path: &Path, created: io::Result<()>) -> Result<(), MountError> {
    match created {
        Err(_) if path.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(MountError::NotAFolder {
            path: path.to_owned(),
        }),
        Err(error) => Err(MountError::of_io("creating", path, error)),
        Ok(()) => Ok(()),
    }
}

/// Whether the folder is a mount point; if not, it holds nothing.
fn check(folder: &Path) -> Result<bool, MountError> {
    let path = folder.join(SUPERBLOCK);
    let Some(bytes) = files::read_bounded(&path, SUPERBLOCK_BYTES as u64)? else {
        return match first_of_others(folder)? {
            None => Ok(false),
            Some(found) => Err(MountError::NotAMount {
                path: folder.to_owned(),
                found,
            }),
        };
    };
    match superblock::decode(&bytes) {
        Superblock::Known => Ok(true),
        Superblock::Newer(version) => Err(MountError::Newer {
            path: folder.to_owned(),
            version,
            supported: superblock::VERSION,
        }),
        Superblock::Damaged(why) => Err(MountError::DamagedSuperblock { path, why }),
    }
}

/// Something that would not lie in a mount point that is just being made.
fn first_of_others(folder: &Path) -> Result<Option<PathBuf>, MountError> {
    for entry in entries(folder)? {
        let entry = entry?;
        let is_of_the_making = entry.is_file && matches!(entry.named, Some(Named::Lock | Named::Temporary));
        if !is_of_the_making {
            return Ok(Some(entry.path.file_name().unwrap_or_default().into()));
        }
    }
    Ok(None)
}

/// Something that lies in the folder.
pub(super) struct Entry {
    pub(super) path: PathBuf,
    /// What it is by its name.
    pub(super) named: Option<Named>,
    /// Whether it is a regular file; a link is none.
    pub(super) is_file: bool,
    pub(super) size_bytes: u64,
}

/// All that lies in the folder. What cannot be looked at is left out, and hides nothing else.
pub(super) fn entries(
    folder: &Path,
) -> Result<impl Iterator<Item = Result<Entry, MountError>> + use<'_>, MountError> {
    let failed = |source| MountError::of_io("listing", folder, source);
    let listed = std::fs::read_dir(folder).map_err(failed)?;
    Ok(listed.filter_map(move |entry| {
        let entry = match entry {
            Ok(entry) => entry,
            // The list ends here, and would not be whole.
            Err(error) => return Some(Err(failed(error))),
        };
        // Of the link, not of what it leads to.
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    warn!(path = %entry.path().display(), %error, "cannot look at a file of the mount point");
                }
                return None;
            }
        };
        Some(Ok(Entry {
            named: Named::parse(&entry.file_name()),
            path: entry.path(),
            is_file: metadata.is_file(),
            size_bytes: metadata.len(),
        }))
    }))
}

/// Says what is not ours, and removes what a crash left half written if it is `tidied`.
fn look(folder: &Path, tidied: bool) -> Result<Opened, MountError> {
    let mut opened = Opened::default();
    for entry in entries(folder)? {
        let Entry {
            path, named, is_file, ..
        } = entry?;
        match named {
            Some(Named::Temporary) if is_file && tidied => match std::fs::remove_file(&path) {
                Ok(()) => note_down(&mut opened.cleaned, path),
                Err(error) => {
                    warn!(path = %path.display(), %error, "cannot remove what a crash left half written");
                }
            },
            Some(_) if is_file => {}
            _ => {
                opened.stray_count += 1;
                note_down(&mut opened.stray, path);
            }
        }
    }
    if let Some(first) = opened.stray.first() {
        warn!(
            path = %folder.display(), count = opened.stray_count, first = %first.display(),
            "the mount point holds what is not its own; it is left alone"
        );
    }
    Ok(opened)
}

fn note_down(paths: &mut Vec<PathBuf>, path: PathBuf) {
    if paths.len() < NAMED_MAX {
        paths.push(path);
    }
}
