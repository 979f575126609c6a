//! Small documents of the cache beside its segments, such as what topics and brokers are called.
//!
//! A note begins with 24 bytes, numbers in network order: eight of magic, the version, the CRC-32C of what follows the
//! 24 bytes, and how much that is.

use core::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tracing::warn;

use super::blocking::off_the_runtime;
use super::error::MountError;
use super::folder::entries;
use super::names::{Named, note_file};
use super::{Shared, files};
use crate::cache::Notebook;

/// What a note may hold at most, in bytes.
pub const NOTE_BYTES_MAX: u64 = 64 << 20;
const MAGIC: [u8; 8] = *b"KACHETNT";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;

/// The notes of a mount point. Clones are cheap; the mount point stays locked while one lives, and its segments can be
/// worked with at the same time.
#[derive(Clone, Debug)]
pub struct MountNotes {
    pub(super) shared: Arc<Shared>,
}

impl MountNotes {
    /// Puts a note in the place of what there is under this name, of one to 32 of `a` to `z` and hyphens. After a crash
    /// either all of the new one is there or all of the old.
    pub async fn write(&self, name: &str, bytes: Bytes) -> Result<(), MountError> {
        let (file, path) = self.place(name)?;
        let shared = Arc::clone(&self.shared);
        let written = off_the_runtime(move || shared.write_note(&file, &bytes)).await;
        written.unwrap_or_else(|source| Err(MountError::of_io("writing", &path, source)))
    }

    /// A note; `None` if there is none, or if it is damaged, of which a warning tells.
    pub async fn read(&self, name: &str) -> Result<Option<Bytes>, MountError> {
        let (_, path) = self.place(name)?;
        let read = {
            let path = path.clone();
            off_the_runtime(move || files::read_bounded(&path, NOTE_BYTES_MAX + HEADER_BYTES as u64)).await
        };
        let read = read.unwrap_or_else(|source| Err(MountError::of_io("reading", &path, source)));
        Ok(read?.and_then(|bytes| match decode(bytes) {
            Ok(note) => Some(note),
            Err(why) => {
                warn!(path = %path.display(), why, "a note is damaged; it is as good as none");
                None
            }
        }))
    }

    /// The names of all notes, in order.
    pub async fn list(&self) -> Result<Vec<String>, MountError> {
        let shared = Arc::clone(&self.shared);
        let listed = off_the_runtime(move || list(&shared.folder)).await;
        listed.unwrap_or_else(|source| Err(MountError::of_io("listing", &self.shared.folder, source)))
    }

    /// Removes a note. One that is not there is no error.
    pub async fn remove(&self, name: &str) -> Result<(), MountError> {
        let (_, path) = self.place(name)?;
        let removed = {
            let path = path.clone();
            off_the_runtime(move || std::fs::remove_file(path))
                .await
                .flatten()
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(MountError::of_io("removing", &path, error))
            }
            _ => Ok(()),
        }
    }

    fn place(&self, name: &str) -> Result<(String, PathBuf), MountError> {
        let file = note_file(name).ok_or_else(|| MountError::NoteName {
            name: name.to_owned(),
        })?;
        let path = self.shared.folder.join(&file);
        Ok((file, path))
    }
}

/// The name of the note in which a cache keeps what its cluster says of itself.
const CATALOGUE: &str = "catalogue";

impl Notebook for MountNotes {
    fn read(&self) -> BoxFuture<'_, Option<Bytes>> {
        let read = async {
            Self::read(self, CATALOGUE).await.unwrap_or_else(|error| {
                warn!(%error, "what the cluster said of itself cannot be read");
                None
            })
        };
        read.boxed()
    }

    fn write(&self, note: Bytes) -> BoxFuture<'_, Result<(), Box<dyn Error + Send + Sync>>> {
        let written = async { Self::write(self, CATALOGUE, note).await.map_err(Into::into) };
        written.boxed()
    }
}

impl Shared {
    fn write_note(&self, file: &str, bytes: &[u8]) -> Result<(), MountError> {
        let size_bytes = bytes.len() as u64;
        if size_bytes > NOTE_BYTES_MAX {
            return Err(MountError::NoteTooLarge {
                path: self.folder.join(file),
                size_bytes,
                limit_bytes: NOTE_BYTES_MAX,
            });
        }
        // One at a time: two would write behind the same name.
        let _turn = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        files::replace(&self.folder, file, &[&header(bytes), bytes])
    }
}

fn list(folder: &Path) -> Result<Vec<String>, MountError> {
    let mut names = Vec::new();
    for entry in entries(folder)? {
        let entry = entry?;
        if let (Some(Named::Note), true, Some(stem)) = (entry.named, entry.is_file, entry.path.file_stem()) {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn header(note: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_be_bytes());
    header[12..16].copy_from_slice(&crc32c::crc32c(note).to_be_bytes());
    header[16..].copy_from_slice(&(note.len() as u64).to_be_bytes());
    header
}

fn decode(bytes: Vec<u8>) -> Result<Bytes, &'static str> {
    let bytes = Bytes::from(bytes);
    if bytes.len() < HEADER_BYTES {
        return Err("it is shorter than its header");
    }
    let note = bytes.slice(HEADER_BYTES..);
    if bytes.get(..HEADER_BYTES) != Some(&header(&note)) {
        return Err("it is of another version, or not what was written");
    }
    Ok(note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_flipped_cut_or_added_a_damaged_note_is_none() {
        let note = b"what topics are called";
        let whole = [&header(note)[..], note].concat();
        assert_eq!(decode(whole.clone()), Ok(Bytes::from_static(note)));
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(bytes).is_err(), "bit {bit}");
        }
        for length in 0..whole.len() {
            assert!(decode(whole[..length].to_vec()).is_err(), "{length} bytes");
        }
        assert!(decode([&whole[..], b"x"].concat()).is_err());
    }
}
