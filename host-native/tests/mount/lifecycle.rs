//! A segment from its first append to the last of its readers.

use bytes::Bytes;
use kachet::core::storage::{SegmentId, SegmentReader, Storage, StorageErrorKind};
use kachet::mount::{MountOptions, MountPoint, MountReader, ReadMode};

use super::{BOTH, noise, segment_path};

const SEGMENT: SegmentId = SegmentId(3);
const APPEND_BYTES: usize = 1 << 20;
const APPENDS: usize = 64;

fn mount(folder: &tempfile::TempDir, mode: ReadMode) -> MountPoint {
    MountOptions::new().read_mode(mode).open(folder.path()).unwrap()
}

async fn assert_reads(reader: &MountReader, expected: &[u8]) {
    assert_eq!(reader.size_bytes(), expected.len() as u64);
    let end = expected.len();
    for range in [
        0..end.min(5_000),
        end / 2..end.min(end / 2 + 10),
        end.saturating_sub(70_000)..end,
    ] {
        let wanted = &expected[range.clone()];
        let range = range.start as u64..range.end as u64;
        assert!(reader.read(range.clone()).await.unwrap() == wanted, "{range:?}");
        if let Some(read) = reader.read_now(range.clone()) {
            assert!(read.unwrap() == wanted, "{range:?}");
        }
    }
    let beyond = reader.read(0..end as u64 + 1).await.unwrap_err();
    assert!(matches!(beyond.kind, StorageErrorKind::OutOfRange { .. }));
}

#[tokio::test]
async fn a_segment_of_64_mib_is_read_while_it_grows_and_after_it_was_sealed() {
    let all = noise(1, APPENDS * APPEND_BYTES);
    for mode in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = mount(&folder, mode);
        mount.create(SEGMENT).await.unwrap();
        let mut readers = Vec::new();
        for append in 0..APPENDS {
            let (from, to) = (append * APPEND_BYTES, (append + 1) * APPEND_BYTES);
            let pieces = (from..to)
                .step_by(16 << 10)
                .map(|at| all.slice(at..at + (16 << 10)));
            mount.append(SEGMENT, pieces.collect()).await.unwrap();
            let reader = mount.open(SEGMENT).await.unwrap();
            assert_reads(&reader, &all[..to]).await;
            if append % 16 == 0 {
                readers.push((to, reader));
            }
        }
        mount.seal(SEGMENT).await.unwrap();
        readers.push((all.len(), mount.open(SEGMENT).await.unwrap()));
        for is_removed in [false, true] {
            if is_removed {
                mount.remove(SEGMENT).await.unwrap();
            }
            for (size_bytes, reader) in &readers {
                assert_reads(reader, &all[..*size_bytes]).await;
            }
        }
    }
}

#[tokio::test]
async fn what_was_written_is_warm() {
    for mode in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = mount(&folder, mode);
        mount.create(SEGMENT).await.unwrap();
        mount.append(SEGMENT, vec![noise(1, 100_000)]).await.unwrap();
        for is_sealed in [false, true] {
            if is_sealed {
                mount.seal(SEGMENT).await.unwrap();
            }
            let reader = mount.open(SEGMENT).await.unwrap();
            let read = reader.read_now(10..90_000);
            // Some file systems cannot say whether a read would wait; then only a mapping can.
            if cfg!(target_os = "linux") && (is_sealed && mode == ReadMode::Mapped || read.is_some()) {
                assert_eq!(read.unwrap().unwrap(), noise(1, 100_000).slice(10..90_000));
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn slices_of_a_mapping_are_its_own_memory_and_outlive_segment_reader_and_mount() {
    let folder = tempfile::tempdir().unwrap();
    let all = noise(1, 1 << 20);
    let mut mount = mount(&folder, ReadMode::Mapped);
    mount.create(SEGMENT).await.unwrap();
    mount.append(SEGMENT, vec![all.clone()]).await.unwrap();
    mount.seal(SEGMENT).await.unwrap();
    let reader = mount.open(SEGMENT).await.unwrap();
    let now = |from, to| reader.read_now(from..to).unwrap().unwrap();
    let (one, other) = (now(0, 500_000), now(1_000, 2_000));
    assert_eq!(one.as_ptr().addr() + 1_000, other.as_ptr().addr(), "no copies");
    mount.remove(SEGMENT).await.unwrap();
    assert!(!reader.is_last(), "its memory is held");
    drop(one);
    assert!(!reader.is_last(), "it still is");
    let third = now(5, 10);
    drop(other);
    assert!(!reader.is_last());
    drop(third);
    assert!(reader.is_last());
    let clone = reader.clone();
    assert!(!reader.is_last());
    drop(clone);
    let last = now(100_000, 900_000);
    drop((reader, mount));
    assert_eq!(last, all.slice(100_000..900_000));
}

#[tokio::test]
async fn what_a_crash_left_unsealed_is_read_and_not_appended_to() {
    for mode in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let mut first = mount(&folder, mode);
        first.create(SEGMENT).await.unwrap();
        first.append(SEGMENT, vec![noise(1, 5_000)]).await.unwrap();
        drop(first);
        let mut second = mount(&folder, mode);
        let listed = second.list().await.unwrap();
        assert_eq!((listed[0].id, listed[0].size_bytes), (SEGMENT, 5_000));
        assert_reads(&second.open(SEGMENT).await.unwrap(), &noise(1, 5_000)).await;
        let appended = second.append(SEGMENT, vec![noise(2, 5)]).await.unwrap_err();
        assert_eq!(appended.kind, StorageErrorKind::Sealed);
        second.seal(SEGMENT).await.unwrap();
        second.remove(SEGMENT).await.unwrap();
        assert_eq!(second.list().await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_or_is_empty_hides_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut mount = mount(&folder, ReadMode::Mapped);
    for id in (1..=3).map(SegmentId) {
        mount.create(id).await.unwrap();
        mount.append(id, vec![noise(id.0, 100)]).await.unwrap();
        mount.seal(id).await.unwrap();
    }
    let path = segment_path(folder.path(), SegmentId(1));
    std::fs::write(segment_path(folder.path(), SegmentId(2)), b"").unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let mut listed = mount.list().await.unwrap();
    listed.sort_by_key(|each| each.id);
    let sizes: Vec<_> = listed.iter().map(|each| (each.id.0, each.size_bytes)).collect();
    assert_eq!(sizes, [(1, 100), (2, 0), (3, 100)]);
    // An administrator reads it all the same.
    if std::fs::read(&path).is_err() {
        let opened = mount.open(SegmentId(1)).await.unwrap_err();
        assert!(matches!(opened.kind, StorageErrorKind::Medium(words) if words.contains(".segment")));
    }
    assert_reads(&mount.open(SegmentId(2)).await.unwrap(), b"").await;
    assert_reads(&mount.open(SegmentId(3)).await.unwrap(), &noise(3, 100)).await;
}

#[tokio::test]
async fn a_segment_that_claims_more_than_there_is_memory_is_an_error() {
    for mode in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = mount(&folder, mode);
        mount.create(SEGMENT).await.unwrap();
        mount.seal(SEGMENT).await.unwrap();
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(segment_path(folder.path(), SEGMENT))
            .unwrap();
        let claimed = 1 << 43;
        file.set_len(claimed).unwrap();
        let reader = mount.open(SEGMENT).await.unwrap();
        assert!(reader.read_now(0..claimed).is_none_or(|read| read.is_err()));
        assert!(reader.read(0..1_000).await.unwrap() == vec![0; 1_000]);
    }
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_done_before_what_comes_next() {
    let folder = tempfile::tempdir().unwrap();
    let mut mount = mount(&folder, ReadMode::Positional);
    mount.create(SEGMENT).await.unwrap();
    let large = noise(1, 32 << 20);
    {
        let append = mount.append(SEGMENT, vec![large.clone()]);
        let mut append = std::pin::pin!(append);
        // Begun, and given up.
        let waker = std::task::Waker::noop();
        let begun = append.as_mut().poll(&mut std::task::Context::from_waker(waker));
        assert!(begun.is_pending());
    }
    mount
        .append(SEGMENT, vec![Bytes::from_static(b"behind")])
        .await
        .unwrap();
    mount.seal(SEGMENT).await.unwrap();
    let all = [&large[..], b"behind"].concat();
    assert_reads(&mount.open(SEGMENT).await.unwrap(), &all).await;
}
