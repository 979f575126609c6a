//! A client that fetches.

use core::time::Duration;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use kachet::transport::{BrokerAddress, Request, Response, TcpSettings, TcpTransport, Transport, call};
use kachet_core::wire::{
    BatchEntry, Batches, FetchPartition, FetchRequest, FetchTopic, RecordBytes, TaggedFields, TopicId,
    TopicRef,
};
use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::protocol::StrBytes;

use super::TOPIC;

pub(super) const FETCH_BYTES: i32 = 1 << 20;
/// With topic ids, and spoken by every broker that is supported.
const FETCH_VERSION: i16 = 13;

/// A client of one partition.
pub(super) struct Reader {
    transport: TcpTransport,
    leader: BrokerAddress,
    topic: TopicId,
}

impl Reader {
    pub(super) async fn new(bootstrap: &str) -> Result<Self> {
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
    pub(super) fn by(&self, leader: BrokerAddress) -> Self {
        Self {
            transport: TcpTransport::new(TcpSettings::default()),
            leader,
            topic: self.topic,
        }
    }

    async fn fetch(&self, offset: i64, max_bytes: i32) -> Result<RecordBytes> {
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
    pub(super) async fn all(&self) -> Result<(usize, Vec<i64>)> {
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

    pub(super) async fn starts(&self) -> Result<Vec<i64>> {
        Ok(self.all().await?.1)
    }

    /// What each read of one batch took, in seconds.
    pub(super) async fn times(&self, offsets: &[i64]) -> Result<Vec<f64>> {
        let mut times = Vec::with_capacity(offsets.len());
        for offset in offsets {
            let started = Instant::now();
            ensure!(!self.fetch(*offset, 1).await?.is_empty(), "nothing at {offset}");
            times.push(started.elapsed().as_secs_f64());
        }
        Ok(times)
    }
}
