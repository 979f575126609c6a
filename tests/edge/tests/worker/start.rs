//! How long it takes until a Worker answers.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;
use kachet_edge_tests::made;
use kachet_edge_tests::workerd::{self, Workerd};
use kachet_tests::curl;
use kachet_tests::setup::or_skip;

/// Workers are given a second of start-up.
const LIMIT: Duration = Duration::from_secs(1);
const STARTS: usize = 5;

/// A Worker that does nothing.
const BARE: &str = r#"
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "worker", worker = .worker)],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "worker")],
);
const worker :Workerd.Worker = (
  compatibilityDate = "2026-11-01",
  modules = [(name = "worker.js", esModule = "export default { fetch: () => new Response('{}') };")],
);
"#;

/// From its beginning to its first answer, the shortest of a few.
fn started(start: impl Fn() -> Result<Workerd>) -> Result<Duration> {
    let mut shortest = Duration::MAX;
    for _ in 0..STARTS {
        let begin = Instant::now();
        let workerd = start()?;
        let answer = curl::ask(&[&format!("http://{}/stats", workerd.address())], b"")?;
        assert_eq!(answer.status, 200, "{answer:?} {}", workerd.log());
        shortest = shortest.min(begin.elapsed());
    }
    Ok(shortest)
}

#[test]
fn the_package_takes_little_of_a_workers_start() -> Result<()> {
    if or_skip(made("npm/worker").and_then(|_| workerd::program())).is_none() || !curl::is_there() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let bare = folder.path().join("bare.capnp");
    fs::write(&bare, BARE)?;
    let bare = started(|| Workerd::start(&bare, &[], &[]))?;
    let snapshots = format!("--directory-path=snapshots={}", folder.path().display());
    let environment = [("GATEWAY_URL", "http://127.0.0.1:1")];
    let configuration = made("npm/worker/config.capnp")?;
    let edge = started(|| Workerd::start(&configuration, &environment, std::slice::from_ref(&snapshots)))?;
    println!("workerd answers after {bare:.0?} with a bare Worker and after {edge:.0?} with this one");
    assert!(edge.saturating_sub(bare) < LIMIT, "{bare:?} {edge:?}");
    Ok(())
}
