//! Small documents beside the segments.

use std::fs;

use bytes::Bytes;
use kachet::core::storage::{SegmentId, Storage};
use kachet::mount::{MountError, MountPoint, NOTE_BYTES_MAX};

use super::noise;

#[tokio::test]
async fn a_note_is_there_after_a_restart_as_it_was_written_last() {
    let folder = tempfile::tempdir().unwrap();
    let notes = MountPoint::open(folder.path()).unwrap().notes();
    assert_eq!(notes.read("names").await.unwrap(), None);
    for length in [0, 1, 1 << 20] {
        let note = noise(length as u64, length);
        notes.write("names", note.clone()).await.unwrap();
        assert_eq!(notes.read("names").await.unwrap(), Some(note));
    }
    notes.write("other-names", noise(2, 10)).await.unwrap();
    drop(notes);
    let mount = MountPoint::open(folder.path()).unwrap();
    assert_eq!(mount.opened().stray_count, 0);
    let notes = mount.notes();
    assert_eq!(notes.read("names").await.unwrap(), Some(noise(1 << 20, 1 << 20)));
    assert_eq!(notes.read("other-names").await.unwrap(), Some(noise(2, 10)));
    notes.remove("names").await.unwrap();
    notes.remove("names").await.unwrap();
    assert_eq!(notes.read("names").await.unwrap(), None);
}

#[tokio::test]
async fn a_damaged_note_is_none_and_can_be_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let notes = MountPoint::open(folder.path()).unwrap().notes();
    notes.write("names", noise(1, 100)).await.unwrap();
    let path = folder.path().join("names.note");
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(notes.read("names").await.unwrap(), None, "{cut} bytes");
    }
    notes.write("names", noise(2, 100)).await.unwrap();
    assert_eq!(notes.read("names").await.unwrap(), Some(noise(2, 100)));
}

#[tokio::test]
async fn names_and_sizes_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let notes = MountPoint::open(folder.path()).unwrap().notes();
    for name in ["", "..", "a/b", "Names", "0000000000000001", &"a".repeat(33)] {
        let written = notes.write(name, Bytes::new()).await;
        assert!(matches!(written, Err(MountError::NoteName { .. })), "{name:?}");
        assert!(notes.read(name).await.is_err());
    }
    let too_large = Bytes::from(vec![0; usize::try_from(NOTE_BYTES_MAX).unwrap() + 1]);
    let written = notes.write("names", too_large.clone()).await;
    assert!(matches!(written, Err(MountError::NoteTooLarge { .. })));
    assert_eq!(notes.read("names").await.unwrap(), None);
    notes.write("names", too_large.slice(1..)).await.unwrap();
    assert_eq!(notes.read("names").await.unwrap(), Some(too_large.slice(1..)));
    // What somebody else made larger is not read into memory.
    let path = folder.path().join("names.note");
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(1 << 40).unwrap();
    assert_eq!(notes.read("names").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notes_are_written_by_many_while_segments_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut mount = MountPoint::open(folder.path()).unwrap();
    let writers = (0..8_u64).map(|writer| {
        let notes = mount.notes();
        tokio::spawn(async move {
            for _ in 0..20 {
                notes.write("names", noise(writer, 10_000)).await.unwrap();
                assert!(notes.read("names").await.unwrap().is_some(), "always a whole one");
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    for id in (0..50).map(SegmentId) {
        mount.create(id).await.unwrap();
        mount.append(id, vec![noise(id.0, 1_000)]).await.unwrap();
        mount.seal(id).await.unwrap();
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let note = mount.notes().read("names").await.unwrap().unwrap();
    assert!((0..8).any(|writer| note == noise(writer, 10_000)));
    assert_eq!(mount.list().await.unwrap().len(), 50);
}
