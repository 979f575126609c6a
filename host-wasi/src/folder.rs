//! What makes a folder a mount point, and who may change it.
//!
//! The file `kachet.superblock` says that a folder is one: eight bytes of magic, the version of the format and the CRC-32C of
//! these twelve, numbers in network order.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use kachet_core::wire::Crc32c;

use crate::error::Error;
use crate::segments::Access;

const SUPERBLOCK: &str = "kachet.superblock";
const MAGIC: &[u8; 8] = b"KACHETMT";
const VERSION: u32 = 1;
const SUPERBLOCK_BYTES: u64 = 16;
/// Is there while somebody changes the folder: WASI knows no locks of files.
const LOCK: &str = "kachet-wasi.lock";
/// The native host's lock, which may stand in a folder that is just being made a mount point.
const NATIVE_LOCK: &str = "kachet.lock";

/// A mount point. Nobody else of this kind changes it while it is open to be changed.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    lock: Option<PathBuf>,
}

impl Folder {
    /// Opens a mount point; an empty folder becomes one if it may be changed.
    pub fn open(path: &Path, access: Access) -> Result<Self, Error> {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(Error::NoFolder { path: path.into() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoFolder { path: path.into() });
            }
            Err(error) => return Err(Error::of_io("cannot look at", path)(error)),
        }
        let is_mount = check(path)?;
        let mut folder = Self {
            path: path.into(),
            lock: None,
        };
        match access {
            Access::Read if is_mount => {}
            Access::Read => return Err(Error::NotAMount { path: path.into() }),
            Access::Change => {
                folder.lock = Some(lock(path)?);
                if !is_mount {
                    make(path)?;
                }
            }
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(lock) = &self.lock {
            // If it stays, the next one says what to do.
            let _ = fs::remove_file(lock);
        }
    }
}

fn lock(folder: &Path) -> Result<PathBuf, Error> {
    let path = folder.join(LOCK);
    match File::create_new(&path) {
        Ok(_) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::Locked { path }),
        Err(error) => Err(Error::of_io("cannot create", path)(error)),
    }
}

/// Whether the folder is a mount point; if not, it holds nothing.
fn check(folder: &Path) -> Result<bool, Error> {
    let path = folder.join(SUPERBLOCK);
    let mut bytes = Vec::new();
    match File::open(&path) {
        Ok(file) => {
            let read = file.take(SUPERBLOCK_BYTES + 1).read_to_end(&mut bytes);
            read.map_err(Error::of_io("cannot read", &path))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match first_of_others(folder)? {
                None => Ok(false),
                Some(found) => Err(Error::NotEmpty {
                    path: folder.into(),
                    found,
                }),
            };
        }
        Err(error) => return Err(Error::of_io("cannot open", path)(error)),
    }
    match unusable(&bytes) {
        None => Ok(true),
        Some(why) => Err(Error::Superblock { path, why }),
    }
}

/// Why a superblock cannot be used.
fn unusable(bytes: &[u8]) -> Option<String> {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else {
        return Some("it is cut off".to_owned());
    };
    let (checked, checksum) = head.split_at(12);
    let Some(version) = checked.strip_prefix(MAGIC) else {
        return Some("it does not begin as one of Kachet's does".to_owned());
    };
    if Crc32c::PORTABLE.of(checked).to_be_bytes() != *checksum {
        return Some("its checksum is wrong".to_owned());
    }
    let version = version.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    if version != VERSION {
        return Some(format!("it is of format {version}, only {VERSION} is known here"));
    }
    (!rest.is_empty()).then(|| "it is too long".to_owned())
}

fn superblock() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_be_bytes());
    bytes.extend(Crc32c::PORTABLE.of(&bytes).to_be_bytes());
    bytes
}

fn make(folder: &Path) -> Result<(), Error> {
    let path = folder.join(SUPERBLOCK);
    // Whole or not at all.
    let temporary = folder.join(format!("{SUPERBLOCK}.tmp"));
    let written = File::create(&temporary).and_then(|mut file| file.write_all(&superblock()));
    written.map_err(Error::of_io("cannot write", &temporary))?;
    fs::rename(&temporary, &path).map_err(Error::of_io("cannot make", path))
}

fn first_of_others(folder: &Path) -> Result<Option<String>, Error> {
    let listed = fs::read_dir(folder).map_err(Error::of_io("cannot list", folder))?;
    for entry in listed {
        let name = entry.map_err(Error::of_io("cannot list", folder))?.file_name();
        let name = name.to_string_lossy();
        let is_of_the_making = [LOCK, NATIVE_LOCK].contains(&&*name) || name == format!("{SUPERBLOCK}.tmp");
        if !is_of_the_making {
            return Ok(Some(name.into_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whichever_bit_of_a_superblock_is_flipped_it_cannot_be_used() {
        assert_eq!(unusable(&superblock()), None);
        for bit in 0..128 {
            let mut bytes = superblock();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(unusable(&bytes).is_some(), "bit {bit}");
        }
        for length in 0..16 {
            assert!(unusable(&superblock()[..length]).is_some());
        }
        assert!(unusable(&[&superblock()[..], &[0]].concat()).is_some());
    }

    #[test]
    fn one_of_a_later_format_says_which() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(7_u32.to_be_bytes());
        bytes.extend(Crc32c::PORTABLE.of(&bytes).to_be_bytes());
        assert!(unusable(&bytes).unwrap().contains("format 7"));
    }
}
