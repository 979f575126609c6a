//! Reading a segment: from its mapping, or by a system call for each read.

use core::fmt;
use core::ops::Range;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use kachet_core::storage::{Operation, SegmentId, SegmentReader, StorageError, StorageErrorKind};

use super::blocking::{drop_off_the_runtime, off_the_runtime};
use super::mapped::MappedSegment;
use super::segments::failed;

/// Reads one segment of a [`MountPoint`](super::MountPoint). Goes on doing so when the segment was removed, or the
/// mount point was dropped.
#[derive(Clone, Debug)]
pub struct MountReader {
    opened: Arc<Opened>,
}

#[derive(Debug)]
struct Opened {
    segment: SegmentId,
    size_bytes: u64,
    medium: Medium,
}

#[derive(Debug)]
enum Medium {
    File(PositionalFile),
    Mapped(MappedSegment),
}

impl MountReader {
    /// A reader of the first `size_bytes` of the file. What cannot be mapped is read by calls.
    pub(super) fn new(segment: SegmentId, file: File, size_bytes: u64, is_mapped: bool) -> Self {
        let mapped = is_mapped.then(|| MappedSegment::new(&file, size_bytes)).flatten();
        let medium = match mapped {
            Some(mapped) => Medium::Mapped(mapped),
            None => Medium::File(PositionalFile::new(file)),
        };
        Self {
            opened: Arc::new(Opened {
                segment,
                size_bytes,
                medium,
            }),
        }
    }
}

impl Opened {
    fn check(&self, range: &Range<u64>) -> Result<(), StorageErrorKind> {
        if range.start <= range.end && range.end <= self.size_bytes {
            return Ok(());
        }
        Err(StorageErrorKind::OutOfRange {
            end: range.end,
            size_bytes: self.size_bytes,
        })
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes, StorageErrorKind> {
        let read = match &self.medium {
            Medium::File(file) => file.read(range),
            Medium::Mapped(mapped) => mapped.read(range),
        };
        read.map_err(|error| StorageErrorKind::Medium(error.to_string()))
    }

    fn read_now(&self, range: Range<u64>) -> Option<Result<Bytes, StorageErrorKind>> {
        if let Err(kind) = self.check(&range) {
            return Some(Err(kind));
        }
        match &self.medium {
            Medium::File(file) => file.read_now(range).map(Ok),
            Medium::Mapped(mapped) => {
                let read = mapped.read_now(range)?;
                Some(read.map_err(|error| StorageErrorKind::Medium(error.to_string())))
            }
        }
    }

    fn failed(&self, kind: StorageErrorKind) -> StorageError {
        failed(Operation::Read, self.segment, kind)
    }
}

impl SegmentReader for MountReader {
    const MAY_CORRUPT: bool = true;

    fn size_bytes(&self) -> u64 {
        self.opened.size_bytes
    }

    fn read_now(&self, range: Range<u64>) -> Option<Result<Bytes, StorageError>> {
        let read = self.opened.read_now(range)?;
        Some(read.map_err(|kind| self.opened.failed(kind)))
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StorageError> {
        let checked = self.opened.check(&range);
        checked.map_err(|kind| self.opened.failed(kind))?;
        let opened = Arc::clone(&self.opened);
        let read = off_the_runtime(move || opened.read(range)).await;
        let read = read.map_err(|error| StorageErrorKind::Medium(error.to_string()));
        read.flatten().map_err(|kind| self.opened.failed(kind))
    }

    /// Readers that were opened each by itself do not know of each other.
    fn is_last(&self) -> bool {
        let is_alone = Arc::strong_count(&self.opened) == 1;
        is_alone
            && match &self.opened.medium {
                // What it reads are copies.
                Medium::File(_) => true,
                Medium::Mapped(mapped) => mapped.is_unshared(),
            }
    }
}

/// A file that is read by calls that say where.
struct PositionalFile {
    /// `None` only while it is being dropped.
    file: Option<File>,
    /// Whether a file system has said that it cannot tell whether a read would wait.
    waits: AtomicBool,
}

impl PositionalFile {
    fn new(file: File) -> Self {
        Self {
            file: Some(file),
            waits: AtomicBool::new(false),
        }
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let mut bytes = room_for(&range)?;
        read_at(self.file()?, range.start, &mut bytes)?;
        Ok(bytes.into())
    }

    /// What the page cache has of it. Whatever else comes, [`Self::read`] finds out.
    #[cfg(target_os = "linux")]
    fn read_now(&self, range: Range<u64>) -> Option<Bytes> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};

        if range.is_empty() {
            return Some(Bytes::new());
        }
        if self.waits.load(Relaxed) {
            return None;
        }
        let mut bytes = room_for(&range).ok()?;
        let into = &mut [io::IoSliceMut::new(&mut bytes)];
        match preadv2(self.file().ok()?, into, range.start, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == bytes.len() => Some(bytes.into()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.waits.store(true, Relaxed);
                None
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// No other system can tell whether a read would wait.
    #[cfg(not(target_os = "linux"))]
    fn read_now(&self, range: Range<u64>) -> Option<Bytes> {
        let waits = self.waits.load(Relaxed) || !range.is_empty();
        (!waits).then(Bytes::new)
    }
}

impl Drop for PositionalFile {
    fn drop(&mut self) {
        drop_off_the_runtime(self.file.take());
    }
}

impl fmt::Debug for PositionalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PositionalFile").field(&self.file).finish()
    }
}

/// As many bytes as the range has, or an error where there is no memory for them: a file may claim any size.
fn room_for(range: &Range<u64>) -> io::Result<Vec<u8>> {
    let length = range.end.saturating_sub(range.start);
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut bytes = Vec::new();
    let reserved = bytes.try_reserve_exact(length);
    reserved.map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.resize(length, 0);
    Ok(bytes)
}

#[cfg(unix)]
fn read_at(file: &File, at: u64, bytes: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
fn read_at(file: &File, mut at: u64, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                at += read as u64;
                bytes = bytes.get_mut(read..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
