//! Kafka's own Fetch over HTTP.

use anyhow::Result;
use bytes::{BufMut, Bytes, BytesMut};
use hyper::Method;
use kachet::core::time::MaxStaleness;
use kachet::demo::broker::EmbeddedBroker;
use kachet::gateway::GatewayLimits;
use kachet::transport::{Request, Response, TcpSettings, TcpTransport, Transport};
use kachet_core::wire::{
    Chunks, FetchPartition, FetchRequest, FetchResponse, FetchTopic, ReplicaState, TaggedFields, TopicId,
    TopicRef, WireStr,
};

use crate::client::{Answer, Client};
use crate::{TOPIC, broker_with, gateway_before, limited, settings, start};

fn header(api_key: i16, version: i16) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_i16(api_key);
    frame.put_i16(version);
    frame.put_i32(77);
    frame.put_i16(4);
    frame.put_slice(b"test");
    if version >= 12 {
        frame.put_u8(0);
    }
    frame
}

fn frame(version: i16, request: &FetchRequest) -> Bytes {
    let mut body = Chunks::new();
    request.encode(version, &mut body).unwrap();
    let mut frame = header(1, version);
    frame.put_slice(&body.into_bytes());
    frame.freeze()
}

fn fetch_of(topic: TopicRef, partitions: &[(i32, i64)]) -> FetchRequest {
    let asked = partitions
        .iter()
        .map(|(index, offset)| FetchPartition::new(*index, *offset, 1 << 20));
    FetchRequest {
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic,
            partitions: asked.collect(),
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    }
}

fn by_name() -> TopicRef {
    TopicRef::Name(WireStr::from_static(TOPIC))
}

async fn post(client: &mut Client, body: Bytes) -> Result<Answer> {
    let headers = [("content-type", "application/vnd.kafka.fetch")];
    client.ask(Method::POST, "/v1/fetch", &headers, body).await
}

async fn fetch(client: &mut Client, version: i16, request: &FetchRequest) -> Result<FetchResponse> {
    let answer = post(client, frame(version, request)).await?;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/vnd.kafka.fetch")
    );
    assert_eq!(answer.body[..4], 77_i32.to_be_bytes());
    let header_bytes = if version >= 12 { 5 } else { 4 };
    Ok(FetchResponse::decode(answer.body.slice(header_bytes..), version)?)
}

async fn own(broker: &EmbeddedBroker, version: i16, request: &FetchRequest) -> Result<FetchResponse> {
    let direct = TcpTransport::new(TcpSettings::default());
    let request = Request::Fetch {
        version,
        request: request.clone(),
    };
    match direct.round_trip(broker.address(), request).await? {
        Response::Fetch(response) => Ok(response),
        Response::Other(_) => anyhow::bail!("not a Fetch response"),
    }
}

#[tokio::test]
async fn every_version_reads_what_the_broker_itself_gives() -> Result<()> {
    let (broker, _) = broker_with(4).await?;
    let id = broker.create_topic("other", 1)?;
    let gateway = gateway_before(&broker).await?;
    let orders = Client::to(gateway.address())
        .await?
        .get("/v1/topics/orders")
        .await?
        .json();
    let hex = orders["id"].as_str().unwrap().replace('-', "");
    let orders = TopicId(u128::from_str_radix(&hex, 16)?.to_be_bytes());
    // Version 4 does not tell the log start, so it does not come first.
    for version in (4..=18).rev() {
        let mut client = if version % 2 == 0 {
            Client::to(gateway.address()).await?
        } else {
            Client::by_http2(gateway.address()).await?
        };
        let topic = || {
            if version >= 13 {
                TopicRef::Id(orders)
            } else {
                by_name()
            }
        };
        let nothing = if version >= 13 {
            TopicRef::Id(TopicId([9; 16]))
        } else {
            TopicRef::Name(WireStr::from_static("nothing"))
        };
        let other = if version >= 13 {
            TopicRef::Id(id)
        } else {
            TopicRef::Name(WireStr::from_static("other"))
        };
        for request in [
            fetch_of(topic(), &[(0, 0)]),
            fetch_of(topic(), &[(0, 17)]),
            fetch_of(topic(), &[(0, 40), (1, 0)]),
            fetch_of(topic(), &[(0, 99)]),
            fetch_of(nothing, &[(0, 0)]),
            fetch_of(other, &[(0, 0)]),
        ] {
            for _ in 0..2 {
                let read = fetch(&mut client, version, &request).await?;
                let mut own = own(&broker, version, &request).await?;
                own.node_endpoints.clear();
                for data in own.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                    data.current_leader = None;
                }
                assert_eq!(read, own, "v{version} {request:?}");
            }
        }
    }
    assert!(gateway.cache().statistics().hits > 30);
    Ok(())
}

#[tokio::test]
async fn what_is_no_fetch_of_a_consumer_is_refused() -> Result<()> {
    let (broker, _) = broker_with(1).await?;
    let gateway = gateway_before(&broker).await?;
    let mut client = Client::to(gateway.address()).await?;
    let replica = FetchRequest {
        replica_id: 2,
        ..fetch_of(by_name(), &[(0, 0)])
    };
    let new_replica = FetchRequest {
        replica_state: Some(ReplicaState {
            replica_id: 2,
            replica_epoch: 1,
            unknown_tags: TaggedFields::default(),
        }),
        ..fetch_of(TopicRef::Id(TopicId([1; 16])), &[(0, 0)])
    };
    let debugging = FetchRequest {
        replica_id: -2,
        ..fetch_of(by_name(), &[(0, 0)])
    };
    let many = fetch_of(by_name(), &vec![(0, 0); 10_001]);
    let whole = frame(11, &fetch_of(by_name(), &[(0, 0)]));
    for (body, status, code) in [
        (Bytes::new(), 400, "bad-fetch-request"),
        (Bytes::from_static(b"\0\x01\0"), 400, "bad-fetch-request"),
        (header(0, 9).freeze(), 400, "bad-fetch-request"),
        (header(1, 3).freeze(), 400, "unsupported-fetch-version"),
        (header(1, 19).freeze(), 400, "unsupported-fetch-version"),
        (header(1, 11).freeze(), 400, "bad-fetch-request"),
        (whole.slice(..whole.len() - 3), 400, "bad-fetch-request"),
        (frame(11, &replica), 403, "replica-fetch"),
        (frame(11, &debugging), 403, "replica-fetch"),
        (frame(16, &new_replica), 403, "replica-fetch"),
        (frame(11, &many), 400, "too-many-partitions"),
    ] {
        let answer = post(&mut client, body).await?;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
    }
    assert_eq!(broker.requests().fetch, 0);
    for (media_type, status) in [("text/plain", 415), ("application/octet-stream; x=y", 200)] {
        let headers = [("content-type", media_type)];
        let answer = client
            .ask(Method::POST, "/v1/fetch", &headers, whole.clone())
            .await?;
        assert_eq!(answer.status, status, "{media_type}");
    }
    let answer = client.get("/v1/fetch").await?;
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    Ok(())
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read() -> Result<()> {
    let (broker, _) = broker_with(1).await?;
    let limits = GatewayLimits {
        request_size_bytes: 1_000,
        ..GatewayLimits::default()
    };
    let gateway = limited(&broker, limits).await?;
    for mut client in [
        Client::to(gateway.address()).await?,
        Client::by_http2(gateway.address()).await?,
    ] {
        let answer = post(&mut client, Bytes::from(vec![0; 1_001])).await?;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (413, "request-too-large")
        );
    }
    Ok(())
}

#[tokio::test]
async fn sessions_do_not_begin_and_none_goes_on() -> Result<()> {
    let (broker, _) = broker_with(1).await?;
    let gateway = gateway_before(&broker).await?;
    let mut client = Client::to(gateway.address()).await?;
    let begin = FetchRequest {
        session_epoch: 0,
        ..fetch_of(by_name(), &[(0, 0)])
    };
    let answered = fetch(&mut client, 11, &begin).await?;
    assert_eq!((answered.error_code, answered.session_id), (0, 0));
    assert!(answered.partitions().next().unwrap().1.records_size_bytes() > 0);
    for id in [0, 5] {
        let next = FetchRequest {
            session_id: id,
            session_epoch: 1,
            ..fetch_of(by_name(), &[(0, 0)])
        };
        let gone = fetch(&mut client, 11, &next).await?;
        assert_eq!((gone.error_code, gone.session_id, gone.topics.len()), (70, 0, 0));
    }
    let end = FetchRequest {
        session_id: 5,
        topics: Vec::new(),
        ..fetch_of(by_name(), &[])
    };
    assert_eq!(fetch(&mut client, 11, &end).await?.error_code, 0);
    Ok(())
}

#[tokio::test]
async fn a_response_stays_within_its_bound_but_for_its_first_batch() -> Result<()> {
    let (broker, _) = broker_with(10).await?;
    let limits = GatewayLimits {
        response_size_bytes: 10_000,
        ..GatewayLimits::default()
    };
    let gateway = limited(&broker, limits).await?;
    let mut client = Client::to(gateway.address()).await?;
    for _ in 0..2 {
        let read = fetch(&mut client, 11, &fetch_of(by_name(), &[(0, 0)])).await?;
        let size_bytes = read.partitions().next().unwrap().1.records_size_bytes();
        assert!((1..=10_000).contains(&size_bytes), "{size_bytes}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_cached_is_fetched_while_there_is_no_broker() -> Result<()> {
    let (broker, _) = broker_with(2).await?;
    let gateway = start(settings(broker.address()), MaxStaleness::Forever).await?;
    let mut client = Client::to(gateway.address()).await?;
    let request = fetch_of(by_name(), &[(0, 5)]);
    let warm = fetch(&mut client, 11, &request).await?;
    // Under names, batches are kept a little after they were handed on.
    for _ in 0..100 {
        if gateway.cache().statistics().batches == 2 {
            break;
        }
        tokio::time::sleep(core::time::Duration::from_millis(20)).await;
    }
    broker.stop().await;
    assert_eq!(fetch(&mut client, 11, &request).await?, warm);
    let answer = post(&mut client, frame(11, &fetch_of(by_name(), &[(0, 20)]))).await?;
    assert_eq!((answer.status, answer.code().as_str()), (503, "upstream-down"));
    Ok(())
}

#[tokio::test]
async fn an_unreachable_cluster_is_said_to_be_down() -> Result<()> {
    let (broker, _) = broker_with(1).await?;
    let gateway = gateway_before(&broker).await?;
    broker.stop().await;
    let mut client = Client::to(gateway.address()).await?;
    let answer = post(&mut client, frame(11, &fetch_of(by_name(), &[(0, 0)]))).await?;
    assert_eq!((answer.status, answer.code().as_str()), (503, "upstream-down"));
    Ok(())
}
