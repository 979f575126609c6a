use super::*;

/// Takes little at a time, and now and then nothing for a moment, as a system may.
struct Reluctant {
    taken: Vec<u8>,
    calls: usize,
    fails_after: usize,
}

impl Write for Reluctant {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.taken.len() >= self.fails_after {
            return Ok(0);
        }
        let all = slices.iter().flat_map(|slice| slice.iter());
        let taken: Vec<u8> = all.copied().take(7).collect();
        self.taken.extend(&taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pieces() -> Vec<Bytes> {
    (0..40_u8)
        .map(|length| Bytes::from(vec![length; (length % 5 * 4).into()]))
        .collect()
}

#[test]
fn short_and_interrupted_writes_go_on_where_they_stopped() {
    let mut file = Reluctant {
        taken: Vec::new(),
        calls: 0,
        fails_after: usize::MAX,
    };
    write_all(&mut file, &pieces()).unwrap();
    assert_eq!(file.taken, pieces().concat());
}

#[test]
fn a_medium_that_takes_nothing_more_is_an_error_and_no_endless_loop() {
    let mut file = Reluctant {
        taken: Vec::new(),
        calls: 0,
        fails_after: 50,
    };
    let error = write_all(&mut file, &pieces()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
}

#[test]
fn what_an_append_left_behind_that_failed_is_cut_before_anything_else_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut segments = Segments::new(folder.path().to_owned(), MountOptions::default());
    let id = SegmentId(1);
    segments.create(id).unwrap();
    segments.append(id, &[Bytes::from_static(b"whole")]).unwrap();
    for is_sealed in [false, true] {
        let written = segments.written.get_mut(&id).unwrap();
        // As if the write had failed, and then the cut.
        written.file.write_all(b"a torn and long tail").unwrap();
        written.has_torn_tail = true;
        assert_eq!(
            segments.list().unwrap()[0].size_bytes,
            segments.written[&id].size_bytes
        );
        if is_sealed {
            segments.seal(id).unwrap();
        } else {
            segments.append(id, &[Bytes::from_static(b" and")]).unwrap();
            assert_eq!(std::fs::read(segments.path(id)).unwrap(), b"whole and");
        }
    }
    let path = segments.path(id);
    assert_eq!(std::fs::read(path).unwrap(), b"whole and");
}
