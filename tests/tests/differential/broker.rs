//! The broker, asked directly for what is in its logs.

use anyhow::{Context, Result};
use kachet::cluster::{EARLIEST_TIMESTAMP, TopicMetadata, describe, list_offsets};
use kachet::transport::{BrokerAddress, TcpSettings, TcpTransport};
use kachet_core::wire::{
    FETCH_VERSION_MAX, FetchPartition, FetchRequest, FetchTopic, TaggedFields, TopicId, TopicRef, WireStr,
};

use crate::connection::{Answered, Connection};

/// More than any partition holds.
const WHOLE_BYTES: i32 = 50 << 20;

/// A way to the broker that does not lead through the proxy.
pub(crate) struct Broker {
    connection: Connection,
    transport: TcpTransport,
    address: BrokerAddress,
}

impl Broker {
    pub(crate) fn at(bootstrap: &str) -> Result<Self> {
        Ok(Self {
            connection: Connection::to(&bootstrap),
            transport: TcpTransport::new(TcpSettings::default()),
            address: bootstrap.parse()?,
        })
    }

    /// What is in a partition from an offset on, that of open and aborted transactions too.
    pub(crate) async fn read(&mut self, id: TopicId, partition: i32, offset: i64) -> Result<Answered> {
        let request = FetchRequest {
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: WHOLE_BYTES,
            topics: vec![FetchTopic {
                topic: TopicRef::Id(id),
                partitions: vec![FetchPartition::new(partition, offset, WHOLE_BYTES)],
                unknown_tags: TaggedFields::default(),
            }],
            ..FetchRequest::default()
        };
        self.connection.fetch(FETCH_VERSION_MAX, &request).await
    }

    /// The error with which a partition is answered.
    pub(crate) async fn error_of(&mut self, id: TopicId, partition: i32) -> Result<i16> {
        let answered = self.read(id, partition, 0).await?;
        let mut partitions = answered.response.partitions();
        partitions
            .next()
            .map(|(_, data)| data.error_code)
            .context("no partition")
    }

    /// What Metadata says of a topic.
    pub(crate) async fn describe(&self, name: &str) -> Result<TopicMetadata> {
        let name = TopicRef::Name(WireStr::copy_from(name).context("a name that is too long")?);
        let topology = describe(&self.transport, &self.address, &[name]).await?;
        topology.topics.into_iter().next().context("no topic in Metadata")
    }

    /// `None` if the topic is gone.
    pub(crate) async fn log_start(&self, id: TopicId, partition: i32) -> Result<Option<i64>> {
        let topology = describe(&self.transport, &self.address, &[TopicRef::Id(id)]).await?;
        let Some(name) = topology.topics.into_iter().next().and_then(|topic| topic.name) else {
            return Ok(None);
        };
        let asked = [(name, partition)];
        let found = list_offsets(&self.transport, &self.address, &asked, EARLIEST_TIMESTAMP, 0).await?;
        let found = found.get(&asked[0]).copied();
        Ok(found.and_then(Result::ok).map(|found| found.offset))
    }
}
