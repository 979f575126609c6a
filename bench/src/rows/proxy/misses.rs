//! What was not read before.

use core::cell::RefCell;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kachet::transport::BrokerAddress;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::reader::Reader;
use super::{Proxied, Scope};
use crate::contest::{Bound, Contest, Outcome, Role, Target, Unit, count};

const CONSUMERS: usize = 16;
/// In one round, by each way; the slowest hundredth are enough for a percentile then.
const READS: usize = 1000;

/// Single batches, each once through the proxy and once through the relay, one right after the other.
pub(super) fn one_batch(
    scope: &Scope,
    runtime: &Runtime,
    relay: &Relay,
    proxy: &Proxied,
    starts: &[i64],
) -> Result<[Outcome; 2]> {
    let through = runtime.block_on(Reader::new(&proxy.address().to_string()))?;
    let relayed = through.by(relay.address.clone());
    let mut random = fastrand::Rng::with_seed(19);
    let mut order = starts.to_vec();
    random.shuffle(&mut order);
    let gone = scope.rounds.least;
    let each = (order.len() / (gone + 1)).min(READS);
    let mut rounds = order.chunks(each);
    let mut measured = || -> Result<[Vec<f64>; 2]> {
        let offsets = rounds.next().context("more rounds than batches")?;
        let mut times = [Vec::new(), Vec::new()];
        for (index, offset) in offsets.iter().enumerate() {
            // The second finds the broker's part of it in the processor's caches, so they take turns in that, too.
            for turn in [index % 2, (index + 1) % 2] {
                let reader = if turn == 0 { &through } else { &relayed };
                times[turn].extend(runtime.block_on(reader.times(&[*offset]))?);
            }
        }
        for times in &mut times {
            times.sort_by(f64::total_cmp);
        }
        Ok(times)
    };
    measured()?;
    let rounds = (0..gone).map(|_| measured()).collect::<Result<Vec<_>>>()?;
    let at = |percent: usize, way: usize| {
        let times = rounds
            .iter()
            .map(move |round| round[way][round[way].len() * percent / 100]);
        let times = RefCell::new(times);
        move || times.borrow_mut().next().context("as many as rounds")
    };
    let above = |percent: usize| {
        let (ours, relay) = (at(percent, 0), at(percent, 1));
        move || Ok(ours()? - relay()?)
    };
    let row = |percent: usize| {
        Contest::new(format!("a miss, p{percent}"), Unit::Seconds)
            .way("kachet", Role::Ours, at(percent, 0))
            .way("relay", Role::Floor, at(percent, 1))
            .way("kachet above the relay", Role::Ours, above(percent))
    };
    let late = row(99).target(Target::of("kachet above the relay", Bound::AtMost(50e-6)));
    Ok([row(50).run_cold(gone)?, late.run_cold(gone)?])
}

/// The whole topic by a proxy that has not seen it.
pub(super) fn replay(
    scope: &Scope,
    runtime: &Runtime,
    relay: &Relay,
    direct: &Reader,
    cold: impl Fn() -> Result<Proxied>,
) -> Result<Outcome> {
    let rate = |reader: &Reader| -> Result<f64> {
        let started = Instant::now();
        let (size_bytes, _) = runtime.block_on(reader.all())?;
        Ok(count(size_bytes) / started.elapsed().as_secs_f64())
    };
    let relayed = direct.by(relay.address.clone());
    Contest::new("replay of a topic, cold", Unit::BytesPerSecond)
        .way("kachet", Role::Ours, || {
            let proxy = cold()?;
            let reader = runtime.block_on(Reader::new(&proxy.address().to_string()))?;
            rate(&reader)
        })
        .way("relay", Role::Floor, || rate(&relayed))
        .way("the broker", Role::Peer, || rate(direct))
        .target(Target::ratio("kachet", "relay", Bound::AtLeast(0.95)))
        .run(scope.rounds)
}

/// All of them begin at once with a topic that the proxy has not seen.
pub(super) fn fan_out(runtime: &Runtime, proxy: &Proxied) -> Result<Outcome> {
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
    ensure!(topic_bytes > 0, "the topic is empty");
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

/// Copies between each client and the broker, as long as it lives.
pub(super) struct Relay {
    address: BrokerAddress,
    task: JoinHandle<()>,
}

impl Relay {
    pub(super) async fn start(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?.to_string().parse()?;
        let task = tokio::spawn(async move {
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
        Ok(Self { address, task })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
