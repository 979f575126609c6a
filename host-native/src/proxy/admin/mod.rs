//! A little HTTP for those who watch over the proxy: `/metrics`, `/health`, `/ready`, a page to look at and the JSON that
//! it draws, one request a connection.

mod coverage;
mod history;
mod http;
mod status;
mod survey;

use core::time::Duration;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use kachet_core::storage::Storage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use self::history::{History, SAMPLE_INTERVAL};
use self::http::{Asked, Reply};
use self::survey::Surveyor;
use super::Monitor;
use crate::cache::Cache;
use crate::transport::Transport;

/// Who watches comes every few seconds; a page asks for two things at a time.
const CONNECTIONS: usize = 16;
/// For a whole request, and for the answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// For all of it. What is drawn of a large cache takes a while to be gathered.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(30);
/// The head of a request is shorter; bodies are not read.
const REQUEST_BYTES: usize = 8 << 10;
/// A listener that cannot accept tries again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PAGE: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/status.css");
const SCRIPT: &str = include_str!("page/status.js");
const ICON: &str = include_str!("page/icon.svg");

/// A running listener for those who watch. Dropping it ends it.
pub struct Admin {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Admin {
    /// Starts to listen. Whoever can reach the address can read, the names of topics included; it wants to be a local one.
    pub async fn start<T, S>(address: SocketAddr, monitor: Monitor<Cache<T, S>>) -> io::Result<Self>
    where
        T: Transport,
        S: Storage + 'static,
    {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let watched = Arc::new(Watched {
            monitor,
            started: Instant::now(),
            history: super::Mutex::default(),
            surveyor: Mutex::default(),
        });
        let task = tokio::spawn(async move {
            tokio::join!(serve(listener, Arc::clone(&watched)), sample(&watched));
        });
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

/// What is watched, and what is remembered of it.
struct Watched<T, S: Storage> {
    monitor: Monitor<Cache<T, S>>,
    started: Instant,
    history: super::Mutex<History>,
    /// Held while the cache is walked through, so that one does so at a time.
    surveyor: Mutex<Surveyor>,
}

async fn sample<T: Transport, S: Storage + 'static>(watched: &Watched<T, S>) {
    let mut ticks = interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sample = watched.sample();
        super::lock(&watched.history).push(sample);
    }
}

async fn serve<T, S>(listener: TcpListener, watched: Arc<Watched<T, S>>)
where
    T: Transport,
    S: Storage + 'static,
{
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
                    let _left = timeout(PATIENCE_IN_ALL, answer(stream, &watched)).await;
                    drop(place);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn answer<T, S>(mut stream: TcpStream, watched: &Watched<T, S>) -> io::Result<()>
where
    T: Transport,
    S: Storage + 'static,
{
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
    let asked = if whole { Asked::parse(&head) } else { None };
    let response = match &asked {
        None => {
            Reply::bad_request("this is no request of HTTP/1.1, or its head is too long\n").to_bytes(true)
        }
        Some(asked) => watched.respond(asked).await.to_bytes(asked.wants_body()),
    };
    timeout(PATIENCE, stream.write_all(&response))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.shutdown().await
}

impl<T: Transport, S: Storage + 'static> Watched<T, S> {
    fn cache(&self) -> &Cache<T, S> {
        &self.monitor.shared.cache
    }

    async fn respond(&self, asked: &Asked) -> Reply {
        if !asked.reads() {
            return Reply::not_allowed();
        }
        match asked.path() {
            "/" => Reply::page(PAGE),
            "/status.css" => Reply::file("text/css; charset=utf-8", STYLE),
            "/status.js" => Reply::file("text/javascript; charset=utf-8", SCRIPT),
            "/icon.svg" => Reply::file("image/svg+xml", ICON),
            "/api/status" => Reply::of(self.status(asked)),
            "/api/coverage" => Reply::of(self.coverage(asked).await),
            "/metrics" => Reply::metrics(self.monitor.metrics(&self.cache().statistics())),
            "/health" => Reply::text("200 OK", "alive\n"),
            "/ready" if self.monitor.is_ready() => Reply::text("200 OK", "ready\n"),
            "/ready" => Reply::text("503 Service Unavailable", "ending\n"),
            _ => Reply::text(
                "404 Not Found",
                "there are / (a page), /api/status, /api/coverage, /metrics, /health and /ready\n",
            ),
        }
    }
}
