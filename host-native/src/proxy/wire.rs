//! Frames on their way: sizes that are not believed, reads that have to go on, writes that have to be taken.

use core::time::Duration;
use std::io::{self, IoSlice};

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Memory for a frame is made as it arrives, this much ahead at most.
const GROWTH_BYTES: usize = 64 << 10;

/// A read that ended before it was whole.
#[derive(Debug)]
pub(super) enum Broken {
    /// Nothing came for too long.
    Slow,
    /// The connection ended or broke.
    Io(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Waits for something to read, and says whether it is the end.
pub(super) async fn is_at_end(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<bool> {
    reader.fill_buf().await.map(<[u8]>::is_empty)
}

/// Reads exactly so many bytes, which have to be there in time.
pub(super) async fn read_array<const SIZE: usize>(
    reader: &mut (impl AsyncRead + Unpin),
    patience: Duration,
) -> Result<[u8; SIZE], Broken> {
    let mut bytes = [0; SIZE];
    match timeout(patience, reader.read_exact(&mut bytes)).await {
        Ok(read) => read.map(|_| bytes).map_err(Broken::Io),
        Err(_) => Err(Broken::Slow),
    }
}

/// Reads up to `size_bytes` onto `start`, until `start` has so many. Each read has to bring something in time.
pub(super) async fn read_onto(
    reader: &mut (impl AsyncBufRead + Unpin),
    start: &mut Vec<u8>,
    size_bytes: usize,
    patience: Duration,
) -> Result<(), Broken> {
    while start.len() < size_bytes {
        let arrived = timeout(patience, reader.fill_buf())
            .await
            .map_err(|_| Broken::Slow)??;
        if arrived.is_empty() {
            return Err(Broken::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        let taken = arrived.len().min(size_bytes - start.len());
        if start.capacity() - start.len() < taken {
            // Doubles, up to what is announced, and never by that alone.
            let growth = start.len().max(GROWTH_BYTES).min(size_bytes - start.len());
            start.reserve_exact(growth.max(taken));
        }
        start.extend_from_slice(arrived.get(..taken).unwrap_or_default());
        reader.consume(taken);
    }
    Ok(())
}

/// Writes all slices without joining them. Some of them have to be taken in time, again and again.
pub(super) async fn write_slices(
    writer: &mut (impl AsyncWrite + Unpin),
    slices: &[Bytes],
    patience: Duration,
) -> io::Result<()> {
    let mut left: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
    let mut left = left.as_mut_slice();
    // Leading empty ones would look like a socket that takes nothing.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        let written = timeout(patience, writer.write_vectored(left))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut left, written);
    }
    timeout(patience, writer.flush())
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
