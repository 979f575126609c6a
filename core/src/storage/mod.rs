//! Where segments live: six simple operations on runs of bytes, and reading a range of one.
//!
//! The cache decides everything: what is written, when a segment is full, what goes. A storage only keeps bytes. The
//! cache never waits for one: it hands out jobs, which the host runs beside it and whose outcome
//! it reports, and reads what is not sealed yet from memory of its own. So a storage may be slow, or fail, and costs
//! no more than misses (H23).
//!
//! # Implementing one
//!
//! A segment is a run of bytes under a number, written once from front to back, then read at random, then removed as a
//! whole. That fits a file, an object of an object store, a value of Redis or a file of a browser. An implementation
//! has to keep these promises, and `storage::conformance` (feature `conformance`) tests them:
//!
//! 1. What [`Storage::append`] has taken lies behind what was appended before, in order, and nothing else does.
//! 2. A reader that [`Storage::open`] gives reads what was appended before it was opened, and goes on doing so after
//!    [`Storage::remove`], until its last clone is dropped.
//! 3. [`Storage::list`] names every segment that was created and not removed, after a restart too if the storage
//!    outlives the process, and nothing else; stray objects are left alone.
//! 4. A failed operation changes nothing or loses the segment that it was about; never another one.
//! 5. Nothing panics, whatever the number or the range.
//!
//! It need not check bytes: whatever comes back from a storage other than memory is verified before it is served (H24).
//! It need not lock: the operations take `&mut self`, so one runs at a time. Readers are used by many threads.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod faulty;
mod memory;

pub use memory::MemoryStorage;

use core::fmt;
use core::future::Future;
use core::ops::Range;

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

/// The number of a segment. Numbers grow and are not used again, so a larger one is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A segment that a storage holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredSegment {
    /// Its number.
    pub id: SegmentId,
    /// What it takes, in bytes.
    pub size_bytes: u64,
}

/// `Send` on native targets; on wasm32, where futures hold JavaScript values, nothing.
#[cfg(not(target_family = "wasm"))]
pub trait MaybeSend: Send {}
#[cfg(not(target_family = "wasm"))]
impl<T: Send> MaybeSend for T {}

/// `Send` on native targets; on wasm32, where futures hold JavaScript values, nothing.
#[cfg(target_family = "wasm")]
pub trait MaybeSend {}
#[cfg(target_family = "wasm")]
impl<T> MaybeSend for T {}

/// Keeps segments. See the [module](self) for what an implementation promises.
pub trait Storage: MaybeSend {
    /// Reads one segment.
    type Reader: SegmentReader;

    /// Every segment that is there, in any order.
    fn list(&mut self) -> impl Future<Output = Result<Vec<StoredSegment>, StorageError>> + MaybeSend;

    /// Begins an empty segment.
    fn create(&mut self, segment: SegmentId) -> impl Future<Output = Result<(), StorageError>> + MaybeSend;

    /// Appends the pieces, in order, to a segment that is not sealed.
    fn append(
        &mut self,
        segment: SegmentId,
        pieces: Vec<Bytes>,
    ) -> impl Future<Output = Result<(), StorageError>> + MaybeSend;

    /// Says that nothing more will be appended. Saying it twice is no error.
    fn seal(&mut self, segment: SegmentId) -> impl Future<Output = Result<(), StorageError>> + MaybeSend;

    /// A reader of a segment, sealed or left behind unsealed by a crash.
    fn open(
        &mut self,
        segment: SegmentId,
    ) -> impl Future<Output = Result<Self::Reader, StorageError>> + MaybeSend;

    /// Removes a segment, sealed or not. One that is not there is no error.
    fn remove(&mut self, segment: SegmentId) -> impl Future<Output = Result<(), StorageError>> + MaybeSend;
}

/// Reads one segment. Clones are cheap and read the same segment, also after it was removed.
pub trait SegmentReader: Clone + fmt::Debug + MaybeSend + MaybeSync + 'static {
    /// Whether what is read may differ from what was written. `true` for every medium but memory; it is then verified
    /// at each read (H24).
    const MAY_CORRUPT: bool;

    /// What the segment holds, in bytes.
    fn size_bytes(&self) -> u64;

    /// The whole segment, where it lies in memory as it is; what may corrupt never does.
    fn as_slice(&self) -> Option<&[u8]> {
        None
    }

    /// The range, if it can be had without waiting; `None` if only [`Self::read`] can tell.
    fn read_now(&self, range: Range<u64>) -> Option<Result<Bytes, StorageError>>;

    /// The range. One that does not lie within the segment is [`StorageErrorKind::OutOfRange`].
    fn read(&self, range: Range<u64>) -> impl Future<Output = Result<Bytes, StorageError>> + MaybeSend;

    /// Whether nobody else holds the segment: no clone, and no bytes that were read from it and are its own memory
    /// (copies are the reader's). What is removed counts against the size limit until then (H26). While the storage
    /// itself still has the segment, the answer may be either.
    fn is_last(&self) -> bool;
}

/// `Sync` on native targets; on wasm32 nothing.
#[cfg(not(target_family = "wasm"))]
pub trait MaybeSync: Sync {}
#[cfg(not(target_family = "wasm"))]
impl<T: Sync> MaybeSync for T {}

/// `Sync` on native targets; on wasm32 nothing.
#[cfg(target_family = "wasm")]
pub trait MaybeSync {}
#[cfg(target_family = "wasm")]
impl<T> MaybeSync for T {}

/// An operation on a storage that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageError {
    /// What was tried.
    pub operation: Operation,
    /// On which segment; `None` for [`Operation::List`], and from a reader that does not know its number.
    pub segment: Option<SegmentId>,
    /// What went wrong.
    pub kind: StorageErrorKind,
}

/// What can be asked of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Storage::list`].
    List,
    /// [`Storage::create`].
    Create,
    /// [`Storage::append`].
    Append,
    /// [`Storage::seal`].
    Seal,
    /// [`Storage::open`].
    Open,
    /// [`Storage::remove`].
    Remove,
    /// [`SegmentReader::read`].
    Read,
}

/// What went wrong with a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageErrorKind {
    /// There is no such segment.
    NotFound,
    /// There is such a segment already.
    Exists,
    /// It is sealed, so nothing can be appended.
    Sealed,
    /// A range that ends beyond the segment.
    OutOfRange {
        /// Where the range ends, in bytes.
        end: u64,
        /// What the segment holds, in bytes.
        size_bytes: u64,
    },
    /// There is no room left on the medium.
    Full,
    /// The medium's own words.
    Medium(String),
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = match self.operation {
            Operation::List => "listing the segments",
            Operation::Create => "creating",
            Operation::Append => "appending to",
            Operation::Seal => "sealing",
            Operation::Open => "opening",
            Operation::Remove => "removing",
            Operation::Read => "reading from",
        };
        f.write_str(operation)?;
        if let Some(segment) = self.segment {
            write!(f, " segment {segment}")?;
        }
        match &self.kind {
            StorageErrorKind::NotFound => f.write_str(": there is no such segment"),
            StorageErrorKind::Exists => f.write_str(": it exists already"),
            StorageErrorKind::Sealed => f.write_str(": it is sealed"),
            StorageErrorKind::OutOfRange { end, size_bytes } => {
                write!(f, ": the range ends at byte {end} of {size_bytes}")
            }
            StorageErrorKind::Full => f.write_str(": no room is left on the medium"),
            StorageErrorKind::Medium(words) => write!(f, ": {words}"),
        }
    }
}

impl core::error::Error for StorageError {}
