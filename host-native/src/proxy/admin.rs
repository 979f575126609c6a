//! A little HTTP for those who watch over the proxy: `/metrics`, `/health` and `/ready`, one request a connection.

use core::time::Duration;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Who watches comes every few seconds, and alone.
const CONNECTIONS: usize = 16;
/// For a whole request, and for the answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// The head of a request is shorter; bodies are not read.
const REQUEST_BYTES: usize = 8 << 10;
/// A listener that cannot accept tries again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is told.
pub trait Watched: Send + Sync + 'static {
    /// The text for Prometheus.
    fn metrics(&self) -> String;

    /// Whether clients are accepted.
    fn is_ready(&self) -> bool;
}

/// A running listener for those who watch. Dropping it ends it.
pub struct Admin {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Admin {
    /// Starts to listen. Whoever can reach the address can read; it wants to be a local one.
    pub async fn start(address: SocketAddr, watched: impl Watched) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(serve(listener, Arc::new(watched)));
        Ok(Self { address, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<W: Watched>(listener: TcpListener, watched: Arc<W>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // Further ones wait until they are accepted.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let watched = Arc::clone(&watched);
                connections.spawn(async move {
                    // Nobody is told of one who leaves early.
                    let _left = timeout(2 * PATIENCE, answer(stream, &*watched)).await;
                    drop(place);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn answer(mut stream: TcpStream, watched: &impl Watched) -> io::Result<()> {
    let mut head = Vec::new();
    let whole = timeout(PATIENCE, async {
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            let left = REQUEST_BYTES.saturating_sub(head.len());
            if left == 0 || (&mut stream).take(left as u64).read_buf(&mut head).await? == 0 {
                return Ok::<_, io::Error>(false);
            }
        }
        Ok(true)
    });
    let whole = whole.await.is_ok_and(|whole| whole.unwrap_or(false));
    let (status, body) = if whole {
        respond(&head, watched)
    } else {
        ("400 Bad Request", String::new())
    };
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    timeout(PATIENCE, stream.write_all(response.as_bytes()))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.shutdown().await
}

fn respond(head: &[u8], watched: &impl Watched) -> (&'static str, String) {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    match (words.next(), words.next()) {
        (Some(b"GET"), Some(b"/metrics")) => ("200 OK", watched.metrics()),
        (Some(b"GET"), Some(b"/health")) => ("200 OK", "alive\n".to_owned()),
        (Some(b"GET"), Some(b"/ready")) if watched.is_ready() => ("200 OK", "ready\n".to_owned()),
        (Some(b"GET"), Some(b"/ready")) => ("503 Service Unavailable", "ending\n".to_owned()),
        (Some(b"GET"), _) => (
            "404 Not Found",
            "/metrics, /health and /ready are there\n".to_owned(),
        ),
        _ => ("405 Method Not Allowed", String::new()),
    }
}
