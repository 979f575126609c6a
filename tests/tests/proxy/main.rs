//! Real clients through the proxy before real brokers: what they get is what the brokers themselves give.

mod clients;
mod cluster;
#[path = "../counting/mod.rs"]
mod counting;
mod languages;
mod logins;
mod racks;
mod share_groups;
mod slow;
mod tools;

use core::time::Duration;
use std::collections::BTreeSet;

use anyhow::{Context, Result};
use kachet::cache::Cache;
use kachet::proxy::{Proxy, ProxySettings};
use kachet::transport::{TcpSettings, TcpTransport};
use kachet_core::time::MaxStaleness;
use kachet_tests::java;

type CachingProxy = Proxy<Cache<TcpTransport>>;

const CACHE_BYTES: u64 = 64 << 20;
/// For a Java program with all that it asks of a slow machine.
const JAVA_DEADLINE: Duration = Duration::from_mins(2);

async fn proxy_before(bootstrap: &str, max_staleness: MaxStaleness) -> Result<CachingProxy> {
    let brokers = bootstrap
        .split(',')
        .map(str::parse)
        .collect::<Result<Vec<_>, _>>()?;
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default()))
        .size_limit_bytes(CACHE_BYTES)
        .max_staleness(max_staleness);
    let settings = ProxySettings::new(([127, 0, 0, 1], 0).into(), brokers);
    Ok(Proxy::start(settings, cache.build()).await?)
}

/// What `GroupReader.java` said.
struct GroupRead {
    nodes: Vec<String>,
    /// Partition, offset and value, sorted.
    records: BTreeSet<String>,
    /// Partition and offset.
    committed: Vec<String>,
}

fn read_by_group(
    bootstrap: &str,
    group: &str,
    topic: &str,
    count: usize,
    more: &[&str],
) -> Result<GroupRead> {
    let count_text = count.to_string();
    let arguments = [&[bootstrap, group, topic, &count_text], more].concat();
    let said = java::run("GroupReader", &arguments, "", JAVA_DEADLINE)?;
    let lines = |kind: &str| -> Vec<String> {
        let of_kind = said.lines().filter_map(|line| line.split_once(' '));
        of_kind
            .filter(|(word, _)| *word == kind)
            .map(|(_, rest)| rest.to_owned())
            .collect()
    };
    let records = lines("record");
    assert!(records.len() >= count, "{} of {count}", records.len());
    let distinct: BTreeSet<String> = records.iter().cloned().collect();
    assert_eq!(distinct.len(), records.len(), "a record came twice");
    Ok(GroupRead {
        nodes: lines("node"),
        records: distinct,
        committed: lines("committed"),
    })
}

/// Runs what blocks, such as a client in a process of its own, while the proxy goes on.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("the work panicked")?
}
