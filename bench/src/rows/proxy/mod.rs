//! A real Kafka read through the proxy, straight, and through a relay that only copies.

mod misses;
mod reader;
mod replay;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use kachet::cache::Cache;
use kachet::proxy::{Proxy, ProxySettings};
use kachet::transport::{
    ApiVersions, BrokerAddress, Request, Response, TcpSettings, TcpTransport, Transport, TransportError,
};
use kachet_tests::java::TopicWriter;
use tokio::runtime::Runtime;

use self::misses::Relay;
use self::reader::Reader;
use super::{Scope, broker};
use crate::contest::{Bound, Contest, Outcome, Role, Spread, Target, Unit};
use crate::report::Section;

const TOPIC: &str = "bench";
/// Records of a kibibyte, so that a batch is about as large as a producer's default.
const BATCH_RECORDS: u32 = 16;
/// At random, in one round.
const READS: usize = 500;

pub(super) fn section(scope: &Scope) -> Result<Section> {
    let mut section = Section::new(
        "proxy",
        "Proxy",
        "A real Kafka on the same machine, its log in the page cache, which is the hardest case for a cache. The same client reads \
         batches of 16 KiB straight from the broker, through the proxy, and through a relay that copies between two sockets; \
         replays ask for a mebibyte at a time, and for the next one when it is there. Misses are of batches that were not read before. \
         The loopback copy sends and receives as many bytes as fast as they are taken; the one that is asked for sends a \
         mebibyte for each byte that it is sent, as a client asks. *kcat* is a process of librdkafka, whose start counts.",
    );
    let Some(broker) = broker::start(&mut section)? else {
        return Ok(section);
    };
    let runtime = Runtime::new()?;
    let batches: u32 = if scope.is_quick { 1 << 10 } else { 1 << 14 };
    {
        let mut writer = TopicWriter::start(&broker.bootstrap())?;
        writer.command(&format!("create {TOPIC} 1"))?;
        // In parts, each of which is done within the writer's patience.
        for part in 0..batches >> 10 {
            writer.command(&format!(
                "produce {TOPIC} 0 none {} {BATCH_RECORDS} {part} size=1000",
                BATCH_RECORDS << 10
            ))?;
        }
    }
    let settings = ProxySettings::new(([127, 0, 0, 1], 0).into(), vec![broker.bootstrap().parse()?]);
    let cold = |limit_bytes: u64| -> Result<Proxied> {
        let cache = Cache::builder(Counting {
            transport: TcpTransport::new(TcpSettings::default()),
            bytes: AtomicU64::new(0),
        })
        .size_limit_bytes(limit_bytes)
        .build();
        Ok(runtime.block_on(Proxy::start(settings.clone(), cache))?)
    };
    let direct = runtime.block_on(Reader::new(&broker.bootstrap()))?;
    let starts = runtime.block_on(direct.starts())?;
    ensure!(
        starts.len() >= batches as usize,
        "{} batches came of {batches}",
        starts.len()
    );
    let warm = cold(8 << 30)?;
    let through = runtime.block_on(Reader::new(&warm.address().to_string()))?;
    section
        .rows
        .extend(replay::warm(scope, &runtime, &direct, &through)?);
    section.rows.push(replay::warm_by_kcat(scope, &broker, &warm)?);
    section
        .rows
        .push(random(scope, &runtime, &direct, &through, &starts)?);
    let (relay, cold) = (runtime.block_on(Relay::start(broker.port()))?, || cold(8 << 30));
    section
        .rows
        .extend(misses::one_batch(scope, &runtime, &relay, &cold()?, &starts)?);
    section
        .rows
        .push(misses::replay(scope, &runtime, &relay, &direct, cold)?);
    section.rows.push(misses::fan_out(&runtime, &cold()?)?);
    Ok(section)
}

type Proxied = Proxy<Cache<Counting>>;

/// The transport of the proxy, and the bytes of records that came by it.
struct Counting {
    transport: TcpTransport,
    bytes: AtomicU64,
}

impl Transport for Counting {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        let response = self.transport.round_trip(broker, request).await?;
        if let Response::Fetch(fetched) = &response {
            let bytes: usize = fetched
                .partitions()
                .map(|(_, data)| data.records_size_bytes())
                .sum();
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Ok(response)
    }

    async fn api_versions(&self, broker: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        self.transport.api_versions(broker).await
    }
}

fn random(
    scope: &Scope,
    runtime: &Runtime,
    direct: &Reader,
    through: &Reader,
    starts: &[i64],
) -> Result<Outcome> {
    let mut random = fastrand::Rng::with_seed(17);
    let offsets: Vec<i64> = (0..READS)
        .filter_map(|_| random.choice(starts).copied())
        .collect();
    let time = |reader: &Reader| Ok(Spread::of(runtime.block_on(reader.times(&offsets))?).median);
    Contest::new("a batch at random, warm, p50", Unit::Seconds)
        .way("kachet", Role::Ours, || time(through))
        .way("the broker", Role::Peer, || time(direct))
        .target(Target::ratio("the broker", "kachet", Bound::AtLeast(1.0)))
        .run(scope.rounds)
}
