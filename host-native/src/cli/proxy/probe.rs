//! `kachet proxy --probe`: asks a proxy that runs whether it is ready, for images in which nothing else could.

use core::time::Duration;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ServeFailure;
use crate::cli::failure::Failure;

const PATIENCE: Duration = Duration::from_secs(5);
/// The answer is shorter.
const ANSWER_BYTES: u64 = 4 << 10;
const REQUEST: &[u8] = b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

pub(super) async fn probe(admin: Option<SocketAddr>) -> Result<(), Failure> {
    let address = admin.ok_or(Failure::Usage(
        "--probe asks at the address of --admin, and there is none",
    ))?;
    let failed = |reason: String| Failure::Serve(ServeFailure::NotReady { address, reason });
    match timeout(PATIENCE, ask(address)).await {
        Err(_) => Err(failed("it does not answer".to_owned())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(status)) if status.contains(" 200 ") => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("it says {status:?}"))),
    }
}

/// The first line of the answer.
async fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(REQUEST).await?;
    let mut said = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut said).await?;
    let said = String::from_utf8_lossy(&said);
    Ok(said.lines().next().unwrap_or_default().to_owned())
}
