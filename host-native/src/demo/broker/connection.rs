//! Connections: frames in, answers out, in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kachet_core::wire::{Chunks, FetchRequest};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, DescribeConfigsRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest,
    RequestHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::{BrokerState, fetch, metadata, offsets, request_shape};

/// The APIs that are answered, with their oldest and newest versions.
pub(super) const SPOKEN: [(ApiKey, i16, i16); 6] = [
    (ApiKey::Fetch, 4, 18),
    (ApiKey::ListOffsets, 1, 10),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::DescribeConfigs, 1, 4),
];

/// Bytes of a request header up to the correlation id, which every version begins with.
const HEADER_START_BYTES: usize = 8;
/// How long to wait when a connection cannot be accepted, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Why a connection was closed on a client.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("a request of {size_bytes} bytes, where {HEADER_START_BYTES} to {limit_bytes} are accepted")]
    FrameSize { size_bytes: i32, limit_bytes: usize },
    #[error("API {api_key} in version {version} is not answered")]
    NotSpoken { api_key: i16, version: i16 },
    #[error("malformed {api:?} v{version}: {what}")]
    Malformed { api: ApiKey, version: i16, what: String },
}

/// Accepts connections until `stopped` and then ends them all.
pub(super) async fn serve(
    state: Arc<BrokerState>,
    listener: TcpListener,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        let has_room = connections.len() < state.settings.connection_limit;
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, peer)) => {
                    state.counters.count_connection();
                    let state = Arc::clone(&state);
                    connections.spawn(async move {
                        if let Err(refusal) = converse(&state, stream).await {
                            tracing::debug!(%peer, %refusal, "the embedded broker closed a connection");
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "the embedded broker cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    connections.shutdown().await;
}

/// Answers the requests of one connection, one after the other.
async fn converse(state: &BrokerState, mut stream: TcpStream) -> Result<(), Refusal> {
    stream.set_nodelay(true)?;
    let mut input = BytesMut::new();
    let mut changes = state.changes.subscribe();
    while let Some(frame) = read_frame(&mut stream, &mut input, state.settings.request_limit_bytes).await? {
        let answer = Incoming::parse(frame)?.answer(state, &mut changes).await?;
        if !state.settings.answer_delay.is_zero() {
            tokio::time::sleep(state.settings.answer_delay).await;
        }
        let slices = answer.slices();
        state
            .counters
            .count_answer(answer.api, slices.iter().map(Bytes::len).sum());
        write_all(&mut stream, &slices).await?;
    }
    Ok(())
}

/// The next frame without its size, or `None` when the client has closed the connection.
async fn read_frame(
    stream: &mut TcpStream,
    input: &mut BytesMut,
    limit_bytes: usize,
) -> Result<Option<Bytes>, Refusal> {
    loop {
        if let Some(size) = input.first_chunk() {
            let stated = i32::from_be_bytes(*size);
            let size_bytes = usize::try_from(stated).ok();
            let accepted = size_bytes.filter(|size| (HEADER_START_BYTES..=limit_bytes).contains(size));
            let size_bytes = accepted.ok_or(Refusal::FrameSize {
                size_bytes: stated,
                limit_bytes,
            })?;
            if input.len() >= 4 + size_bytes {
                input.advance(4);
                return Ok(Some(input.split_to(size_bytes).freeze()));
            }
            input.reserve(4 + size_bytes - input.len());
        }
        if stream.read_buf(input).await? == 0 {
            return Ok(None);
        }
    }
}

/// Writes all slices without joining them.
async fn write_all(stream: &mut TcpStream, slices: &[Bytes]) -> io::Result<()> {
    let mut left: Vec<io::IoSlice<'_>> = slices.iter().map(|slice| io::IoSlice::new(slice)).collect();
    let mut left = left.as_mut_slice();
    while !left.is_empty() {
        let written = stream.write_vectored(left).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        io::IoSlice::advance_slices(&mut left, written);
    }
    Ok(())
}

/// A request whose header has been read.
struct Incoming {
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    /// Whether the version is one of [`SPOKEN`]; only an `ApiVersions` may be of another.
    spoken: bool,
    body: Bytes,
}

/// An encoded answer.
struct Answer {
    api: ApiKey,
    correlation_id: i32,
    /// 0, or 1 for a header that ends in tagged fields.
    header_version: i16,
    body: Vec<Bytes>,
}

impl Incoming {
    fn parse(mut frame: Bytes) -> Result<Self, Refusal> {
        let mut start = frame.clone();
        // `read_frame` lets no frame pass that is shorter than this.
        let (api_key, version, correlation_id) = (start.get_i16(), start.get_i16(), start.get_i32());
        let not_spoken = Refusal::NotSpoken { api_key, version };
        let Some((api, oldest, newest)) = SPOKEN.into_iter().find(|(api, ..)| *api as i16 == api_key) else {
            return Err(not_spoken);
        };
        let spoken = (oldest..=newest).contains(&version);
        if !spoken && api == ApiKey::ApiVersions {
            // It is answered all the same (H18), without a look at what its unknown version holds.
            return Ok(Self {
                api,
                version,
                correlation_id,
                spoken,
                body: Bytes::new(),
            });
        }
        if !spoken {
            return Err(not_spoken);
        }
        RequestHeader::decode(&mut frame, api.request_header_version(version)).map_err(|error| {
            Refusal::Malformed {
                api,
                version,
                what: error.to_string(),
            }
        })?;
        Ok(Self {
            api,
            version,
            correlation_id,
            spoken,
            body: frame,
        })
    }

    async fn answer(
        self,
        state: &BrokerState,
        changes: &mut watch::Receiver<u64>,
    ) -> Result<Answer, Refusal> {
        let version = self.version;
        let body = match self.api {
            ApiKey::Fetch => return self.answer_fetch(state, changes).await,
            ApiKey::ApiVersions if !self.spoken => self.encode(&metadata::unsupported_api_versions(), 0),
            ApiKey::ApiVersions => {
                self.decode::<ApiVersionsRequest>()?;
                self.encode(&metadata::api_versions(), version)
            }
            ApiKey::Metadata => self.encode(&metadata::metadata(state, &self.decode()?, version), version),
            ApiKey::DescribeConfigs => {
                let request: DescribeConfigsRequest = self.decode()?;
                self.encode(&metadata::describe_configs(state, &request, version), version)
            }
            ApiKey::ListOffsets => {
                let request: ListOffsetsRequest = self.decode()?;
                self.encode(&offsets::list_offsets(state, &request, version), version)
            }
            ApiKey::OffsetForLeaderEpoch => {
                let request: OffsetForLeaderEpochRequest = self.decode()?;
                self.encode(&offsets::offset_for_leader_epoch(state, &request), version)
            }
            other => {
                return Err(Refusal::NotSpoken {
                    api_key: other as i16,
                    version,
                });
            }
        };
        Ok(self.answer_with(vec![body?]))
    }

    async fn answer_fetch(
        self,
        state: &BrokerState,
        changes: &mut watch::Receiver<u64>,
    ) -> Result<Answer, Refusal> {
        let request = FetchRequest::decode(self.body.clone(), self.version);
        let request = request.map_err(|error| self.malformed(&error))?;
        let response = fetch::answer(state, changes, &request, self.version).await;
        let mut body = Chunks::new();
        response
            .encode(self.version, &mut body)
            .map_err(|error| self.malformed(&error))?;
        Ok(self.answer_with(body.into_slices()))
    }

    fn answer_with(self, body: Vec<Bytes>) -> Answer {
        // That of ApiVersions stays at 0 for ever, so that a client can read it from any broker.
        let header_version = self.api.response_header_version(self.version);
        Answer {
            api: self.api,
            correlation_id: self.correlation_id,
            header_version,
            body,
        }
    }

    fn decode<M: Decodable>(&self) -> Result<M, Refusal> {
        if !request_shape::arrays_are_whole(self.api, self.version, &self.body) {
            return Err(self.malformed(&"an array claims more elements than follow"));
        }
        M::decode(&mut self.body.clone(), self.version).map_err(|error| self.malformed(&error))
    }

    fn encode<M: Encodable>(&self, message: &M, version: i16) -> Result<Bytes, Refusal> {
        let mut body = BytesMut::new();
        message
            .encode(&mut body, version)
            .map_err(|error| self.malformed(&error))?;
        Ok(body.freeze())
    }

    fn malformed(&self, what: &dyn ToString) -> Refusal {
        Refusal::Malformed {
            api: self.api,
            version: self.version,
            what: what.to_string(),
        }
    }
}

impl Answer {
    /// The frame: its size, the header and the body.
    fn slices(&self) -> Vec<Bytes> {
        let header_bytes = if self.header_version >= 1 { 5 } else { 4 };
        let size_bytes = header_bytes + self.body.iter().map(Bytes::len).sum::<usize>();
        let mut head = BytesMut::with_capacity(4 + header_bytes);
        // What is read for one answer is bounded far below 2 GiB.
        head.put_i32(i32::try_from(size_bytes).unwrap_or(i32::MAX));
        head.put_i32(self.correlation_id);
        if self.header_version >= 1 {
            head.put_u8(0);
        }
        let mut slices = Vec::with_capacity(1 + self.body.len());
        slices.push(head.freeze());
        slices.extend(self.body.iter().cloned());
        slices
    }
}
