//! A folder of the local file system as the place where a cache keeps its batches, across restarts.
//!
//! ```no_run
//! use kachet::cache::Cache;
//! use kachet::mount::MountPoint;
//! use kachet::transport::{TcpSettings, TcpTransport};
//!
//! # async fn cache() -> Result<(), Box<dyn std::error::Error>> {
//! let mount = MountPoint::open("kachet-cache")?;
//! let cache = Cache::builder(TcpTransport::new(TcpSettings::default()))
//!     .size_limit_bytes(64 << 30)
//!     .mount(mount);
//! let (cache, restored) = cache.restore().await?;
//! println!("{} batches are still there", restored.batches);
//! // At the end of the process:
//! cache.write_out().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What lies in the folder
//!
//! | file | what |
//! |---|---|
//! | `kachet.superblock` | that this is a mount point, and its format |
//! | `kachet.lock` | locked by the process that has it open, and who that is |
//! | `0000000000000001.segment` | a segment, by its number in sixteen hexadecimal digits |
//! | `name.note` | a small document, see [`MountNotes`] |
//! | `….tmp` of these | what is being written, or was when a crash came; removed at the next start |
//!
//! A folder that is no mount point and not empty, one that is damaged and one of a later release are refused and not
//! changed. What lies in a mount point under any other name, or as a link, is left alone. All files are their owner's
//! alone.
//!
//! # What is promised
//!
//! A mount point is a cache: what is lost is fetched again. So nothing waits for the medium to have taken a write
//! (but [`MountOptions::sync_on_seal`]), and a crash costs what the system had not written yet. What comes back damaged
//! is found by its checksum (H24). An append that fails leaves its segment as it was.
//!
//! No task of the runtime is held up by the file system: reads that would wait, writes, and the dropping of large files
//! are done on threads that may block. Without a tokio runtime everything is done on the calling thread.
//!
//! # The two ways of reading
//!
//! [`ReadMode::Positional`] makes a system call for each read, which copies what the page cache has and says at once if
//! it has not. [`ReadMode::Mapped`] hands out slices of the mapped file. Measured, as a multiple of a `pread` into a
//! buffer that is there already and the checksum of what was read (`cargo xtask bench mount`):
//!
//! | warm read of | the floor | positional | mapped | by a thread that may block |
//! |---|---|---|---|---|
//! | 16 KiB | 2.1 µs | 0.99 to 1.02 | 1.32 to 1.35 | 11 to 17 |
//! | 512 KiB | 28 to 31 µs | 1.02 to 1.09 | 0.73 to 0.75 | 1.8 to 2.2 |
//!
//! To ask whether a page would be waited for costs a mapping more than the copy of a batch of common size does. Nor can
//! a copy change after it was verified. So `Positional` is the default. `Mapped` is for
//!
//! - large batches;
//! - many segments: a mapping holds no file open, where `Positional` takes one of the process's open files
//!   (`ulimit -n`) for each segment;
//! - file systems that cannot say whether a read would wait, such as tmpfs: there `Positional` leaves each hit to a
//!   thread that may block.
//!
//! Its caveats: bytes that were verified are read once more when they are sent. If another program of the same user cuts
//! the file in between, or the medium fails to give a page back that was dropped meanwhile, they are sent as zeros (which
//! Kafka's clients find by the batch's checksum), or the system call that sends them fails with `EFAULT`. A cut that
//! comes before the bytes are verified costs a miss: `SIGBUS` is handled, in every process that maps a segment, and what
//! is not ours goes on to the handler before. What is mapped counts as the process's resident memory though the system
//! can take it back at any time.

mod blocking;
mod error;
mod files;
mod folder;
mod lock;
mod mapped;
#[cfg(target_os = "linux")]
mod mapping;
mod names;
mod notes;
mod reader;
mod segments;
mod superblock;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kachet_core::storage::{Operation, SegmentId, Storage, StorageError, StorageErrorKind, StoredSegment};

use self::blocking::off_the_runtime;
pub use self::error::{Holder, MountError};
pub use self::folder::Opened;
use self::lock::Lock;
pub use self::notes::{MountNotes, NOTE_BYTES_MAX};
pub use self::reader::MountReader;
use self::segments::Segments;
pub use self::superblock::VERSION as FORMAT_VERSION;

/// How segments are read; which one when, the [module](self) says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadMode {
    /// A system call for each read, which copies. Only Linux can say whether one would wait; elsewhere every hit is left
    /// to a thread that may block.
    #[default]
    Positional,
    /// Sealed segments are mapped into memory: on Linux, for up to 65 536 of them at a time. What cannot be mapped is read
    /// as by [`Self::Positional`].
    Mapped,
}

/// Settings of a [`MountPoint`].
#[derive(Clone, Copy, Debug, Default)]
pub struct MountOptions {
    read_mode: ReadMode,
    sync_on_seal: bool,
}

impl MountOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How segments are read.
    #[must_use]
    pub fn read_mode(mut self, read_mode: ReadMode) -> Self {
        self.read_mode = read_mode;
        self
    }

    /// Whether sealing a segment waits until the medium has all of it; by default not, because what a crash of the
    /// machine takes is fetched again.
    #[must_use]
    pub fn sync_on_seal(mut self, sync_on_seal: bool) -> Self {
        self.sync_on_seal = sync_on_seal;
        self
    }

    /// Opens the mount point at `path`; makes one there if the folder is empty or missing. Blocks: it is for the
    /// start of a process.
    pub fn open(self, path: impl AsRef<Path>) -> Result<MountPoint, MountError> {
        folder::open(path.as_ref()).map(|locked| self.mount(locked))
    }

    /// Opens the mount point at `path` to look at it or to empty it: makes none, and leaves what a crash left half written
    /// where it is. Blocks.
    pub fn open_existing(self, path: impl AsRef<Path>) -> Result<MountPoint, MountError> {
        folder::open_existing(path.as_ref()).map(|locked| self.mount(locked))
    }

    fn mount(self, locked: folder::Locked) -> MountPoint {
        let segments = Segments::new(locked.folder.clone(), self);
        MountPoint {
            shared: Arc::new(Shared {
                folder: locked.folder,
                segments: Mutex::new(segments),
                notes: Mutex::new(()),
                _lock: locked.lock,
            }),
            opened: locked.opened,
        }
    }
}

/// A [`Storage`] in a folder, see the [module](self). Locked for as long as it or its [`MountNotes`] live.
#[derive(Debug)]
pub struct MountPoint {
    shared: Arc<Shared>,
    opened: Opened,
}

/// What work on other threads holds on to.
#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    /// Locked while an operation is done, which goes on when nobody waits for it any more.
    segments: Mutex<Segments>,
    /// Locked while a note is written.
    notes: Mutex<()>,
    _lock: Lock,
}

impl MountPoint {
    /// Opens the mount point at `path` with the default [`MountOptions`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, MountError> {
        MountOptions::default().open(path)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.shared.folder
    }

    /// The file of a segment, whether there is one or not.
    pub fn segment_path(&self, segment: SegmentId) -> PathBuf {
        self.shared.folder.join(names::segment_file(segment))
    }

    /// What was found when it was opened.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Its notes.
    pub fn notes(&self) -> MountNotes {
        MountNotes {
            shared: Arc::clone(&self.shared),
        }
    }

    async fn perform<T: Send + 'static>(
        &self,
        operation: Operation,
        segment: Option<SegmentId>,
        work: impl FnOnce(&mut Segments) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let shared = Arc::clone(&self.shared);
        let performed = off_the_runtime(move || {
            let mut segments = shared.segments.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut segments)
        });
        performed.await.unwrap_or_else(|error: io::Error| {
            Err(StorageError {
                operation,
                segment,
                kind: StorageErrorKind::Medium(error.to_string()),
            })
        })
    }
}

impl Storage for MountPoint {
    type Reader = MountReader;

    async fn list(&mut self) -> Result<Vec<StoredSegment>, StorageError> {
        self.perform(Operation::List, None, |segments| segments.list())
            .await
    }

    async fn create(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.perform(Operation::Create, Some(segment), move |segments| {
            segments.create(segment)
        })
        .await
    }

    async fn append(&mut self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.perform(Operation::Append, Some(segment), move |segments| {
            segments.append(segment, &pieces)
        })
        .await
    }

    async fn seal(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.perform(Operation::Seal, Some(segment), move |segments| {
            segments.seal(segment)
        })
        .await
    }

    async fn open(&mut self, segment: SegmentId) -> Result<MountReader, StorageError> {
        // After each write, so it is worth while to spare the way to another thread and back.
        let unsealed = self
            .shared
            .segments
            .try_lock()
            .ok()
            .and_then(|segments| segments.open_unsealed(segment));
        if let Some(opened) = unsealed {
            return opened;
        }
        self.perform(Operation::Open, Some(segment), move |segments| {
            segments.open(segment)
        })
        .await
    }

    async fn remove(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.perform(Operation::Remove, Some(segment), move |segments| {
            segments.remove(segment)
        })
        .await
    }
}
