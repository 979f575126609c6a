//! Frames: a length of 4 bytes, a header, a body. Nothing here trusts a length.
//!
//! Source: `RequestHeader.json` and `ResponseHeader.json` of Apache Kafka; KIP-482 (flexible versions);
//! KIP-511 (the response to `ApiVersions` always has the oldest header).

use core::ops::Range;
use core::time::Duration;
use std::io;
use std::sync::{Arc, LazyLock};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kachet_core::wire::Chunks;
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{BrokerAddress, Request, TransportError};

/// The length in front of each frame.
const LENGTH_BYTES: usize = 4;
/// Every response begins with its correlation id.
const CORRELATION_ID_BYTES: usize = 4;
/// One read takes in this much, so that small responses come several to a system call. Frames that do not fit
/// get memory of their own.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// With less room than this the buffer is replaced (or used again, if nobody holds a response in it any more).
const READ_MIN_BYTES: usize = READ_BUFFER_BYTES / 4;
/// Room that is made beyond what has arrived, at least: the usual limit of a partition, 1 MiB, with the fields
/// around it, so that most responses are read into one piece of memory.
const GROWTH_MIN_BYTES: usize = (1 << 20) + (64 << 10);
/// The first answer is the one to `ApiVersions`, of a few KiB.
const FIRST_RESPONSE_LIMIT_BYTES: usize = 1 << 20;
/// Of an answer that is not understood, this much is shown.
const SHOWN_BYTES: usize = 24;

/// Names for messages to people. Built once, because kafka-protocol offers them only by `Debug`.
static API_NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let name = |key| ApiKey::try_from(key).map_or_else(|()| format!("API {key}"), |api| format!("{api:?}"));
    (0..128).map(name).collect()
});

/// Kafka's name of an API.
pub(crate) fn api_name(api_key: i16) -> &'static str {
    usize::try_from(api_key)
        .ok()
        .and_then(|key| API_NAMES.get(key))
        .map_or("an unknown API", String::as_str)
}

/// A request whose body is encoded and which lacks nothing but a correlation id.
pub(super) struct Outgoing {
    api: ApiKey,
    version: i16,
    body: Bytes,
    broker_wait: Duration,
}

impl Outgoing {
    pub(super) fn new(broker: &BrokerAddress, request: Request) -> Result<Self, TransportError> {
        match request {
            Request::Fetch { version, request } => {
                let mut body = Chunks::new();
                request
                    .encode(version, &mut body)
                    .map_err(|source| TransportError::Fetch {
                        broker: broker.clone(),
                        version,
                        source,
                    })?;
                let broker_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
                // A request carries no records, so this is one slice and nothing is copied.
                Ok(Self {
                    api: ApiKey::Fetch,
                    version,
                    body: body.into_bytes(),
                    broker_wait,
                })
            }
            Request::Other {
                api_key,
                version,
                body,
                broker_wait,
            } => {
                let api = ApiKey::try_from(api_key).map_err(|()| {
                    message_error(
                        broker,
                        api_key,
                        version,
                        &format!("there is no API with the key {api_key}"),
                    )
                })?;
                Ok(Self {
                    api,
                    version,
                    body,
                    broker_wait,
                })
            }
        }
    }

    pub(super) fn api_key(&self) -> i16 {
        self.api as i16
    }

    pub(super) fn version(&self) -> i16 {
        self.version
    }

    pub(super) fn body(&self) -> &Bytes {
        &self.body
    }

    /// How long the broker itself may take before it begins to answer.
    pub(super) fn broker_wait(&self) -> Duration {
        self.broker_wait
    }

    /// Whether it leaves the cluster as it is, so that to send it twice is harmless. A Produce, for one, is not
    /// repeated: its records could end up in the log twice.
    pub(super) fn only_reads(&self) -> bool {
        matches!(
            self.api,
            ApiKey::Fetch
                | ApiKey::ListOffsets
                | ApiKey::Metadata
                | ApiKey::OffsetFetch
                | ApiKey::FindCoordinator
                | ApiKey::DescribeGroups
                | ApiKey::ListGroups
                | ApiKey::ApiVersions
                | ApiKey::OffsetForLeaderEpoch
                | ApiKey::DescribeConfigs
                | ApiKey::DescribeLogDirs
                | ApiKey::DescribeCluster
                | ApiKey::DescribeProducers
                | ApiKey::DescribeTopicPartitions
        )
    }

    /// The length and the header, to be followed by the body.
    pub(super) fn head(
        &self,
        broker: &BrokerAddress,
        client_id: &StrBytes,
        correlation_id: i32,
    ) -> Result<Bytes, TransportError> {
        let header = RequestHeader::default()
            .with_request_api_key(self.api_key())
            .with_request_api_version(self.version)
            .with_correlation_id(correlation_id)
            .with_client_id(Some(client_id.clone()));
        let mut head = BytesMut::with_capacity(LENGTH_BYTES + 16 + client_id.len());
        head.put_i32(0);
        let failed = |message: String| message_error(broker, self.api_key(), self.version, &message);
        let header_version = self.api.request_header_version(self.version);
        header
            .encode(&mut head, header_version)
            .map_err(|error| failed(format!("header: {error}")))?;
        let size_bytes = head.len() - LENGTH_BYTES + self.body.len();
        let length = i32::try_from(size_bytes)
            .map_err(|_| failed(format!("a request of {size_bytes} bytes does not fit a frame")))?;
        head[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        Ok(head.freeze())
    }

    /// What follows the header of the response.
    pub(super) fn response_body(
        &self,
        broker: &BrokerAddress,
        mut response: Bytes,
    ) -> Result<Bytes, TransportError> {
        let header_version = self.api.response_header_version(self.version);
        ResponseHeader::decode(&mut response, header_version).map_err(|error| {
            message_error(
                broker,
                self.api_key(),
                self.version,
                &format!("response header: {error}"),
            )
        })?;
        Ok(response)
    }
}

/// A message other than Fetch that cannot be encoded or decoded.
pub(super) fn message_error(
    broker: &BrokerAddress,
    api_key: i16,
    version: i16,
    message: &str,
) -> TransportError {
    // Some of kafka-protocol's messages end in a line break.
    let message = message.trim_end().to_owned();
    TransportError::Message {
        broker: broker.clone(),
        api: api_name(api_key),
        version,
        message,
    }
}

/// The correlation id with which a response begins. [`FrameReader`] gives no shorter response.
pub(super) fn correlation_id(response: &[u8]) -> i32 {
    response
        .first_chunk()
        .map_or(-1, |bytes| i32::from_be_bytes(*bytes))
}

/// Cuts a stream of bytes into responses.
///
/// Memory is claimed as bytes arrive: at most [`GROWTH_MIN_BYTES`], or as much again as has arrived.
pub(super) struct FrameReader {
    broker: BrokerAddress,
    limit_bytes: usize,
    first: bool,
    /// Small responses, and the beginning of a large one.
    buffer: BytesMut,
    /// A response that does not fit the buffer.
    large: Option<LargeFrame>,
}

/// A `Vec`, because it can grow by exactly what is needed: what is kept of a response wastes nothing.
struct LargeFrame {
    arrived: Vec<u8>,
    size_bytes: usize,
}

impl FrameReader {
    pub(super) fn new(broker: BrokerAddress, limit_bytes: usize) -> Self {
        Self {
            broker,
            limit_bytes,
            first: true,
            buffer: BytesMut::new(),
            large: None,
        }
    }

    /// Reads once; 0 bytes are the end of the stream. Can be cancelled without losing bytes.
    pub(super) async fn fill(&mut self, input: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        if let Some(frame) = &mut self.large {
            frame.make_room();
            let missing_bytes = frame.size_bytes - frame.arrived.len();
            return input
                .read_buf(&mut (&mut frame.arrived).limit(missing_bytes))
                .await;
        }
        let needed_bytes = self
            .small_frame()
            .map_or(0, |frame| frame.end.saturating_sub(self.buffer.len()));
        if self.buffer.capacity() - self.buffer.len() < needed_bytes.max(READ_MIN_BYTES) {
            self.buffer.reserve(READ_BUFFER_BYTES);
        }
        input.read_buf(&mut self.buffer).await
    }

    /// The next whole response without its length, if it is there.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, TransportError> {
        if let Some(frame) = self
            .large
            .take_if(|frame| frame.arrived.len() == frame.size_bytes)
        {
            self.first = false;
            return Ok(Some(Bytes::from(frame.arrived)));
        }
        if self.large.is_some() {
            return Ok(None);
        }
        let Some(Range { start, end }) = self.small_frame() else {
            return Ok(None);
        };
        self.check_size()?;
        if self.buffer.len() >= end {
            self.first = false;
            self.buffer.advance(start);
            return Ok(Some(self.buffer.split_to(end - start).freeze()));
        }
        if end > READ_BUFFER_BYTES {
            let size_bytes = end - start;
            let arrived_bytes = self.buffer.len() - start;
            let mut arrived = Vec::with_capacity(size_bytes.min(arrived_bytes + GROWTH_MIN_BYTES));
            arrived.extend_from_slice(&self.buffer[start..]);
            self.buffer.clear();
            self.large = Some(LargeFrame { arrived, size_bytes });
        }
        Ok(None)
    }

    /// How many bytes of a response that is not whole yet have arrived.
    pub(super) fn partial_bytes(&self) -> usize {
        let large_bytes = self
            .large
            .as_ref()
            .map_or(0, |frame| LENGTH_BYTES + frame.arrived.len());
        self.buffer.len() + large_bytes
    }

    /// The error for a stream that ended here.
    pub(super) fn end_of_stream(&self) -> TransportError {
        let broker = self.broker.clone();
        match self.partial_bytes() {
            0 => TransportError::Closed { broker },
            arrived_bytes if self.first => TransportError::NotKafka {
                broker,
                what: format!("its first answer ends after {arrived_bytes} bytes"),
            },
            arrived_bytes => {
                let message = format!("it ended {arrived_bytes} bytes into a response");
                let source = Arc::new(io::Error::new(io::ErrorKind::UnexpectedEof, message));
                TransportError::Connection { broker, source }
            }
        }
    }

    /// Where in the buffer the next response lies, once its length is there. The length is not checked yet.
    fn small_frame(&self) -> Option<Range<usize>> {
        let length = i32::from_be_bytes(*self.buffer.first_chunk()?);
        let size_bytes = usize::try_from(length).unwrap_or(0);
        Some(LENGTH_BYTES..LENGTH_BYTES + size_bytes)
    }

    fn check_size(&self) -> Result<(), TransportError> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(());
        };
        let length = i32::from_be_bytes(*prefix);
        let limit_bytes = if self.first {
            FIRST_RESPONSE_LIMIT_BYTES.min(self.limit_bytes)
        } else {
            self.limit_bytes
        };
        let size_bytes = usize::try_from(length).unwrap_or(0);
        if (CORRELATION_ID_BYTES..=limit_bytes).contains(&size_bytes) {
            return Ok(());
        }
        let broker = self.broker.clone();
        if self.first && matches!(*prefix, [0x15 | 0x16, 3, ..]) {
            return Err(TransportError::TlsExpected { broker });
        }
        let what = if let Some(service) = recognise(*prefix) {
            service.to_owned()
        } else if self.first {
            let shown = &self.buffer[..self.buffer.len().min(SHOWN_BYTES)];
            format!("its answer begins with \"{}\"", shown.escape_ascii())
        } else if size_bytes > limit_bytes {
            return Err(TransportError::ResponseTooLarge {
                broker,
                size_bytes,
                limit_bytes,
            });
        } else {
            format!("a response of {length} bytes")
        };
        Err(TransportError::NotKafka { broker, what })
    }
}

impl LargeFrame {
    /// Doubling keeps the copying linear; a multiple of what has arrived keeps a claimed length from costing
    /// memory.
    fn make_room(&mut self) {
        if self.arrived.len() == self.arrived.capacity() {
            let missing_bytes = self.size_bytes - self.arrived.len();
            self.arrived
                .reserve_exact(missing_bytes.min(self.arrived.len().max(GROWTH_MIN_BYTES)));
        }
    }
}

/// Services that people reach by mistake, by the first bytes of what they say.
fn recognise(prefix: [u8; 4]) -> Option<&'static str> {
    Some(match &prefix {
        b"HTTP" => "an HTTP server answered",
        b"SSH-" => "an SSH server answered",
        b"-ERR" => "a Redis server answered",
        b"AMQP" => "an AMQP server answered",
        b"220 " | b"220-" => "an SMTP or FTP server answered",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT_BYTES: usize = 1 << 27;

    fn reader(limit_bytes: usize) -> FrameReader {
        FrameReader::new(
            BrokerAddress {
                host: "b".into(),
                port: 9092,
            },
            limit_bytes,
        )
    }

    /// A response that tells apart where its bytes stand.
    fn frame(size_bytes: usize) -> Vec<u8> {
        let pattern: Vec<u8> = (0..=250).collect();
        let mut frame = u32::try_from(size_bytes).unwrap().to_be_bytes().to_vec();
        frame.extend(pattern.repeat(size_bytes / pattern.len() + 1));
        frame.truncate(4 + size_bytes);
        frame
    }

    /// A reader that has had its first response.
    async fn settled(limit_bytes: usize) -> FrameReader {
        let mut reader = reader(limit_bytes);
        assert_eq!(reader.fill(&mut &frame(4)[..]).await.unwrap(), 8);
        assert_eq!(reader.next().unwrap().unwrap().len(), 4);
        reader
    }

    #[tokio::test]
    async fn frames_of_every_size_come_back_whole() {
        let sizes = [
            4,
            5,
            100,
            16_380,
            16_384,
            16_400,
            5,
            GROWTH_MIN_BYTES,
            3 * GROWTH_MIN_BYTES + 7,
            4,
        ];
        let stream: Vec<u8> = sizes.iter().flat_map(|size| frame(*size)).collect();
        let mut input = &stream[..];
        let mut reader = settled(LIMIT_BYTES).await;
        let mut seen = Vec::new();
        while reader.fill(&mut input).await.unwrap() > 0 {
            while let Some(response) = reader.next().unwrap() {
                assert_eq!(response, frame(response.len())[4..]);
                seen.push(response.len());
            }
        }
        assert_eq!(seen, sizes);
        assert_eq!(reader.partial_bytes(), 0);
    }

    #[tokio::test]
    async fn a_claimed_length_costs_no_memory() {
        let mut reader = settled(LIMIT_BYTES).await;
        let mut claimed = frame(9 << 20);
        claimed[..4].copy_from_slice(&(100_u32 << 20).to_be_bytes());
        reader.fill(&mut &claimed[..20]).await.unwrap();
        assert_eq!(reader.next().unwrap(), None);
        let capacity_bytes = |reader: &FrameReader| reader.large.as_ref().unwrap().arrived.capacity();
        assert!(capacity_bytes(&reader) <= GROWTH_MIN_BYTES + READ_BUFFER_BYTES);
        // And never more than twice what has arrived once that is more.
        let mut input = &claimed[20..];
        while reader.fill(&mut input).await.unwrap() > 0 {
            assert_eq!(reader.next().unwrap(), None);
            let arrived_bytes = reader.partial_bytes();
            assert!(capacity_bytes(&reader) <= (2 * arrived_bytes).max(GROWTH_MIN_BYTES + READ_BUFFER_BYTES));
        }
        assert!(reader.partial_bytes() > 8 << 20);
    }

    #[tokio::test]
    async fn a_large_response_keeps_no_slack() {
        let stream = frame(5_000_000);
        let mut input = &stream[..];
        let mut reader = settled(LIMIT_BYTES).await;
        let response = loop {
            reader.fill(&mut input).await.unwrap();
            if let Some(frame) = &reader.large {
                assert!(frame.arrived.capacity() <= frame.size_bytes);
            }
            if let Some(response) = reader.next().unwrap() {
                break response;
            }
        };
        assert_eq!(response, stream[4..]);
    }

    #[tokio::test]
    async fn impossible_lengths_are_errors() {
        for (length, expected) in [(-1, "-1 bytes"), (3, "3 bytes"), (i32::MIN, "-2147483648 bytes")] {
            let mut reader = settled(LIMIT_BYTES).await;
            reader.fill(&mut &i32::to_be_bytes(length)[..]).await.unwrap();
            let error = reader.next().unwrap_err();
            assert!(
                matches!(&error, TransportError::NotKafka { what, .. } if what.contains(expected)),
                "{error}"
            );
        }
        let mut reader = settled(1000).await;
        reader.fill(&mut &frame(1001)[..]).await.unwrap();
        let error = reader.next().unwrap_err();
        assert!(
            matches!(
                error,
                TransportError::ResponseTooLarge {
                    size_bytes: 1001,
                    limit_bytes: 1000,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[tokio::test]
    async fn other_services_are_named() {
        for (bytes, expected) in [
            (&b"HTTP/1.1 400 Bad Request"[..], "HTTP"),
            (b"SSH-2.0-OpenSSH_9.6", "SSH"),
            (b"-ERR unknown command", "Redis"),
            (b"J\x00\x00\x00\n8.4.0", "J\\x00\\x00\\x00\\n8.4.0"),
        ] {
            let mut reader = reader(usize::MAX);
            reader.fill(&mut &bytes[..]).await.unwrap();
            let error = reader.next().unwrap_err();
            assert!(
                matches!(&error, TransportError::NotKafka { what, .. } if what.contains(expected)),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_tls_listener_is_recognised_by_its_alert_or_handshake() {
        for bytes in [&b"\x15\x03\x03\x00\x02\x02\x46"[..], b"\x16\x03\x01\x00\x02"] {
            let mut reader = reader(usize::MAX);
            reader.fill(&mut &bytes[..]).await.unwrap();
            let error = reader.next().unwrap_err();
            assert!(matches!(error, TransportError::TlsExpected { .. }), "{error}");
        }
    }

    #[test]
    fn apis_have_names() {
        assert_eq!(
            (api_name(1), api_name(18), api_name(3)),
            ("Fetch", "ApiVersions", "Metadata")
        );
        assert_eq!(
            (api_name(-1), api_name(1000)),
            ("an unknown API", "an unknown API")
        );
    }
}
