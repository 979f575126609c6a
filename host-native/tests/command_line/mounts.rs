//! `kachet fetch --mount`, against the embedded broker: what is read stays, and is read again without it.

use core::time::Duration;
use std::net::TcpListener;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Events, Packing, pack};
use kachet_tests::child::Finished;
use serde_json::Value;
use tempfile::TempDir;

use super::{fails, kachet};

const DEADLINE: Duration = Duration::from_secs(60);
pub(super) const BATCHES: usize = 30;
const RECORDS_PER_BATCH: usize = 16;
const RECORDS: usize = BATCHES * RECORDS_PER_BATCH;

/// A cluster of this id whose topic `orders` has two partitions with records of this seed.
pub(super) async fn cluster(id: &str, seed: u64) -> Result<EmbeddedBroker> {
    let settings = BrokerSettings {
        cluster_id: id.to_owned(),
        ..BrokerSettings::default()
    };
    let broker = EmbeddedBroker::start(settings).await?;
    broker.create_topic("orders", 2)?;
    let mut events = Events::new(seed);
    for _ in 0..BATCHES {
        for partition in 0..2 {
            let batch: Vec<_> = events.by_ref().take(RECORDS_PER_BATCH).collect();
            broker.append("orders", partition, pack(&batch, Packing::Lz4)?)?;
        }
    }
    Ok(broker)
}

pub(super) fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path is not UTF-8")
}

/// Reads all of both partitions by way of a mount point.
fn fetch_all(bootstrap: &str, folder: &Path, more: &[&str]) -> Result<Finished> {
    let count = RECORDS.to_string();
    let arguments = [
        "fetch",
        "--bootstrap",
        bootstrap,
        "--mount",
        text(folder)?,
        "--timeout",
        "10s",
        "--stats",
        "--count",
        &count,
        "orders/0@0",
        "orders/1@0",
    ];
    kachet(&[arguments.as_slice(), more].concat(), DEADLINE)
}

/// What it printed, after it has gone well, and its statistics.
fn ended_well(finished: &Finished) -> Result<(&[u8], Value)> {
    ensure!(finished.status.success(), "{}", finished.stderr);
    Ok((&finished.stdout, serde_json::from_str(finished.stderr.trim())?))
}

/// A mount point with all of both partitions, of a broker that has gone, and what was printed.
pub(super) async fn filled(id: &str, seed: u64) -> Result<(TempDir, String, Vec<u8>)> {
    let broker = cluster(id, seed).await?;
    let bootstrap = broker.address().to_string();
    let folder = tempfile::tempdir()?;
    let first = fetch_all(&bootstrap, folder.path(), &[])?;
    let (printed, statistics) = ended_well(&first)?;
    assert_eq!(printed.split(|byte| *byte == b'\n').count() - 1, 2 * RECORDS);
    assert_eq!(statistics["batches"], 2 * BATCHES);
    assert_eq!(statistics["unwritten_bytes"], 0);
    let printed = printed.to_vec();
    broker.stop().await;
    Ok((folder, bootstrap, printed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_fetched_is_read_in_both_ways_when_the_broker_is_gone() -> Result<()> {
    let (folder, bootstrap, printed) = filled("first", 1).await?;
    let forever = ["--max-staleness", "forever"];
    for more in [
        &[][..],
        &["--mount-read-mode", "mapped"],
        &["--isolation", "committed"],
    ] {
        let again = fetch_all(&bootstrap, folder.path(), &[&forever, more].concat())?;
        let (read, statistics) = ended_well(&again)?;
        assert!(read == printed, "{more:?}");
        assert_eq!(statistics["upstream_fetches"], 0, "{more:?}: {statistics}");
    }
    // With another size of segments than before, because the limit is another.
    let small = fetch_all(
        &bootstrap,
        folder.path(),
        &[&forever[..], &["--size-limit", "64MiB"]].concat(),
    )?;
    assert!(ended_well(&small)?.0 == printed);

    let mount = text(folder.path())?;
    let down = ["cannot connect to", &bootstrap];
    let without = ["orders/0@0", "--mount", mount];
    fails(
        &bootstrap,
        &without,
        4,
        &[&down[..], &["--max-staleness forever"]].concat(),
    )?;
    for position in ["earliest", "latest-1", "@1"] {
        let target = format!("orders/0@{position}");
        let words = [&down[..], &["only a broker knows", "kachet mount list"]].concat();
        fails(
            &bootstrap,
            &[&forever[..], &[&target, "--mount", mount]].concat(),
            4,
            &words,
        )?;
    }
    let beyond = format!("orders/0@{RECORDS}");
    let words = [&down[..], &["not all in the mount point"]].concat();
    fails(
        &bootstrap,
        &[&forever[..], &[&beyond, "--mount", mount]].concat(),
        4,
        &words,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_silent_holds_no_hit_up() -> Result<()> {
    let (folder, bootstrap, printed) = filled("first", 1).await?;
    // It takes connections, and never says anything.
    let silent = TcpListener::bind(&bootstrap)?;
    let started = Instant::now();
    let again = fetch_all(&bootstrap, folder.path(), &["--max-staleness", "forever"])?;
    assert!(ended_well(&again)?.0 == printed);
    ensure!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    drop(silent);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_one_cluster_is_served_for_another() -> Result<()> {
    for more in [&[][..], &["--max-staleness", "forever"]] {
        let (folder, _, printed) = filled("first", 1).await?;
        let other = cluster("second", 2).await?;
        let bootstrap = other.address().to_string();
        let of_other = fetch_all(&bootstrap, folder.path(), more)?;
        let (read, statistics) = ended_well(&of_other)?;
        assert!(read != printed);
        // All of it was fetched, and nothing of the first is there any more.
        assert_eq!(statistics["inserts"], 2 * BATCHES, "{statistics}");
        assert_eq!(statistics["batches"], 2 * BATCHES, "{statistics}");
        other.stop().await;
        let again = fetch_all(&bootstrap, folder.path(), &["--max-staleness", "forever"])?;
        assert!(ended_well(&again)?.0 == read);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_not_known_to_be_of_the_cluster_is_not_answered_for() -> Result<()> {
    let (folder, _, _) = filled("first", 1).await?;
    let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let arguments = [
        "orders/0@0",
        "--max-staleness",
        "forever",
        "--mount",
        text(folder.path())?,
    ];
    fails(&free, &arguments, 4, &["cannot connect to", &free])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smaller_limit_holds_from_the_next_start_on() -> Result<()> {
    let broker = cluster("first", 1).await?;
    let bootstrap = broker.address().to_string();
    let folder = tempfile::tempdir()?;
    let stat = || -> Result<u64> {
        let finished = kachet(&["mount", "stat", "--json", text(folder.path())?], DEADLINE)?;
        let stat: Value = serde_json::from_slice(&finished.stdout)?;
        stat["size_bytes"].as_u64().context("no size")
    };
    ended_well(&fetch_all(&bootstrap, folder.path(), &[])?)?;
    let before = stat()?;
    let limit = before / 2;
    ended_well(&fetch_all(
        &bootstrap,
        folder.path(),
        &["--size-limit", &format!("{limit}B")],
    )?)?;
    let after = stat()?;
    ensure!(after <= limit, "{after} of {before} bytes, {limit} were allowed");
    ensure!(after > limit / 2, "{after} of {limit}");
    Ok(())
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_leaves_everything_written() -> Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let broker = cluster("first", 1).await?;
    let bootstrap = broker.address().to_string();
    let folder = tempfile::tempdir()?;
    let count = RECORDS.to_string();
    let mut kachet = kachet_tests::child::command(env!("CARGO_BIN_EXE_kachet"));
    super::without_environment(&mut kachet).args(["fetch", "--bootstrap", &bootstrap, "orders/0@0"]);
    kachet.args(["--count", &count, "--repeat", "1000000", "--mount"]);
    kachet
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = kachet.spawn()?;
    let output = child.stdout.take().context("it is piped")?;
    let mut output = BufReader::new(output).lines();
    for _ in 0..RECORDS {
        output.next().context("it goes on")??;
    }
    // It goes on, into a pipe that nobody empties.
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.context("no process")?, Signal::INT)?;
    let status = kachet_tests::child::wait(&mut child, Duration::from_secs(20));
    kachet_tests::child::end(&mut child, Duration::ZERO);
    assert_eq!(status.context("it does not end")?.code(), Some(130));

    let stat = super::kachet(&["mount", "stat", "--json", text(folder.path())?], DEADLINE)?;
    let stat: Value = serde_json::from_slice(&stat.stdout)?;
    assert_eq!(
        (&stat["batches"], &stat["scanned_segments"]),
        (&BATCHES.into(), &0.into())
    );
    assert_eq!(stat["cluster_id"], "first");
    Ok(())
}
