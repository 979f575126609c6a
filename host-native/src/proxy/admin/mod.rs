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
    /// Starts to listen, with the figures that somebody tells and no page. Whoever can reach the address can read; it wants to
    /// be a local one.
    pub async fn start(address: SocketAddr, watched: impl Watched) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(serve(listener, Arc::new(Plain(watched))));
        Ok(Self { address, task })
    }

    /// The same for a proxy, with a page that shows what it does and what is cached, names of topics included.
    pub async fn start_with_page<T, S>(address: SocketAddr, monitor: Monitor<Cache<T, S>>) -> io::Result<Self>
    where
        T: Transport,
        S: Storage + 'static,
    {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let watching = Arc::new(Watching {
            monitor,
            started: Instant::now(),
            history: super::Mutex::default(),
            surveyor: Mutex::default(),
        });
        let task = tokio::spawn(async move {
            tokio::join!(serve(listener, Arc::clone(&watching)), sample(&watching));
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
struct Watching<T, S: Storage> {
    monitor: Monitor<Cache<T, S>>,
    started: Instant,
    history: super::Mutex<History>,
    /// Held while the cache is walked through, so that one does so at a time.
    surveyor: Mutex<Surveyor>,
}

async fn sample<T: Transport, S: Storage + 'static>(watched: &Watching<T, S>) {
    let mut ticks = interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sample = watched.sample();
        super::lock(&watched.history).push(sample);
    }
}

async fn serve<A: Answers>(listener: TcpListener, answers: Arc<A>) {
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
                let answers = Arc::clone(&answers);
                connections.spawn(async move {
                    // Nobody is told of one who leaves early.
                    let _left = timeout(PATIENCE_IN_ALL, answer(stream, &*answers)).await;
                    drop(place);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn answer(mut stream: TcpStream, answers: &impl Answers) -> io::Result<()> {
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
        Some(asked) if !asked.reads() => Reply::not_allowed().to_bytes(true),
        Some(asked) => answers.respond(asked).await.to_bytes(asked.wants_body()),
    };
    timeout(PATIENCE, stream.write_all(&response))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.shutdown().await
}

/// Who answers what may be read.
trait Answers: Send + Sync + 'static {
    fn respond(&self, asked: &Asked) -> impl Future<Output = Reply> + Send;
}

/// Figures, and no page.
struct Plain<W>(W);

impl<W: Watched> Answers for Plain<W> {
    async fn respond(&self, asked: &Asked) -> Reply {
        told(&self.0, asked.path())
            .unwrap_or_else(|| Reply::not_found("/metrics, /health and /ready are there\n"))
    }
}

/// What is told of everything that is watched.
fn told(watched: &impl Watched, path: &str) -> Option<Reply> {
    Some(match path {
        "/metrics" => Reply::metrics(watched.metrics()),
        "/health" => Reply::text("200 OK", "alive\n"),
        "/ready" if watched.is_ready() => Reply::text("200 OK", "ready\n"),
        "/ready" => Reply::text("503 Service Unavailable", "ending\n"),
        _ => return None,
    })
}

impl<T: Transport, S: Storage + 'static> Watching<T, S> {
    fn cache(&self) -> &Cache<T, S> {
        &self.monitor.shared.cache
    }
}

impl<T: Transport, S: Storage + 'static> Watched for Monitor<Cache<T, S>> {
    fn metrics(&self) -> String {
        Monitor::metrics(self, &self.shared.cache.statistics())
    }

    fn is_ready(&self) -> bool {
        Monitor::is_ready(self)
    }
}

impl<T: Transport, S: Storage + 'static> Answers for Watching<T, S> {
    async fn respond(&self, asked: &Asked) -> Reply {
        match asked.path() {
            "/" => Reply::page(PAGE),
            "/status.css" => Reply::file("text/css; charset=utf-8", STYLE),
            "/status.js" => Reply::file("text/javascript; charset=utf-8", SCRIPT),
            "/icon.svg" => Reply::file("image/svg+xml", ICON),
            "/api/status" => Reply::of(self.status(asked)),
            "/api/coverage" => Reply::of(self.coverage(asked).await),
            path => told(&self.monitor, path).unwrap_or_else(|| {
                Reply::not_found(
                    "/ (a page), /api/status, /api/coverage, /metrics, /health and /ready are there\n",
                )
            }),
        }
    }
}
