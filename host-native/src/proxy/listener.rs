//! Accepts clients, no more at a time than there may be, and stops in order.

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::Shared;
use super::brokers::{Home, Opened, host_for};
use super::conversation::Conversation;
use super::limits::End;
use crate::transport::Transport;

/// A listener that cannot accept, mostly for want of file descriptors, tries again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts on every port that is opened, until the proxy ends and all connections have.
pub(super) async fn accept_on_all<T: Transport>(
    shared: Arc<Shared<T>>,
    mut openings: mpsc::Receiver<Opened>,
) {
    let mut listeners = JoinSet::new();
    loop {
        tokio::select! {
            opened = openings.recv() => {
                let Some(opened) = opened else { break };
                listeners.spawn(accept(Arc::clone(&shared), opened));
            }
            () = shared.stopped() => break,
        }
    }
    while listeners.join_next().await.is_some() {}
}

async fn accept<T: Transport>(shared: Arc<Shared<T>>, opened: Opened) {
    let listener = match TcpListener::from_std(opened.listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "cannot accept clients"),
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let Ok(place) = Arc::clone(&shared.connections).try_acquire_owned() else {
                        shared.ends.note(peer, &End::TooMany);
                        continue;
                    };
                    shared.figures.one_accepted();
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move {
                        serve(&shared, opened.home, stream, peer).await;
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
    if timeout(shared.settings.limits.shutdown_grace, all).await.is_err() {
        debug!("clients are left before they were answered");
    }
    connections.shutdown().await;
}

async fn serve<T: Transport>(shared: &Shared<T>, home: Home, stream: TcpStream, peer: SocketAddr) {
    // A socket that refuses the option still works.
    let _slower = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let host = host_for(shared.settings.advertise.as_deref(), local.ip());
    let Some(tls) = &shared.settings.tls else {
        let (reader, writer) = stream.into_split();
        let conversation = Conversation::new(shared, home, host, false);
        return shared.note(peer, conversation.hold(reader, writer).await);
    };
    let handshake = TlsAcceptor::from(tls.config()).accept(stream);
    let stream = match timeout(shared.settings.limits.request_timeout, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return shared.ends.note(peer, &End::Tls(error)),
        Err(_) => return shared.ends.note(peer, &End::Slow),
    };
    let (reader, writer) = tokio::io::split(stream);
    let conversation = Conversation::new(shared, home, host, tls.demands_certificate());
    shared.note(peer, conversation.hold(reader, writer).await);
}

impl<T> Shared<T> {
    fn note(&self, peer: SocketAddr, held: Result<(), End>) {
        if let Err(end) = held {
            self.ends.note(peer, &end);
        }
    }
}
