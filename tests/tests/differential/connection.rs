//! A client that says exactly what a case says, to the broker or to the proxy.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use kachet_core::wire::{Chunks, FETCH_API_KEY, FETCH_VERSION_FLEXIBLE, FetchRequest, FetchResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For an answer, on a slow machine; no case has a broker wait as long.
const PATIENCE: Duration = Duration::from_secs(30);
/// No answer of a test is larger.
const RESPONSE_LIMIT_BYTES: usize = 80 << 20;

/// A connection that is opened with its first request, and anew after an error.
pub(crate) struct Connection {
    address: String,
    stream: Option<TcpStream>,
    correlation_id: i32,
}

/// An answer, and when it was asked for and came.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) response: FetchResponse,
    pub(crate) sent_at: Instant,
    pub(crate) came_at: Instant,
}

impl Answered {
    pub(crate) fn took(&self) -> Duration {
        self.came_at.duration_since(self.sent_at)
    }
}

impl Connection {
    pub(crate) fn to(address: &impl ToString) -> Self {
        Self {
            address: address.to_string(),
            stream: None,
            correlation_id: 0,
        }
    }

    /// Sends a Fetch and reads its answer.
    pub(crate) async fn fetch(&mut self, version: i16, request: &FetchRequest) -> Result<Answered> {
        let answered = timeout(PATIENCE, self.round_trip(version, request)).await;
        let answered = answered
            .context("no answer in time")
            .and_then(|answered| answered);
        if answered.is_err() {
            self.stream = None;
        }
        answered
    }

    async fn round_trip(&mut self, version: i16, request: &FetchRequest) -> Result<Answered> {
        self.correlation_id += 1;
        let flexible = version >= FETCH_VERSION_FLEXIBLE;
        let mut body = Chunks::new();
        request.encode(version, &mut body)?;
        let mut frame = BytesMut::new();
        frame.put_i16(FETCH_API_KEY);
        frame.put_i16(version);
        frame.put_i32(self.correlation_id);
        frame.put_i16(5);
        frame.put_slice(b"judge");
        if flexible {
            frame.put_u8(0);
        }
        frame.put_slice(&body.into_bytes());
        let sent_at = Instant::now();
        let stream = self.stream().await?;
        stream.write_u32(u32::try_from(frame.len())?).await?;
        stream.write_all(&frame).await?;
        let size = usize::try_from(stream.read_u32().await.context("the connection was closed")?)?;
        ensure!(size <= RESPONSE_LIMIT_BYTES, "an answer of {size} bytes");
        let mut answer = vec![0; size];
        stream.read_exact(&mut answer).await?;
        let answer = Bytes::from(answer);
        let header_bytes = if flexible { 5 } else { 4 };
        let expected = self.correlation_id.to_be_bytes();
        if answer.len() < header_bytes || answer[..4] != expected || (flexible && answer[4] != 0) {
            bail!("an answer with another header than was asked for");
        }
        Ok(Answered {
            response: FetchResponse::decode(answer.slice(header_bytes..), version)?,
            sent_at,
            came_at: Instant::now(),
        })
    }

    async fn stream(&mut self) -> Result<&mut TcpStream> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
        }
        self.stream.as_mut().context("just connected")
    }
}
