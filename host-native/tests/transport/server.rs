//! Servers on loopback that answer what a test wants, and clients to ask them.

use core::future::Future;
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes};
use kachet::transport::{
    BrokerAddress, Request, Response, TcpSettings, TcpTransport, Transport, TransportError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub(crate) const LIST_OFFSETS: i16 = 2;
pub(crate) const PRODUCE: i16 = 0;
pub(crate) const API_VERSIONS: i16 = 18;
/// Fetch, `ListOffsets`, Metadata and `ApiVersions`: key, oldest and newest version.
pub(crate) const RANGES: [(i16, i16, i16); 4] =
    [(1, 4, 17), (LIST_OFFSETS, 1, 9), (3, 0, 12), (API_VERSIONS, 0, 4)];

/// A server on loopback; ends with its runtime.
pub(crate) struct Server {
    pub(crate) address: BrokerAddress,
    pub(crate) accepted: Arc<AtomicUsize>,
}

impl Server {
    /// Runs `handler` for each connection, which it is told the number of, from 0.
    pub(crate) async fn start<F: Future<Output = ()> + Send>(
        handler: impl Fn(usize, Peer) -> F + Send + Sync + Copy + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = BrokerAddress {
            host: "127.0.0.1".into(),
            port: listener.local_addr().unwrap().port(),
        };
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        tokio::spawn(async move {
            let mut peers = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = counter.fetch_add(1, Ordering::SeqCst);
                peers.spawn(async move { handler(number, Peer { stream }).await });
            }
        });
        Self { address, accepted }
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// The server's end of one connection.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
}

pub(crate) struct Asked {
    pub(crate) api_key: i16,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) body: Bytes,
}

impl Peer {
    /// The next request, `None` when the client has gone.
    pub(crate) async fn asked(&mut self) -> Option<Asked> {
        let length = self.stream.read_i32().await.ok()?;
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut frame).await.ok()?;
        let mut frame = Bytes::from(frame);
        let (api_key, version, correlation_id) = (frame.get_i16(), frame.get_i16(), frame.get_i32());
        let client_id_bytes = usize::try_from(frame.get_i16()).unwrap();
        assert_eq!(frame.split_to(client_id_bytes), "kachet");
        Some(Asked {
            api_key,
            version,
            correlation_id,
            body: frame,
        })
    }

    pub(crate) async fn answer(&mut self, correlation_id: i32, body: &[u8]) {
        self.write(&response(correlation_id, body)).await;
    }

    /// The client may have gone, so what goes wrong does not matter.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _gone = self.stream.write_all(bytes).await;
    }

    /// Answers `ApiVersions` as a current broker does.
    pub(crate) async fn shake_hands(&mut self) {
        let Some(asked) = self.asked().await else { return };
        assert_eq!((asked.api_key, asked.version), (API_VERSIONS, 3));
        self.answer(asked.correlation_id, &versions_v3()).await;
    }

    /// Answers each request with its own body, until the client goes.
    pub(crate) async fn echo(mut self) {
        while let Some(asked) = self.asked().await {
            self.answer(asked.correlation_id, &asked.body).await;
        }
    }
}

pub(crate) fn response(correlation_id: i32, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes()[..], &correlation_id.to_be_bytes(), body].concat()
}

pub(crate) fn versions_v3() -> Vec<u8> {
    let mut body = vec![0, 0, u8::try_from(RANGES.len() + 1).unwrap()];
    for (key, min, max) in RANGES {
        body.extend([key.to_be_bytes(), min.to_be_bytes(), max.to_be_bytes()].concat());
        body.push(0);
    }
    body.extend([0; 5]); // no throttling, no tags
    body
}

pub(crate) async fn handshake_then_echo(_number: usize, mut peer: Peer) {
    peer.shake_hands().await;
    peer.echo().await;
}

pub(crate) fn transport(request_timeout: Duration) -> TcpTransport {
    TcpTransport::new(TcpSettings {
        request_timeout,
        ..TcpSettings::default()
    })
}

pub(crate) fn patient() -> TcpTransport {
    transport(Duration::from_secs(20))
}

/// A request whose body does not matter to the transport.
pub(crate) fn request(body: impl Into<Bytes>) -> Request {
    Request::Other {
        api_key: LIST_OFFSETS,
        version: 1,
        body: body.into(),
        broker_wait: Duration::ZERO,
    }
}

pub(crate) async fn ask(
    transport: &TcpTransport,
    server: &Server,
    body: &str,
) -> Result<Response, TransportError> {
    transport
        .round_trip(&server.address, request(body.to_owned()))
        .await
}

pub(crate) fn echoed(body: &str) -> Response {
    Response::Other(body.to_owned().into())
}

/// No test hangs.
pub(crate) async fn within<T>(test: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), test)
        .await
        .expect("the test takes too long")
}

pub(crate) async fn eventually(mut condition: impl FnMut() -> bool) {
    within(async {
        while !condition() {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
