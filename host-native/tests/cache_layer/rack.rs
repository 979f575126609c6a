//! A cache in a rack: what it lacks it reads from the replica there, and what only the leader can say it asks the leader
//! (KIP-392, H16). One embedded broker stands for both; what real ones do is in `tests/tests/proxy/cluster.rs`.

use core::future::pending;
use core::time::Duration;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use kachet::cache::Cache;
use kachet::core::wire::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData, RecordBytes, TaggedFields,
    TopicId, TopicRef, WireStr,
};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Events, Packing, pack};
use kachet::transport::{
    ApiVersions, BrokerAddress, Request, Response, TcpSettings, TcpTransport, Transport, TransportError,
};
use kafka_protocol::messages::metadata_response::{MetadataResponse, MetadataResponseBroker};
use kafka_protocol::messages::{ApiKey, BrokerId};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::time::{Instant, timeout};

use super::{RECORDS_PER_BATCH, TOPIC, append, within};

const RACK: &str = "here";
const REPLICA_ID: i32 = 2;
const PARTITIONS: u16 = 3;
const BATCHES: u64 = 6;
const END: i64 = 60;

/// What the replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Give,
    /// It has heard of nothing from this offset on.
    LagFrom(i64),
    Refuse(i16),
    Break,
    NeverAnswer,
}

/// What was asked of whom, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    /// The rack, the wait, and the partitions.
    Leader(String, i32, Vec<i32>),
    Replica(Vec<i32>),
}

#[derive(Debug)]
struct State {
    does: Does,
    is_leader_dead: bool,
    /// Partitions of which the leader names the replica.
    redirects: Vec<i32>,
    asked: Vec<Asked>,
}

/// A leader that names a replica to whoever is in its rack.
#[derive(Clone)]
struct Racks {
    below: TcpTransport,
    leader: BrokerAddress,
    state: Arc<Mutex<State>>,
}

fn replica() -> BrokerAddress {
    BrokerAddress {
        host: "replica.internal".to_owned(),
        port: 9092,
    }
}

impl Racks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn does(&self, does: Does) {
        self.state().does = does;
    }

    fn take_asked(&self) -> Vec<Asked> {
        core::mem::take(&mut self.state().asked)
    }

    fn dead(broker: &BrokerAddress) -> TransportError {
        TransportError::Timeout {
            broker: broker.clone(),
            api: "Fetch",
            timeout: Duration::ZERO,
        }
    }

    async fn of_leader(&self, version: i16, request: FetchRequest) -> Result<Response, TransportError> {
        let rack = request.rack_id.as_str().to_owned();
        let redirects = {
            let mut state = self.state();
            let asked = Asked::Leader(rack.clone(), request.max_wait_ms, partitions(&request));
            state.asked.push(asked);
            if state.is_leader_dead {
                return Err(Self::dead(&self.leader));
            }
            if rack == RACK {
                state.redirects.clone()
            } else {
                Vec::new()
            }
        };
        // A redirect comes at once, whatever the request would wait for.
        let is_redirected = partitions(&request).iter().any(|index| redirects.contains(index));
        let max_wait_ms = if is_redirected { 0 } else { request.max_wait_ms };
        let request = FetchRequest {
            max_wait_ms,
            ..request
        };
        let mut response = self
            .below
            .round_trip(&self.leader, Request::Fetch { version, request })
            .await?;
        if let Response::Fetch(response) = &mut response {
            for data in partitions_mut(response).filter(|data| redirects.contains(&data.partition_index)) {
                data.records = Some(RecordBytes::empty());
                data.preferred_read_replica = REPLICA_ID;
            }
        }
        Ok(response)
    }

    async fn of_replica(&self, version: i16, request: FetchRequest) -> Result<Response, TransportError> {
        assert_eq!(request.rack_id.as_str(), RACK);
        let does = {
            let mut state = self.state();
            state.asked.push(Asked::Replica(partitions(&request)));
            state.does
        };
        match does {
            Does::Break => return Err(Self::dead(&replica())),
            Does::NeverAnswer => return pending().await,
            Does::Give | Does::LagFrom(_) | Does::Refuse(_) => {}
        }
        let from: Vec<i64> = request
            .partitions()
            .map(|(_, asked)| asked.fetch_offset)
            .collect();
        let mut response = self
            .below
            .round_trip(&self.leader, Request::Fetch { version, request })
            .await?;
        if let Response::Fetch(response) = &mut response {
            for (data, from) in partitions_mut(response).zip(from) {
                match does {
                    Does::LagFrom(offset) => {
                        (data.high_watermark, data.last_stable_offset) = (offset, offset);
                        if from >= offset {
                            data.records = Some(RecordBytes::empty());
                        }
                    }
                    Does::Refuse(error_code) => {
                        *data = PartitionData::error(data.partition_index, error_code)
                    }
                    _ => {}
                }
            }
        }
        Ok(response)
    }
}

impl Transport for Racks {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        let (api_key, version) = (request.api_key(), request.version());
        match request {
            Request::Fetch { version, request } if *broker == replica() => {
                self.of_replica(version, request).await
            }
            Request::Fetch { version, request } => self.of_leader(version, request).await,
            other @ Request::Other { .. } => {
                let response = self.below.round_trip(&self.leader, other).await?;
                Ok(match response {
                    Response::Other(body) if api_key == ApiKey::Metadata as i16 => {
                        let mut told = MetadataResponse::decode(&mut body.clone(), version).unwrap();
                        told.brokers.push(
                            MetadataResponseBroker::default()
                                .with_node_id(BrokerId(REPLICA_ID))
                                .with_host(StrBytes::from(replica().host))
                                .with_port(i32::from(replica().port)),
                        );
                        let mut body = BytesMut::new();
                        told.encode(&mut body, version).unwrap();
                        Response::Other(body.freeze())
                    }
                    other => other,
                })
            }
        }
    }

    async fn api_versions(&self, _: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        self.below.api_versions(&self.leader).await
    }
}

fn partitions(request: &FetchRequest) -> Vec<i32> {
    request.partitions().map(|(_, asked)| asked.partition).collect()
}

fn partitions_mut(response: &mut FetchResponse) -> impl Iterator<Item = &mut PartitionData> {
    response.topics.iter_mut().flat_map(|topic| &mut topic.partitions)
}

struct Scene {
    broker: EmbeddedBroker,
    topic_id: TopicId,
    racks: Racks,
    cache: Cache<Racks>,
}

/// A topic of three partitions; of the first two the leader names the replica.
async fn scene() -> Result<Scene> {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    let topic_id = broker.create_topic(TOPIC, PARTITIONS)?;
    append(&broker, 1, BATCHES)?;
    for partition in 1..i32::from(PARTITIONS) {
        for seed in 0..BATCHES {
            let events: Vec<_> = Events::new(seed).take(RECORDS_PER_BATCH).collect();
            broker.append(TOPIC, partition, pack(&events, Packing::Lz4)?)?;
        }
    }
    let racks = Racks {
        below: TcpTransport::new(TcpSettings::default()),
        leader: broker.address().clone(),
        state: Arc::new(Mutex::new(State {
            does: Does::Give,
            is_leader_dead: false,
            redirects: vec![0, 1],
            asked: Vec::new(),
        })),
    };
    let cache = Cache::builder(racks.clone())
        .size_limit_bytes(1 << 20)
        .max_staleness(within(60_000))
        .rack(RACK)
        .build();
    Ok(Scene {
        broker,
        topic_id,
        racks,
        cache,
    })
}

impl Scene {
    fn request(&self, places: &[(i32, i64)]) -> FetchRequest {
        let partitions = places
            .iter()
            .map(|(index, offset)| FetchPartition::new(*index, *offset, 1 << 20));
        FetchRequest {
            min_bytes: 1,
            topics: vec![FetchTopic {
                topic: TopicRef::Id(self.topic_id),
                partitions: partitions.collect(),
                unknown_tags: TaggedFields::default(),
            }],
            ..FetchRequest::default()
        }
    }

    async fn ask(&self, request: &FetchRequest, version: i16) -> Result<FetchResponse, TransportError> {
        let request = Request::Fetch {
            version,
            request: request.clone(),
        };
        match self.cache.round_trip(self.broker.address(), request).await? {
            Response::Fetch(response) => Ok(response),
            Response::Other(_) => panic!("no answer to a Fetch"),
        }
    }

    async fn read(&self, request: &FetchRequest) -> Result<FetchResponse> {
        Ok(self.ask(request, 13).await?)
    }

    /// The same from the broker itself.
    async fn direct(&self, request: &FetchRequest) -> Result<FetchResponse> {
        let request = Request::Fetch {
            version: 13,
            request: request.clone(),
        };
        match self
            .racks
            .below
            .round_trip(self.broker.address(), request)
            .await?
        {
            Response::Fetch(response) => Ok(response),
            Response::Other(_) => bail!("no answer to a Fetch"),
        }
    }

    /// Has the leader name the replica for the first partition.
    async fn redirected(&self) -> Result<()> {
        self.read(&self.request(&[(0, 0)])).await?;
        self.cache.clear();
        self.racks.take_asked();
        Ok(())
    }
}

fn of_leader(rack: &str, partitions: &[i32]) -> Asked {
    Asked::Leader(rack.to_owned(), 0, partitions.to_vec())
}

fn of_replica(partitions: &[i32]) -> Asked {
    Asked::Replica(partitions.to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_cached_comes_from_the_replica_that_the_leader_names() -> Result<()> {
    let scene = scene().await?;
    let request = scene.request(&[(0, 0)]);
    let direct = scene.direct(&request).await?;
    assert_eq!(scene.read(&request).await?, direct);
    assert_eq!(
        scene.racks.take_asked(),
        [of_leader(RACK, &[0]), of_replica(&[0])]
    );
    // It is a hit, and once it is gone the leader need not be asked again.
    assert_eq!(scene.read(&request).await?.topics, direct.topics);
    assert_eq!(scene.racks.take_asked(), []);
    scene.cache.clear();
    assert_eq!(scene.read(&request).await?, direct);
    assert_eq!(scene.racks.take_asked(), [of_replica(&[0])]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_partitions_come_from_whoever_has_them_in_the_requests_order() -> Result<()> {
    let scene = scene().await?;
    let request = scene.request(&[(2, 0), (1, 10), (0, 20)]);
    let direct = scene.direct(&request).await?;
    assert_eq!(scene.read(&request).await?, direct);
    assert_eq!(
        scene.racks.take_asked(),
        [of_leader(RACK, &[2, 1, 0]), of_replica(&[1, 0])]
    );
    scene.cache.clear();
    assert_eq!(scene.read(&request).await?, direct);
    let mut asked = scene.racks.take_asked();
    asked.sort_by_key(|asked| matches!(asked, Asked::Replica(_)));
    assert_eq!(asked, [of_leader(RACK, &[2]), of_replica(&[1, 0])]);

    // Together they keep within the limit: the first is whole, and what does not fit behind it is left off (H12).
    scene.cache.clear();
    let first_bytes = direct.topics[0].partitions[0].records_size_bytes();
    let tight = FetchRequest {
        max_bytes: i32::try_from(first_bytes)? + 1,
        ..request
    };
    let read = scene.read(&tight).await?;
    let sizes: Vec<usize> = read
        .partitions()
        .map(|(_, data)| data.records_size_bytes())
        .collect();
    assert_eq!(sizes, [first_bytes, 0, 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_replica_is_told_to_nobody_and_the_leader_is_read_for_a_while() -> Result<()> {
    let scene = scene().await?;
    let request = scene.request(&[(0, 30)]);
    let direct = scene.direct(&request).await?;
    for does in [Does::Refuse(1), Does::Refuse(78), Does::Break] {
        scene.racks.does(Does::Give);
        let fresh = self::scene().await?;
        let request = fresh.request(&[(0, 30)]);
        fresh.redirected().await?;
        fresh.racks.does(does);
        let read = fresh.read(&request).await?;
        assert_eq!(read.topics[0].partitions, direct.topics[0].partitions, "{does:?}");
        assert_eq!(
            fresh.racks.take_asked(),
            [of_replica(&[0]), of_leader("", &[0])],
            "{does:?}"
        );
        fresh.cache.clear();
        fresh.read(&request).await?;
        assert_eq!(fresh.racks.take_asked(), [of_leader("", &[0])], "{does:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_the_leader_gives_too_is_told_and_no_fault_of_the_replica() -> Result<()> {
    let scene = scene().await?;
    scene.redirected().await?;
    let beyond = scene.request(&[(0, END + 5)]);
    let direct = scene.direct(&beyond).await?;
    assert_eq!(direct.topics[0].partitions[0].error_code, 1);
    assert_eq!(scene.read(&beyond).await?, direct);
    assert_eq!(scene.racks.take_asked(), [of_replica(&[0]), of_leader("", &[0])]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_there_is_nothing_only_the_leader_says() -> Result<()> {
    let scene = scene().await?;
    scene.redirected().await?;
    let tail = FetchRequest {
        max_wait_ms: 40,
        ..scene.request(&[(0, END)])
    };
    let read = scene.read(&tail).await?;
    assert_eq!(read.topics[0].partitions[0].high_watermark, END);
    // What the replica has been waited for is not waited for again.
    assert_eq!(scene.racks.take_asked(), [of_replica(&[0]), of_leader("", &[0])]);

    // The replica has not heard yet of what the leader has, and is believed again for what it gives.
    scene.racks.does(Does::LagFrom(END - 20));
    for _ in 0..2 {
        let late = scene.request(&[(0, END - 10)]);
        assert_eq!(scene.read(&late).await?.topics, scene.direct(&late).await?.topics);
        assert_eq!(scene.racks.take_asked(), [of_replica(&[0]), of_leader("", &[0])]);
        scene.cache.clear();
    }
    scene.read(&scene.request(&[(0, 0)])).await?;
    assert_eq!(scene.racks.take_asked(), [of_replica(&[0])]);

    // Time and again behind, it rests.
    for round in 0..4 {
        scene.cache.clear();
        let late = scene.request(&[(0, END - 10)]);
        assert_eq!(scene.read(&late).await?.topics, scene.direct(&late).await?.topics);
        let asked = scene.racks.take_asked();
        assert_eq!(asked.contains(&of_replica(&[0])), round < 3, "{round}: {asked:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_the_replica_lacks_is_not_forgotten_for_what_others_bring() -> Result<()> {
    let scene = scene().await?;
    scene.read(&scene.request(&[(0, 0), (1, 0)])).await?;
    scene.cache.clear();
    scene.racks.take_asked();
    scene.racks.does(Does::LagFrom(50));
    // The first brings enough, so the second may be empty; for a second.
    let request = scene.request(&[(0, 0), (1, 50)]);
    let begun = Instant::now();
    let mut sizes = Vec::new();
    while sizes.last() != Some(&true) {
        scene.cache.clear();
        let read = scene.read(&request).await?;
        sizes.push(read.topics[0].partitions[1].records_size_bytes() > 0);
        assert!(begun.elapsed() < Duration::from_secs(20), "left out for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(sizes[0], false, "the leader is not asked beside every answer");
    let asked = scene.racks.take_asked();
    assert_eq!(asked.last(), Some(&of_leader("", &[1])));
    assert!(asked.len() <= sizes.len() + 1, "{asked:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_replica_holds_a_fetch_up_for_seconds_once() -> Result<()> {
    let scene = scene().await?;
    scene.redirected().await?;
    scene.racks.does(Does::NeverAnswer);
    let request = scene.request(&[(0, 0)]);
    let read = timeout(Duration::from_secs(25), scene.read(&request)).await;
    assert_eq!(
        read.context("the leader was not asked")??,
        scene.direct(&request).await?
    );
    scene.cache.clear();
    scene.racks.take_asked();
    scene.read(&request).await?;
    assert_eq!(scene.racks.take_asked(), [of_leader("", &[0])]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_leader_is_dead_the_replica_gives_what_it_has() -> Result<()> {
    let scene = scene().await?;
    scene.read(&scene.request(&[(0, 0), (1, 0)])).await?;
    scene.cache.clear();
    scene.racks.state().is_leader_dead = true;
    let request = scene.request(&[(0, 0), (1, 10)]);
    assert_eq!(
        scene.read(&request).await?.topics,
        scene.direct(&request).await?.topics
    );
    // At the end there is nobody who could say that there is no more.
    assert!(scene.ask(&scene.request(&[(0, END)]), 13).await.is_err());
    // Of a partition that only the leader has there is no answer, and none is made up.
    assert!(scene.ask(&scene.request(&[(0, 20), (2, 0)]), 13).await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_holds_a_waiting_fetch_back_for_whom_another_broker_has_something() -> Result<()> {
    let scene = scene().await?;
    scene.read(&scene.request(&[(0, 0), (2, 0)])).await?;
    scene.cache.clear();
    let waits = |places: &[(i32, i64)]| FetchRequest {
        max_wait_ms: 20_000,
        ..scene.request(places)
    };
    // The leader's partition is at its end, the replica's is not.
    let begun = Instant::now();
    let read = scene.read(&waits(&[(2, END), (0, 0)])).await?;
    assert!(read.topics[0].partitions[1].records_size_bytes() > 0);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // Both are, until a record comes.
    let waiting = waits(&[(2, END), (0, END)]);
    let reading = scene.read(&waiting);
    let writing = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        append(&scene.broker, 9, 1)
    };
    let (read, written) = tokio::join!(reading, writing);
    written?;
    let read = read?;
    assert!(read.topics[0].partitions[1].records_size_bytes() > 0, "{read:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_watermark_of_the_replica_drops_nothing() -> Result<()> {
    let scene = scene().await?;
    scene.redirected().await?;
    // Cached up to the end, as the leader gives it.
    scene.racks.does(Does::Break);
    scene.read(&scene.request(&[(0, 30)])).await?;
    assert_eq!(scene.cache.statistics().batches, 3);
    let rested = self::scene().await?;
    rested.redirected().await?;
    rested.read(&rested.request(&[(0, 30)])).await?;
    rested.racks.does(Does::LagFrom(40));
    rested.racks.take_asked();
    // From before what is cached, with a high watermark that lies within it (H7).
    let cold = FetchRequest {
        max_bytes: 1,
        ..rested.request(&[(0, 0)])
    };
    rested.read(&cold).await?;
    assert_eq!(rested.racks.take_asked(), [of_replica(&[0])]);
    assert_eq!(rested.cache.statistics().batches, 4);
    let read = rested.read(&rested.request(&[(0, 50)])).await?;
    assert_eq!(rested.racks.take_asked(), [], "it is a hit");
    assert_eq!(read.topics[0].partitions[0].high_watermark, END);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_versions_and_those_who_name_a_rack_themselves_ask_the_leader() -> Result<()> {
    let scene = scene().await?;
    let by_name = |request: FetchRequest| {
        let mut request = request;
        request.topics[0].topic = TopicRef::Name(WireStr::from_static(TOPIC));
        request
    };
    // Followers answer consumers from v11 on.
    scene.ask(&by_name(scene.request(&[(0, 0)])), 10).await?;
    assert_eq!(scene.racks.take_asked(), [of_leader("", &[0])]);
    scene.cache.clear();
    let own = FetchRequest {
        rack_id: WireStr::from_static(RACK),
        ..scene.request(&[(0, 0)])
    };
    let redirected = scene.read(&own).await?;
    assert_eq!(
        redirected.topics[0].partitions[0].preferred_read_replica,
        REPLICA_ID
    );
    assert_eq!(scene.racks.take_asked(), [of_leader(RACK, &[0])]);
    Ok(())
}

/// What came by name is kept once the replica itself has said what the name stands for (H6).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_replica_gives_by_name_is_kept() -> Result<()> {
    let scene = scene().await?;
    let mut request = scene.request(&[(0, 0)]);
    request.topics[0].topic = TopicRef::Name(WireStr::from_static(TOPIC));
    let begun = Instant::now();
    loop {
        scene.racks.take_asked();
        let read = scene.ask(&request, 12).await?;
        assert!(read.topics[0].partitions[0].records_size_bytes() > 0);
        if scene.racks.take_asked().is_empty() {
            return Ok(());
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "never a hit");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
