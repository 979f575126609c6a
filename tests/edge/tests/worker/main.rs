//! The edge worker in real workerd, before the real gateway and a real Kafka.

mod errors;
mod faults;
mod reading;
mod start;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use kachet::cache::Cache;
use kachet::gateway::{BearerTokens, Gateway, GatewaySettings};
use kachet::transport::{TcpSettings, TcpTransport};
use kachet_core::storage::MemoryStorage;
use kachet_core::time::MaxStaleness;
use kachet_edge_tests::made;
use kachet_edge_tests::workerd::{self, Workerd};
use kachet_tests::curl::{self, Answer};
use kachet_tests::java::TopicWriter;
use kachet_tests::kafka::{KafkaBroker, shared_kafka, writer_for};
use kachet_tests::setup::or_skip;
use serde_json::Value;
use tempfile::TempDir;

type CachingGateway = Gateway<TcpTransport, MemoryStorage>;

const TOKEN: &str = "a-token-of-the-gateway";

/// Everything that has to be there; None after a line `skipped: …` where something is not.
fn set_up() -> Option<(&'static KafkaBroker, TopicWriter)> {
    or_skip(made("npm/worker").and_then(|_| workerd::program()))?;
    let broker = shared_kafka()?;
    let writer = writer_for(broker)?;
    curl::is_there().then_some((broker, writer))
}

/// One that keeps nothing itself, so that every fetch that reaches it reaches the broker.
async fn gateway_before(broker: &KafkaBroker) -> Result<CachingGateway> {
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default()))
        .size_limit_bytes(0)
        .max_staleness(MaxStaleness::Within(Duration::ZERO));
    let mut settings = GatewaySettings::new(([127, 0, 0, 1], 0).into(), vec![broker.bootstrap().parse()?]);
    settings.bearer_tokens = Some(BearerTokens::new(TOKEN)?);
    Ok(Gateway::start(settings, cache.build()).await?)
}

/// The Worker, and the folder of its snapshots.
struct Edge {
    workerd: Workerd,
    snapshots: TempDir,
}

impl Edge {
    fn start(gateway: impl std::fmt::Display, settings: &[(&str, &str)]) -> Result<Self> {
        Self::resume(gateway, settings, tempfile::tempdir()?)
    }

    /// With what an earlier one has left.
    fn resume(
        gateway: impl std::fmt::Display,
        settings: &[(&str, &str)],
        snapshots: TempDir,
    ) -> Result<Self> {
        Self::of(&made("npm/worker/config.capnp")?, gateway, settings, snapshots)
    }

    /// By another configuration.
    fn of(
        configuration: &Path,
        gateway: impl std::fmt::Display,
        settings: &[(&str, &str)],
        snapshots: TempDir,
    ) -> Result<Self> {
        let url = format!("http://{gateway}");
        let mut environment = vec![("GATEWAY_URL", url.as_str()), ("GATEWAY_TOKEN", TOKEN)];
        environment.extend(settings);
        let folder = format!("--directory-path=snapshots={}", snapshots.path().display());
        let workerd = Workerd::start(configuration, &environment, &[folder])?;
        Ok(Self { workerd, snapshots })
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.workerd.address())
    }

    fn ask(&self, path: &str, arguments: &[&str]) -> Result<Answer> {
        curl::ask(&[arguments, &[&self.url(path)]].concat(), b"")
    }

    /// Lines of JSON; whether all of them came from the cache.
    fn lines(&self, path: &str) -> Result<(Vec<Value>, bool)> {
        let answer = self.ask(path, &[])?;
        ensure!(
            answer.status == 200,
            "{answer:?} {} {}",
            String::from_utf8_lossy(&answer.body),
            self.workerd.log()
        );
        Ok((lines_of(&answer)?, answer.header("kachet-cache") == "hit"))
    }

    /// What keeps it from answering: status and code.
    fn problem(&self, path: &str, arguments: &[&str]) -> Result<(u16, String, Value)> {
        let answer = self.ask(path, arguments)?;
        ensure!(
            answer.header("content-type") == "application/problem+json",
            "{answer:?}"
        );
        let told = answer.json()?;
        ensure!(told["status"] == answer.status, "{told}");
        let code = told["code"].as_str().unwrap_or_default().to_owned();
        Ok((answer.status, code, told))
    }

    fn figure(&self, name: &str) -> Result<u64> {
        let told = self.ask("/stats", &[])?.json()?;
        told[name]
            .as_u64()
            .ok_or_else(|| anyhow::anyhow!("no {name} in {told}"))
    }
}

fn lines_of(answer: &Answer) -> Result<Vec<Value>> {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// From the gateway itself, without the one field that the Worker does not tell.
fn own_lines(gateway: &CachingGateway, path: &str) -> Result<Vec<Value>> {
    let url = format!("http://{}/v1{path}", gateway.address());
    let answer = curl::ask(&["--oauth2-bearer", TOKEN, &url], b"")?;
    ensure!(answer.status == 200, "{answer:?}");
    let mut lines = lines_of(&answer)?;
    for line in &mut lines {
        line.as_object_mut().and_then(|record| record.remove("tstype"));
    }
    Ok(lines)
}
