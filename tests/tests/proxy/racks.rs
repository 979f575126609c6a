//! A proxy with a rack of its own before brokers in racks: what it lacks comes from the replica there (KIP-392, H16).

use core::time::Duration;

use anyhow::{Context, Result, ensure};
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings, Record};
use kachet::proxy::{Proxy, ProxySettings};
use kachet::transport::{TcpSettings, TcpTransport};
use kachet_core::time::MaxStaleness;
use kachet_tests::cluster::KafkaCluster;
use kachet_tests::java::TopicWriter;
use tokio::time::{Instant, sleep};

use crate::CACHE_BYTES;
use crate::counting::Counting;

const RECORDS: usize = 300;
/// For a leader that sees its replicas catch up, and for an election, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two topics and a proxy for each: node 3 leads the one whose proxy is in rack 2, and follows in the other, whose proxy is
/// in rack 3.
pub(crate) struct Racks {
    led_by_3: Racked,
    led_by_2: Racked,
    direct: Client<TcpTransport>,
}

struct Racked {
    topic: &'static str,
    proxy: Proxy<Cache<Counting>>,
    counting: Counting,
    /// Reads through the proxy, and is told of no rack.
    client: Client<TcpTransport>,
    leader: i32,
    nearest: i32,
}

impl Racks {
    pub(crate) async fn start(cluster: &mut KafkaCluster, writer: &mut TopicWriter) -> Result<Self> {
        for (topic, replicas) in [("racked-by-3", "3,2"), ("racked-by-2", "2,3")] {
            writer.command(&format!("create-on {topic} {replicas}"))?;
            writer.produce(topic, 0, "lz4", (u32::try_from(RECORDS)?, 10), 5)?;
        }
        let bootstrap = cluster.bootstrap();
        Ok(Self {
            led_by_3: Racked::start(&bootstrap, "racked-by-3", 3, 2).await?,
            led_by_2: Racked::start(&bootstrap, "racked-by-2", 2, 3).await?,
            direct: client_of(&bootstrap)?,
        })
    }

    /// A cold replay takes nothing from the leader and gives what it has to the byte; a warm one asks nobody.
    pub(crate) async fn read_from_the_replica_in_the_proxys_rack(
        &self,
        cluster: &mut KafkaCluster,
    ) -> Result<()> {
        for racked in [&self.led_by_3, &self.led_by_2] {
            let [leader, nearest] =
                [racked.leader, racked.nearest].map(|node| cluster.node(node).map(|node| node.port()));
            let (leader, nearest) = (leader?, nearest?);
            racked.until_the_replica_gives_all(leader).await?;
            racked.proxy.cache().clear();
            let given = || (racked.counting.by(leader), racked.counting.by(nearest));
            let before = given();
            let expected = read(&self.direct, racked.topic).await?;
            ensure!(
                read(&racked.client, racked.topic).await? == expected,
                "{}",
                racked.topic
            );
            let cold = given();
            assert_eq!(
                cold.0.records_bytes, before.0.records_bytes,
                "the leader of {}",
                racked.topic
            );
            let cached_bytes = usize::try_from(racked.proxy.cache().statistics().size_bytes)?;
            let counted = racked.proxy.cache().statistics();
            assert!(counted.replica_bytes <= counted.upstream_bytes, "{counted:?}");
            assert_eq!(usize::try_from(counted.replica_bytes)?, cold.1.records_bytes);
            let brought_bytes = cold.1.records_bytes - before.1.records_bytes;
            assert!(
                brought_bytes > cached_bytes / 2,
                "{brought_bytes} of {cached_bytes}"
            );
            ensure!(
                read(&racked.client, racked.topic).await? == expected,
                "{}",
                racked.topic
            );
            assert_eq!(given().1.records_bytes, cold.1.records_bytes, "a warm replay");
        }
        Ok(())
    }

    /// Node 3 is the leader of one topic and the nearest replica of the other. Neither is an error to who reads.
    pub(crate) async fn read_on_when_the_node_of_both_has_died(
        &self,
        cluster: &mut KafkaCluster,
    ) -> Result<()> {
        let nearest = cluster.node(2)?.port();
        let before = self.led_by_3.counting.by(nearest).records_bytes;
        for racked in [&self.led_by_3, &self.led_by_2] {
            racked.proxy.cache().clear();
            // Not even before there is a new leader: the replica is known, and so is the proxy's port of the dead one.
            let read = read(&racked.client, racked.topic).await.context(racked.topic)?;
            assert_eq!(read.len(), RECORDS, "{}", racked.topic);
        }
        assert!(self.led_by_3.counting.by(nearest).records_bytes > before);
        for racked in [&self.led_by_3, &self.led_by_2] {
            let expected = read(&self.direct, racked.topic).await?;
            racked.proxy.cache().clear();
            ensure!(
                read(&racked.client, racked.topic).await? == expected,
                "{}",
                racked.topic
            );
        }
        Ok(())
    }
}

impl Racked {
    async fn start(bootstrap: &str, topic: &'static str, leader: i32, nearest: i32) -> Result<Self> {
        let counting = Counting::new();
        let cache = Cache::builder(counting.clone())
            .size_limit_bytes(CACHE_BYTES)
            .max_staleness(MaxStaleness::Within(Duration::from_secs(1)))
            .rack(&format!("rack-{nearest}"))
            .build();
        let brokers: Result<Vec<_>, _> = bootstrap.split(',').map(str::parse).collect();
        let settings = ProxySettings::new(([127, 0, 0, 1], 0).into(), brokers?);
        let proxy = Proxy::start(settings, cache).await?;
        Ok(Self {
            topic,
            client: client_of(&proxy.address().to_string())?,
            proxy,
            counting,
            leader,
            nearest,
        })
    }

    /// Until the leader has seen that the replica has caught up, it gives the records itself; and until the replica has heard
    /// of the high watermark, the last ones.
    async fn until_the_replica_gives_all(&self, leader: u16) -> Result<()> {
        let begun = Instant::now();
        let given = || self.counting.by(leader).records_bytes;
        let mut before = None;
        while before != Some(given()) {
            ensure!(begun.elapsed() < PATIENCE, "the leader goes on giving records");
            sleep(Duration::from_millis(200)).await;
            before = Some(given());
            self.proxy.cache().clear();
            read(&self.client, self.topic).await?;
        }
        Ok(())
    }
}

fn client_of(bootstrap: &str) -> Result<Client<TcpTransport>> {
    let brokers: Result<Vec<_>, _> = bootstrap.split(',').map(str::parse).collect();
    let settings = ClientSettings {
        retry_timeout: PATIENCE,
        ..ClientSettings::default()
    };
    Ok(Client::new(
        TcpTransport::new(TcpSettings::default()),
        brokers?,
        settings,
    )?)
}

async fn read(client: &Client<TcpTransport>, topic: &str) -> Result<Vec<Record>> {
    let records = client.records(topic, 0, 0, RECORDS).await?;
    ensure!(records.len() == RECORDS, "{} records of {topic}", records.len());
    Ok(records)
}
