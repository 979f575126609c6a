//! A consumer's connection, and logs to read over it.

use core::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Event, Events, Packing, pack};
use kachet_core::wire::{
    Chunks, FETCH_VERSION_MAX, FETCH_VERSION_MIN, FetchPartition, FetchRequest, FetchResponse, FetchTopic,
    PartitionData, TaggedFields, TopicId, TopicRef, WireStr,
};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const EVERY_VERSION: core::ops::RangeInclusive<i16> = FETCH_VERSION_MIN..=FETCH_VERSION_MAX;
/// Far longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A consumer's connection: one request, one answer.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    correlation_id: i32,
}

impl Connection {
    pub(crate) async fn to(broker: &EmbeddedBroker) -> Self {
        let address = broker.address();
        let stream = TcpStream::connect((address.host.as_str(), address.port))
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            correlation_id: 0,
        }
    }

    /// Sends a frame and gives what comes back, or `None` if the broker closes the connection instead.
    pub(crate) async fn exchange(&mut self, frame: &[u8]) -> Option<Bytes> {
        let mut sized = BytesMut::new();
        sized.put_u32(frame.len().try_into().unwrap());
        sized.put_slice(frame);
        self.stream.write_all(&sized).await.unwrap();
        self.receive().await
    }

    pub(crate) async fn receive(&mut self) -> Option<Bytes> {
        let size = self.stream.read_u32().await.ok()?;
        let mut answer = vec![0; size.try_into().unwrap()];
        self.stream.read_exact(&mut answer).await.unwrap();
        Some(answer.into())
    }

    pub(crate) fn request(&mut self, api: ApiKey, version: i16, body: &[u8]) -> BytesMut {
        self.correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("test")));
        let mut frame = BytesMut::new();
        header
            .encode(&mut frame, api.request_header_version(version))
            .unwrap();
        frame.put_slice(body);
        frame
    }

    pub(crate) async fn answer_to(&mut self, api: ApiKey, version: i16, body: &[u8]) -> Bytes {
        let frame = self.request(api, version, body);
        let answer = self
            .exchange(&frame)
            .await
            .expect("an answer, not the end of the connection");
        assert_eq!(answer[..4], self.correlation_id.to_be_bytes());
        answer.slice(if api.response_header_version(version) == 1 {
            5..
        } else {
            4..
        })
    }

    pub(crate) async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).unwrap();
        let mut answer = self.answer_to(R::KEY.try_into().unwrap(), version, &body).await;
        let response = R::Response::decode(&mut answer, version).unwrap();
        assert!(
            answer.is_empty(),
            "{} bytes left behind the response",
            answer.len()
        );
        response
    }

    pub(crate) async fn fetch(&mut self, version: i16, request: &FetchRequest) -> FetchResponse {
        let mut body = Chunks::new();
        request.encode(version, &mut body).unwrap();
        let answer = self.answer_to(ApiKey::Fetch, version, &body.into_bytes()).await;
        FetchResponse::decode(answer, version).unwrap()
    }

    /// Fetches by topic id and gives the partitions in their order.
    pub(crate) async fn read(&mut self, request: &FetchRequest) -> Vec<PartitionData> {
        let response = self.fetch(FETCH_VERSION_MAX, request).await;
        assert_eq!((response.error_code, response.session_id), (0, 0));
        response
            .topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .collect()
    }
}

pub(crate) fn named(name: &'static str) -> TopicRef {
    TopicRef::Name(WireStr::from_static(name))
}

pub(crate) fn of(topic: TopicRef, partitions: Vec<FetchPartition>) -> FetchRequest {
    let topic = FetchTopic {
        topic,
        partitions,
        unknown_tags: TaggedFields::default(),
    };
    FetchRequest {
        topics: vec![topic],
        ..FetchRequest::default()
    }
}

pub(crate) fn from(id: TopicId, offset: i64) -> FetchRequest {
    of(TopicRef::Id(id), vec![FetchPartition::new(0, offset, i32::MAX)])
}

pub(crate) fn bytes_of(data: &PartitionData) -> Bytes {
    data.records
        .as_ref()
        .expect("records that are not null")
        .to_bytes()
}

/// Ten batches of five events each in every partition: offsets 0 to 49. Gives the batches as the log holds
/// them.
pub(crate) fn fill(broker: &EmbeddedBroker, topic: &str, partition: i32) -> Vec<Bytes> {
    let mut events = Events::new(7);
    (0..10_i64)
        .map(|index| append(broker, topic, partition, &mut events, index * 5))
        .collect()
}

pub(crate) fn append(
    broker: &EmbeddedBroker,
    topic: &str,
    partition: i32,
    events: &mut Events,
    base: i64,
) -> Bytes {
    let events: Vec<Event> = events.take(5).collect();
    let batch = pack(&events, Packing::Lz4).unwrap();
    let span = broker.append(topic, partition, batch.clone()).unwrap();
    assert_eq!((span.base(), span.last()), (base, base + 4));
    let mut held = BytesMut::from(&batch[..]);
    held[..8].copy_from_slice(&base.to_be_bytes());
    held[12..16].fill(0);
    held.freeze()
}

pub(crate) async fn broker_with(
    settings: BrokerSettings,
    partitions: u16,
) -> (EmbeddedBroker, TopicId, Vec<Bytes>) {
    let broker = EmbeddedBroker::start(settings).await.unwrap();
    let id = broker.create_topic("orders", partitions).unwrap();
    let mut held = Vec::new();
    for partition in 0..partitions {
        held = fill(&broker, "orders", partition.into());
    }
    (broker, id, held)
}

pub(crate) async fn broker() -> (EmbeddedBroker, TopicId, Vec<Bytes>) {
    broker_with(BrokerSettings::default(), 1).await
}
