//! Segments as files: what [`Storage`](kachet_core::storage::Storage) asks for, done at once and in order.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kachet_core::storage::{Operation, SegmentId, StorageError, StorageErrorKind, StoredSegment};

use super::error::{MountError, is_no_room};
use super::folder::entries;
use super::names::{Named, segment_file};
use super::reader::MountReader;
use super::{MountOptions, ReadMode, files};

/// The segments of a mount point. What is not in `written` is sealed, or was left behind by a crash, and is not
/// appended to any more.
#[derive(Debug)]
pub(super) struct Segments {
    folder: PathBuf,
    options: MountOptions,
    written: HashMap<SegmentId, Written>,
}

/// A segment that is not sealed.
#[derive(Debug)]
struct Written {
    file: File,
    /// What has been appended. More may lie in the file, of an append that failed.
    size_bytes: u64,
    /// Whether more may lie there.
    has_torn_tail: bool,
}

impl Segments {
    pub(super) fn new(folder: PathBuf, options: MountOptions) -> Self {
        Self {
            folder,
            options,
            written: HashMap::new(),
        }
    }

    fn path(&self, segment: SegmentId) -> PathBuf {
        self.folder.join(segment_file(segment))
    }

    pub(super) fn list(&self) -> Result<Vec<StoredSegment>, StorageError> {
        let failed = |error: MountError| StorageError {
            operation: Operation::List,
            segment: None,
            kind: StorageErrorKind::Medium(error.to_string()),
        };
        let mut stored = Vec::new();
        for entry in entries(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if let (Some(Named::Segment(id)), true) = (entry.named, entry.is_file) {
                let appended = self.written.get(&id).map(|written| written.size_bytes);
                let size_bytes = appended.unwrap_or(entry.size_bytes);
                stored.push(StoredSegment { id, size_bytes });
            }
        }
        Ok(stored)
    }

    pub(super) fn create(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        let path = self.path(segment);
        let created = files::private()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = created.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => failed(Operation::Create, segment, StorageErrorKind::Exists),
            _ => of_io(Operation::Create, segment, &path, &error),
        })?;
        let empty = Written {
            file,
            size_bytes: 0,
            has_torn_tail: false,
        };
        self.written.insert(segment, empty);
        Ok(())
    }

    /// Appends all pieces, or nothing: after a failure the segment is what it was before.
    pub(super) fn append(&mut self, segment: SegmentId, pieces: &[Bytes]) -> Result<(), StorageError> {
        let path = self.path(segment);
        let Some(written) = self.written.get_mut(&segment) else {
            let kind = match files::is_regular(&path) {
                Ok(true) => StorageErrorKind::Sealed,
                Ok(false) => StorageErrorKind::NotFound,
                Err(error) => return Err(of_io(Operation::Append, segment, &path, &error)),
            };
            return Err(failed(Operation::Append, segment, kind));
        };
        written
            .append(pieces)
            .map_err(|error| of_io(Operation::Append, segment, &path, &error))
    }

    pub(super) fn seal(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        let path = self.path(segment);
        let of_io = |error: io::Error| of_io(Operation::Seal, segment, &path, &error);
        let Some(written) = self.written.get_mut(&segment) else {
            return match files::is_regular(&path) {
                Ok(true) => Ok(()),
                Ok(false) => Err(failed(Operation::Seal, segment, StorageErrorKind::NotFound)),
                Err(error) => Err(of_io(error)),
            };
        };
        written.cut_torn_tail().map_err(of_io)?;
        if self.options.sync_on_seal {
            written.file.sync_all().map_err(of_io)?;
            files::sync_folder(&self.folder).map_err(of_io)?;
        }
        self.written.remove(&segment);
        Ok(())
    }

    pub(super) fn open(&self, segment: SegmentId) -> Result<MountReader, StorageError> {
        if let Some(opened) = self.open_unsealed(segment) {
            return opened;
        }
        let path = self.path(segment);
        let opened = files::open_regular(&path);
        let (file, size_bytes) = opened.map_err(|error| of_io(Operation::Open, segment, &path, &error))?;
        let is_mapped = self.options.read_mode == ReadMode::Mapped;
        Ok(MountReader::new(segment, file, size_bytes, is_mapped))
    }

    /// A reader of a segment whose file is open because it is being written; touches no medium.
    pub(super) fn open_unsealed(&self, segment: SegmentId) -> Option<Result<MountReader, StorageError>> {
        let written = self.written.get(&segment)?;
        let opened = written
            .file
            .metadata()
            .and_then(|file| Ok((file.len(), written.file.try_clone()?)));
        let path = || self.path(segment);
        Some(match opened {
            Err(error) => Err(of_io(Operation::Open, segment, &path(), &error)),
            Ok((size_bytes, _)) if size_bytes < written.size_bytes => {
                let words = format!("{} is shorter than what was appended to it", path().display());
                Err(failed(Operation::Open, segment, StorageErrorKind::Medium(words)))
            }
            // Not mapped, because the file may yet be cut where an append breaks off.
            Ok((_, file)) => Ok(MountReader::new(segment, file, written.size_bytes, false)),
        })
    }

    pub(super) fn remove(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        let path = self.path(segment);
        // A link or a folder of this name is somebody else's.
        let removed = match files::is_regular(&path) {
            Ok(true) => std::fs::remove_file(&path),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(of_io(Operation::Remove, segment, &path, &error))
            }
            _ => {
                self.written.remove(&segment);
                Ok(())
            }
        }
    }
}

impl Written {
    fn append(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        // Otherwise a shorter append would leave a part of the torn one behind itself.
        self.cut_torn_tail()?;
        let appended_bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let size_bytes = self.size_bytes.checked_add(appended_bytes);
        let size_bytes = size_bytes.ok_or(io::ErrorKind::FileTooLarge)?;
        self.has_torn_tail = true;
        self.file.seek(SeekFrom::Start(self.size_bytes))?;
        if let Err(error) = write_all(&mut self.file, pieces) {
            // Tried at once, because what is left takes room; tried again before anything else is written.
            let _ = self.cut_torn_tail();
            return Err(error);
        }
        self.size_bytes = size_bytes;
        self.has_torn_tail = false;
        Ok(())
    }

    /// Nobody has the file mapped: only what is sealed is.
    fn cut_torn_tail(&mut self) -> io::Result<()> {
        if self.has_torn_tail {
            self.file.set_len(self.size_bytes)?;
            self.has_torn_tail = false;
        }
        Ok(())
    }
}

/// Writes the pieces as they lie, many in one call. How many a call takes at most the standard library knows.
fn write_all(file: &mut impl Write, pieces: &[Bytes]) -> io::Result<()> {
    let slices = pieces.iter().filter(|piece| !piece.is_empty());
    let mut slices: Vec<IoSlice<'_>> = slices.map(|piece| IoSlice::new(piece)).collect();
    let mut left = slices.as_mut_slice();
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(super) fn failed(operation: Operation, segment: SegmentId, kind: StorageErrorKind) -> StorageError {
    StorageError {
        operation,
        segment: Some(segment),
        kind,
    }
}

fn of_io(operation: Operation, segment: SegmentId, path: &Path, error: &io::Error) -> StorageError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound if operation == Operation::Open => StorageErrorKind::NotFound,
        kind if is_no_room(kind) => StorageErrorKind::Full,
        _ => StorageErrorKind::Medium(format!("{}: {error}", path.display())),
    };
    failed(operation, segment, kind)
}

#[cfg(test)]
mod tests;
