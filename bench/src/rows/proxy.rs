//! A real Kafka read through the proxy, straight, and through a relay that only copies.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kachet::cache::Cache;
use kachet::proxy::{Proxy, ProxySettings};
use kachet::transport::{
    ApiVersions, BrokerAddress, Request, Response, TcpSettings, TcpTransport, Transport, TransportError, call,
};
use kachet_core::wire::{
    BatchEntry, Batches, FetchPartition, FetchRequest, FetchTopic, TaggedFields, TopicId, TopicRef,
};
use kachet_tests::java::TopicWriter;
use kachet_tests::kafka::{KafkaBroker, KafkaSettings};
use kachet_tests::{kcat, setup};
use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::protocol::StrBytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::Scope;
use crate::contest::{Bound, Contest, Outcome, Role, Spread, Target, Unit, count};
use crate::report::Section;

const TOPIC: &str = "bench";
/// Records of a kibibyte, so that a batch is about as large as a producer's default.
const BATCH_RECORDS: u32 = 16;
const FETCH_BYTES: i32 = 1 << 20;
/// With topic ids, and spoken by every broker that is supported.
const FETCH_VERSION: i16 = 13;
const CONSUMERS: usize = 16;
/// For what runs outside of this process.
const READS: usize = 500;

pub(super) fn section(scope: &Scope) -> Result<Section> {
    let mut section = Section::new(
        "proxy",
        "Proxy",
        "A real Kafka on the same machine, its log in the page cache, which is the hardest case for a cache. The same client reads \
         batches of 16 KiB straight from the broker, through the proxy, and through a relay that copies between two sockets; \
         replays ask for a mebibyte at a time. Misses are of batches that were not read before. The loopback copy sends and \
         receives as many bytes. *kcat* is a process of librdkafka, whose start counts.",
    );
    if let Err(missing) = setup::kafka_classpath() {
        section
            .not_measured
            .push(format!("everything here: {missing:#}."));
        return Ok(section);
    }
    let runtime = Runtime::new()?;
    let broker = KafkaBroker::start(&KafkaSettings {
        is_measured: true,
        ..KafkaSettings::default()
    })?;
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
    section.rows.push(replay(scope, &runtime, &direct, &through)?);
    section.rows.push(replay_by_kcat(scope, &broker, &warm)?);
    section
        .rows
        .push(random(scope, &runtime, &direct, &through, &starts)?);
    section
        .rows
        .extend(misses(scope, &runtime, &broker, &cold(8 << 30)?, &starts)?);
    section.rows.push(fan_out(&runtime, &cold(8 << 30)?)?);
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

/// A client of one partition.
struct Reader {
    transport: TcpTransport,
    leader: BrokerAddress,
    topic: TopicId,
}

impl Reader {
    async fn new(bootstrap: &str) -> Result<Self> {
        let (transport, bootstrap) = (TcpTransport::new(TcpSettings::default()), bootstrap.parse()?);
        let topic = MetadataRequestTopic::default().with_name(Some(StrBytes::from_static_str(TOPIC).into()));
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        let (_, told) = call(&transport, &bootstrap, request, 12..=12, Duration::ZERO).await?;
        let (broker, topic) = (
            told.brokers.first().context("no broker")?,
            told.topics.first().context("no topic")?,
        );
        let leader = format!("{}:{}", broker.host.as_str(), broker.port).parse()?;
        Ok(Self {
            transport,
            leader,
            topic: TopicId(*topic.topic_id.as_bytes()),
        })
    }

    /// The same client, whose requests go elsewhere.
    fn by(&self, leader: BrokerAddress) -> Self {
        Self {
            transport: TcpTransport::new(TcpSettings::default()),
            leader,
            topic: self.topic,
        }
    }

    async fn fetch(&self, offset: i64, max_bytes: i32) -> Result<kachet_core::wire::RecordBytes> {
        let request = FetchRequest {
            max_bytes,
            min_bytes: 0,
            topics: vec![FetchTopic {
                topic: TopicRef::Id(self.topic),
                partitions: vec![FetchPartition::new(0, offset, max_bytes)],
                unknown_tags: TaggedFields::default(),
            }],
            ..FetchRequest::default()
        };
        let request = Request::Fetch {
            version: FETCH_VERSION,
            request,
        };
        let Response::Fetch(response) = self.transport.round_trip(&self.leader, request).await? else {
            bail!("another answer came");
        };
        let (_, data) = response.partitions().next().context("no partition came")?;
        ensure!(data.error_code == 0, "the broker says error {}", data.error_code);
        Ok(data.records.clone().unwrap_or_default())
    }

    /// Reads everything; gives its size in bytes and the first offset of each batch.
    async fn all(&self) -> Result<(usize, Vec<i64>)> {
        let (mut offset, mut size_bytes, mut starts) = (0, 0, Vec::new());
        loop {
            let records = self.fetch(offset, FETCH_BYTES).await?;
            let before = offset;
            // A batch may lie across two slices nowhere: each is of one or more whole ones.
            for slice in records.slices() {
                for entry in Batches::new(slice) {
                    let BatchEntry::Batch(batch) = entry? else {
                        bail!("a message of an older format came")
                    };
                    if batch.last_offset() < offset {
                        continue;
                    }
                    starts.push(batch.base_offset());
                    size_bytes += batch.size_bytes();
                    offset = batch.last_offset() + 1;
                }
            }
            if offset == before {
                return Ok((size_bytes, starts));
            }
        }
    }

    async fn starts(&self) -> Result<Vec<i64>> {
        Ok(self.all().await?.1)
    }

    /// What each read of one batch took, in seconds.
    async fn times(&self, offsets: &[i64]) -> Result<Vec<f64>> {
        let mut times = Vec::with_capacity(offsets.len());
        for offset in offsets {
            let started = Instant::now();
            ensure!(!self.fetch(*offset, 1).await?.is_empty(), "nothing at {offset}");
            times.push(started.elapsed().as_secs_f64());
        }
        Ok(times)
    }
}

fn replay(scope: &Scope, runtime: &Runtime, direct: &Reader, through: &Reader) -> Result<Outcome> {
    let rate = |reader: &Reader| -> Result<f64> {
        let started = Instant::now();
        let (size_bytes, _) = runtime.block_on(reader.all())?;
        Ok(count(size_bytes) / started.elapsed().as_secs_f64())
    };
    let (size_bytes, _) = runtime.block_on(direct.all())?;
    Contest::new("replay of a topic, warm", Unit::BytesPerSecond)
        .way("kachet", Role::Ours, || rate(through))
        .way("the broker", Role::Peer, || rate(direct))
        .way("loopback copy", Role::Floor, || {
            runtime.block_on(loopback(size_bytes))
        })
        .target(Target::ratio("kachet", "loopback copy", Bound::AtLeast(0.8)))
        .run(scope.rounds)
}

fn replay_by_kcat(scope: &Scope, broker: &KafkaBroker, proxy: &Proxied) -> Result<Outcome> {
    let time = |bootstrap: &str| -> Result<f64> {
        let started = Instant::now();
        kcat::run(
            &[
                "-C",
                "-b",
                bootstrap,
                "-t",
                TOPIC,
                "-p",
                "0",
                "-o",
                "beginning",
                "-e",
                "-q",
                "-f",
                "",
            ],
            b"",
        )?;
        Ok(started.elapsed().as_secs_f64())
    };
    let (proxy, broker) = (proxy.address().to_string(), broker.bootstrap());
    Contest::new("replay of a topic by kcat, warm", Unit::Seconds)
        .way("kachet", Role::Ours, || time(&proxy))
        .way("the broker", Role::Peer, || time(&broker))
        .run(scope.rounds)
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

/// Each batch is read once by every way, and never again.
fn misses(
    scope: &Scope,
    runtime: &Runtime,
    broker: &KafkaBroker,
    proxy: &Proxied,
    starts: &[i64],
) -> Result<Vec<Outcome>> {
    let through = runtime.block_on(Reader::new(&proxy.address().to_string()))?;
    let (address, relay) = runtime.block_on(relay(broker.port()))?;
    let relayed = through.by(address);
    let each = (starts.len() / (scope.rounds + 1)).min(READS);
    let mut random = fastrand::Rng::with_seed(19);
    let mut order = starts.to_vec();
    random.shuffle(&mut order);
    let mut rounds = [order.chunks(each), order.chunks(each)];
    let [of_proxy, of_relay] = &mut rounds;
    let kept: RefCell<VecDeque<(f64, f64)>> = RefCell::default();
    let time = |reader: &Reader, offsets: Option<&[i64]>| -> Result<(f64, f64)> {
        let mut times = runtime.block_on(reader.times(offsets.context("more rounds than batches")?))?;
        times.sort_by(f64::total_cmp);
        Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
    };
    let of_round = RefCell::new(Vec::new());
    let median = Contest::new("a miss, p50", Unit::Seconds)
        .way("kachet", Role::Ours, || {
            let times = time(&through, of_proxy.next())?;
            of_round.borrow_mut().push(times);
            Ok(times.0)
        })
        .way("relay", Role::Floor, || {
            let times = time(&relayed, of_relay.next())?;
            kept.borrow_mut().push_back(times);
            Ok(times.0)
        })
        .run(scope.rounds)?;
    let of_round = of_round.into_inner();
    let kept = kept.into_inner();
    let (mut ours, mut theirs) = (of_round.iter().skip(1), kept.iter().skip(1));
    let mut above = of_round
        .iter()
        .zip(&kept)
        .skip(1)
        .map(|(ours, relay)| ours.1 - relay.1);
    let next = |times: Option<&(f64, f64)>| times.map(|(_, late)| *late).context("as many as rounds");
    let late = Contest::new("a miss, p99", Unit::Seconds)
        .way("kachet", Role::Ours, || next(ours.next()))
        .way("relay", Role::Floor, || next(theirs.next()))
        .way("kachet above the relay", Role::Ours, || {
            above.next().context("as many as rounds")
        })
        .target(Target::of("kachet above the relay", Bound::AtMost(50e-6)));
    let late = late.run_cold(scope.rounds)?;
    relay.abort();
    Ok(vec![median, late])
}

/// All of them begin at once with a topic that the proxy has not seen.
fn fan_out(runtime: &Runtime, proxy: &Proxied) -> Result<Outcome> {
    let address = proxy.address().to_string();
    let topic_bytes = runtime.block_on(async {
        let mut consumers = Vec::new();
        for _ in 0..CONSUMERS {
            let address = address.clone();
            consumers.push(tokio::spawn(
                async move { Reader::new(&address).await?.all().await },
            ));
        }
        let mut topic_bytes = 0;
        for consumer in consumers {
            topic_bytes = consumer.await??.0;
        }
        anyhow::Ok(topic_bytes)
    })?;
    let upstream = proxy.cache().transport().bytes.load(Ordering::Relaxed);
    let ratio = count(usize::try_from(upstream)?) / count(topic_bytes);
    Contest::new(
        format!("bytes from the broker for each of a cold topic, {CONSUMERS} consumers"),
        Unit::Times,
    )
    .way("kachet", Role::Ours, || Ok(ratio))
    .target(Target::of("kachet", Bound::AtMost(1.05)))
    .once()
}

/// Bytes in a second that one connection carries when one side writes a mebibyte at a time and the other reads.
async fn loopback(size_bytes: usize) -> Result<f64> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let mut reader = TcpStream::connect(listener.local_addr()?).await?;
    let (mut writer, _) = listener.accept().await?;
    let started = Instant::now();
    let writing = tokio::spawn(async move {
        let piece = vec![1; 1 << 20];
        let mut left = size_bytes;
        while left > 0 {
            let now = left.min(piece.len());
            writer.write_all(&piece[..now]).await?;
            left -= now;
        }
        std::io::Result::Ok(())
    });
    let mut place = vec![0; 1 << 20];
    let mut came = 0;
    while came < size_bytes {
        match reader.read(&mut place).await? {
            0 => bail!("the writer has gone after {came} of {size_bytes} bytes"),
            more => came += more,
        }
    }
    writing.await??;
    Ok(count(size_bytes) / started.elapsed().as_secs_f64())
}

/// Copies between each client and the broker.
async fn relay(port: u16) -> Result<(BrokerAddress, JoinHandle<()>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?.to_string().parse()?;
    let relay = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = client.set_nodelay(true);
                if let Ok(mut broker) = TcpStream::connect(("127.0.0.1", port)).await {
                    let _ = broker.set_nodelay(true);
                    // Ends with either side.
                    let _ = copy_bidirectional(&mut client, &mut broker).await;
                }
            });
        }
    });
    Ok((address, relay))
}
