//! The beginning of TLS on a connection.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, SignatureScheme};
use tokio::net::TcpStream;

use super::{ClientCertificate, TlsError, TlsSettings};

/// A TCP connection with TLS on it, and the broker's certificate verified.
pub(in crate::transport) struct TlsStream {
    pub(in crate::transport) tcp: TcpStream,
    pub(in crate::transport) session: ClientConnection,
    pub(in crate::transport) peer: TlsPeer,
}

/// What is needed to say what an error of the session means.
#[derive(Clone, Debug)]
pub(in crate::transport) struct TlsPeer {
    host: String,
    identity: Arc<Identity>,
}

impl TlsPeer {
    pub(in crate::transport) fn client_certificate(&self) -> ClientCertificate {
        match (self.identity.asked.load(Ordering::Relaxed), &self.identity.key) {
            (false, _) => ClientCertificate::NotAsked,
            (true, None) => ClientCertificate::Missing,
            (true, Some(_)) => ClientCertificate::Given,
        }
    }

    pub(in crate::transport) fn error(&self, error: rustls::Error) -> TlsError {
        TlsError::from_rustls(error, &self.host, self.client_certificate())
    }
}

/// The client's certificate, and whether the broker has asked for it: of TLS 1.3, the broker's refusal comes only after
/// the handshake.
#[derive(Debug)]
struct Identity {
    key: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}

/// Reads from and writes to a socket what it gives and takes at once, and fails with `WouldBlock` beyond that.
pub(in crate::transport) struct AtOnce<'s>(pub(in crate::transport) &'s TcpStream);

impl Read for AtOnce<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins TLS and verifies the broker's certificate for `host`. The caller sees to the time.
pub(in crate::transport) async fn shake_hands(
    tcp: TcpStream,
    host: &str,
    settings: &TlsSettings,
) -> Result<TlsStream, TlsError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::HostName {
        host: host.to_owned(),
    })?;
    let identity = Arc::new(Identity {
        key: settings.identity.clone(),
        asked: AtomicBool::new(false),
    });
    let mut config = ClientConfig::clone(&settings.config);
    config.client_auth_cert_resolver = Arc::<Identity>::clone(&identity);
    let peer = TlsPeer {
        host: host.to_owned(),
        identity,
    };
    let session = ClientConnection::new(Arc::new(config), name).map_err(|error| peer.error(error))?;
    let mut stream = TlsStream { tcp, session, peer };
    stream.complete().await?;
    Ok(stream)
}

impl TlsStream {
    /// Exchanges messages until both sides are content. Ends, because each turn waits for the broker, which the
    /// caller does not for ever.
    async fn complete(&mut self) -> Result<(), TlsError> {
        let mut answered = false;
        loop {
            self.say_all()
                .await
                .map_err(|error| hung_up_or_broken(error, answered))?;
            if !self.session.is_handshaking() {
                return Ok(());
            }
            let heard_bytes = self
                .hear()
                .await
                .map_err(|error| hung_up_or_broken(error, answered))?;
            if heard_bytes == 0 {
                return Err(hung_up_or_broken(io::ErrorKind::UnexpectedEof.into(), answered));
            }
            answered = true;
            if let Err(error) = self.session.process_new_packets() {
                // An alert says why to the broker, if the socket takes it at once.
                let _without = self.session.write_tls(&mut AtOnce(&self.tcp));
                return Err(self.peer.error(error));
            }
        }
    }

    async fn say_all(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.tcp.writable().await?;
            match self.session.write_tls(&mut AtOnce(&self.tcp)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if is_not_yet(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn hear(&mut self) -> io::Result<usize> {
        loop {
            self.tcp.readable().await?;
            match self.session.read_tls(&mut AtOnce(&self.tcp)) {
                Err(error) if is_not_yet(&error) => {}
                outcome => return outcome,
            }
        }
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// A plaintext listener takes the beginning of TLS for the length of a huge request, and closes the connection.
fn hung_up_or_broken(error: io::Error, answered: bool) -> TlsError {
    use io::ErrorKind as K;
    let hung_up = matches!(
        error.kind(),
        K::UnexpectedEof | K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe
    );
    if hung_up && !answered {
        return TlsError::NotSpoken {
            what: "it closes the connection where its part of the handshake should come",
        };
    }
    TlsError::Broken(Arc::new(error))
}
