//! Files as a mount point wants them: private, regular, never reached through a link, and replaced as a whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use super::error::MountError;
use super::names::temporary_file;

/// Options under which a file that is created is its owner's alone, and a link is not followed. A pipe in the place of
/// a file holds nobody up.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    options
}

/// Opens a file to read; anything but a regular file is as good as none.
pub(super) fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    let not_found = || io::Error::from(io::ErrorKind::NotFound);
    // Looked at first, because to open a device may do something.
    if !is_regular(path)? {
        return Err(not_found());
    }
    let file = private().read(true).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(not_found());
    }
    Ok((file, metadata.len()))
}

/// Whether a regular file lies there, and no link to one.
pub(super) fn is_regular(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_file()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// All of a file, but no more than `limit_bytes` and one; `None` where there is none.
pub(super) fn read_bounded(path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>, MountError> {
    let failed = |source| MountError::of_io("reading", path, source);
    let file = match open_regular(path) {
        Ok((file, _)) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    let read = file.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(failed)?;
    Ok(Some(bytes))
}

/// Puts a file of these pieces in the place of what there is under this name: after a crash, of this process or of the
/// machine, either all of the one or all of the other is there.
pub(super) fn replace(folder: &Path, file: &str, pieces: &[&[u8]]) -> Result<(), MountError> {
    let temporary = folder.join(temporary_file(file));
    let path = folder.join(file);
    let written = write_new(&temporary, pieces).and_then(|()| std::fs::rename(&temporary, &path));
    if let Err(error) = written {
        // What is left of it would be cleaned at the next start.
        let _ = std::fs::remove_file(&temporary);
        return Err(MountError::of_io("writing", &path, error));
    }
    sync_folder(folder).map_err(|source| MountError::of_io("writing down the names in", folder, source))
}

fn write_new(path: &Path, pieces: &[&[u8]]) -> io::Result<()> {
    let mut file = private().write(true).create(true).truncate(true).open(path)?;
    for piece in pieces {
        file.write_all(piece)?;
    }
    file.sync_all()
}

/// Has the names in a folder reach the medium, where the system can.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
