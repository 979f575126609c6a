//! How connections come about, how many there are, and how they end.

use core::time::Duration;

use bytes::Bytes;
use kachet::transport::{
    BrokerAddress, Request, Response, TcpSettings, TcpTransport, Transport, TransportError,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::server::{
    PRODUCE, Peer, Server, ask, echoed, eventually, handshake_then_echo, patient, request, transport, within,
};

/// What comes of a server that says this at once, whatever it is asked, and closes.
async fn error_of_greeting(greeting: &'static [u8]) -> TransportError {
    within(async {
        let server = Server::start(move |_, mut peer: Peer| async move {
            peer.write(greeting).await;
            peer.asked().await;
        })
        .await;
        patient().api_versions(&server.address).await.unwrap_err()
    })
    .await
}

#[tokio::test]
async fn what_is_no_broker_is_named_in_one_line() {
    for (greeting, expected) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..],
            "an HTTP server answered",
        ),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "an SSH server answered"),
        (b"-ERR unknown command\r\n", "a Redis server answered"),
        (
            b"hello, who is there?\n",
            "its answer begins with \"hello, who is there?\\n\"",
        ),
        (b"?\n", "its first answer ends after 2 bytes"),
        (
            b"\0\0\0\x04\0\x12\0\x03",
            "an answer with correlation id 1179651 where 0 was due",
        ),
        (b"", "check that the port is a PLAINTEXT listener"),
    ] {
        let error = error_of_greeting(greeting).await;
        let line = error.to_string();
        assert!(line.contains(expected), "{line}");
        assert!(line.starts_with("127.0.0.1:") && !line.contains('\n'), "{line}");
        let closed = greeting.is_empty();
        assert_eq!(
            matches!(error, TransportError::ClosedAtStart { .. }),
            closed,
            "{error:?}"
        );
        assert_eq!(
            matches!(error, TransportError::NotKafka { .. }),
            !closed,
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_tls_listener_is_named_as_what_it_is() {
    let error = error_of_greeting(b"\x15\x03\x03\x00\x02\x02\x46").await;
    assert!(matches!(error, TransportError::TlsExpected { .. }), "{error:?}");
    assert!(error.to_string().contains("turn TLS on"), "{error}");
}

#[tokio::test]
async fn an_answer_to_api_versions_that_makes_no_sense_is_an_error() {
    for (body, expected) in [
        (
            &[0, 58, 1, 0, 0, 0, 0, 0][..],
            "the broker answers error 58 (SaslAuthenticationFailed)",
        ),
        (&[0, 0, 9, 0], "ApiVersions v3"),
        (&[], "ApiVersions v3"),
    ] {
        within(async {
            let server = Server::start(move |_, mut peer: Peer| async move {
                let asked = peer.asked().await.unwrap();
                peer.answer(asked.correlation_id, body).await;
                peer.asked().await;
            })
            .await;
            let error = patient().api_versions(&server.address).await.unwrap_err();
            assert!(
                matches!(
                    error,
                    TransportError::Message {
                        api: "ApiVersions",
                        ..
                    }
                ),
                "{error}"
            );
            assert!(error.to_string().contains(expected), "{error}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_reset_at_the_first_request_counts_as_closed_at_the_start() {
    within(async {
        // Closing with the request unread is a reset.
        let server = Server::start(async |_, peer: Peer| peer.stream.readable().await.unwrap()).await;
        let error = patient().api_versions(&server.address).await.unwrap_err();
        assert!(matches!(error, TransportError::ClosedAtStart { .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_a_timeout() {
    within(async {
        let server = Server::start(async |_, mut peer: Peer| while peer.asked().await.is_some() {}).await;
        let error = transport(Duration::from_millis(100))
            .api_versions(&server.address)
            .await
            .unwrap_err();
        let line = format!("{} did not answer ApiVersions within 100ms", server.address);
        assert_eq!(error.to_string(), line);
    })
    .await;
}

#[tokio::test]
async fn nothing_listening_and_no_such_host_are_connect_errors() {
    within(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        for host in ["127.0.0.1", "no-such-host.invalid"] {
            let broker = BrokerAddress {
                host: host.into(),
                port,
            };
            let error = patient().api_versions(&broker).await.unwrap_err();
            assert!(matches!(error, TransportError::Connect { .. }), "{error}");
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("cannot connect to {host}:{port}: ")),
                "{error}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    within(async {
        // Resolvers mostly give ::1 first, where nothing listens.
        let mut server = Server::start(handshake_then_echo).await;
        server.address.host = "localhost".into();
        assert_eq!(ask(&patient(), &server, "a").await.unwrap(), echoed("a"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_share_one_attempt_even_if_its_starter_gives_up() {
    within(async {
        let server = Server::start(async |_, mut peer: Peer| {
            sleep(Duration::from_millis(100)).await;
            peer.shake_hands().await;
            peer.echo().await;
        })
        .await;
        let transport = patient();
        timeout(Duration::from_millis(20), ask(&transport, &server, "x"))
            .await
            .unwrap_err();
        let mut callers = JoinSet::new();
        for _ in 0..20 {
            let (transport, broker) = (transport.clone(), server.address.clone());
            callers.spawn(async move { transport.round_trip(&broker, request("y")).await.unwrap() });
        }
        assert!(
            callers
                .join_all()
                .await
                .iter()
                .all(|answer| *answer == echoed("y"))
        );
        assert_eq!(server.accepted(), 1);
    })
    .await;
}

#[tokio::test]
async fn failures_are_shared_and_back_off() {
    within(async {
        let server = Server::start(async |number, mut peer: Peer| {
            if number < 3 {
                peer.asked().await;
                return;
            }
            peer.shake_hands().await;
            peer.echo().await;
        })
        .await;
        let backoff_min = Duration::from_millis(100);
        let transport = TcpTransport::new(TcpSettings {
            backoff_min,
            ..TcpSettings::default()
        });
        let mut callers = JoinSet::new();
        for _ in 0..20 {
            let (transport, broker) = (transport.clone(), server.address.clone());
            callers.spawn(async move { transport.round_trip(&broker, request("x")).await.unwrap_err() });
        }
        for error in callers.join_all().await {
            assert!(matches!(error, TransportError::ClosedAtStart { .. }), "{error}");
        }
        assert_eq!(server.accepted(), 1);
        // At least half of 100, 200 and 400 ms pass; until then the same error comes at once.
        let begun = Instant::now();
        while let Err(error) = ask(&transport, &server, "y").await {
            assert!(matches!(error, TransportError::ClosedAtStart { .. }), "{error}");
            sleep(Duration::from_millis(1)).await;
        }
        let took = begun.elapsed();
        assert_eq!(server.accepted(), 4);
        assert!(
            took >= Duration::from_millis(345) && took < Duration::from_secs(2),
            "{took:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    within(async {
        // Each connection answers one request.
        let server = Server::start(async |_, mut peer: Peer| {
            peer.shake_hands().await;
            if let Some(asked) = peer.asked().await {
                peer.answer(asked.correlation_id, &asked.body).await;
            }
        })
        .await;
        let transport = patient();
        for (index, body) in ["a", "b", "c"].into_iter().enumerate() {
            // Without a pause the end of the connection has not been seen, with one it has.
            sleep(Duration::from_millis(index as u64 * 20)).await;
            assert_eq!(ask(&transport, &server, body).await.unwrap(), echoed(body));
        }
        assert_eq!(server.accepted(), 3);
    })
    .await;
}

/// What comes of a request whose kept-open connection closes when it arrives, and how many connections that
/// took.
async fn closed_on_arrival(request: Request) -> (Result<Response, TransportError>, usize) {
    within(async {
        let server = Server::start(async |number, mut peer: Peer| {
            peer.shake_hands().await;
            if number == 0 {
                peer.asked().await;
                return;
            }
            peer.echo().await;
        })
        .await;
        let transport = patient();
        transport.api_versions(&server.address).await.unwrap();
        let outcome = transport.round_trip(&server.address, request).await;
        (outcome, server.accepted())
    })
    .await
}

#[tokio::test]
async fn only_requests_that_read_are_sent_twice() {
    let (outcome, accepted) = closed_on_arrival(request("a")).await;
    assert_eq!((outcome.unwrap(), accepted), (echoed("a"), 2));
    let produce = Request::Other {
        api_key: PRODUCE,
        version: 3,
        body: Bytes::new(),
        broker_wait: Duration::ZERO,
    };
    let (outcome, accepted) = closed_on_arrival(produce).await;
    assert!(
        matches!(outcome, Err(TransportError::Closed { .. })),
        "{outcome:?}"
    );
    assert_eq!(accepted, 1);
}

#[tokio::test]
async fn a_request_is_sent_twice_at_most() {
    within(async {
        let server = Server::start(async |_, mut peer: Peer| {
            peer.shake_hands().await;
            peer.asked().await;
        })
        .await;
        let transport = patient();
        transport.api_versions(&server.address).await.unwrap();
        let error = ask(&transport, &server, "x").await.unwrap_err();
        assert!(matches!(error, TransportError::Closed { .. }), "{error}");
        assert_eq!(server.accepted(), 2);
    })
    .await;
}

#[tokio::test]
async fn requests_in_flight_are_bounded() {
    within(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let broker = BrokerAddress {
            host: "127.0.0.1".into(),
            port,
        };
        let transport = TcpTransport::new(TcpSettings {
            in_flight_limit: 3,
            ..TcpSettings::default()
        });
        let mut callers = JoinSet::new();
        for _ in 0..10 {
            let (transport, broker) = (transport.clone(), broker.clone());
            callers.spawn(async move { transport.round_trip(&broker, request("x")).await.unwrap() });
        }
        let mut peer = Peer {
            stream: listener.accept().await.unwrap().0,
        };
        peer.shake_hands().await;
        let mut held = Vec::new();
        while let Ok(asked) = timeout(Duration::from_millis(100), peer.asked()).await {
            held.push(asked.unwrap());
        }
        assert_eq!(held.len(), 3);
        // One answer makes room for one request.
        peer.answer(held[0].correlation_id, b"x").await;
        held.push(peer.asked().await.unwrap());
        assert!(timeout(Duration::from_millis(100), peer.asked()).await.is_err());
        for asked in &held[1..] {
            peer.answer(asked.correlation_id, b"x").await;
        }
        tokio::spawn(peer.echo());
        assert_eq!(callers.join_all().await.len(), 10);
    })
    .await;
}

#[tokio::test]
async fn those_who_wait_for_room_go_to_the_next_connection() {
    within(async {
        let server = Server::start(async |number, mut peer: Peer| {
            peer.shake_hands().await;
            if number == 0 {
                while peer.asked().await.is_some() {}
                return;
            }
            peer.echo().await;
        })
        .await;
        let transport = TcpTransport::new(TcpSettings {
            in_flight_limit: 1,
            request_timeout: Duration::from_millis(100),
            ..TcpSettings::default()
        });
        let (a, b, c) = tokio::join!(
            ask(&transport, &server, "a"),
            ask(&transport, &server, "b"),
            ask(&transport, &server, "c")
        );
        // Whoever came first was the one to stall.
        let (stalled, answered): (Vec<_>, Vec<_>) = [a, b, c].into_iter().partition(Result::is_err);
        assert!(
            matches!(stalled[..], [Err(TransportError::Timeout { .. })]),
            "{stalled:?}"
        );
        assert_eq!(answered.len(), 2);
        assert_eq!(server.accepted(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_claimed_100_mib_of_which_little_comes_is_a_timeout() {
    within(async {
        let server = Server::start(async |_, mut peer: Peer| {
            peer.shake_hands().await;
            peer.asked().await;
            peer.write(&[&(100_u32 << 20).to_be_bytes()[..], &[0, 0, 0, 1, 5, 5]].concat())
                .await;
            while peer.asked().await.is_some() {}
        })
        .await;
        let error = ask(&transport(Duration::from_millis(100)), &server, "x")
            .await
            .unwrap_err();
        assert!(matches!(error, TransportError::Timeout { .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn large_requests_pass_a_socket_that_takes_little_at_a_time() {
    within(async {
        let server = Server::start(async |_, mut peer: Peer| {
            peer.shake_hands().await;
            sleep(Duration::from_millis(50)).await;
            peer.echo().await;
        })
        .await;
        let transport = patient();
        let body = |seed: u32| -> Bytes {
            (0..5_000_000_u32)
                .map(|index| (index.wrapping_mul(seed) >> 7).to_le_bytes()[0])
                .collect()
        };
        let send = |seed| transport.round_trip(&server.address, request(body(seed)));
        let (a, b, c) = tokio::join!(send(3), send(5), send(7));
        assert!(a.unwrap() == Response::Other(body(3)));
        assert!(b.unwrap() == Response::Other(body(5)));
        assert!(c.unwrap() == Response::Other(body(7)));
        assert_eq!(server.accepted(), 1);
    })
    .await;
}

#[tokio::test]
async fn dropping_the_transport_closes_its_connections_and_ends_its_tasks() {
    within(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (report, mut reports) = mpsc::channel(4);
        let before = Handle::current().metrics().num_alive_tasks();
        for stalled in [false, true] {
            let transport = patient();
            let broker = BrokerAddress {
                host: "127.0.0.1".into(),
                port,
            };
            let (versions, mut peer) = tokio::join!(transport.api_versions(&broker), async {
                let mut peer = Peer {
                    stream: listener.accept().await.unwrap().0,
                };
                peer.shake_hands().await;
                peer
            });
            versions.unwrap();
            if stalled {
                // An answer is due, and its caller has gone.
                let given_up = transport.round_trip(&broker, request("x"));
                timeout(Duration::from_millis(20), given_up).await.unwrap_err();
                peer.asked().await.unwrap();
            }
            drop(transport);
            report.send(peer.stream.read(&mut [0; 1]).await).await.unwrap();
            assert_eq!(reports.recv().await.unwrap().unwrap(), 0, "the end of the stream");
        }
        eventually(|| Handle::current().metrics().num_alive_tasks() == before).await;
    })
    .await;
}

#[tokio::test]
async fn tasks_end_when_the_connection_breaks() {
    within(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let broker = BrokerAddress {
            host: "127.0.0.1".into(),
            port,
        };
        let before = Handle::current().metrics().num_alive_tasks();
        let transport = patient();
        let (versions, ()) = tokio::join!(transport.api_versions(&broker), async {
            let mut peer = Peer {
                stream: listener.accept().await.unwrap().0,
            };
            peer.shake_hands().await;
        });
        versions.unwrap();
        // The transport is still there, and notices by itself.
        eventually(|| Handle::current().metrics().num_alive_tasks() == before).await;
        drop(transport);
    })
    .await;
}

#[test]
fn a_transport_outlives_the_runtime_of_its_connections() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let servers = runtime();
    let server = servers.block_on(Server::start(handshake_then_echo));
    let (stop, stopped) = oneshot::channel();
    let serving = std::thread::spawn(move || {
        servers.block_on(async { timeout(Duration::from_mins(1), stopped).await })
    });
    let transport = patient();
    for body in ["a", "b"] {
        let answer = runtime().block_on(within(ask(&transport, &server, body)));
        assert_eq!(answer.unwrap(), echoed(body));
    }
    assert_eq!(server.accepted(), 2);
    stop.send(()).unwrap();
    serving.join().unwrap().unwrap().unwrap();
}
