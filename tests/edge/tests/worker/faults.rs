//! The gateway goes away, isolates end, clients give up, memory is little.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kachet_edge_tests::{made, workerd};
use kachet_tests::{curl, records};

use crate::{Edge, gateway_before, set_up};

/// For what happens behind an answer.
const PATIENCE: Duration = Duration::from_secs(30);

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        anyhow::ensure!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_gateway_it_serves_what_is_cached_within_the_bound_and_after_its_own_end() -> Result<()> {
    let Some((broker, mut writer)) = set_up() else {
        return Ok(());
    };
    let topic = "edge-down";
    writer.command(&format!("create {topic} 2"))?;
    writer.command(&format!("produce {topic} 0 gzip 10 10 1"))?;
    writer.command(&format!("produce {topic} 1 gzip 10 10 1"))?;
    let gateway = gateway_before(broker).await?;
    let address = gateway.address();
    let settings = [("MAX_STALENESS_MS", "12000"), ("SNAPSHOT_INTERVAL_MS", "0")];
    let edge = Edge::start(address, &settings)?;
    let begin = Instant::now();
    let (record, hit) = edge.lines(&format!("/topics/{topic}/0/3"))?;
    assert!(!hit);
    let (kept, snapshots) = (edge.snapshots.path().join("cache"), &edge.snapshots);
    wait_for("a snapshot", || kept.is_file())?;
    gateway.stop().await;

    assert_eq!(
        edge.lines(&format!("/topics/{topic}/0/3"))?,
        (record.clone(), true)
    );
    let (status, code, _) = edge.problem(&format!("/topics/{topic}/1/3"), &[])?;
    assert_eq!((status, code.as_str()), (503, "upstream-down"));

    // Another isolate, with what this one has left.
    let inherited = tempfile::tempdir()?;
    std::fs::copy(&kept, inherited.path().join("cache"))?;
    let heir = Edge::resume(address, &settings, inherited)?;
    assert_eq!(heir.lines(&format!("/topics/{topic}/0/3"))?, (record, true));
    assert_eq!(heir.figure("upstream_fetches")?, 0);
    anyhow::ensure!(
        begin.elapsed() < Duration::from_secs(12),
        "this machine is too slow for this test"
    );

    thread::sleep(Duration::from_secs(12).saturating_sub(begin.elapsed()) + Duration::from_millis(100));
    for one in [&edge, &heir] {
        let (status, code, _) = one.problem(&format!("/topics/{topic}/0/3"), &[])?;
        assert_eq!((status, code.as_str()), (503, "upstream-down"));
    }

    // A damaged snapshot is as good as none.
    let damaged = tempfile::tempdir()?;
    let mut bytes = std::fs::read(snapshots.path().join("cache"))?;
    bytes.truncate(bytes.len() / 2);
    std::fs::write(damaged.path().join("cache"), bytes)?;
    let gateway = gateway_before(broker).await?;
    let well = Edge::resume(gateway.address(), &settings, damaged)?;
    assert_eq!(well.lines(&format!("/topics/{topic}/0/3"))?.0[0]["offset"], 3);
    assert!(
        well.workerd.log().contains("cannot be restored"),
        "{}",
        well.workerd.log()
    );
    Ok(())
}

/// Passes connections on to the gateway and holds back what a `POST` asks, each for this long; counts them.
fn slow(gateway: SocketAddr, delay: Duration) -> Result<(SocketAddr, Arc<AtomicU64>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (address, count) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let counted = Arc::clone(&counted);
            thread::spawn(move || pass(client, gateway, delay, &counted).ok());
        }
    });
    Ok((address, count))
}

fn pass(mut client: TcpStream, gateway: SocketAddr, delay: Duration, count: &AtomicU64) -> Result<()> {
    use std::io::{Read, Write};
    let mut upstream = TcpStream::connect(gateway)?;
    let (mut answers, mut back) = (upstream.try_clone()?, client.try_clone()?);
    thread::spawn(move || std::io::copy(&mut answers, &mut back));
    let mut asked = [0; 4096];
    loop {
        let length = client.read(&mut asked)?;
        if length == 0 {
            return Ok(());
        }
        if asked.starts_with(b"POST") {
            count.fetch_add(1, Ordering::Relaxed);
            thread::sleep(delay);
        }
        upstream.write_all(&asked[..length])?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_ask_for_the_same_share_one_fetch_though_the_first_gives_up() -> Result<()> {
    let Some((broker, mut writer)) = set_up() else {
        return Ok(());
    };
    let topic = "edge-shared";
    writer.command(&format!("create {topic} 1"))?;
    writer.command(&format!("produce {topic} 0 none 10 10 1"))?;
    let gateway = gateway_before(broker).await?;
    let (address, posts) = slow(gateway.address(), Duration::from_secs(3))?;
    let edge = Edge::start(address, &[])?;
    let url = edge.url(&format!("/topics/{topic}/0/3"));
    let gives_up = curl::ask(&["--max-time", "1.5", &url], b"");
    let error = gives_up.err().context("the first one was answered")?.to_string();
    assert!(error.contains("exit status: 28"), "{error}");
    let others: Vec<_> = (0..12)
        .map(|_| {
            let url = url.clone();
            thread::spawn(move || curl::ask(&[&url], b""))
        })
        .collect();
    for other in others {
        let answer = other.join().expect("no panic")?;
        assert_eq!(answer.status, 200, "{answer:?} {}", edge.workerd.log());
        assert_eq!(answer.json()?["key"], records::key(1, 3));
    }
    assert_eq!(
        (posts.load(Ordering::Relaxed), edge.figure("upstream_fetches")?),
        (1, 1)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_within_its_bound() -> Result<()> {
    let Some((broker, mut writer)) = set_up() else {
        return Ok(());
    };
    let topic = "edge-bound";
    writer.command(&format!("create {topic} 1"))?;
    writer.command(&format!("produce {topic} 0 none 1200 10 1 size=8000"))?;
    let gateway = gateway_before(broker).await?;
    let limit = 1 << 20;
    let edge = Edge::start(gateway.address(), &[("SIZE_LIMIT", "1048576")])?;
    let mut memory = Vec::new();
    for _ in 0..3 {
        for from in (0..1200).step_by(100) {
            let (lines, _) = edge.lines(&format!("/topics/{topic}/0?offset={from}&count=100"))?;
            assert_eq!(lines.len(), 100);
            for (index, line) in (from..).zip(&lines) {
                assert_eq!(line["payload"], records::value_of_size(1, index, 8000));
            }
            assert!(edge.figure("size_bytes")? <= limit);
        }
        memory.push(edge.figure("memory_bytes")?);
    }
    assert!(edge.figure("evictions")? > 10);
    assert!(edge.figure("inserts")? > 0);
    // 29 MB have gone through: the cache, an answer of a mebibyte, what is read of it.
    assert!(memory[2] <= 8 << 20, "{memory:?}");
    assert_eq!(memory[1], memory[2], "{memory:?}");
    Ok(())
}

/// As if the module had trapped.
const TRAPS: &str = "
import { Cache, KachetError } from 'kachet';
import worker from 'worker.js';
Cache.prototype.records = () => { throw new KachetError('TRAPPED', 'the module has trapped'); };
export default worker;
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_the_module_fails_reads_go_to_the_gateway() -> Result<()> {
    let Some((broker, mut writer)) = set_up() else {
        return Ok(());
    };
    let topic = "edge-trapped";
    writer.command(&format!("create {topic} 1"))?;
    writer.command(&format!("produce {topic} 0 none 10 10 1"))?;
    let gateway = gateway_before(broker).await?;
    let folder = workerd::example_beginning_with(TRAPS, &made("npm/worker/problem.js")?)?;
    let edge = Edge::of(
        &folder.path().join("config.capnp"),
        gateway.address(),
        &[],
        tempfile::tempdir()?,
    )?;
    for _ in 0..2 {
        assert_eq!(
            edge.lines(&format!("/topics/{topic}/0/3"))?.0[0]["key"],
            records::key(1, 3)
        );
        assert_eq!(
            edge.lines(&format!("/topics/{topic}/0?offset=2&count=5"))?
                .0
                .len(),
            5
        );
    }
    let (status, code, _) = edge.problem(&format!("/topics/{topic}/0/99"), &[])?;
    assert_eq!((status, code.as_str()), (404, "beyond-end"));
    Ok(())
}
