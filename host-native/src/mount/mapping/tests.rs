use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Arc;
use std::thread;

use super::*;

const CHILD: &str = "KACHET_TEST_FOREIGN_MAPPING";
const PAGE_BYTES: usize = 4096;

fn file_of(pages: usize) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![7; pages * PAGE_BYTES]).unwrap();
    file
}

#[test]
fn what_is_cut_off_a_mapped_file_reads_as_zeros_and_the_mapping_is_damaged() {
    let file = file_of(8);
    let mapping = Mapping::new(&file, 8 * PAGE_BYTES - 100).unwrap();
    let other = Mapping::new(&file_of(8), 8 * PAGE_BYTES).unwrap();
    assert!(mapping.bytes().iter().all(|byte| *byte == 7) && !mapping.is_damaged());
    file.set_len(5 * PAGE_BYTES as u64).unwrap();
    let (there, missing) = mapping.bytes().split_at(5 * PAGE_BYTES);
    assert!(there.iter().all(|byte| *byte == 7) && !mapping.is_damaged());
    assert!(missing.iter().all(|byte| *byte == 0));
    assert!(mapping.is_damaged());
    assert!(other.bytes().iter().all(|byte| *byte == 7) && !other.is_damaged());
}

#[test]
fn many_threads_that_meet_the_cut_at_once_all_go_on() {
    for _ in 0..50 {
        let file = file_of(64);
        let mapping = Arc::new(Mapping::new(&file, 64 * PAGE_BYTES).unwrap());
        let readers: Vec<_> = (0..4_usize)
            .map(|reader| {
                let mapping = Arc::clone(&mapping);
                thread::spawn(move || {
                    let places = (0..64).map(|page| (page * 5 + reader * 16) % 64 * PAGE_BYTES);
                    places.filter(|place| mapping.bytes()[*place] == 7).count()
                })
            })
            .collect();
        file.set_len(3 * PAGE_BYTES as u64).unwrap();
        for reader in readers {
            assert!(reader.join().unwrap() >= 3);
        }
    }
}

#[test]
fn the_place_of_a_mapping_that_is_gone_is_used_again() {
    let file = file_of(1);
    for _ in 0..bus_error::MAPPINGS_MAX + 10 {
        let mapping = Mapping::new(&file, PAGE_BYTES).unwrap();
        assert!(!mapping.is_damaged());
    }
}

#[test]
fn what_is_not_in_memory_is_told_from_what_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, vec![7; 1_000 * PAGE_BYTES]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mapping = Mapping::new(&file, 1_000 * PAGE_BYTES).unwrap();
    let all = 0..1_000 * PAGE_BYTES;
    assert!(mapping.is_resident(all.clone()), "just written");
    file.sync_all().unwrap();
    drop_from_page_cache(&file);
    assert_eq!(mapping.is_resident(all.clone()), are_all_in_memory(&mapping));
    if are_all_in_memory(&mapping) {
        // Of a file that lies in memory only, as on tmpfs, nothing is ever dropped.
        return;
    }
    assert_eq!(mapping.bytes()[600 * PAGE_BYTES], 7);
    assert!(mapping.is_resident(600 * PAGE_BYTES..601 * PAGE_BYTES));
    // How much came with it the system decides.
    assert!(mapping.bytes().iter().all(|byte| *byte == 7));
    assert!(mapping.is_resident(all));
    assert!(mapping.is_resident(5..5), "nothing is there at once");
    assert!(!mapping.is_resident(0..1_000 * PAGE_BYTES + 1), "beyond the end");
}

/// Asked after page by page.
fn are_all_in_memory(mapping: &Mapping) -> bool {
    mapping.bytes().chunks(PAGE_BYTES).all(|page| {
        let mut state = 0_u8;
        // SAFETY: The page is part of the mapping, and its state takes one byte.
        let told = unsafe { libc::mincore(page.as_ptr().cast_mut().cast(), PAGE_BYTES, &raw mut state) };
        assert_eq!(told, 0);
        state & 1 == 1
    })
}

fn drop_from_page_cache(file: &File) {
    use std::os::fd::AsRawFd;
    // SAFETY: A hint about a file that is open.
    let advised = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(advised, 0);
}

#[test]
fn a_bus_error_of_somebody_elses_mapping_ends_the_process_as_ever() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::time::Duration;

    let name = "mount::mapping::tests::a_process_that_reads_beyond_its_own_mapping";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(CHILD, "1");
    let ended = kachet_tests::child::run(command, b"", Duration::from_secs(20));
    let status = ended.unwrap().status;
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
}

/// Not a test by itself: the process that is ended.
#[test]
fn a_process_that_reads_beyond_its_own_mapping() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let ours = Mapping::new(&file_of(8), 8 * PAGE_BYTES).unwrap();
    let file = file_of(8);
    // SAFETY: What becomes of it is what is to be seen.
    let others = unsafe { Mmap::map(&file) }.unwrap();
    file.set_len(0).unwrap();
    assert_eq!(others[5 * PAGE_BYTES], 0);
    assert!(!ours.is_damaged());
}
