//! A connection to a broker as bytes, for those who pass on what others say: nothing is asked on it and nobody logs in.

use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io::{self, IoSlice};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::timeout;

use super::connect::open_stream;
use super::stream::{ReadHalf, WriteHalf};
use super::{BrokerAddress, TcpSettings, TransportError};

/// What the broker says.
pub(crate) struct RawReader(ReadHalf);

/// What is said to the broker.
pub(crate) struct RawWriter(WriteHalf);

/// Opens a connection, TLS included where the settings have it; they bound the time.
pub(crate) async fn open_raw(
    broker: &BrokerAddress,
    settings: &TcpSettings,
) -> Result<(RawReader, RawWriter), TransportError> {
    let (read_half, write_half) = open_stream(broker, settings).await?.into_split();
    Ok((RawReader(read_half), RawWriter(write_half)))
}

impl AsyncRead for RawReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl RawWriter {
    /// Hands all bytes to the socket. Fails with `TimedOut` where it takes none of them for as long as `patience`.
    pub(crate) async fn write_all(&self, mut bytes: &[u8], patience: Duration) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.0.try_write_vectored(&[IoSlice::new(bytes)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken_bytes) => bytes = &bytes[taken_bytes..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable(patience).await?,
                Err(error) => return Err(error),
            }
        }
        self.flush(patience).await
    }

    async fn flush(&self, patience: Duration) -> io::Result<()> {
        loop {
            match self.0.try_flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable(patience).await?,
                flushed => return flushed,
            }
        }
    }

    async fn writable(&self, patience: Duration) -> io::Result<()> {
        match timeout(patience, self.0.writable()).await {
            Ok(writable) => writable,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
