//! The bytes of a connection: TCP as it is, or TLS on it.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io::{self, BufRead, IoSlice, Write};
use std::sync::{Arc, Mutex};

use rustls::ClientConnection;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::connection::lock;
use super::tls::{AtOnce, TlsPeer, TlsStream};

/// A connection that is ready for Kafka's protocol.
pub(super) enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// After the handshake.
    Tls(Box<TlsStream>),
}

/// The state of TLS, for both directions.
type Session = Arc<Mutex<ClientConnection>>;

/// What the broker says.
pub(super) enum ReadHalf {
    Plain(OwnedReadHalf),
    Tls {
        tcp: OwnedReadHalf,
        session: Session,
        peer: TlsPeer,
    },
}

/// What is said to the broker.
pub(super) enum WriteHalf {
    Plain(OwnedWriteHalf),
    Tls { tcp: OwnedWriteHalf, session: Session },
}

impl Stream {
    pub(super) fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Plain(tcp) => {
                let (read_half, write_half) = tcp.into_split();
                (ReadHalf::Plain(read_half), WriteHalf::Plain(write_half))
            }
            Self::Tls(stream) => {
                let TlsStream { tcp, session, peer } = *stream;
                let (read_half, write_half) = tcp.into_split();
                let session = Arc::new(Mutex::new(session));
                let read_half = ReadHalf::Tls {
                    tcp: read_half,
                    session: Arc::clone(&session),
                    peer,
                };
                let write_half = WriteHalf::Tls {
                    tcp: write_half,
                    session,
                };
                (read_half, write_half)
            }
        }
    }
}

impl WriteHalf {
    /// Takes over what there is room for, and fails with `WouldBlock` if that is nothing. With TLS, bytes that were
    /// taken are held until [`Self::try_flush`].
    pub(super) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_write_vectored(slices),
            Self::Tls { tcp, session } => {
                let mut session = lock(session);
                // The session takes 64 KiB before it wants to be rid of some.
                match session.writer().write_vectored(slices)? {
                    0 => {
                        push(&mut session, tcp.as_ref())?;
                        session.writer().write_vectored(slices)
                    }
                    taken_bytes => Ok(taken_bytes),
                }
            }
        }
    }

    /// Hands what is held to the socket, and fails with `WouldBlock` if that does not take all of it. The rest goes
    /// on its way by whoever reads: reading has to be polled once after that.
    pub(super) fn try_flush(&self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls { tcp, session } => push(&mut lock(session), tcp.as_ref()),
        }
    }

    /// Waits until the socket takes more.
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) | Self::Tls { tcp, .. } => tcp.writable().await,
        }
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        if let Self::Tls { tcp, session } = self {
            let mut session = lock(session);
            session.send_close_notify();
            // A farewell for the broker's log, if the socket takes it at once.
            let _without = push(&mut session, tcp.as_ref());
        }
    }
}

/// Ends, because each turn makes what is held less.
fn push(session: &mut ClientConnection, tcp: &TcpStream) -> io::Result<()> {
    while session.wants_write() {
        match session.write_tls(&mut AtOnce(tcp)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// An error of TLS comes as an `io::Error` that holds a [`TlsError`](super::TlsError).
impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Self::Tls { tcp, session, peer } => {
                let tcp: &TcpStream = (*tcp).as_ref();
                loop {
                    if read_decrypted(&mut lock(session), buffer)? {
                        return Poll::Ready(Ok(()));
                    }
                    push_on(&mut lock(session), tcp, context);
                    ready!(tcp.poll_read_ready(context))?;
                    take_in(&mut lock(session), tcp, peer)?;
                }
            }
        }
    }
}

/// Gives what has been decrypted, and whether that settles the read: with bytes, or with none at the end of the
/// stream.
fn read_decrypted(session: &mut ClientConnection, buffer: &mut ReadBuf<'_>) -> io::Result<bool> {
    let mut reader = session.reader();
    let taken_bytes = match reader.fill_buf() {
        Ok(chunk) => {
            let taken_bytes = chunk.len().min(buffer.remaining());
            buffer.put_slice(&chunk[..taken_bytes]);
            taken_bytes
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
        // Without a farewell. Whether that is too early is known to who knows the frames.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
        Err(error) => return Err(error),
    };
    reader.consume(taken_bytes);
    Ok(true)
}

/// Answers what TLS itself asks, such as for new keys. Where the socket is full, whoever reads is called once it is
/// not any more. What goes wrong is found by reading, or by the next request.
fn push_on(session: &mut ClientConnection, tcp: &TcpStream, context: &mut Context<'_>) {
    while let Err(error) = push(session, tcp) {
        let full = error.kind() == io::ErrorKind::WouldBlock;
        // A try that found the socket full has made this wait for it, so this loop ends.
        if !full || !matches!(tcp.poll_write_ready(context), Poll::Ready(Ok(()))) {
            return;
        }
    }
}

/// Takes in what the socket has.
fn take_in(session: &mut ClientConnection, tcp: &TcpStream, peer: &TlsPeer) -> io::Result<()> {
    match session.read_tls(&mut AtOnce(tcp)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
        Err(error) => return Err(error),
    }
    match session.process_new_packets() {
        Ok(_) => Ok(()),
        Err(error) => {
            // The alert that says why, if the socket takes it at once.
            let _without = push(session, tcp);
            Err(io::Error::new(io::ErrorKind::InvalidData, peer.error(error)))
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::io::Read;
    use std::net::TcpListener;
    use std::thread;

    use kachet_tests::certificates::{Authority, Validity};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ServerConfig, ServerConnection, StreamOwned};
    use tokio::io::AsyncReadExt;
    use tokio::time::timeout;

    use super::*;
    use crate::transport::TlsSettings;
    use crate::transport::tls::shake_hands;

    #[tokio::test]
    async fn what_tls_holds_while_the_socket_is_full_is_sent_by_whoever_reads() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "authority").unwrap();
        let identity = authority
            .sign("broker", &["localhost"], Validity::Current)
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(&identity.certificate).unwrap()],
                PrivateKeyDer::from_pem_file(&identity.key).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = std::sync::mpsc::channel::<u64>();
        // Reads nothing until it is told how much there will be, and answers once it has all of it.
        thread::spawn(move || {
            let session = ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = StreamOwned::new(session, listener.accept().unwrap().0);
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock).unwrap();
            }
            let sent_bytes = told.recv().unwrap();
            let mut all = (&mut stream).take(sent_bytes);
            assert_eq!(io::copy(&mut all, &mut io::sink()).unwrap(), sent_bytes);
            stream.write_all(b"all").unwrap();
            stream.flush().unwrap();
        });
        let settings = TlsSettings::builder().ca_file(&authority.file).build().unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        let stream = shake_hands(tcp, "localhost", &settings).await.unwrap();
        let (mut read_half, write_half) = Stream::Tls(Box::new(stream)).into_split();

        let mut sent_bytes = 0;
        loop {
            write_half.writable().await.unwrap();
            sent_bytes += write_half
                .try_write_vectored(&[IoSlice::new(&[7; 16 * 1024])])
                .unwrap();
            if write_half.try_flush().is_err() {
                break;
            }
        }
        tell.send(sent_bytes as u64).unwrap();
        let mut answer = [0; 3];
        let read = timeout(Duration::from_secs(20), read_half.read_exact(&mut answer));
        read.await.expect("what is held is never sent").unwrap();
        assert_eq!(&answer, b"all");
    }
}
