//! A client that says exactly what a test wants.

use core::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use kachet_core::wire::{
    Chunks, FetchPartition, FetchRequest, FetchResponse, FetchTopic, TaggedFields, TopicRef, WireStr,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, MetadataRequest, MetadataResponse, RequestHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{LONG, TOPIC};

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    name: &'static str,
    correlation_id: i32,
}

impl Client {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        Self::named(address, "test").await
    }

    pub(crate) async fn named(address: SocketAddr, name: &'static str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            name,
            correlation_id: 0,
        }
    }

    /// Sends a request and gives its correlation id.
    pub(crate) async fn send(&mut self, api_key: i16, version: i16, body: &[u8]) -> i32 {
        let frame = self.frame(api_key, version, body);
        self.stream.write_all(&frame).await.unwrap();
        self.correlation_id
    }

    /// A request with its size.
    pub(crate) fn frame(&mut self, api_key: i16, version: i16, body: &[u8]) -> Bytes {
        self.correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(api_key)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str(self.name)));
        let header_version = ApiKey::try_from(api_key).map_or(1, |api| api.request_header_version(version));
        let mut rest = BytesMut::new();
        header.encode(&mut rest, header_version).unwrap();
        rest.put_slice(body);
        let mut frame = BytesMut::new();
        frame.put_u32(u32::try_from(rest.len()).unwrap());
        frame.put_slice(&rest);
        frame.freeze()
    }

    /// The next answer without its size; `None` where the connection is closed instead.
    pub(crate) async fn receive(&mut self) -> Option<Bytes> {
        let receive = async {
            let size = self.stream.read_u32().await.ok()?;
            let mut answer = vec![0; usize::try_from(size).unwrap()];
            self.stream.read_exact(&mut answer).await.ok()?;
            Some(answer.into())
        };
        timeout(LONG, receive)
            .await
            .expect("neither an answer nor the end of the connection")
    }

    /// The answer to the request with this correlation id, without its header.
    pub(crate) async fn answer(&mut self, api: ApiKey, version: i16, correlation_id: i32) -> Bytes {
        let answer = self.receive().await.expect("an answer");
        assert_eq!(answer[..4], correlation_id.to_be_bytes(), "{api:?} v{version}");
        answer.slice(if api.response_header_version(version) >= 1 {
            5..
        } else {
            4..
        })
    }

    pub(crate) async fn send_fetch(&mut self, version: i16, request: &FetchRequest) -> i32 {
        let mut body = Chunks::new();
        request.encode(version, &mut body).unwrap();
        self.send(1, version, &body.into_bytes()).await
    }

    pub(crate) async fn fetch(&mut self, version: i16, request: &FetchRequest) -> FetchResponse {
        let correlation_id = self.send_fetch(version, request).await;
        let body = self.answer(ApiKey::Fetch, version, correlation_id).await;
        FetchResponse::decode(body, version).unwrap()
    }

    pub(crate) async fn metadata(&mut self, version: i16) -> MetadataResponse {
        let mut body = BytesMut::new();
        let request =
            MetadataRequest::default().with_topics(if version == 0 { Some(Vec::new()) } else { None });
        request.encode(&mut body, version).unwrap();
        let correlation_id = self.send(3, version, &body).await;
        let mut body = self.answer(ApiKey::Metadata, version, correlation_id).await;
        MetadataResponse::decode(&mut body, version).unwrap()
    }

    /// Metadata of one topic by its name; `None` where the connection is closed instead.
    pub(crate) async fn metadata_of(
        &mut self,
        version: i16,
        topic: &'static str,
    ) -> Option<MetadataResponse> {
        let name = StrBytes::from_static_str(topic).into();
        let topic = MetadataRequestTopic::default().with_name(Some(name));
        let mut body = BytesMut::new();
        MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .encode(&mut body, version)
            .unwrap();
        self.send(3, version, &body).await;
        let header_bytes = if version >= 9 { 5 } else { 4 };
        let mut body = self.receive().await?.slice(header_bytes..);
        Some(MetadataResponse::decode(&mut body, version).unwrap())
    }

    /// The answer to `ApiVersions` without its header.
    pub(crate) async fn api_versions(&mut self, version: i16) -> Option<Bytes> {
        let mut body = BytesMut::new();
        let request =
            ApiVersionsRequest::default().with_client_software_name(StrBytes::from_static_str("test"));
        let request = if version >= 3 {
            request
        } else {
            ApiVersionsRequest::default()
        };
        request.encode(&mut body, version.min(4)).unwrap();
        self.send(18, version, &body).await;
        self.receive().await.map(|answer| answer.slice(4..))
    }
}

/// A consumer's fetch of some partitions by name, each with its offset.
pub(crate) fn fetch_of(partitions: &[(i32, i64)]) -> FetchRequest {
    let asked = partitions
        .iter()
        .map(|(index, offset)| FetchPartition::new(*index, *offset, 1 << 20));
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic: TopicRef::Name(WireStr::from_static(TOPIC)),
            partitions: asked.collect(),
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    }
}

/// Bytes of records of each partition of a response.
pub(crate) fn sizes(response: &FetchResponse) -> Vec<(i32, usize)> {
    let size = |data: &kachet_core::wire::PartitionData| (data.partition_index, data.records_size_bytes());
    response.partitions().map(|(_, data)| size(data)).collect()
}
