//! One process at a time has a mount point open.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, SystemTime};

use kachet::mount::{Holder, MountError, MountPoint};

use super::this_test;

const FOLDER: &str = "KACHET_TEST_HELD_FOLDER";

fn holder_of(error: MountError) -> Holder {
    let words = error.to_string();
    match error {
        MountError::Locked {
            holder: Some(holder), ..
        } => {
            assert!(words.contains(&format!("process {}", holder.pid)), "{words}");
            assert!(words.contains(&holder.program), "{words}");
            holder
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_mount_point_is_opened_once_in_a_process() {
    let folder = tempfile::tempdir().unwrap();
    let mount = MountPoint::open(folder.path()).unwrap();
    let holder = holder_of(MountPoint::open(folder.path()).unwrap_err());
    assert_eq!(holder.pid, std::process::id());
    let age = SystemTime::now().duration_since(holder.since).unwrap();
    assert!(age < Duration::from_secs(60), "{age:?}");
    drop(mount);
    MountPoint::open(folder.path()).unwrap();
}

#[test]
fn the_notes_of_a_mount_point_keep_it_locked() {
    let folder = tempfile::tempdir().unwrap();
    let notes = MountPoint::open(folder.path()).unwrap().notes();
    holder_of(MountPoint::open(folder.path()).unwrap_err());
    drop(notes);
    MountPoint::open(folder.path()).unwrap();
}

#[test]
fn it_is_free_at_once_though_other_processes_are_just_being_started() {
    let folder = tempfile::tempdir().unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    kachet_tests::child::command("true").status().unwrap();
                }
            });
        }
        for _ in 0..3_000 {
            let opened = MountPoint::open(folder.path());
            if let Err(error) = opened {
                is_over.store(true, Relaxed);
                panic!("{error}");
            }
        }
        is_over.store(true, Relaxed);
    });
}

#[test]
fn another_process_is_told_who_has_it_open_and_gets_it_when_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = this_test("locked::a_process_that_holds_a_mount_point");
    command.env(FOLDER, folder.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = kachet_tests::child::spawn_for_the_process(command).unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines
            .map_while(Result::ok)
            .any(|line| line.contains("it is held"))
    );
    let holder = holder_of(MountPoint::open(folder.path()).unwrap_err());
    assert_eq!(holder.pid, child.id());
    let program = std::env::current_exe().unwrap();
    assert_eq!(program.file_name().unwrap().to_string_lossy(), holder.program);
    // Without a chance to tidy up.
    child.kill().unwrap();
    child.wait().unwrap();
    MountPoint::open(folder.path()).unwrap();
}

/// Not a test by itself: the other process of the one above.
#[test]
fn a_process_that_holds_a_mount_point() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let mount = MountPoint::open(folder).unwrap();
    println!("\nit is held");
    // Until the other side is gone.
    let _ = std::io::stdin().read(&mut [0]);
    drop(mount);
}
