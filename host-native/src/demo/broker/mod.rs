//! An embedded broker for demos and tests: it speaks Kafka's protocol on a loopback TCP port and keeps its
//! logs in memory.
//!
//! **It is not a Kafka.** It answers what a consumer asks (Fetch v4–18, Metadata, `ListOffsets`,
//! `OffsetForLeaderEpoch`, `DescribeConfigs`, `ApiVersions`) in the way Apache Kafka 4.4.0 was seen to answer, so that
//! a demo needs nothing installed and a unit test runs in milliseconds. Whether Kachet is correct is judged
//! against the real one. What it leaves out:
//!
//! - one node: no followers, no preferred replicas, no rebalancing; a new leader epoch comes by
//!   [`EmbeddedBroker::elect_leader`] only. Everything appended is replicated at once, so that the high
//!   watermark and the last stable offset are always the end of the log;
//! - no Produce: records come by [`EmbeddedBroker::append`]. No groups, no transactions (a transactional
//!   batch is a batch like any other, and no transaction was ever aborted), no compaction, no segments, no
//!   tiered storage, no quotas, no authentication;
//! - no fetch sessions: whoever asks for one is answered session id 0, which the protocol allows, and whoever
//!   goes on with one gets error 70 (`FETCH_SESSION_ID_NOT_FOUND`). A follower is answered like a consumer;
//! - none of the defects of the real one, such as that of H28.

mod connection;
mod counters;
mod fetch;
mod log;
mod metadata;
mod offsets;
mod request_shape;
mod topics;

use core::time::Duration;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kachet_core::offset::OffsetSpan;
use kachet_core::wire::{BatchError, TopicId};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use self::counters::Counters;
pub use self::counters::RequestCounts;
use self::topics::Topics;
use crate::transport::BrokerAddress;

/// The id of the one node.
pub const NODE_ID: i32 = 1;

/// How the broker behaves.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    /// The cluster's id, as Metadata tells it.
    pub cluster_id: String,
    /// How long every answer is held back, in place of a network and a disk. A connection answers one request
    /// at a time, so that requests sent at once over one connection wait for each other. Timers have a resolution
    /// of a millisecond.
    pub answer_delay: Duration,
    /// Whether the batch that no longer fits into a response comes cut off, as from a real broker, or not at
    /// all.
    pub cut_last_batch: bool,
    /// Most bytes that a request may have. A connection that announces more is closed.
    pub request_limit_bytes: usize,
    /// Most connections at a time; further ones wait to be accepted.
    pub connection_limit: usize,
    /// Most bytes of batches that all logs together may hold.
    pub log_limit_bytes: u64,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            cluster_id: "kachet-embedded-broker".into(),
            answer_delay: Duration::ZERO,
            cut_last_batch: true,
            request_limit_bytes: 1 << 20,
            connection_limit: 256,
            log_limit_bytes: 1 << 30,
        }
    }
}

/// Why the broker's logs did not take a change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The name is not one that Kafka allows, or there is no partition in it.
    #[error(
        "cannot create '{name}' with {partitions} partitions; a name has 1 to 249 of [a-zA-Z0-9._-], and a topic at least one partition"
    )]
    InvalidTopic {
        /// The name.
        name: String,
        /// How many partitions it was to have.
        partitions: u16,
    },
    /// There is a topic of that name.
    #[error("topic '{name}' exists already")]
    TopicExists {
        /// The name.
        name: String,
    },
    /// There is no topic of that name.
    #[error("there is no topic '{name}'")]
    UnknownTopic {
        /// The name.
        name: String,
    },
    /// The topic has no such partition.
    #[error("topic '{name}' has no partition {partition}")]
    UnknownPartition {
        /// The name of the topic.
        name: String,
        /// The index of the partition.
        partition: i32,
    },
    /// What was to be appended is no batch.
    #[error("not a record batch: {0}")]
    Batch(#[from] BatchError),
    /// More than one batch was to be appended at once.
    #[error("the first batch ends at byte {first_size_bytes} of {size_bytes}; append one batch at a time")]
    SeveralBatches {
        /// Bytes of the first batch.
        first_size_bytes: usize,
        /// Bytes in all.
        size_bytes: usize,
    },
    /// The log does not hold the offset.
    #[error("offset {offset} lies outside {log_start_offset} to {end_offset}")]
    OffsetOutOfRange {
        /// The offset.
        offset: i64,
        /// The first offset of the log.
        log_start_offset: i64,
        /// The first offset beyond the log.
        end_offset: i64,
    },
    /// There are no offsets left.
    #[error("the partition has no offsets left")]
    EndOfOffsets,
    /// The logs are full.
    #[error("the logs hold {limit_bytes} bytes already; raise `log_limit_bytes`")]
    Full {
        /// [`BrokerSettings::log_limit_bytes`].
        limit_bytes: u64,
    },
}

/// What the connections share.
struct BrokerState {
    settings: BrokerSettings,
    address: BrokerAddress,
    topics: Mutex<Topics>,
    /// Counts the changes of the logs, which is what waiting fetches wait for.
    changes: watch::Sender<u64>,
    counters: Counters,
}

impl BrokerState {
    fn topics(&self) -> MutexGuard<'_, Topics> {
        // Nothing panics while it holds the lock; if something did, the logs would still be whole batches.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the logs and wakes the fetches that wait.
    fn change<T>(&self, change: impl FnOnce(&mut Topics) -> Result<T, LogError>) -> Result<T, LogError> {
        let changed = change(&mut self.topics())?;
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
        Ok(changed)
    }
}

/// A running broker. Dropping it ends its tasks; [`Self::stop`] also waits until they have ended.
pub struct EmbeddedBroker {
    state: Arc<BrokerState>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl EmbeddedBroker {
    /// Starts a broker without topics on a free port of 127.0.0.1. Runs on the tokio runtime of the caller.
    pub async fn start(settings: BrokerSettings) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let local = listener.local_addr()?;
        let state = Arc::new(BrokerState {
            address: BrokerAddress {
                host: local.ip().to_string(),
                port: local.port(),
            },
            topics: Mutex::new(Topics::new(settings.log_limit_bytes)),
            changes: watch::Sender::new(0),
            counters: Counters::default(),
            settings,
        });
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(connection::serve(Arc::clone(&state), listener, stopped));
        Ok(Self {
            state,
            stop: Some(stop),
            server,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> &BrokerAddress {
        &self.state.address
    }

    /// The cluster's id, as Metadata tells it.
    pub fn cluster_id(&self) -> &str {
        &self.state.settings.cluster_id
    }

    /// Creates a topic. A topic that existed before under the same name had another id.
    pub fn create_topic(&self, name: &str, partitions: u16) -> Result<TopicId, LogError> {
        self.state.change(|topics| topics.create(name, partitions))
    }

    /// Deletes a topic and its records.
    pub fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        self.state.change(|topics| topics.delete(name))
    }

    /// Appends one batch as the leader does: gives it the next offsets and the leader's epoch, neither of which
    /// its CRC covers. Gives the offsets that it got.
    pub fn append(&self, topic: &str, partition: i32, batch: Bytes) -> Result<OffsetSpan, LogError> {
        self.state.change(|topics| topics.append(topic, partition, batch))
    }

    /// Leaves the next `count` offsets without records, as compaction does when it removes whole batches (H5).
    pub fn skip_offsets(&self, topic: &str, partition: i32, count: u32) -> Result<(), LogError> {
        self.state
            .change(|topics| topics.log(topic, partition)?.skip_offsets(count))
    }

    /// Moves the log start to `offset`, as `DeleteRecords` and retention do (H4).
    pub fn truncate_before(&self, topic: &str, partition: i32, offset: i64) -> Result<(), LogError> {
        self.state
            .change(|topics| topics.log(topic, partition)?.truncate_before(offset))
    }

    /// Has a new leader take over with all records, and gives its epoch (H9).
    pub fn elect_leader(&self, topic: &str, partition: i32) -> Result<i32, LogError> {
        self.state
            .change(|topics| Ok(topics.log(topic, partition)?.elect_leader()))
    }

    /// Has a leader take over that lacks the batch of `offset` and everything behind it, and gives its epoch (H7).
    pub fn elect_unclean_leader(&self, topic: &str, partition: i32, offset: i64) -> Result<i32, LogError> {
        self.state
            .change(|topics| topics.log(topic, partition)?.elect_unclean_leader(offset))
    }

    /// How many requests of each kind were answered so far.
    pub fn requests(&self) -> RequestCounts {
        self.state.counters.snapshot()
    }

    /// Closes every connection and waits until all tasks have ended.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // Fails only if the server has ended already.
            let _ = stop.send(());
        }
        if let Err(error) = (&mut self.server).await {
            tracing::debug!(%error, "the embedded broker's task did not end by itself");
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        // The server owns the tasks of its connections, which end with it.
        self.server.abort();
    }
}
