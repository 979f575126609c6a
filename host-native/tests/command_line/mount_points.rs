//! `kachet mount`: what a mount point holds, whether it is intact, and emptying it. No broker runs.

use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings};
use kachet::mount::MountPoint;
use kachet::transport::{TcpSettings, TcpTransport};
use kachet_tests::child::Finished;
use serde_json::{Value, json};

use super::kachet;
use super::mounts::{BATCHES, cluster, filled, text};

const DEADLINE: Duration = Duration::from_secs(60);
const COMMANDS: [&[&str]; 4] = [&["stat"], &["list"], &["verify"], &["clear", "--yes"]];

fn mount(arguments: &[&str], folder: &Path) -> Result<Finished> {
    kachet(&[&["mount"], arguments, &[text(folder)?]].concat(), DEADLINE)
}

fn object(arguments: &[&str], folder: &Path) -> Result<Value> {
    let finished = mount(&[arguments, &["--json"]].concat(), folder)?;
    ensure!(finished.status.success(), "{arguments:?}: {}", finished.stderr);
    Ok(serde_json::from_slice(&finished.stdout)?)
}

fn text_of(arguments: &[&str], folder: &Path) -> Result<String> {
    let finished = mount(arguments, folder)?;
    ensure!(finished.status.success(), "{arguments:?}: {}", finished.stderr);
    Ok(String::from_utf8(finished.stdout)?)
}

/// The segments, and when each was changed, which nothing here may do.
fn files(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "segment")
        {
            files.push((entry.path(), entry.metadata()?.len()));
        }
    }
    files.sort();
    Ok(files)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stat_and_list_tell_what_is_there() -> Result<()> {
    let (folder, _, _) = filled("first", 1).await?;
    let folder = folder.path();
    fs::write(folder.join("shopping list"), "milk")?;
    let size_bytes: u64 = files(folder)?.iter().map(|(_, size)| size).sum();
    let stat = object(&["stat"], folder)?;
    for (field, value) in [
        ("format_version", json!(1)),
        ("cluster_id", json!("first")),
        ("segments", json!(files(folder)?.len())),
        ("size_bytes", json!(size_bytes)),
        ("scanned_segments", json!(0)),
        ("unreadable_segments", json!(0)),
        ("topics", json!(1)),
        ("partitions", json!(2)),
        ("batches", json!(2 * BATCHES)),
        ("first_offset", json!(0)),
        ("last_offset", json!(16 * BATCHES - 1)),
        ("stray_count", json!(1)),
    ] {
        assert_eq!(stat[field], value, "{field}: {stat}");
    }
    ensure!(stat["oldest_segment_s"].as_u64() > Some(1_700_000_000), "{stat}");
    ensure!(stat["newest_segment_s"].as_u64() >= stat["oldest_segment_s"].as_u64());
    ensure!(stat["batch_bytes"].as_u64() < Some(size_bytes) && stat["batch_bytes"].as_u64() > Some(0));
    let words = text_of(&["stat"], folder)?;
    for word in ["first", "shopping list", "2 of 1 topics", "0..479"] {
        assert!(words.contains(word), "no {word} in {words}");
    }

    let list = object(&["list"], folder)?;
    let topics = list["topics"].as_array().context("no topics")?;
    assert_eq!(topics.len(), 1, "{list}");
    assert_eq!(topics[0]["name"], "orders");
    for (index, partition) in (0..).zip(topics[0]["partitions"].as_array().context("no partitions")?) {
        assert_eq!(partition["partition"], index);
        assert_eq!(partition["batches"], BATCHES);
        assert_eq!(partition["ranges"], json!([[0, 479]]));
        assert_eq!(
            (&partition["first_offset"], &partition["last_offset"]),
            (&json!(0), &json!(479))
        );
    }
    let words = text_of(&["list"], folder)?;
    let full = format!("[{}] 0..479  {BATCHES} batches", "#".repeat(40));
    assert_eq!(words.matches(&full).count(), 2, "{words}");
    assert!(words.starts_with("orders\n"), "{words}");
    let id = topics[0]["id"].as_str().context("no id")?;
    assert_eq!(text_of(&["list", "--topic", id], folder)?, words);
    assert_eq!(
        text_of(&["list", "--topic", "other", "--topic", "orders"], folder)?,
        words
    );
    assert!(text_of(&["list", "--topic", "other"], folder)?.contains("nothing is cached"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bar_has_gaps_where_nothing_is_cached() -> Result<()> {
    let broker = cluster("first", 1).await?;
    let folder = tempfile::tempdir()?;
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default()))
        .size_limit_bytes(64 << 20)
        .mount(MountPoint::open(folder.path())?)
        .build();
    let client = Client::new(cache, vec![broker.address().clone()], ClientSettings::default())?;
    // A record brings its batch of 16.
    for offset in [0, 20, 200, 479] {
        client.record("orders", 1, offset).await?;
    }
    client.transport().write_out().await;
    drop(client);
    let list = loop {
        // The last job of the cache may hold it for a moment.
        match object(&["list"], folder.path()) {
            Err(error) if error.to_string().contains("in use by") => {}
            list => break list?,
        }
    };
    let partitions = list["topics"][0]["partitions"]
        .as_array()
        .context("no partitions")?;
    assert_eq!(partitions.len(), 1, "{list}");
    assert_eq!(
        (&partitions[0]["partition"], &partitions[0]["batches"]),
        (&json!(1), &json!(4))
    );
    assert_eq!(partitions[0]["ranges"], json!([[0, 31], [192, 207], [464, 479]]));
    let words = text_of(&["list", "--ascii"], folder.path())?;
    let bar = format!(
        "     1 [##+{}#-{}-#] 0..479  4 batches",
        " ".repeat(13),
        " ".repeat(20)
    );
    assert!(words.contains(&bar), "{words}");
    assert!(words.contains("0..31, 192..207, 464..479"), "{words}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_every_damaged_record_and_changes_nothing() -> Result<()> {
    let (folder, _, _) = filled("first", 1).await?;
    let folder = folder.path();
    let intact = object(&["verify"], folder)?;
    assert_eq!(
        (&intact["records"], &intact["damaged_count"]),
        (&json!(2 * BATCHES), &json!(0))
    );
    assert_eq!(intact["segments"], files(folder)?.len());

    let (path, size_bytes) = files(folder)?.into_iter().next().context("no segment")?;
    let mut bytes = fs::read(&path)?;
    let middle = usize::try_from(size_bytes / 2)?;
    bytes[middle] ^= 0x10;
    fs::write(&path, &bytes)?;
    let before = files(folder)?;
    let finished = mount(&["verify", "--json"], folder)?;
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("damaged records or segments: 1"),
        "{}",
        finished.stderr
    );
    let damaged: Value = serde_json::from_slice(&finished.stdout)?;
    assert_eq!(
        (&damaged["records"], &damaged["damaged_count"]),
        (&json!(2 * BATCHES), &json!(1))
    );
    let record = &damaged["damaged"][0];
    let name = path.file_stem().context("no name")?.to_string_lossy();
    assert_eq!(record["segment"], json!(name), "{damaged}");
    let at_byte = record["at_byte"].as_u64().context("no place")?;
    ensure!(
        at_byte <= size_bytes / 2 && at_byte + 16_384 > size_bytes / 2,
        "{damaged}"
    );
    ensure!(
        record["partition"].is_i64() && record["first_offset"].is_i64(),
        "{damaged}"
    );
    let words = mount(&["verify"], folder)?;
    assert!(String::from_utf8_lossy(&words.stdout).contains(&format!("byte {at_byte}, offsets")));
    assert_eq!((files(folder)?, fs::read(&path)?), (before, bytes.clone()));

    // Without its footer the segment is walked, and the damaged record is found all the same; the end is not intact.
    bytes.truncate(bytes.len() - 3);
    fs::write(&path, &bytes)?;
    let finished = mount(&["verify", "--json"], folder)?;
    let torn: Value = serde_json::from_slice(&finished.stdout)?;
    assert_eq!(finished.status.code(), Some(1));
    assert_eq!(
        (&torn["records"], &torn["damaged_count"]),
        (&json!(2 * BATCHES), &json!(2)),
        "{torn}"
    );
    assert_eq!(&torn["damaged"][0]["at_byte"], at_byte);
    assert_eq!(object(&["stat"], folder)?["scanned_segments"], 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clear_removes_everything_but_the_mount_point() -> Result<()> {
    let (folder, _, _) = filled("first", 1).await?;
    let folder = folder.path();
    fs::write(folder.join("shopping list"), "milk")?;
    let unasked = mount(&["clear"], folder)?;
    assert_eq!(unasked.status.code(), Some(2));
    assert!(unasked.stderr.contains("--yes"), "{}", unasked.stderr);
    ensure!(!files(folder)?.is_empty());

    assert!(text_of(&["clear", "--yes"], folder)?.starts_with("removed "));
    let stat = object(&["stat"], folder)?;
    assert_eq!((&stat["segments"], &stat["batches"]), (&json!(0), &json!(0)));
    assert_eq!(
        (&stat["cluster_id"], &stat["first_offset"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(object(&["list"], folder)?["topics"], json!([]));
    assert_eq!(object(&["verify"], folder)?["damaged_count"], 0);
    ensure!(folder.join("shopping list").exists());
    Ok(())
}

#[test]
fn what_is_no_mount_point_is_an_error_and_stays_what_it_is() -> Result<()> {
    let parent = tempfile::tempdir()?;
    let place = |name: &str| parent.path().join(name);
    fs::create_dir(place("empty"))?;
    fs::create_dir(place("full"))?;
    fs::write(place("full").join("photo"), "")?;
    fs::write(place("file"), "")?;
    drop(MountPoint::open(place("newer"))?);
    let mut newer = b"KACHETMT\0\0\0\x07".to_vec();
    newer.extend(crc32c::crc32c(&newer).to_be_bytes());
    fs::write(place("newer").join("kachet.superblock"), newer)?;
    for (name, words) in [
        ("missing", &["is no mount point", "no such folder"][..]),
        ("empty", &["is no mount point", "is empty"]),
        ("full", &["is no mount point", "photo"]),
        ("file", &["is no mount point", "not a folder"]),
        ("newer", &["later release", "7"]),
    ] {
        for command in COMMANDS {
            let finished = mount(command, &place(name))?;
            assert_eq!(finished.status.code(), Some(1), "{name}, {command:?}");
            assert_eq!(
                finished.stderr.lines().count(),
                1,
                "{name}, {command:?}: {}",
                finished.stderr
            );
            for word in words {
                assert!(
                    finished.stderr.contains(word),
                    "{name}, {command:?}: {}",
                    finished.stderr
                );
            }
        }
    }
    ensure!(!place("missing").exists());
    ensure!(fs::read_dir(place("empty"))?.next().is_none());
    Ok(())
}

#[test]
fn whoever_has_it_open_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let held = MountPoint::open(folder.path())?;
    let holder = format!("process {}", std::process::id());
    let fetch = ["fetch", "--bootstrap", "127.0.0.1:1", "a/0@0", "--mount"];
    let fetch = kachet(&[&fetch[..], &[text(folder.path())?]].concat(), DEADLINE)?;
    let commands = COMMANDS.iter().map(|command| mount(command, folder.path()));
    for finished in commands.chain([Ok(fetch)]) {
        let finished = finished?;
        assert_eq!(finished.status.code(), Some(1));
        assert!(finished.stderr.contains(&holder), "{}", finished.stderr);
    }
    drop(held);
    assert_eq!(object(&["stat"], folder.path())?["segments"], 0);
    Ok(())
}

#[test]
fn a_mount_of_no_size_is_wrong_usage() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mount = text(folder.path())?;
    let arguments = [
        "fetch",
        "--bootstrap",
        "localhost:1",
        "a/0@0",
        "--size-limit",
        "0",
        "--mount",
        mount,
    ];
    let finished = kachet(&arguments, DEADLINE)?;
    assert_eq!(finished.status.code(), Some(2), "{}", finished.stderr);
    let arguments = [
        "fetch",
        "--bootstrap",
        "localhost:1",
        "a/0@0",
        "--mount-read-mode",
        "mapped",
    ];
    assert_eq!(kachet(&arguments, DEADLINE)?.status.code(), Some(2));
    Ok(())
}
