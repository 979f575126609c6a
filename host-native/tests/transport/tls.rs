//! TLS against servers that are slow, that change keys, that break off, or that speak something else.

use core::time::Duration;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;
use kachet::transport::{
    BrokerAddress, Response, Security, TcpSettings, TcpTransport, TlsError, TlsSettings, Transport,
    TransportError,
};
use kachet_tests::certificates::{Authority, Validity};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::server::{API_VERSIONS, request, response, versions_v3, within};

/// The server's end of one connection; writes at most so many bytes at once.
struct Peer {
    stream: StreamOwned<ServerConnection, Dribble>,
}

struct Dribble {
    stream: TcpStream,
    most_bytes: usize,
}

impl Read for Dribble {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Dribble {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(&bytes[..bytes.len().min(self.most_bytes)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Peer {
    /// The API, correlation id and body of the next request.
    fn asked(&mut self) -> io::Result<(i16, i32, Vec<u8>)> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        self.stream.read_exact(&mut frame)?;
        let api_key = i16::from_be_bytes([frame[0], frame[1]]);
        let correlation_id = i32::from_be_bytes(frame[4..8].try_into().unwrap());
        let client_id_bytes = usize::from(u16::from_be_bytes([frame[8], frame[9]]));
        Ok((api_key, correlation_id, frame.split_off(10 + client_id_bytes)))
    }

    /// Answers the next request, with its own body unless it is for the versions.
    fn answer(&mut self) -> io::Result<()> {
        let (api_key, correlation_id, body) = self.asked()?;
        let versions = versions_v3();
        let body = if api_key == API_VERSIONS { &versions } else { &body };
        self.stream.write_all(&response(correlation_id, body))?;
        self.stream.flush()
    }

    /// Answers until the client goes.
    fn echo(mut self) {
        while self.answer().is_ok() {}
    }
}

/// A server on loopback, and a client that trusts it. Ends with the process.
struct Server {
    address: BrokerAddress,
    transport: TcpTransport,
    _certificates: TempDir,
}

impl Server {
    fn start(most_bytes: usize, handler: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let certificates = tempfile::tempdir().unwrap();
        let authority = Authority::new(certificates.path(), "authority").unwrap();
        let identity = authority
            .sign("broker", &["localhost"], Validity::Current)
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut trusted = RootCertStore::empty();
        trusted
            .add(CertificateDer::from_pem_file(&authority.file).unwrap())
            .unwrap();
        // Asks for a certificate of the client, and takes none too.
        let verifier = WebPkiClientVerifier::builder_with_provider(trusted.into(), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_file(&identity.certificate).unwrap()],
                PrivateKeyDer::from_pem_file(&identity.key).unwrap(),
            )
            .unwrap();
        let config = Arc::new(config);
        let address = serve(move |stream| {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            handler(Peer {
                stream: StreamOwned::new(session, Dribble { stream, most_bytes }),
            });
        });
        let tls = TlsSettings::builder().ca_file(&authority.file).build().unwrap();
        Self {
            address,
            transport: transport(tls),
            _certificates: certificates,
        }
    }

    async fn ask(&self, body: impl Into<Bytes>) -> Result<Response, TransportError> {
        self.transport.round_trip(&self.address, request(body)).await
    }
}

/// Runs `handler` for each connection to `localhost`.
fn serve(handler: impl Fn(TcpStream) + Send + Sync + 'static) -> BrokerAddress {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let handler = Arc::new(handler);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let handler = Arc::clone(&handler);
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || handler(stream));
        }
    });
    BrokerAddress {
        host: "localhost".into(),
        port,
    }
}

fn transport(tls: TlsSettings) -> TcpTransport {
    TcpTransport::new(TcpSettings {
        connect_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(20),
        security: Security {
            tls: Some(tls),
            sasl: None,
        },
        ..TcpSettings::default()
    })
}

/// What comes of TLS with a server that is none.
async fn error_of(handler: impl Fn(TcpStream) + Send + Sync + 'static) -> TlsError {
    let certificates = tempfile::tempdir().unwrap();
    let authority = Authority::new(certificates.path(), "authority").unwrap();
    let tls = TlsSettings::builder().ca_file(&authority.file).build().unwrap();
    let address = serve(handler);
    match within(transport(tls).api_versions(&address)).await.unwrap_err() {
        TransportError::Tls { source, .. } => source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn large_requests_and_answers_pass_a_peer_that_takes_its_time() {
    let server = Server::start(usize::MAX, |mut peer: Peer| {
        peer.answer().unwrap();
        // Long enough for the sockets to fill.
        thread::sleep(Duration::from_millis(200));
        peer.echo();
    });
    let body = |seed: u32| -> Bytes {
        (0..5_000_000_u32)
            .map(|index| (index.wrapping_mul(seed) >> 7).to_le_bytes()[0])
            .collect()
    };
    within(async {
        let (a, b, c) = tokio::join!(server.ask(body(3)), server.ask(body(5)), server.ask(body(7)));
        assert!(a.unwrap() == Response::Other(body(3)));
        assert!(b.unwrap() == Response::Other(body(5)));
        assert!(c.unwrap() == Response::Other(body(7)));
    })
    .await;
}

#[tokio::test]
async fn records_of_tls_may_come_byte_by_byte() {
    let server = Server::start(1, Peer::echo);
    within(async {
        let (a, b) = tokio::join!(server.ask("slow"), server.ask("slower"));
        assert_eq!(a.unwrap(), Response::Other("slow".into()));
        assert_eq!(b.unwrap(), Response::Other("slower".into()));
    })
    .await;
}

#[tokio::test]
async fn keys_may_change_in_between() {
    let server = Server::start(usize::MAX, |mut peer: Peer| {
        while peer.answer().is_ok() {
            peer.stream.conn.refresh_traffic_keys().unwrap();
        }
    });
    within(async {
        for number in 0..20_u8 {
            let body = vec![number; 1_000];
            let answer = server.ask(body.clone()).await.unwrap();
            assert_eq!(answer, Response::Other(body.into()));
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    // With and without a farewell.
    for farewell in [true, false] {
        let server = Server::start(usize::MAX, move |mut peer: Peer| {
            peer.answer().unwrap();
            peer.answer().unwrap();
            if farewell {
                peer.stream.conn.send_close_notify();
                peer.stream.flush().unwrap();
            }
        });
        within(async {
            for body in ["a", "b", "c"] {
                assert_eq!(server.ask(body).await.unwrap(), Response::Other(body.into()));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn every_connection_verifies_the_certificate_anew() {
    let full = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&full);
    let server = Server::start(usize::MAX, move |mut peer: Peer| {
        peer.answer().unwrap();
        if peer.stream.conn.handshake_kind() == Some(HandshakeKind::Full) {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        peer.answer().unwrap();
    });
    within(async {
        for body in ["a", "b", "c"] {
            assert_eq!(server.ask(body).await.unwrap(), Response::Other(body.into()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(full.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_hang_up_after_a_certificate_was_asked_for_is_about_that() {
    let server = Server::start(usize::MAX, |mut peer: Peer| {
        // The verdict of a broker may be overtaken by the end of the connection.
        while peer.stream.conn.is_handshaking() {
            peer.stream.conn.complete_io(&mut peer.stream.sock).unwrap();
        }
    });
    let error = within(server.ask("a")).await.unwrap_err();
    assert!(
        matches!(
            error,
            TransportError::Tls {
                source: TlsError::ClientCertificateRequired,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_an_error() {
    let server = Server::start(usize::MAX, |mut peer: Peer| {
        peer.answer().unwrap();
        let (_, correlation_id, body) = peer.asked().unwrap();
        let whole = response(correlation_id, &body);
        peer.stream.write_all(&whole[..whole.len() - 1]).unwrap();
    });
    let error = within(server.ask("whole")).await.unwrap_err();
    assert!(
        error.to_string().contains("it ended 12 bytes into a response"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_within_the_connect_timeout() {
    let begun = Instant::now();
    let error = error_of(|stream| {
        thread::sleep(Duration::from_secs(20));
        drop(stream);
    })
    .await;
    assert!(matches!(error, TlsError::Timeout { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_speaks_no_tls_is_told_apart_from_what_breaks_off() {
    let says = |bytes: &'static [u8]| {
        move |mut stream: TcpStream| {
            let _gone = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(bytes));
        }
    };
    for bytes in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\x04abcd"] {
        let error = error_of(says(bytes)).await;
        assert!(matches!(error, TlsError::NotSpoken { .. }), "{error}");
    }
    // The beginning of a handshake, and an alert that there is no version in common.
    let error = error_of(says(b"\x16\x03\x03\x00\x7a\x02\x00")).await;
    assert!(matches!(error, TlsError::Broken(_)), "{error}");
    let error = error_of(says(b"\x15\x03\x03\x00\x02\x02\x46")).await;
    assert!(matches!(error, TlsError::NothingInCommon { .. }), "{error}");
}

#[tokio::test]
async fn a_host_that_no_certificate_can_name_is_told() {
    let certificates = tempfile::tempdir().unwrap();
    let authority = Authority::new(certificates.path(), "authority").unwrap();
    let tls = TlsSettings::builder().ca_file(&authority.file).build().unwrap();
    let mut address = serve(drop);
    // The resolver takes it for 127.0.0.1, TLS for no name.
    address.host = "0x7f.1".into();
    let error = within(transport(tls).api_versions(&address)).await.unwrap_err();
    assert!(
        matches!(
            error,
            TransportError::Tls {
                source: TlsError::HostName { .. },
                ..
            } | TransportError::Connect { .. }
        ),
        "{error}"
    );
}
