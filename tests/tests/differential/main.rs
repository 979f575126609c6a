//! Random Fetch requests, sent to a real Kafka and to the proxy before it, over topics that hurt; every answer is judged
//! by rule. `cargo xtask differential` runs as many as one likes.

mod broker;
mod campaign;
mod changes;
mod connection;
mod contents;
mod faults;
mod judge;
mod living_sessions;
mod requests;
mod sessions;
mod topics;
mod truth;

use core::time::Duration;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use fastrand::Rng;
use kachet::cache::Cache;
use kachet::mount::MountPoint;
use kachet::proxy::{Proxy, ProxySettings};
use kachet::transport::{TcpSettings, TcpTransport};
use kachet_core::storage::Storage;
use kachet_core::time::MaxStaleness;
use kachet_core::wire::TopicId;
use kachet_tests::java::TopicWriter;
use kachet_tests::kafka::{KafkaBroker, KafkaSettings, own_kafka, writer_for};
use tokio::sync::OnceCell;

use crate::campaign::{Outcome, Plan, Target, over_settled};
use crate::changes::{BOUND, COMPACTED_BOUND, Counts, while_changing};
use crate::faults::{Fault, Injector};
use crate::truth::Truth;

/// What a run of all tests judges; `cargo xtask differential` says otherwise.
const REQUESTS: u64 = 4_000;
/// Fetch sessions that go on while topics change, at least.
const SESSIONS: u64 = 10;
/// Too small for the topics, so that batches are evicted.
const SMALL_CACHE_BYTES: u64 = 3 << 20;
const LARGE_CACHE_BYTES: u64 = 64 << 20;

/// A broker with the topics that hurt, for all tests here.
struct Scene {
    kafka: KafkaBroker,
    /// Ends its open transactions when it goes.
    _writer: Mutex<TopicWriter>,
    truth: Arc<Truth>,
    buried: Arc<Vec<TopicId>>,
}

/// `None` where there is no Kafka.
async fn scene() -> Result<Option<&'static Scene>> {
    static SCENE: OnceCell<Option<Scene>> = OnceCell::const_new();
    let begin = async || -> Result<Option<Scene>> {
        let Some(mut kafka) = own_kafka(&KafkaSettings::default()) else {
            return Ok(None);
        };
        let Some(mut writer) = writer_for(&kafka) else {
            return Ok(None);
        };
        let (truth, buried) = topics::settle(&mut kafka, &mut writer).await?;
        Ok(Some(Scene {
            kafka,
            _writer: Mutex::new(writer),
            truth: Arc::new(truth),
            buried: Arc::new(buried),
        }))
    };
    Ok(SCENE.get_or_try_init(begin).await?.as_ref())
}

/// A number from the environment, as `cargo xtask differential` sets it.
fn setting(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(value) => value
            .parse()
            .with_context(|| format!("{name} is no number: {value}")),
        Err(_) => Ok(default),
    }
}

fn numbers(end: u64) -> Result<(u64, u64)> {
    Ok((setting("KACHET_DIFFERENTIAL_FROM", 0)?.min(end), end))
}

/// How a proxy is dropped from what it has cached now and then, so that requests meet it cold and warm.
fn target<S: Storage + 'static>(proxy: &Proxy<Cache<TcpTransport, S>>) -> Target {
    let (address, cache) = (proxy.address(), proxy.cache().clone());
    let cool = move |rng: &mut Rng| {
        if rng.u32(0..40) == 0 {
            return cache.clear();
        }
        let cached = cache.partitions();
        if !cached.is_empty() {
            let key = cached[rng.usize(0..cached.len())];
            cache.invalidate_partition(key.topic_id, key.partition);
        }
    };
    Target {
        address,
        cool: Arc::new(cool),
    }
}

async fn in_memory(kafka: &KafkaBroker, max_staleness: MaxStaleness) -> Result<Proxy<Cache<TcpTransport>>> {
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default()))
        .size_limit_bytes(SMALL_CACHE_BYTES)
        .max_staleness(max_staleness)
        .compacted_max_staleness(MaxStaleness::Within(COMPACTED_BOUND));
    let settings = ProxySettings::new(([127, 0, 0, 1], 0).into(), vec![kafka.bootstrap().parse()?]);
    Ok(Proxy::start(settings, cache.build()).await?)
}

async fn on_disk(
    kafka: &KafkaBroker,
    folder: &std::path::Path,
) -> Result<Proxy<Cache<TcpTransport, MountPoint>>> {
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default()))
        .mount(MountPoint::open(folder)?)
        .size_limit_bytes(LARGE_CACHE_BYTES)
        .max_staleness(MaxStaleness::Within(Duration::from_millis(700)));
    let settings = ProxySettings::new(([127, 0, 0, 1], 0).into(), vec![kafka.bootstrap().parse()?]);
    Ok(Proxy::start(settings, cache.build()).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_of_the_proxy_differs_from_the_brokers_by_more_than_the_rules_allow() -> Result<()> {
    let Some(scene) = scene().await? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let bound = MaxStaleness::Within(Duration::from_secs(1));
    let (memory, disk) = (
        in_memory(&scene.kafka, bound).await?,
        on_disk(&scene.kafka, folder.path()).await?,
    );
    let plan = Plan {
        seed: setting("KACHET_DIFFERENTIAL_SEED", 1)?,
        numbers: numbers(setting("KACHET_DIFFERENTIAL_REQUESTS", REQUESTS)?)?,
        targets: vec![target(&memory), target(&disk), target(&memory), target(&disk)],
        injector: None,
    };
    let outcome = over_settled(&scene.kafka.bootstrap(), &scene.truth, &scene.buried, &plan).await?;
    let statistics = [memory.cache().statistics(), disk.cache().statistics()];
    println!(
        "{} requests judged, {} findings",
        outcome.requests,
        outcome.findings.len()
    );
    for statistics in statistics {
        println!(
            "{} lookups, {} hits, {} errors, {} rejected",
            statistics.lookups, statistics.hits, statistics.errors, statistics.rejected
        );
    }
    let told: Vec<String> = outcome.findings.into_iter().map(|(_, text)| text).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    for statistics in statistics.iter().filter(|statistics| statistics.lookups > 2_000) {
        assert!(
            statistics.hits > statistics.lookups / 5,
            "hardly anything was cached: {statistics:?}"
        );
        assert_eq!(statistics.errors, 0, "{statistics:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_go_wrong_is_found() -> Result<()> {
    let Some(scene) = scene().await? else {
        return Ok(());
    };
    let proxy = in_memory(&scene.kafka, MaxStaleness::Within(Duration::from_secs(1))).await?;
    let mut unseen = Vec::new();
    for (fault, rule) in Fault::ALL {
        let plan = Plan {
            seed: 7,
            numbers: (0, 1_500),
            targets: vec![target(&proxy)],
            injector: Some(Injector::of(fault)),
        };
        let outcome = over_settled(&scene.kafka.bootstrap(), &scene.truth, &scene.buried, &plan).await?;
        let found = |(by, text): &(&str, String)| *by == rule || text.contains(&format!("  {rule}: "));
        if !outcome.findings.iter().any(found) {
            unseen.push(format!(
                "{fault:?} by `{rule}` within {} requests: {:?}",
                outcome.requests, outcome.findings
            ));
        }
    }
    assert!(unseen.is_empty(), "not found:\n{}", unseen.join("\n"));
    Ok(())
}

/// Judges requests while topics change, with a proxy of such a bound, and so many fetch sessions beside them at least.
async fn changing(
    max_staleness: MaxStaleness,
    requests: u64,
    run: u64,
    sessions: u64,
    injector: Option<Injector>,
) -> Result<Option<(Outcome, Counts)>> {
    let Some(scene) = scene().await? else {
        return Ok(None);
    };
    let proxy = in_memory(&scene.kafka, max_staleness).await?;
    let plan = Plan {
        seed: setting("KACHET_DIFFERENTIAL_SEED", 1)?,
        numbers: numbers(requests)?,
        targets: vec![target(&proxy); 2],
        injector,
    };
    let (outcome, counts) = while_changing(&scene.kafka.bootstrap(), &plan, run, sessions).await?;
    let statistics = proxy.cache().statistics();
    println!(
        "{} requests judged, {counts:?}, {} hits of {} lookups, {} findings",
        outcome.requests,
        statistics.hits,
        statistics.lookups,
        outcome.findings.len()
    );
    assert!(
        statistics.lookups < 1_000 || (counts.changes > 10 && statistics.hits > statistics.lookups / 20),
        "{counts:?}, {statistics:?}"
    );
    Ok(Some((outcome, counts)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_shows_through_the_proxy_within_the_bound() -> Result<()> {
    let requests = setting("KACHET_DIFFERENTIAL_REQUESTS", 3 * REQUESTS)? / 3;
    let bound = MaxStaleness::Within(BOUND);
    let sessions = setting("KACHET_DIFFERENTIAL_SESSIONS", SESSIONS)?;
    let Some((outcome, counts)) = changing(bound, requests, 1, sessions, None).await? else {
        return Ok(());
    };
    let told: Vec<String> = outcome.findings.into_iter().map(|(_, text)| text).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    let seen = counts.sessions;
    let is_lively = counts.answers > 50 && seen.errors > 0 && seen.moved > 0 && seen.left_out > 0;
    assert!(is_lively, "sessions in which nothing happened: {counts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_never_asks_is_found_to_be_stale() -> Result<()> {
    let Some((outcome, _)) = changing(MaxStaleness::Forever, REQUESTS, 2, 0, None).await? else {
        return Ok(());
    };
    let by = |rule: &str| outcome.findings.iter().any(|(_, text)| text.contains(rule));
    assert!(by("stale (H") || by("watermarks (H10)"), "{:?}", outcome.findings);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_go_wrong_while_topics_change_are_found() -> Result<()> {
    let faults = [
        (Fault::LeaveOutErrors, "left out though the broker says error"),
        (Fault::LeaveOutNews, "bytes fit into"),
        (Fault::RememberForgotten, "was not asked for"),
    ];
    for (run, (fault, what)) in (3..).zip(faults) {
        let injector = Some(Injector::of(fault));
        let bound = MaxStaleness::Within(BOUND);
        let Some((outcome, _)) = changing(bound, 0, run, 2 * SESSIONS, injector).await? else {
            return Ok(());
        };
        let is_found = outcome.findings.iter().any(|(_, text)| text.contains(what));
        assert!(is_found, "{fault:?} by `{what}`: {:?}", outcome.findings);
    }
    Ok(())
}
