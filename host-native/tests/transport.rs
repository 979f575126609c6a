//! The transport against servers that misbehave in every way that brokers, and what is not a broker, do.

#[path = "transport/logins.rs"]
mod logins;
#[path = "transport/opening.rs"]
mod opening;
#[path = "transport/server.rs"]
mod server;
#[path = "transport/tls.rs"]
mod tls;

use core::time::Duration;

use bytes::Buf;
use kachet::transport::{Request, Response, Transport, TransportError, call, call_with};
use kachet_core::wire::{Chunks, FETCH_API_KEY, FetchRequest, FetchResponse};
use kafka_protocol::messages::{ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::server::{
    API_VERSIONS, Peer, Server, ask, echoed, handshake_then_echo, patient, request, response, transport,
    versions_v3, within,
};

#[tokio::test]
async fn versions_are_asked_once_a_connection() {
    within(async {
        let server = Server::start(handshake_then_echo).await;
        let transport = patient();
        let versions = transport.api_versions(&server.address).await.unwrap();
        assert_eq!(versions.range(1), Some(4..=17));
        assert_eq!(versions.negotiate(3, 9..=20), Some(12));
        for body in ["a", "b"] {
            assert_eq!(ask(&transport, &server, body).await.unwrap(), echoed(body));
        }
        transport.api_versions(&server.address).await.unwrap();
        assert_eq!(server.accepted(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_old_broker_is_asked_in_version_0() {
    within(async {
        let server = Server::start(async |_, mut peer: Peer| {
            let asked = peer.asked().await.unwrap();
            assert_eq!((asked.api_key, asked.version), (API_VERSIONS, 3));
            // Error 35 in version 0: the range of ApiVersions itself, nothing behind it.
            peer.answer(asked.correlation_id, &[0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 2])
                .await;
            let asked = peer.asked().await.unwrap();
            assert_eq!(
                (asked.api_key, asked.version, asked.body.len()),
                (API_VERSIONS, 0, 0)
            );
            peer.answer(asked.correlation_id, &[0, 0, 0, 0, 0, 1, 0, 3, 0, 1, 0, 5])
                .await;
            peer.echo().await;
        })
        .await;
        let versions = patient().api_versions(&server.address).await.unwrap();
        assert_eq!((versions.range(3), versions.range(1)), (Some(1..=5), None));
    })
    .await;
}

#[tokio::test]
async fn calls_use_the_newest_common_version() {
    within(async {
        // Metadata v1: no brokers, controller 7, no topics; and then with a byte too many.
        let server = Server::start(async |_, mut peer: Peer| {
            peer.shake_hands().await;
            for trailing in [&[][..], &[0]] {
                let asked = peer.asked().await.unwrap();
                assert_eq!(
                    (asked.api_key, asked.version, &asked.body[..]),
                    (3, 1, &[0xff; 4][..])
                );
                let body = [&[0; 4][..], &[0, 0, 0, 7, 0, 0, 0, 0], trailing].concat();
                peer.answer(asked.correlation_id, &body).await;
            }
        })
        .await;
        let (transport, broker) = (patient(), &server.address);
        let every_topic = || MetadataRequest::default().with_topics(None);
        let (version, response) = call(&transport, broker, every_topic(), 0..=1, Duration::ZERO)
            .await
            .unwrap();
        assert_eq!((version, response.controller_id.0), (1, 7));
        let build = |version| {
            assert_eq!(version, 1);
            every_topic()
        };
        let error = call_with(&transport, broker, 0..=1, Duration::ZERO, build)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("1 bytes are left over"), "{error}");

        let request = ListOffsetsRequest::default();
        let error = call(&transport, broker, request, 10..=11, Duration::ZERO)
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                TransportError::NoCommonVersion {
                    broker_max: 9,
                    min: 10,
                    ..
                }
            ),
            "{error}"
        );
        let request = OffsetForLeaderEpochRequest::default();
        let error = call(&transport, broker, request, 0..=4, Duration::ZERO)
            .await
            .unwrap_err();
        assert!(
            matches!(error, TransportError::NoCommonVersion { broker_max: -1, .. }),
            "{error}"
        );
    })
    .await;
}

#[tokio::test]
async fn fetches_are_encoded_and_decoded() {
    within(async {
        let server = Server::start(async |_, mut peer: Peer| {
            peer.shake_hands().await;
            for (version, header_tags) in [(11_i16, &[][..]), (12, &[0]), (12, &[1, 9, 2, 0xab, 0xcd])] {
                let mut asked = peer.asked().await.unwrap();
                assert_eq!((asked.api_key, asked.version), (1, version));
                if version >= 12 {
                    assert_eq!(asked.body.get_u8(), 0, "the flexible header has no tags");
                }
                let request = FetchRequest::decode(asked.body, version).unwrap();
                let mut body = Chunks::new();
                let response = FetchResponse {
                    throttle_time_ms: request.max_bytes,
                    ..Default::default()
                };
                response.encode(version, &mut body).unwrap();
                peer.answer(asked.correlation_id, &[header_tags, &body.into_bytes()].concat())
                    .await;
            }
        })
        .await;
        let transport = patient();
        for (version, max_bytes) in [(11, 1), (12, 2), (12, 3)] {
            let request = FetchRequest {
                max_bytes,
                ..Default::default()
            };
            let request = Request::Fetch { version, request };
            let response = transport.round_trip(&server.address, request).await.unwrap();
            let expected = FetchResponse {
                throttle_time_ms: max_bytes,
                ..Default::default()
            };
            assert_eq!(response, Response::Fetch(expected));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_callers_get_their_own_answers_over_one_connection() {
    within(async {
        let server = Server::start(handshake_then_echo).await;
        let transport = patient();
        let mut callers = JoinSet::new();
        for number in 0..100_usize {
            let (transport, broker) = (transport.clone(), server.address.clone());
            callers.spawn(async move {
                // Some fit the read buffer and some do not; some fill the socket.
                let body = vec![u8::try_from(number).unwrap(); number * number * 40];
                let response = transport
                    .round_trip(&broker, request(body.clone()))
                    .await
                    .unwrap();
                assert_eq!(response, Response::Other(body.into()));
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
        assert_eq!(server.accepted(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_answer_to_another_request_closes_the_connection() {
    for wrong_by in [1, 100, -1] {
        within(async {
            let server = Server::start(move |number, mut peer: Peer| async move {
                peer.shake_hands().await;
                let first = peer.asked().await.unwrap();
                let second = peer.asked().await.unwrap();
                assert_eq!(second.correlation_id, first.correlation_id + 1);
                let wrong_by = if number == 0 { wrong_by } else { 0 };
                peer.answer(first.correlation_id + wrong_by, &first.body).await;
                peer.answer(second.correlation_id, &second.body).await;
                peer.echo().await;
            })
            .await;
            let transport = patient();
            let (a, b) = tokio::join!(ask(&transport, &server, "a"), ask(&transport, &server, "b"));
            for error in [a.unwrap_err(), b.unwrap_err()] {
                assert!(matches!(error, TransportError::NotKafka { .. }), "{error}");
            }
            let (a, b) = tokio::join!(ask(&transport, &server, "a"), ask(&transport, &server, "b"));
            assert_eq!((a.unwrap(), b.unwrap()), (echoed("a"), echoed("b")));
            assert_eq!(server.accepted(), 2);
        })
        .await;
    }
}

/// Its frame says where it ends, so what comes behind it is in step; and others wait for that.
#[tokio::test]
async fn an_answer_that_cannot_be_read_fails_its_own_request_and_no_other() {
    // Cut off in the middle, longer than it should be, with an array that never ends, and with a header that has none.
    for body in [
        &[0, 0, 0][..],
        &[0; 20],
        &[0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff],
        &[],
    ] {
        within(async {
            let server = Server::start(move |_, mut peer: Peer| async move {
                peer.shake_hands().await;
                // Both are under way before either is answered, in whichever order they came.
                let asked = [peer.asked().await.unwrap(), peer.asked().await.unwrap()];
                for asked in asked {
                    let body = if asked.api_key == FETCH_API_KEY {
                        body
                    } else {
                        &asked.body
                    };
                    peer.answer(asked.correlation_id, body).await;
                }
                peer.echo().await;
            })
            .await;
            let transport = patient();
            let fetch = Request::Fetch {
                version: 4,
                request: FetchRequest::default(),
            };
            let (fetched, other) = tokio::join!(
                transport.round_trip(&server.address, fetch),
                ask(&transport, &server, "other")
            );
            let error = fetched.unwrap_err();
            assert!(matches!(error, TransportError::Fetch { .. }), "{error}");
            assert_eq!(other.unwrap(), echoed("other"));
            assert_eq!(ask(&transport, &server, "later").await.unwrap(), echoed("later"));
            assert_eq!(server.accepted(), 1);
        })
        .await;
    }
}

/// With bytes behind it that no frame holds, what follows is out of step, and is taken for nobody's answer.
#[tokio::test]
async fn bytes_that_no_frame_holds_cost_the_connection() {
    within(async {
        let server = Server::start(async |number, mut peer: Peer| {
            peer.shake_hands().await;
            let first = peer.asked().await.unwrap();
            peer.answer(first.correlation_id, &first.body).await;
            if number == 0 {
                // The beginning of a frame of 8 bytes, which then holds the length and the id of the next.
                peer.write(&8_i32.to_be_bytes()).await;
            }
            peer.echo().await;
        })
        .await;
        let transport = patient();
        assert_eq!(ask(&transport, &server, "first").await.unwrap(), echoed("first"));
        let error = ask(&transport, &server, "second").await.unwrap_err();
        assert!(matches!(error, TransportError::NotKafka { .. }), "{error}");
        assert_eq!(ask(&transport, &server, "third").await.unwrap(), echoed("third"));
        assert_eq!(server.accepted(), 2);
    })
    .await;
}

#[tokio::test]
async fn answers_may_come_byte_by_byte() {
    within(async {
        let server = Server::start(async |_, mut peer: Peer| {
            peer.stream.set_nodelay(true).unwrap();
            while let Some(asked) = peer.asked().await {
                let versions = versions_v3();
                let body = if asked.api_key == API_VERSIONS {
                    &versions[..]
                } else {
                    &asked.body
                };
                for byte in response(asked.correlation_id, body) {
                    peer.write(&[byte]).await;
                    sleep(Duration::from_millis(1)).await;
                }
            }
        })
        .await;
        let transport = patient();
        let (a, b) = tokio::join!(
            ask(&transport, &server, "slow"),
            ask(&transport, &server, "slower")
        );
        assert_eq!((a.unwrap(), b.unwrap()), (echoed("slow"), echoed("slower")));
    })
    .await;
}

/// What comes of a broker that answers the first real request with these bytes and closes.
async fn error_after(bytes: &'static [u8]) -> TransportError {
    within(async {
        let server = Server::start(move |_, mut peer: Peer| async move {
            peer.shake_hands().await;
            peer.asked().await;
            peer.write(bytes).await;
        })
        .await;
        ask(&patient(), &server, "x").await.unwrap_err()
    })
    .await
}

#[tokio::test]
async fn broken_frames_are_errors() {
    let error = error_after(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1]).await;
    assert!(
        matches!(&error, TransportError::NotKafka { what, .. } if what.contains("-1")),
        "{error}"
    );
    let error = error_after(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1]).await;
    assert!(
        matches!(
            error,
            TransportError::ResponseTooLarge {
                size_bytes: 0x7fff_ffff,
                ..
            }
        ),
        "{error}"
    );
    let error = error_after(&[0, 0, 0, 100, 0, 0, 0, 1, 5]).await;
    assert!(
        error.to_string().contains("it ended 9 bytes into a response"),
        "{error}"
    );
    let error = error_after(&[]).await;
    assert!(matches!(error, TransportError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn a_reset_fails_everything_under_way_with_one_error() {
    within(async {
        let server = Server::start(async |number, mut peer: Peer| {
            peer.shake_hands().await;
            if number == 0 {
                peer.asked().await;
                peer.write(&[0, 0, 0, 100, 0]).await;
                sleep(Duration::from_millis(20)).await;
                // What has not been read makes closing a reset.
                return;
            }
            peer.echo().await;
        })
        .await;
        let transport = patient();
        let (a, b) = tokio::join!(ask(&transport, &server, "a"), ask(&transport, &server, "b"));
        for error in [a.unwrap_err(), b.unwrap_err()] {
            assert!(matches!(error, TransportError::Connection { .. }), "{error}");
        }
        assert_eq!(ask(&transport, &server, "c").await.unwrap(), echoed("c"));
    })
    .await;
}

#[tokio::test]
async fn a_stall_ends_in_time_and_costs_the_connection() {
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
        let transport = transport(Duration::from_millis(200));
        let begun = Instant::now();
        let (a, b) = tokio::join!(ask(&transport, &server, "a"), async {
            sleep(Duration::from_millis(100)).await;
            ask(&transport, &server, "b").await
        });
        let took = begun.elapsed();
        let (a, b) = (a.unwrap_err(), b.unwrap_err());
        assert!(
            matches!(
                a,
                TransportError::Timeout {
                    api: "ListOffsets",
                    ..
                }
            ),
            "{a}"
        );
        assert!(matches!(&b, TransportError::Connection { .. }), "{b}");
        assert!(
            b.to_string().contains("ListOffsets was not answered in time"),
            "{b}"
        );
        assert!(
            took >= Duration::from_millis(200) && took < Duration::from_secs(2),
            "{took:?}"
        );
        assert_eq!(ask(&transport, &server, "c").await.unwrap(), echoed("c"));
        assert_eq!(server.accepted(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_stall_is_noticed_though_nobody_waits_any_more() {
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
        let transport = transport(Duration::from_millis(200));
        for _ in 0..2 {
            timeout(Duration::from_millis(20), ask(&transport, &server, "a"))
                .await
                .unwrap_err();
        }
        sleep(Duration::from_millis(250)).await;
        let brief = timeout(Duration::from_millis(150), ask(&transport, &server, "b"));
        assert_eq!(brief.await.unwrap().unwrap(), echoed("b"));
        assert_eq!(server.accepted(), 2);
    })
    .await;
}

#[tokio::test]
async fn the_time_that_a_broker_may_wait_is_allowed_for() {
    within(async {
        let server = Server::start(async |_, mut peer: Peer| {
            peer.shake_hands().await;
            while let Some(asked) = peer.asked().await {
                sleep(Duration::from_millis(400)).await;
                peer.answer(asked.correlation_id, &asked.body).await;
            }
        })
        .await;
        let transport = transport(Duration::from_millis(300));
        let waits = |body: &'static str| {
            let broker_wait = Duration::from_millis(400);
            let request = Request::Other {
                api_key: 2,
                version: 1,
                body: body.into(),
                broker_wait,
            };
            transport.round_trip(&server.address, request)
        };
        // The second waits at the broker while the first does, and then for itself.
        let (a, b) = tokio::join!(waits("a"), waits("b"));
        assert_eq!((a.unwrap(), b.unwrap()), (echoed("a"), echoed("b")));
        // An answer came in time, though it is no Fetch response.
        let fetch = FetchRequest {
            max_wait_ms: 400,
            ..Default::default()
        };
        let fetch = Request::Fetch {
            version: 4,
            request: fetch,
        };
        let error = transport.round_trip(&server.address, fetch).await.unwrap_err();
        assert!(
            matches!(error, TransportError::Fetch { version: 4, .. }),
            "{error}"
        );
        let error = ask(&transport, &server, "c").await.unwrap_err();
        assert!(matches!(error, TransportError::Timeout { .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn callers_who_give_up_disturb_nobody() {
    within(async {
        let server = Server::start(async |_, mut peer: Peer| {
            peer.shake_hands().await;
            let mut held = Vec::new();
            for _ in 0..3 {
                held.push(peer.asked().await.unwrap());
            }
            sleep(Duration::from_millis(100)).await;
            for asked in held {
                peer.answer(asked.correlation_id, &asked.body).await;
            }
            peer.echo().await;
        })
        .await;
        let transport = patient();
        let brief = timeout(Duration::from_millis(30), ask(&transport, &server, "given up"));
        let (a, given_up, c) = tokio::join!(
            ask(&transport, &server, "a"),
            brief,
            ask(&transport, &server, "c")
        );
        assert!(given_up.is_err());
        assert_eq!((a.unwrap(), c.unwrap()), (echoed("a"), echoed("c")));
        assert_eq!(ask(&transport, &server, "d").await.unwrap(), echoed("d"));
        assert_eq!(server.accepted(), 1);
    })
    .await;
}
