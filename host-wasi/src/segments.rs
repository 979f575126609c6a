//! Segments as files of one folder, by the names that mount points give them. Everything is done at once: there is nobody to
//! wait for.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kachet_core::storage::{
    Operation, SegmentId, SegmentReader, Storage, StorageError, StorageErrorKind, StoredSegment,
};

const SUFFIX: &str = ".segment";
const DIGITS: usize = 16;

/// What is done with a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is only read. What cannot be read of it is left there.
    Read,
    /// It is changed.
    Change,
}

/// A [`Storage`] whose segments are the files of a folder. Other files are left alone.
#[derive(Debug)]
pub struct FolderStorage {
    folder: PathBuf,
    access: Access,
    /// Segments that are not sealed. Any other was written by an earlier program.
    growing: HashMap<SegmentId, Growing>,
}

#[derive(Debug)]
struct Growing {
    file: File,
    /// What was appended. Behind it may lie what an append that failed has left.
    size_bytes: u64,
}

/// Reads a segment. The file stays open, so that removing it takes nothing away.
#[derive(Clone, Debug)]
pub struct FileReader {
    segment: SegmentId,
    size_bytes: u64,
    /// WASI on stable Rust has no reads that say where, so readers take turns.
    file: Arc<Mutex<File>>,
}

impl FolderStorage {
    /// The segments of a folder.
    pub fn new(folder: impl Into<PathBuf>, access: Access) -> Self {
        Self {
            folder: folder.into(),
            access,
            growing: HashMap::new(),
        }
    }

    fn path(&self, segment: SegmentId) -> PathBuf {
        self.folder.join(format!("{segment}{SUFFIX}"))
    }

    /// Why a segment that is not growing cannot grow.
    fn not_growing(&self, segment: SegmentId) -> StorageErrorKind {
        match fs::symlink_metadata(self.path(segment)) {
            Ok(found) if found.is_file() => StorageErrorKind::Sealed,
            _ => StorageErrorKind::NotFound,
        }
    }
}

/// The number of a segment that a file holds; `None` for any other file.
fn segment_of(name: &str) -> Option<SegmentId> {
    let digits = name.strip_suffix(SUFFIX)?;
    let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    let is_ours = digits.len() == DIGITS && digits.bytes().all(is_digit);
    is_ours
        .then(|| u64::from_str_radix(digits, 16).ok().map(SegmentId))
        .flatten()
}

fn failed(operation: Operation, segment: SegmentId, kind: StorageErrorKind) -> StorageError {
    StorageError {
        operation,
        segment: Some(segment),
        kind,
    }
}

fn of_io(operation: Operation, segment: SegmentId, path: &Path) -> impl Fn(io::Error) -> StorageError {
    move |error| failed(operation, segment, kind_of(path, &error))
}

fn kind_of(path: &Path, error: &io::Error) -> StorageErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => StorageErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => StorageErrorKind::Exists,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageErrorKind::Full,
        _ => StorageErrorKind::Medium(format!("{}: {error}", path.display())),
    }
}

impl Storage for FolderStorage {
    type Reader = FileReader;

    async fn list(&mut self) -> Result<Vec<StoredSegment>, StorageError> {
        let failed = |error: io::Error| StorageError {
            operation: Operation::List,
            segment: None,
            kind: kind_of(&self.folder, &error),
        };
        let mut stored = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(id) = entry.file_name().to_str().and_then(segment_of) else {
                continue;
            };
            // One that goes while it is looked at is not there.
            let Ok(found) = entry.metadata() else { continue };
            if found.is_file() {
                let appended = self.growing.get(&id).map(|growing| growing.size_bytes);
                let size_bytes = appended.unwrap_or(found.len());
                stored.push(StoredSegment { id, size_bytes });
            }
        }
        Ok(stored)
    }

    async fn create(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        let path = self.path(segment);
        let file = File::create_new(&path).map_err(of_io(Operation::Create, segment, &path))?;
        let growing = Growing { file, size_bytes: 0 };
        self.growing.insert(segment, growing);
        Ok(())
    }

    async fn append(&mut self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let path = self.path(segment);
        let Some(growing) = self.growing.get_mut(&segment) else {
            return Err(failed(Operation::Append, segment, self.not_growing(segment)));
        };
        growing
            .append(&pieces)
            .map_err(of_io(Operation::Append, segment, &path))
    }

    async fn seal(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        if self.growing.remove(&segment).is_some() {
            return Ok(());
        }
        match self.not_growing(segment) {
            StorageErrorKind::Sealed => Ok(()),
            kind => Err(failed(Operation::Seal, segment, kind)),
        }
    }

    async fn open(&mut self, segment: SegmentId) -> Result<FileReader, StorageError> {
        let path = self.path(segment);
        let of_io = of_io(Operation::Open, segment, &path);
        let file = File::open(&path).map_err(&of_io)?;
        let found = file.metadata().map_err(&of_io)?;
        if !found.is_file() {
            return Err(failed(Operation::Open, segment, StorageErrorKind::NotFound));
        }
        let appended = self.growing.get(&segment).map(|growing| growing.size_bytes);
        Ok(FileReader {
            segment,
            size_bytes: appended.unwrap_or(found.len()),
            file: Arc::new(Mutex::new(file)),
        })
    }

    async fn remove(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        if self.access == Access::Read {
            return Ok(());
        }
        self.growing.remove(&segment);
        let path = self.path(segment);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(of_io(Operation::Remove, segment, &path)(error))
            }
            _ => Ok(()),
        }
    }
}

impl Growing {
    /// Appends all pieces, or nothing.
    fn append(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        let appended_bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let size_bytes = self.size_bytes.checked_add(appended_bytes);
        let size_bytes = size_bytes.ok_or(io::ErrorKind::FileTooLarge)?;
        self.file.seek(SeekFrom::Start(self.size_bytes))?;
        let mut writer = io::BufWriter::new(&mut self.file);
        let written = pieces
            .iter()
            .try_for_each(|piece| writer.write_all(piece))
            .and_then(|()| writer.flush());
        // What is left in it would be written when it is dropped.
        let _ = writer.into_parts();
        if let Err(error) = written {
            self.file.set_len(self.size_bytes)?;
            return Err(error);
        }
        self.size_bytes = size_bytes;
        Ok(())
    }
}

impl FileReader {
    fn read_range(&self, range: &Range<u64>) -> Result<Bytes, StorageError> {
        let failed = |kind| failed(Operation::Read, self.segment, kind);
        let medium = |error: io::Error| failed(StorageErrorKind::Medium(error.to_string()));
        if range.start > range.end || range.end > self.size_bytes {
            return Err(failed(StorageErrorKind::OutOfRange {
                end: range.end,
                size_bytes: self.size_bytes,
            }));
        }
        let length = usize::try_from(range.end - range.start);
        let mut bytes = Vec::new();
        let no_memory = || medium(io::ErrorKind::OutOfMemory.into());
        let length = length.map_err(|_| no_memory())?;
        bytes.try_reserve_exact(length).map_err(|_| no_memory())?;
        bytes.resize(length, 0);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(range.start)).map_err(medium)?;
        file.read_exact(&mut bytes).map_err(medium)?;
        Ok(bytes.into())
    }
}

impl SegmentReader for FileReader {
    const MAY_CORRUPT: bool = true;

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// There is nobody whom a read would hold up.
    fn read_now(&self, range: Range<u64>) -> Option<Result<Bytes, StorageError>> {
        Some(self.read_range(&range))
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.read_range(&range)
    }

    fn is_last(&self) -> bool {
        Arc::strong_count(&self.file) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_are_named_as_segments_are_segments() {
        for id in [0, 0xabc, u64::MAX].map(SegmentId) {
            assert_eq!(segment_of(&format!("{id}{SUFFIX}")), Some(id));
        }
        for name in [
            "1.segment",
            "000000000000000A.segment",
            "+00000000000000a.segment",
            "0000000000000001",
            "kachet.superblock",
        ] {
            assert_eq!(segment_of(name), None, "{name}");
        }
    }
}
