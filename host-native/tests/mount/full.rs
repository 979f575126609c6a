//! A medium that is full or read-only. A small file system in memory stands for one, where it can be mounted.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use kachet::core::storage::{SegmentId, SegmentReader, Storage, StorageErrorKind};
use kachet::mount::{MountError, MountPoint};
use kachet_tests::small_file_system::SmallFileSystem;

use super::{contents, noise};

const SIZE_BYTES: usize = 4 << 20;

fn mount_point(small: &SmallFileSystem) -> PathBuf {
    small.path().join("mount")
}

#[tokio::test]
async fn an_append_that_finds_the_medium_full_says_so_and_changes_nothing() {
    let Some(small) = SmallFileSystem::mounted(SIZE_BYTES) else {
        return;
    };
    let mut mount = MountPoint::open(mount_point(&small)).unwrap();
    let id = SegmentId(1);
    mount.create(id).await.unwrap();
    let first = noise(1, 1 << 20);
    mount.append(id, vec![first.clone()]).await.unwrap();
    let early = mount.open(id).await.unwrap();
    let pieces = || (0..64).map(|piece| noise(piece, 100_000)).collect::<Vec<_>>();
    for _ in 0..3 {
        let error = mount.append(id, pieces()).await.unwrap_err();
        assert_eq!((error.kind, error.segment), (StorageErrorKind::Full, Some(id)));
        assert_eq!(mount.list().await.unwrap()[0].size_bytes, 1 << 20);
        let file = fs::metadata(super::segment_path(mount.path(), id)).unwrap();
        assert_eq!(file.len(), 1 << 20, "what was written of it has gone again");
    }
    // What fits is taken, and lies right behind what was there.
    mount
        .append(id, vec![Bytes::from_static(b"small")])
        .await
        .unwrap();
    mount.seal(id).await.unwrap();
    let reader = mount.open(id).await.unwrap();
    let all = [&first[..], b"small"].concat();
    assert!(reader.read(0..all.len() as u64).await.unwrap() == all);
    assert!(early.read(0..1 << 20).await.unwrap() == first);
}

#[tokio::test]
async fn a_mount_point_on_a_full_medium_is_opened_read_and_emptied() {
    let Some(small) = SmallFileSystem::mounted(SIZE_BYTES) else {
        return;
    };
    let mut mount = MountPoint::open(mount_point(&small)).unwrap();
    mount.create(SegmentId(1)).await.unwrap();
    mount.append(SegmentId(1), vec![noise(1, 1 << 20)]).await.unwrap();
    mount.seal(SegmentId(1)).await.unwrap();
    mount.notes().write("names", noise(2, 5_000)).await.unwrap();
    drop(mount);
    small.fill();
    let mut mount = MountPoint::open(mount_point(&small)).unwrap();
    let reader = mount.open(SegmentId(1)).await.unwrap();
    assert!(reader.read(0..1 << 20).await.unwrap() == noise(1, 1 << 20));
    let written = mount.notes().write("names", noise(3, 500_000)).await;
    assert!(matches!(written, Err(MountError::NoRoom { .. })), "{written:?}");
    assert_eq!(mount.notes().read("names").await.unwrap(), Some(noise(2, 5_000)));
    assert!(!mount_point(&small).join("names.note.tmp").exists());
    let grown = match mount.create(SegmentId(2)).await {
        Ok(()) => mount.append(SegmentId(2), vec![noise(4, 100_000)]).await,
        failed => failed,
    };
    assert_eq!(grown.unwrap_err().kind, StorageErrorKind::Full);
    mount.remove(SegmentId(2)).await.unwrap();
    drop(reader);
    mount.remove(SegmentId(1)).await.unwrap();
    small.clear().unwrap();
    mount.create(SegmentId(3)).await.unwrap();
    mount.append(SegmentId(3), vec![noise(5, 2 << 20)]).await.unwrap();
}

#[test]
fn a_full_medium_takes_no_new_mount_point_and_keeps_no_half_of_one() {
    let Some(small) = SmallFileSystem::mounted(SIZE_BYTES) else {
        return;
    };
    fs::create_dir(mount_point(&small)).unwrap();
    small.fill();
    let error = MountPoint::open(mount_point(&small)).unwrap_err();
    assert!(matches!(error, MountError::NoRoom { .. }), "{error:?}");
    small.clear().unwrap();
    assert!(MountPoint::open(mount_point(&small)).unwrap().opened().is_new);
}

#[tokio::test]
async fn a_read_only_folder_is_refused_by_name_and_left_as_it_is() {
    let Some(small) = SmallFileSystem::mounted(SIZE_BYTES) else {
        return;
    };
    let mut mount = MountPoint::open(mount_point(&small)).unwrap();
    mount.create(SegmentId(1)).await.unwrap();
    mount.append(SegmentId(1), vec![noise(1, 1_000)]).await.unwrap();
    mount.seal(SegmentId(1)).await.unwrap();
    drop(mount);
    small.set_read_only(true).unwrap();
    let before = contents(&mount_point(&small));
    for path in [mount_point(&small), small.path().join("new")] {
        let error = MountPoint::open(&path).unwrap_err();
        assert!(matches!(error, MountError::ReadOnly { .. }), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    assert_eq!(contents(&mount_point(&small)), before);
    small.set_read_only(false).unwrap();
    MountPoint::open(mount_point(&small)).unwrap();
}

#[tokio::test]
async fn a_segment_that_was_deleted_from_outside_is_not_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut mount = MountPoint::open(folder.path()).unwrap();
    mount.create(SegmentId(1)).await.unwrap();
    mount.append(SegmentId(1), vec![noise(1, 1_000)]).await.unwrap();
    mount.seal(SegmentId(1)).await.unwrap();
    fs::remove_file(super::segment_path(mount.path(), SegmentId(1))).unwrap();
    let opened = mount.open(SegmentId(1)).await.unwrap_err();
    assert_eq!(opened.kind, StorageErrorKind::NotFound);
}
