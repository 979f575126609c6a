//! Accepts clients, no more at a time than there may be, and stops in order.

use core::pin::pin;
use core::time::Duration;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use kachet_core::storage::Storage;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::activity::Activity;
use super::{GatewayLimits, Shared, router};
use crate::transport::{TlsListenerSettings, Transport};

/// A listener that cannot accept, mostly for want of file descriptors, tries again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often a connection is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The head of a request, in bytes.
const HEAD_BYTES: usize = 16 << 10;
/// Requests of one HTTP/2 connection at a time.
const STREAMS: u32 = 64;
/// What one HTTP/2 stream may hold of an answer that is not taken yet, in bytes.
const STREAM_BUFFER_BYTES: usize = 128 << 10;
/// What is spoken over TLS, the first first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Accepts until the gateway ends and all connections have.
pub(super) async fn accept<T: Transport, S: Storage + 'static>(
    shared: Arc<Shared<T, S>>,
    listener: TcpListener,
) {
    let limits = shared.settings.limits;
    let places = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let router = router::build(&shared);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        shared.figures.one_turned_away();
                        continue;
                    };
                    let (shared, router) = (Arc::clone(&shared), router.clone());
                    connections.spawn(async move {
                        shared.figures.connection(1);
                        serve(&shared, router, stream, peer).await;
                        shared.figures.connection(-1);
                        drop(place);
                    });
                }
                Err(error) => {
                    debug!(%error, "cannot accept a client");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = shared.stopped() => break,
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.shutdown_grace, all).await.is_err() {
        debug!("clients are left before they were answered");
    }
    connections.shutdown().await;
}

async fn serve<T: Transport, S: Storage + 'static>(
    shared: &Shared<T, S>,
    router: Router,
    stream: TcpStream,
    peer: SocketAddr,
) {
    // A socket that refuses the option still works.
    let _slower = stream.set_nodelay(true);
    let Some(tls) = &shared.settings.tls else {
        return converse(shared, router, stream, peer).await;
    };
    let limit = shared.settings.limits.request_timeout;
    let shaken = tokio::select! {
        shaken = timeout(limit, shake_hands(tls, stream)) => shaken,
        () = shared.stopped() => return,
    };
    match shaken {
        Ok(Ok(stream)) => return converse(shared, router, stream, peer).await,
        Ok(Err(error)) => debug!(%peer, %error, "a client and this gateway do not come to speak TLS"),
        Err(_) => debug!(%peer, "a client takes too long to come to speak TLS"),
    }
    shared.figures.one_failed_handshake();
}

async fn shake_hands(tls: &TlsListenerSettings, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    // A few pointers to what clones share, beside which a handshake is long.
    let mut config = ServerConfig::clone(&tls.config());
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    TlsAcceptor::from(Arc::new(config)).accept(stream).await
}

async fn converse<T: Transport, S: Storage + 'static>(
    shared: &Shared<T, S>,
    router: Router,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
) {
    let limits = &shared.settings.limits;
    let activity = Activity::new();
    let service = TowerToHyperService::new(router);
    let noted = activity.clone();
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(noted.clone());
        service.call(request)
    });
    let protocols = protocols(limits);
    let mut connection = pin!(protocols.serve_connection(TokioIo::new(stream), service));
    let mut is_ending = false;
    loop {
        tokio::select! {
            served = connection.as_mut() => {
                if let Err(error) = served {
                    debug!(%peer, %error, "a client's connection broke");
                }
                return;
            }
            () = shared.stopped(), if !is_ending => {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep(LOOK_INTERVAL) => {
                if activity.is_overdue(limits, Instant::now()) {
                    debug!(%peer, "a client that does nothing is left");
                    return;
                }
            }
        }
    }
}

fn protocols(limits: &GatewayLimits) -> auto::Builder<TokioExecutor> {
    let mut protocols = auto::Builder::new(TokioExecutor::new());
    protocols
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request_timeout)
        .max_buf_size(HEAD_BYTES);
    protocols
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(STREAM_BUFFER_BYTES)
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX));
    protocols
}

impl<T, S: Storage> Shared<T, S> {
    /// Waits for the end of the gateway.
    async fn stopped(&self) {
        let mut stop = self.stop.clone();
        // Fails where the gateway has been dropped.
        let _dropped = stop.wait_for(|stops| *stops).await.is_err();
    }
}

/// What a client has to be told of a body that it sends too slowly or too much of.
pub(super) fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The answer breaks off here.
pub(super) fn broken_off(reason: impl core::fmt::Display) -> io::Error {
    io::Error::other(format!("the answer breaks off: {reason}"))
}
