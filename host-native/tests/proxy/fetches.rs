//! Fetch: by the cache, for many clients, in every version, with sessions.

use anyhow::Result;
use kachet::cache::Cache;
use kachet::core::time::MaxStaleness;
use kachet::demo::broker::NODE_ID;
use kachet::demo::records::Events;
use kachet::proxy::{Limits, Proxy};
use kachet::transport::{TcpSettings, TcpTransport};
use kachet_core::wire::{
    Chunks, FetchRequest, FetchResponse, FetchableTopic, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
    TaggedFields, TopicId, TopicRef, WireStr,
};
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::protocol::Decodable;

use crate::client::{Client, fetch_of, sizes};
use crate::scripted::{self, Does, Scripted};
use crate::{TOPIC, append, broker_port, broker_with, proxy_before, settings};

#[tokio::test]
async fn many_clients_cost_one_fetch_upstream() -> Result<()> {
    let broker = broker_with(1, 5).await?;
    let proxy = proxy_before(broker.address(), 1 << 20, Limits::default()).await?;
    let address = broker_port(&proxy, NODE_ID);
    let reads = (0..40).map(|_| async {
        let mut client = Client::to(address).await;
        client.fetch(11, &fetch_of(&[(0, 0)])).await
    });
    let reads = futures_util::future::join_all(reads).await;
    let own = Client::to(format!("{}", broker.address()).parse()?)
        .await
        .fetch(11, &fetch_of(&[(0, 0)]))
        .await;
    assert!(reads.iter().all(|read| *read == own));
    // One through the proxy, one of the test's own.
    assert_eq!(broker.requests().fetch, 2);
    // Under names, batches are kept a little after they were handed on.
    for _ in 0..100 {
        if proxy.cache().statistics().batches == 5 {
            break;
        }
        tokio::time::sleep(core::time::Duration::from_millis(20)).await;
    }
    let mut client = Client::to(address).await;
    assert!(sizes(&client.fetch(11, &fetch_of(&[(0, 17)])).await)[0].1 > 0);
    assert_eq!(broker.requests().fetch, 2);
    Ok(())
}

#[tokio::test]
async fn every_version_reads_what_the_broker_itself_gives() -> Result<()> {
    let broker = broker_with(2, 4).await?;
    let topic_id = {
        let mut direct = Client::to(format!("{}", broker.address()).parse()?).await;
        *direct.metadata(12).await.topics[0].topic_id.as_bytes()
    };
    let proxy = proxy_before(broker.address(), 1 << 20, Limits::default()).await?;
    // Version 4 does not tell the log start, so it does not come first.
    for version in (4..=18).rev() {
        let mut direct = Client::to(format!("{}", broker.address()).parse()?).await;
        let mut client = Client::to(broker_port(&proxy, NODE_ID)).await;
        for offsets in [[(0, 0), (1, 12)], [(1, 39), (0, 20)], [(0, 40), (1, 99)]] {
            let mut request = fetch_of(&offsets);
            if version >= 13 {
                request.topics[0].topic = TopicRef::Id(TopicId(topic_id));
            }
            for _ in 0..2 {
                let (own, read) = (
                    direct.fetch(version, &request).await,
                    client.fetch(version, &request).await,
                );
                assert_eq!(read, own, "v{version} {offsets:?}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_session_tells_only_what_is_new() -> Result<()> {
    let broker = broker_with(3, 1).await?;
    let proxy = proxy_before(broker.address(), 1 << 20, Limits::default()).await?;
    let mut client = Client::to(broker_port(&proxy, NODE_ID)).await;
    let begin = FetchRequest {
        session_epoch: 0,
        ..fetch_of(&[(0, 10), (1, 10), (2, 10)])
    };
    let first = client.fetch(11, &begin).await;
    let id = first.session_id;
    assert_eq!((id != 0, sizes(&first)), (true, vec![(0, 0), (1, 0), (2, 0)]));
    let next = |epoch, partitions: &[(i32, i64)]| {
        let mut request = fetch_of(partitions);
        request.topics.retain(|topic| !topic.partitions.is_empty());
        FetchRequest {
            session_id: id,
            session_epoch: epoch,
            ..request
        }
    };
    let quiet = client.fetch(11, &next(1, &[])).await;
    assert_eq!((quiet.session_id, quiet.topics.len()), (id, 0));
    append(&broker, 1, &mut Events::new(2))?;
    let news = client.fetch(11, &next(2, &[])).await;
    assert!(matches!(sizes(&news)[..], [(1, size_bytes)] if size_bytes > 0));
    let quiet = client.fetch(11, &next(3, &[(1, 20)])).await;
    assert_eq!((quiet.session_id, quiet.topics.len()), (id, 0));
    // An epoch that is wrong is an error, which the session survives.
    assert_eq!(client.fetch(11, &next(9, &[])).await.error_code, 71);
    assert_eq!(client.fetch(11, &next(4, &[(0, 0)])).await.error_code, 0);
    // On another connection it is not known, and the client begins anew.
    let mut other = Client::to(broker_port(&proxy, NODE_ID)).await;
    let unknown = other.fetch(11, &next(5, &[])).await;
    assert_eq!((unknown.error_code, unknown.session_id), (70, 0));
    Ok(())
}

#[tokio::test]
async fn what_is_cached_is_read_while_there_is_no_broker() -> Result<()> {
    let broker = broker_with(1, 4).await?;
    let proxy = proxy_before(broker.address(), 1 << 20, Limits::default()).await?;
    let address = broker_port(&proxy, NODE_ID);
    let mut old = Client::to(address).await;
    let told = old.api_versions(3).await.unwrap();
    let brokers = old.metadata_of(12, TOPIC).await.unwrap();
    let read = old.fetch(11, &fetch_of(&[(0, 0)])).await;
    assert!(sizes(&read)[0].1 > 0);
    broker.stop().await;
    // On a connection that was there before, and on a new one, which asks for versions first.
    assert_eq!(old.fetch(11, &fetch_of(&[(0, 0)])).await, read);
    let mut new = Client::to(address).await;
    assert_eq!(new.api_versions(3).await.unwrap(), told);
    // In a version that nobody has asked for yet.
    let mut known = Client::to(address).await.api_versions(4).await.unwrap();
    let known = ApiVersionsResponse::decode(&mut known, 4)?;
    assert_eq!(
        known.api_keys,
        ApiVersionsResponse::decode(&mut told.clone(), 3)?.api_keys
    );
    for version in 0..=13 {
        let mut client = Client::to(proxy.address()).await;
        let offline = client.metadata_of(version, TOPIC).await.unwrap();
        assert_eq!(offline.brokers, brokers.brokers, "v{version}");
        let (topic, known) = (&offline.topics[0], &brokers.topics[0]);
        assert_eq!(
            (&topic.name, topic.partitions.len()),
            (&known.name, known.partitions.len())
        );
        assert_eq!(topic.partitions[0].leader_id, known.partitions[0].leader_id);
    }
    // Nothing is known of it, which is not the same as that there is none.
    assert_eq!(Client::to(address).await.metadata_of(12, "unknown").await, None);
    assert_eq!(new.fetch(11, &fetch_of(&[(0, 0)])).await, read);
    // What is not cached ends the connection, as a dead broker's would.
    old.send_fetch(11, &fetch_of(&[(0, 1_000)])).await;
    assert!(old.receive().await.is_none());
    Ok(())
}

#[tokio::test]
async fn leaders_that_are_told_of_in_a_fetch_are_told_at_the_proxy() -> Result<()> {
    let broker = Scripted::start(|asked| {
        let mut moved = PartitionData::error(0, 6);
        moved.current_leader = Some(LeaderIdAndEpoch {
            leader_id: 9,
            leader_epoch: 4,
            unknown_tags: TaggedFields::default(),
        });
        let response = FetchResponse {
            topics: vec![FetchableTopic {
                topic: TopicRef::Id(TopicId([1; 16])),
                partitions: vec![moved],
                unknown_tags: TaggedFields::default(),
            }],
            node_endpoints: vec![NodeEndpoint {
                node_id: 9,
                host: WireStr::from_static("broker-9.internal"),
                port: 9_092,
                rack: None,
                unknown_tags: TaggedFields::default(),
            }],
            ..FetchResponse::default()
        };
        let mut body = Chunks::new();
        response.encode(asked.version, &mut body).unwrap();
        // The header's tagged fields, of which there are none.
        Does::Answer([&[0][..], &body.into_bytes()].concat().into())
    })
    .await;
    let proxy = proxy_before(&broker.address, 0, Limits::default()).await?;
    let mut client = Client::to(broker_port(&proxy, scripted::NODE_ID)).await;
    let mut request = fetch_of(&[(0, 0)]);
    request.topics[0].topic = TopicRef::Id(TopicId([1; 16]));
    for version in 16..=18 {
        let told = client.fetch(version, &request).await;
        let node = &told.node_endpoints[0];
        assert_eq!((node.node_id, node.host.as_str()), (9, "127.0.0.1"));
        assert_eq!(node.port, i32::from(proxy.ports()[&9]));
        let leader = told.partitions().next().unwrap().1.current_leader.clone();
        assert_eq!(leader.map(|leader| leader.leader_id), Some(9));
    }
    Ok(())
}

#[tokio::test]
async fn a_dead_broker_looks_dead_as_long_as_another_one_lives() -> Result<()> {
    let broker = broker_with(1, 1).await?;
    let other = broker_with(1, 1).await?;
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default()))
        .size_limit_bytes(1 << 20)
        .max_staleness(MaxStaleness::Forever);
    let mut settings = settings(broker.address(), Limits::default());
    settings.bootstrap.push(other.address().clone());
    let proxy = Proxy::start(settings, cache.build()).await?;
    let address = broker_port(&proxy, NODE_ID);
    let mut client = Client::to(address).await;
    assert!(client.api_versions(3).await.is_some());
    assert!(client.metadata_of(12, TOPIC).await.is_some());
    broker.stop().await;
    assert!(Client::to(address).await.api_versions(3).await.is_none());
    assert!(Client::to(address).await.metadata_of(12, TOPIC).await.is_none());
    other.stop().await;
    assert!(Client::to(address).await.api_versions(3).await.is_some());
    assert!(Client::to(address).await.metadata_of(12, TOPIC).await.is_some());
    Ok(())
}

#[tokio::test]
async fn without_any_broker_nothing_is_told_where_what_is_known_may_not_be_old() -> Result<()> {
    let broker = broker_with(1, 1).await?;
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default())).size_limit_bytes(1 << 20);
    let proxy = Proxy::start(settings(broker.address(), Limits::default()), cache.build()).await?;
    let address = broker_port(&proxy, NODE_ID);
    assert!(Client::to(address).await.api_versions(3).await.is_some());
    broker.stop().await;
    assert!(Client::to(address).await.api_versions(3).await.is_none());
    Ok(())
}
