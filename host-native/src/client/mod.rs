//! A client that reads partitions at any offset.

mod backwards;
mod builder;
mod error;
mod fetched;
mod forwards;
mod nearest;
mod neighbours;
mod position;
mod record;
mod record_json;
mod routing;
mod scattered;
mod several;

use core::time::Duration;

use kachet_core::wire::{
    FETCH_API_KEY, FETCH_VERSION_MAX, FETCH_VERSION_MIN, FETCH_VERSION_TOPIC_IDS, FetchPartition,
    FetchRequest, FetchTopic, PartitionData, TaggedFields, TopicRef, WireStr,
};

use tokio::time::{Instant, sleep, sleep_until};
use tracing::instrument;

pub use builder::ClientBuilder;
pub use error::ClientError;
pub use fetched::Fetched;
pub use forwards::RecordsFrom;
pub use position::{Position, PositionError};
pub use record::{Record, TimestampType};
pub use scattered::RecordPlace;

#[cfg(feature = "gateway")]
pub(crate) use self::routing::is_topic_name;
use self::routing::{Route, Routing};
use crate::cache::Cache;
use crate::cluster::{EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, code, list_offsets};
use crate::transport::{BrokerAddress, TcpTransport, Transport, TransportError, fetch};

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Isolation {
    /// All of them, those of open and aborted transactions included.
    #[default]
    ReadUncommitted,
    /// Those of committed transactions and those outside of any.
    ReadCommitted,
}

impl Isolation {
    fn level(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// How a client reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// Which records it sees.
    pub isolation: Isolation,
    /// How many bytes of batches one fetch may bring. The first batch always comes whole; a read of a single record
    /// brings no other.
    pub fetch_max_bytes: usize,
    /// How long a broker may wait for data at the end of the log.
    pub max_wait: Duration,
    /// How long a read is tried again while leaders move and brokers restart.
    pub retry_timeout: Duration,
    /// The most that one batch may hold after decompression, in bytes.
    pub decompressed_limit_bytes: usize,
    /// The rack that this client is in, `client.rack` of Kafka's own consumers: where brokers have a selector of replicas
    /// (`replica.selector.class`), records are then read from an in-sync replica in that rack (KIP-392). The leader is
    /// asked where that replica fails or gives nothing, and for offsets always. `None`, which is the default, reads from
    /// leaders only.
    pub rack: Option<String>,
}

impl Default for ClientSettings {
    /// Uncommitted reads of up to 1 MiB, half a second of waiting, 10 seconds of trying again, 128 MiB a batch, no
    /// rack.
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            fetch_max_bytes: 1 << 20,
            max_wait: Duration::from_millis(500),
            retry_timeout: Duration::from_secs(10),
            decompressed_limit_bytes: kachet_core::wire::codec::DEFAULT_DECOMPRESSED_LIMIT_BYTES,
            rack: None,
        }
    }
}

/// Reads partitions of a Kafka cluster at any offset, through any [`Transport`].
///
/// ```no_run
/// # async fn example() -> Result<(), kachet::client::ClientError> {
/// use kachet::client::Client;
///
/// let client = Client::builder().bootstrap("localhost:9092").size_limit_bytes(256 << 20).build()?;
/// if let Some(record) = client.record("orders", 0, 42).await? {
///     println!("{:?}", record.value);
/// }
/// // The second read comes from the cache.
/// client.record("orders", 0, 42).await?;
/// assert_eq!(client.transport().statistics().upstream_fetches, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client<T> {
    transport: T,
    routing: Routing,
    settings: ClientSettings,
}

impl Client<Cache<TcpTransport>> {
    /// Begins to set a client up that reads over TCP through a cache in memory.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
}

/// Between tries, while a leader is being elected.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

impl<T: Transport> Client<T> {
    /// The transport that it reads through.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The batches at and behind `offset`. Empty at the end of the log, after [`ClientSettings::max_wait`].
    pub async fn fetch(&self, topic: &str, partition: i32, offset: i64) -> Result<Fetched, ClientError> {
        self.read(self.page(topic, partition, offset)).await
    }

    /// A read of as much as the settings say.
    fn page<'t>(&self, topic: &'t str, partition: i32, offset: i64) -> Read<'t> {
        let ClientSettings {
            max_wait,
            fetch_max_bytes: max_bytes,
            ..
        } = self.settings;
        Read {
            topic,
            partition,
            offset,
            max_wait,
            max_bytes,
        }
    }

    async fn read(&self, read: Read<'_>) -> Result<Fetched, ClientError> {
        let Read {
            topic,
            partition,
            offset,
            ..
        } = read;
        let deadline = Instant::now() + self.settings.retry_timeout;
        loop {
            match self.read_routed(read).await {
                Ok((route, data)) => {
                    return Ok(Fetched::new(topic, route.topic_id, offset, data, &self.settings));
                }
                Err(ClientError::Broker {
                    code: code::OFFSET_OUT_OF_RANGE,
                    ..
                }) => {}
                Err(error) => return Err(error),
            }
            let (log_start_offset, high_watermark) = self.bounds(topic, partition).await?;
            // Who leads no more goes on answering fetches, and may hold less. Only the leader tells bounds.
            let is_within = (log_start_offset..high_watermark).contains(&offset);
            if !is_within || Instant::now() + RETRY_PAUSE >= deadline {
                return Err(ClientError::OffsetOutOfRange {
                    topic: topic.to_owned(),
                    partition,
                    offset,
                    log_start_offset,
                    high_watermark,
                });
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// A read where the log is known to hold something, which comes at once as a rule; empty at and beyond its end.
    async fn read_present(&self, read: Read<'_>) -> Result<Fetched, ClientError> {
        let deadline = Instant::now() + self.settings.retry_timeout;
        let at_once = Read {
            max_wait: Duration::ZERO,
            ..read
        };
        let mut fetched = self.read(at_once).await?;
        while fetched.is_empty() {
            // A throttled broker, or one that reads from remote storage, may give nothing at first.
            let is_behind = read.offset >= fetched.readable_end();
            // Who leads no more, or only just does, may tell an older end. The leader's answer to this is that of one who
            // knows: it gives none until its high watermark is right (KIP-207), and others refuse.
            if is_behind
                && read.offset
                    >= self
                        .list_offset(read.topic, read.partition, LATEST_TIMESTAMP)
                        .await?
            {
                break;
            }
            if Instant::now() >= deadline {
                return Err(no_progress(&fetched, read.offset));
            }
            fetched = if is_behind {
                sleep(RETRY_PAUSE).await;
                self.read(at_once).await?
            } else {
                self.read_or_wait(read).await?
            };
        }
        Ok(fetched)
    }

    /// A read that waits for data, though not at a broker if that is not allowed to wait.
    async fn read_or_wait(&self, read: Read<'_>) -> Result<Fetched, ClientError> {
        let started = Instant::now();
        let fetched = self.read(read).await?;
        if fetched.is_empty() {
            // A broker that answers at once must not be asked again at once.
            sleep_until(started + RETRY_PAUSE).await;
        }
        Ok(fetched)
    }

    #[instrument(level = "debug", name = "fetch", skip_all, fields(topic = read.topic, partition = read.partition, offset = read.offset))]
    async fn read_routed(&self, read: Read<'_>) -> Result<(Route, PartitionData), ClientError> {
        let mut attempts = self.attempts(read.topic, read.partition);
        loop {
            let route = attempts.route().await?;
            let outcome = self.read_nearest(&route, read).await;
            if let Some(data) = attempts.judge(outcome).await? {
                return Ok((route, data));
            }
        }
    }

    /// One fetch of `broker`, the leader or a replica; with the client's rack the leader may name a replica instead.
    async fn read_once(
        &self,
        route: &Route,
        broker: &BrokerAddress,
        rack: Option<&WireStr>,
        read: Read<'_>,
    ) -> Result<Answer<PartitionData>, TransportError> {
        let version = self.fetch_version(broker, !route.topic_id.is_zero()).await?;
        let mut request = self.fetch_request(route, version, read);
        if let Some(rack) = rack {
            request.rack_id = rack.clone();
        }
        let response = fetch(&self.transport, broker, version, request).await?;
        let unexpected = |what: String| TransportError::Message {
            broker: broker.clone(),
            api: "Fetch",
            version,
            message: what,
        };
        if response.error_code != 0 {
            return Ok(Answer::Error(response.error_code));
        }
        let mut partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
        let Some(data) = partitions.find(|data| data.partition_index == read.partition) else {
            let partition = read.partition;
            return Err(unexpected(format!("the answer leaves partition {partition} out")));
        };
        Ok(match data.error_code {
            0 => Answer::Value(data),
            error_code => Answer::Error(error_code),
        })
    }

    /// The newest version of Fetch that the broker and we speak.
    async fn fetch_version(&self, broker: &BrokerAddress, has_topic_id: bool) -> Result<i16, TransportError> {
        let versions = self.transport.api_versions(broker).await?;
        let newest = if has_topic_id {
            FETCH_VERSION_MAX
        } else {
            FETCH_VERSION_TOPIC_IDS - 1
        };
        versions
            .negotiate(FETCH_API_KEY, FETCH_VERSION_MIN..=newest)
            .ok_or_else(|| {
                let (broker_min, broker_max) = versions
                    .range(FETCH_API_KEY)
                    .map_or((-1, -1), |range| (*range.start(), *range.end()));
                TransportError::NoCommonVersion {
                    broker: broker.clone(),
                    api: "Fetch",
                    broker_min,
                    broker_max,
                    min: FETCH_VERSION_MIN,
                    max: newest,
                }
            })
    }

    fn fetch_request(&self, route: &Route, version: i16, read: Read<'_>) -> FetchRequest {
        let max_bytes = i32::try_from(read.max_bytes).unwrap_or(i32::MAX);
        let topic = if version >= FETCH_VERSION_TOPIC_IDS {
            TopicRef::Id(route.topic_id)
        } else {
            TopicRef::Name(route.topic_name.clone())
        };
        FetchRequest {
            max_wait_ms: i32::try_from(read.max_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: 1,
            max_bytes,
            isolation_level: self.settings.isolation.level(),
            topics: vec![FetchTopic {
                topic,
                partitions: vec![FetchPartition::new(read.partition, read.offset, max_bytes)],
                unknown_tags: TaggedFields::default(),
            }],
            ..FetchRequest::default()
        }
    }

    /// The batch that holds `offset`, or the next one behind a gap of compaction, and none behind: who reads at random has
    /// no use for the neighbours. At and beyond the end of the log it is [`ClientError::OffsetOutOfRange`].
    pub async fn fetch_batch(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<Fetched, ClientError> {
        let one_batch = Read {
            max_bytes: 1,
            ..self.page(topic, partition, offset)
        };
        let fetched = self.read_present(one_batch).await?;
        if fetched.is_empty() {
            return Err(beyond_end(&fetched, offset));
        }
        Ok(fetched)
    }

    /// The record at `offset`. `None` where the log holds none there: the offset of a transaction marker, of a
    /// record that compaction has removed, or, if committed data is read, of an aborted transaction.
    pub async fn record(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<Option<Record>, ClientError> {
        let fetched = self.fetch_batch(topic, partition, offset).await?;
        let first = fetched.records(1)?.into_iter().next();
        Ok(first.filter(|record| record.offset == offset))
    }

    /// Up to `count` records from `offset` on, in order; fewer at the end of the log.
    pub async fn records(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        count: usize,
    ) -> Result<Vec<Record>, ClientError> {
        let mut records = Vec::new();
        let mut next = offset;
        while records.len() < count {
            let fetched = self.read_present(self.page(topic, partition, next)).await?;
            records.extend(fetched.records(count - records.len())?);
            match fetched.next_offset() {
                Some(beyond) => next = beyond,
                None if next == offset => return Err(beyond_end(&fetched, offset)),
                None => break,
            }
        }
        Ok(records)
    }

    /// The offset that a position stands for now.
    pub async fn offset_of(
        &self,
        topic: &str,
        partition: i32,
        position: Position,
    ) -> Result<i64, ClientError> {
        match position {
            Position::Offset(offset) => Ok(offset),
            Position::Earliest => self.list_offset(topic, partition, EARLIEST_TIMESTAMP).await,
            Position::BeforeEnd(back) => {
                let (earliest, end) = self.bounds(topic, partition).await?;
                Ok(end.saturating_sub_unsigned(back).max(earliest))
            }
            Position::Timestamp(timestamp_ms) => {
                match self.list_offset(topic, partition, timestamp_ms).await? {
                    offset if offset >= 0 => Ok(offset),
                    _ => {
                        let topic = topic.to_owned();
                        Err(ClientError::NoSuchTimestamp {
                            topic,
                            partition,
                            timestamp_ms,
                        })
                    }
                }
            }
        }
    }

    /// The first offset that the log holds and the first that it does not hold yet.
    async fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64), ClientError> {
        tokio::try_join!(
            self.list_offset(topic, partition, EARLIEST_TIMESTAMP),
            self.list_offset(topic, partition, LATEST_TIMESTAMP)
        )
    }

    async fn list_offset(&self, topic: &str, partition: i32, timestamp: i64) -> Result<i64, ClientError> {
        let mut attempts = self.attempts(topic, partition);
        loop {
            let route = attempts.route().await?;
            let outcome = self.list_offset_once(&route, partition, timestamp).await;
            if let Some(offset) = attempts.judge(outcome).await? {
                return Ok(offset);
            }
        }
    }

    async fn list_offset_once(
        &self,
        route: &Route,
        partition: i32,
        timestamp: i64,
    ) -> Result<Answer<i64>, TransportError> {
        let level = self.settings.isolation.level();
        let asked = [(route.topic_name.clone(), partition)];
        let mut found = list_offsets(&self.transport, &route.leader, &asked, timestamp, level).await?;
        Ok(match found.remove(&asked[0]) {
            Some(Ok(found)) => Answer::Value(found.offset),
            Some(Err(error_code)) => Answer::Error(error_code),
            None => Answer::Error(code::UNKNOWN_TOPIC_OR_PARTITION),
        })
    }
}

fn beyond_end(fetched: &Fetched, offset: i64) -> ClientError {
    ClientError::OffsetOutOfRange {
        topic: fetched.topic().to_owned(),
        partition: fetched.partition(),
        offset,
        log_start_offset: fetched.log_start_offset(),
        high_watermark: fetched.readable_end(),
    }
}

fn no_progress(fetched: &Fetched, offset: i64) -> ClientError {
    ClientError::NoProgress {
        topic: fetched.topic().to_owned(),
        partition: fetched.partition(),
        offset,
        end_offset: fetched.readable_end(),
    }
}

/// One fetch of one partition.
#[derive(Clone, Copy)]
struct Read<'t> {
    topic: &'t str,
    partition: i32,
    offset: i64,
    max_wait: Duration,
    max_bytes: usize,
}

/// What a leader answered about a partition.
enum Answer<V> {
    Value(V),
    /// Kafka's error code.
    Error(i16),
}
