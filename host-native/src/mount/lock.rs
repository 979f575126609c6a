//! One process at a time has a mount point open: the system lets go of the lock when the process ends, however it ends.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::warn;

use super::error::{Holder, MountError};
use super::files::private;
use super::names::LOCK;

/// What the lock file holds, in bytes: always as many, so that writing it anew takes no room on a full medium.
const CONTENT_BYTES: usize = 512;
const PROGRAM_BYTES_MAX: usize = 200;

/// A lock that is held.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // To close the file is not enough: a process that this one is just starting holds it open for a moment, too.
        let _ = self.0.unlock();
    }
}

/// Takes the lock.
pub(super) fn take(folder: &Path) -> Result<Lock, MountError> {
    let path = folder.join(LOCK);
    let opened = private().read(true).write(true).create(true).open(&path);
    let mut file = opened.map_err(|source| MountError::of_io("opening", &path, source))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(MountError::Locked {
                path: folder.to_owned(),
                holder: read(&mut file),
            });
        }
        Err(TryLockError::Error(source)) => return Err(MountError::of_io("locking", &path, source)),
    }
    // Whom it names helps people; what keeps others out is the lock.
    if let Err(error) = write(&mut file) {
        warn!(path = %path.display(), %error, "cannot note down who has the mount point open");
    }
    Ok(Lock(file))
}

fn write(file: &mut File) -> std::io::Result<()> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut content = format!(
        "pid {}\nsince {}\nprogram {}\n",
        std::process::id(),
        since.as_secs(),
        program()
    );
    content.extend(core::iter::repeat_n(
        '\n',
        CONTENT_BYTES.saturating_sub(content.len()),
    ));
    file.rewind()?;
    file.write_all(content.as_bytes())
}

fn program() -> String {
    let path = std::env::current_exe().ok();
    let name = path.as_deref().and_then(Path::file_name).unwrap_or_default();
    let name = name.to_string_lossy();
    let mut program = String::new();
    for letter in name.chars().filter(|letter| !letter.is_control()) {
        if program.len() + letter.len_utf8() > PROGRAM_BYTES_MAX {
            break;
        }
        program.push(letter);
    }
    program
}

fn read(file: &mut File) -> Option<Holder> {
    file.rewind().ok()?;
    let mut content = Vec::new();
    file.take(CONTENT_BYTES as u64).read_to_end(&mut content).ok()?;
    parse(core::str::from_utf8(&content).ok()?)
}

fn parse(content: &str) -> Option<Holder> {
    let mut lines = content.lines();
    let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let pid = value("pid")?.parse().ok()?;
    let since = Duration::from_secs(value("since")?.parse().ok()?);
    Some(Holder {
        pid,
        program: value("program")?.to_owned(),
        since: UNIX_EPOCH.checked_add(since)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_cannot_be_read_is_unknown_and_nothing_panics() {
        let holder = parse("pid 7\nsince 12\nprogram a b\n\n\n").unwrap();
        assert_eq!((holder.pid, holder.program.as_str()), (7, "a b"));
        for content in [
            "",
            "pid",
            "pid x\nsince 1\nprogram a",
            "pid 7\nsince 99999999999999999999\n",
            "pid 7\nsince 18446744073709551615\nprogram a",
        ] {
            assert_eq!(parse(content), None, "{content:?}");
        }
    }
}
