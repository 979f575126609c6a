//! How a connection comes about: a name's addresses, TCP, TLS, versions, login.

use core::time::Duration;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::connection::Connection;
use super::stream::Stream;
use super::tls::{ClientCertificate, TlsError, shake_hands};
use super::{BrokerAddress, TcpSettings, TransportError};

/// Of the addresses that a name has, this many are tried.
const ADDRESSES_LIMIT: usize = 16;

/// Opens a connection on which requests can be sent: TCP and TLS within the connect timeout, then the broker's
/// versions and the login.
pub(super) async fn open(
    broker: &BrokerAddress,
    settings: &TcpSettings,
) -> Result<Connection, TransportError> {
    let stream = open_stream(broker, settings).await?;
    let Stream::Tls(tls) = &stream else {
        return Connection::open(stream, broker, settings).await;
    };
    let peer = tls.peer.clone();
    let opened = Connection::open(stream, broker, settings).await;
    opened.map_err(|error| match error {
        // Of TLS 1.3, a client learns of the verdict on its certificate only now, and a hang-up may have overtaken it.
        TransportError::ClosedAtStart { broker } => match peer.client_certificate() {
            ClientCertificate::Missing => tls_failed(&broker, TlsError::ClientCertificateRequired),
            ClientCertificate::Given => {
                let reason = "it closed the connection".to_owned();
                tls_failed(&broker, TlsError::ClientCertificateRefused { reason })
            }
            ClientCertificate::NotAsked => TransportError::Closed { broker },
        },
        error => error,
    })
}

/// Opens a connection on which nothing has been said yet: TCP and TLS within the connect timeout.
pub(super) async fn open_stream(
    broker: &BrokerAddress,
    settings: &TcpSettings,
) -> Result<Stream, TransportError> {
    let timeout = settings.connect_timeout;
    let deadline = Instant::now() + timeout.min(Duration::from_hours(1));
    let tcp = connect(broker, timeout, deadline).await?;
    // Without it a small request waits for the acknowledgement of the last one. A socket that refuses the
    // option still works.
    let _slower = tcp.set_nodelay(true);
    let Some(tls) = &settings.security.tls else {
        return Ok(Stream::Plain(tcp));
    };
    let stream = timeout_at(deadline, shake_hands(tcp, &broker.host, tls))
        .await
        .unwrap_or(Err(TlsError::Timeout { timeout }))
        .map_err(|source| tls_failed(broker, source))?;
    Ok(Stream::Tls(Box::new(stream)))
}

fn tls_failed(broker: &BrokerAddress, source: TlsError) -> TransportError {
    TransportError::Tls {
        broker: broker.clone(),
        source,
    }
}

async fn connect(
    broker: &BrokerAddress,
    timeout: Duration,
    deadline: Instant,
) -> Result<TcpStream, TransportError> {
    let addresses = timeout_at(deadline, lookup_host((broker.host.as_str(), broker.port))).await;
    let error = match addresses {
        Ok(Ok(addresses)) => {
            let addresses: Vec<SocketAddr> = addresses.take(ADDRESSES_LIMIT).collect();
            match connect_to_any(&addresses, deadline).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            }
        }
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    };
    let broker = broker.clone();
    Err(match error {
        Some(error) => TransportError::Connect {
            broker,
            source: Arc::new(error),
        },
        None => TransportError::ConnectTimeout { broker, timeout },
    })
}

/// Tries one address after the other, each with an equal share of the time that is left, so that one that
/// swallows packets does not use it all. An error of `None` stands for a lack of time at every address.
async fn connect_to_any(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Option<io::Error>> {
    let mut last_error = None;
    for (index, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let addresses_left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(now) / addresses_left;
        match timeout_at(now + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last_error = Some(error),
            Err(_) => {}
        }
    }
    if addresses.is_empty() {
        last_error = Some(io::Error::new(io::ErrorKind::NotFound, "its name has no address"));
    }
    Err(last_error)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn every_address_is_tried() {
        let refusing = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listening = listener.local_addr().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let stream = connect_to_any(&[refusing, listening], deadline).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listening);
        let error = connect_to_any(&[refusing, refusing], deadline).await.unwrap_err();
        assert_eq!(error.unwrap().kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect_to_any(&[], deadline).await.unwrap_err().is_some());
    }
}
