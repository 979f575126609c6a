//! Several real brokers in one cluster, for tests in which leaders move.

use anyhow::{Context, Result};

use crate::java::TopicWriter;
use crate::kafka::{KafkaBroker, KafkaSettings};
use crate::setup::{kafka_is_there, or_skip};

/// A cluster of brokers with the node ids 1, 2, …; node 1 is the controller, too, and has to stay alive.
///
/// Topics have a replica on each node unless a test says otherwise. Node N is in the rack `rack-N`, and leaders name the
/// replica in the rack of a client that tells its own (KIP-392).
#[derive(Debug)]
pub struct KafkaCluster {
    nodes: Vec<KafkaBroker>,
}

impl KafkaCluster {
    /// Starts a cluster; None, after a line `skipped: …` on stderr, where Kafka's jars have not been fetched.
    ///
    /// # Panics
    /// Where they have not and `CI=true`.
    pub fn start(nodes: u32) -> Result<Option<Self>> {
        Self::start_with(nodes, |_, settings| settings)
    }

    /// The same, with each node's settings changed by its id.
    ///
    /// # Panics
    /// Like [`Self::start`].
    pub fn start_with(
        nodes: u32,
        of_node: impl Fn(u32, KafkaSettings) -> KafkaSettings,
    ) -> Result<Option<Self>> {
        if !kafka_is_there() {
            return Ok(None);
        }
        let settings = KafkaSettings::default()
            .with("default.replication.factor", &nodes.to_string())
            .with("min.insync.replicas", "1")
            // With one replica a group could lose its coordinator for good, and its members then wait for one.
            .with("offsets.topic.replication.factor", &nodes.to_string())
            // A dead broker's partitions get new leaders after this, instead of after 9 s.
            .with("broker.session.timeout.ms", "3000")
            .with("broker.heartbeat.interval.ms", "500")
            .with(
                "replica.selector.class",
                "org.apache.kafka.common.replica.RackAwareReplicaSelector",
            );
        let of_node = |node_id: u32, settings: KafkaSettings| {
            of_node(node_id, settings.with("broker.rack", &format!("rack-{node_id}")))
        };
        let mut cluster = vec![KafkaBroker::start(&of_node(1, settings.clone()))?];
        for node_id in 2..=nodes {
            let joins = Some(cluster[0].place(node_id)?);
            let settings = KafkaSettings {
                joins,
                ..settings.clone()
            };
            cluster.push(KafkaBroker::start(&of_node(node_id, settings))?);
        }
        Ok(Some(Self { nodes: cluster }))
    }

    /// The addresses of all brokers, with commas between them.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(KafkaBroker::bootstrap).collect();
        addresses.join(",")
    }

    /// The node with this id.
    pub fn node(&mut self, node_id: i32) -> Result<&mut KafkaBroker> {
        let index = usize::try_from(node_id - 1).ok();
        let node = index.and_then(|index| self.nodes.get_mut(index));
        node.with_context(|| format!("the cluster has no node {node_id}"))
    }

    /// How many nodes there are, running or not.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// A writer of topics; None where there is no Java.
    pub fn writer(&self) -> Option<TopicWriter> {
        or_skip(TopicWriter::start(&self.bootstrap()))
    }
}
