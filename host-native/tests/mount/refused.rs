//! What is no mount point is refused and left as it is; in what is one, only its own files are touched.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use kachet::core::storage::{SegmentId, Storage};
use kachet::mount::{MountError, MountPoint};

use super::{contents, segment_path};

const SUPERBLOCK: &str = "kachet.superblock";

/// Opens what has to be refused, and checks that nothing of it changed.
fn refusal(folder: &Path) -> MountError {
    let before = contents(folder);
    let error = MountPoint::open(folder).unwrap_err();
    assert_eq!(contents(folder), before, "{error}");
    assert!(
        error.to_string().contains(&*folder.to_string_lossy()),
        "it names the path: {error}"
    );
    error
}

/// A mount point with a segment in it.
async fn made(folder: &Path) -> Vec<u8> {
    let mut mount = MountPoint::open(folder).unwrap();
    mount.create(SegmentId(1)).await.unwrap();
    mount
        .append(SegmentId(1), vec![Bytes::from_static(b"stored")])
        .await
        .unwrap();
    mount.seal(SegmentId(1)).await.unwrap();
    fs::read(folder.join(SUPERBLOCK)).unwrap()
}

#[test]
fn a_folder_that_is_missing_or_empty_becomes_a_mount_point() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("new/and/deep")] {
        let mount = MountPoint::open(&path).unwrap();
        assert!(mount.opened().is_new);
        assert_eq!(mount.path(), path.canonicalize().unwrap());
        drop(mount);
        assert!(!MountPoint::open(&path).unwrap().opened().is_new);
        fs::remove_dir_all(&path).unwrap();
        fs::create_dir(&path).unwrap_or_default();
        fs::remove_dir_all(&path).unwrap_or_default();
        fs::create_dir_all(folder.path()).unwrap();
    }
}

#[test]
fn a_folder_with_anything_else_in_it_is_refused() {
    for name in ["notes.txt", "0000000000000001.segment", "names.note", ".hidden"] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), b"somebody's own").unwrap();
        match refusal(folder.path()) {
            MountError::NotAMount { found, .. } => assert_eq!(found, Path::new(name)),
            other => panic!("{other:?}"),
        }
    }
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("kachet.lock")).unwrap();
    assert!(matches!(refusal(folder.path()), MountError::NotAMount { .. }));
}

#[test]
fn a_file_is_no_mount_point() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, b"somebody's own").unwrap();
    for path in [path.clone(), path.join("below")] {
        let error = MountPoint::open(&path).unwrap_err();
        assert!(matches!(error, MountError::NotAFolder { .. }), "{error:?}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"somebody's own");
}

#[tokio::test]
async fn a_mount_point_of_a_later_release_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut superblock = made(folder.path()).await;
    superblock.truncate(8);
    superblock.extend(9_u32.to_be_bytes());
    superblock.extend(crc32c::crc32c(&superblock).to_be_bytes());
    superblock.extend(b"whatever a later release says");
    fs::write(folder.path().join(SUPERBLOCK), superblock).unwrap();
    let error = refusal(folder.path());
    assert!(
        matches!(
            error,
            MountError::Newer {
                version: 9,
                supported: 1,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_superblock_that_is_foreign_or_damaged_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let superblock = made(folder.path()).await;
    let flipped: Vec<u8> = superblock.iter().map(|byte| byte ^ 4).collect();
    let longer = [&superblock[..], b"x"].concat();
    for damaged in [&b""[..], b"#!/bin/sh", &superblock[..15], &flipped, &longer] {
        fs::write(folder.path().join(SUPERBLOCK), damaged).unwrap();
        let error = refusal(folder.path());
        assert!(matches!(error, MountError::DamagedSuperblock { .. }), "{error:?}");
    }
    fs::write(folder.path().join(SUPERBLOCK), superblock).unwrap();
    MountPoint::open(folder.path()).unwrap();
}

#[tokio::test]
async fn what_is_not_its_own_is_reported_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path()).await;
    let strays = [
        "notes.txt",
        "1.segment",
        "000000000000000A.segment",
        "a.tmp",
        "UPPER.note",
        "0000000000000001.segment.bak",
    ];
    for name in strays {
        fs::write(folder.path().join(name), b"somebody's own").unwrap();
    }
    fs::create_dir(folder.path().join("0000000000000007.segment")).unwrap();
    fs::create_dir(folder.path().join("names.note.tmp")).unwrap();
    let before = contents(folder.path());
    let mut mount = MountPoint::open(folder.path()).unwrap();
    let mut stray = mount.opened().stray.clone();
    stray.sort();
    let mut expected: Vec<_> = strays.map(|name| mount.path().join(name)).to_vec();
    expected.push(mount.path().join("0000000000000007.segment"));
    expected.push(mount.path().join("names.note.tmp"));
    expected.sort();
    assert_eq!(stray, expected);
    assert_eq!(mount.opened().stray_count, 8);
    assert_eq!(mount.opened().cleaned, [""; 0].map(std::path::PathBuf::from));
    let listed = mount.list().await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    mount.remove(SegmentId(7)).await.unwrap();
    assert!(mount.create(SegmentId(7)).await.is_err());
    assert!(mount.open(SegmentId(7)).await.is_err());
    mount.remove(SegmentId(1)).await.unwrap();
    let mut after = contents(folder.path());
    let own = Path::new("0000000000000001.segment");
    after.insert(own.into(), before[own].clone());
    after.insert("kachet.lock".into(), before[Path::new("kachet.lock")].clone());
    assert_eq!(after, before);
}

#[tokio::test]
async fn of_many_strays_some_are_named_and_all_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path()).await;
    for number in 0..1_000 {
        fs::write(folder.path().join(format!("stray-{number}")), b"").unwrap();
    }
    let mount = MountPoint::open(folder.path()).unwrap();
    assert_eq!(
        (mount.opened().stray.len(), mount.opened().stray_count),
        (32, 1_000)
    );
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_cleaned() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path()).await;
    let halves = ["kachet.superblock.tmp", "names.note.tmp"];
    for name in halves {
        fs::write(folder.path().join(name), b"half").unwrap();
    }
    let mount = MountPoint::open(folder.path()).unwrap();
    let mut cleaned = mount.opened().cleaned.clone();
    cleaned.sort();
    assert_eq!(cleaned, halves.map(|name| mount.path().join(name)));
    assert!(cleaned.iter().all(|path| !path.exists()));
    assert_eq!(mount.opened().stray_count, 0);
}

#[test]
fn a_crash_while_the_mount_point_was_being_made_is_no_reason_to_refuse_it() {
    for left in [&["kachet.lock"][..], &["kachet.lock", "kachet.superblock.tmp"]] {
        let folder = tempfile::tempdir().unwrap();
        for name in left {
            fs::write(folder.path().join(name), b"half").unwrap();
        }
        let mount = MountPoint::open(folder.path()).unwrap();
        assert!(mount.opened().is_new);
        drop(mount);
        assert!(!MountPoint::open(folder.path()).unwrap().opened().is_new);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_may_read_what_lies_there() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mount");
    made(&path).await;
    let mut mount = MountPoint::open(&path).unwrap();
    mount
        .notes()
        .write("names", Bytes::from_static(b"n"))
        .await
        .unwrap();
    mount.create(SegmentId(2)).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o700);
    let names: Vec<_> = contents(&path).into_keys().collect();
    assert_eq!(names.len(), 5, "{names:?}");
    for name in names {
        assert_eq!(mode(&path.join(&name)), 0o600, "{}", name.display());
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_in_the_place_of_a_segment_is_never_followed() {
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    made(folder.path()).await;
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    fs::write(elsewhere.path(), b"somebody's own").unwrap();
    let id = SegmentId(2);
    let link = segment_path(folder.path(), id);
    symlink(elsewhere.path(), &link).unwrap();
    let mut mount = MountPoint::open(folder.path()).unwrap();
    assert_eq!(mount.opened().stray, [segment_path(mount.path(), id)]);
    assert_eq!(mount.list().await.unwrap().len(), 1);
    assert!(mount.open(id).await.is_err());
    assert!(mount.create(id).await.is_err());
    assert!(mount.append(id, vec![Bytes::from_static(b"x")]).await.is_err());
    assert!(mount.seal(id).await.is_err());
    mount.remove(id).await.unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), elsewhere.path());
    assert_eq!(fs::read(elsewhere.path()).unwrap(), b"somebody's own");
}

#[cfg(unix)]
#[tokio::test]
async fn a_pipe_in_the_place_of_a_segment_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path()).await;
    let pipe = segment_path(folder.path(), SegmentId(2));
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let mut mount = MountPoint::open(folder.path()).unwrap();
    assert_eq!(mount.opened().stray_count, 1);
    assert!(mount.open(SegmentId(2)).await.is_err());
    assert_eq!(mount.list().await.unwrap().len(), 1);
}
