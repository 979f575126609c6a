//! Where the batches of these tests lie: in the files of a mount point that goes with it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kachet::core::storage::{SegmentId, SegmentReader, Storage, StorageError, StoredSegment};
use kachet::mount::{MountOptions, MountPoint, MountReader};
use tempfile::TempDir;

/// What lies on a medium, seen past all faults and past the mount point.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lying {
    folder: PathBuf,
    /// How large the files are; looked at when something was done to one, because all are asked for at every step.
    sizes: Arc<Mutex<BTreeMap<SegmentId, u64>>>,
}

impl Lying {
    pub(crate) fn bytes(&self) -> u64 {
        self.sizes.lock().unwrap().values().sum()
    }

    pub(crate) fn segments(&self) -> Vec<SegmentId> {
        let files = segments_in(&self.folder);
        let looked_at: Vec<_> = self.sizes.lock().unwrap().keys().copied().collect();
        assert_eq!(files, looked_at);
        files
    }

    fn look_at(&self, segment: SegmentId) {
        let metadata = fs::metadata(segment_path(&self.folder, segment));
        let mut sizes = self.sizes.lock().unwrap();
        match metadata {
            Ok(metadata) => sizes.insert(segment, metadata.len()),
            Err(_) => sizes.remove(&segment),
        };
    }
}

fn segment_path(folder: &Path, segment: SegmentId) -> PathBuf {
    folder.join(format!("{segment}.segment"))
}

fn segments_in(folder: &Path) -> Vec<SegmentId> {
    let files = fs::read_dir(folder).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let digits = name.strip_suffix(".segment")?;
        Some(SegmentId(u64::from_str_radix(digits, 16).unwrap()))
    });
    let mut segments: Vec<_> = files.collect();
    segments.sort_unstable();
    segments
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
        let lying = Lying {
            folder: inner.path().to_owned(),
            sizes: Arc::default(),
        };
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
        for segment in segments_in(folder.path()) {
            fs::remove_file(segment_path(folder.path(), segment)).unwrap();
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
        let outcome = self.inner.create(segment).await;
        self.lying.look_at(segment);
        outcome
    }

    async fn append(&mut self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let outcome = self.inner.append(segment, pieces).await;
        self.lying.look_at(segment);
        outcome
    }

    async fn seal(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        self.inner.seal(segment).await
    }

    async fn open(&mut self, segment: SegmentId) -> Result<MountReader, StorageError> {
        self.inner.open(segment).await
    }

    async fn remove(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        let outcome = self.inner.remove(segment).await;
        self.lying.look_at(segment);
        outcome
    }
}
