//! Where the batches of these tests lie: in the files of a mount point that goes with it.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kachet::core::storage::{SegmentId, SegmentReader, Storage, StorageError, StoredSegment};
use kachet::mount::{MountOptions, MountPoint, MountReader};
use tempfile::TempDir;

/// What lies on a medium, seen past all faults and past the mount point.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lying(Option<PathBuf>);

impl Lying {
    pub(crate) fn bytes(&self) -> u64 {
        self.files().map(|(_, size_bytes)| size_bytes).sum()
    }

    pub(crate) fn segments(&self) -> Vec<SegmentId> {
        let mut segments: Vec<_> = self.files().map(|(id, _)| id).collect();
        segments.sort_unstable();
        segments
    }

    fn files(&self) -> impl Iterator<Item = (SegmentId, u64)> {
        let folder = self.0.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
        folder.filter_map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let digits = name.strip_suffix(".segment")?;
            let id = u64::from_str_radix(digits, 16).unwrap();
            Some((SegmentId(id), entry.metadata().unwrap().len()))
        })
    }
}

/// A mount point in a folder of its own.
#[derive(Debug)]
pub(crate) struct Medium {
    pub(crate) inner: MountPoint,
    pub(crate) lying: Lying,
    /// Behind the mount point, which has it locked.
    _folder: Lent,
}

impl Default for Medium {
    fn default() -> Self {
        let folder = Lent::new();
        let options = MountOptions::new().read_mode(crate::READ_MODE);
        let inner = options.open(folder.path()).unwrap();
        let lying = Lying(Some(inner.path().to_owned()));
        assert_eq!(lying.segments(), []);
        Self {
            lying,
            inner,
            _folder: folder,
        }
    }
}

thread_local! {
    static FOLDERS: RefCell<Vec<TempDir>> = const { RefCell::new(Vec::new()) };
}

/// A folder that is given on when it is not used any more: to make a mount point takes as long as the disk does, and the
/// campaigns want thousands.
#[derive(Debug)]
struct Lent(Option<TempDir>);

impl Lent {
    fn new() -> Self {
        let used = FOLDERS.with_borrow_mut(Vec::pop);
        Self(Some(used.unwrap_or_else(|| tempfile::tempdir().unwrap())))
    }

    fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let folder = self.0.take().unwrap();
        for (id, _) in Lying(Some(folder.path().to_owned())).files() {
            fs::remove_file(folder.path().join(format!("{id}.segment"))).unwrap();
        }
        FOLDERS.with_borrow_mut(|folders| folders.push(folder));
    }
}

impl Medium {
    /// The bytes of a segment.
    pub(crate) async fn all_of(&mut self, segment: SegmentId) -> Vec<u8> {
        let reader = self.inner.open(segment).await.unwrap();
        reader.read(0..reader.size_bytes()).await.unwrap().to_vec()
    }
}

impl Storage for Medium {
    type Reader = MountReader;

    async fn list(&mut self) -> Result<Vec<StoredSegment>, StorageError> {
        self.inner.list().await
    }

    async fn create(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.inner.create(segment).await
    }

    async fn append(&mut self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.inner.append(segment, pieces).await
    }

    async fn seal(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.inner.seal(segment).await
    }

    async fn open(&mut self, segment: SegmentId) -> Result<MountReader, StorageError> {
        self.inner.open(segment).await
    }

    async fn remove(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.inner.remove(segment).await
    }
}
