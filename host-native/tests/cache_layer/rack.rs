//! A cache in a rack: what it lacks it reads from the replica there, and what only the leader can say it asks the leader
//! (KIP-392, H16). One embedded broker stands for both; what real ones do is in `tests/tests/proxy/cluster.rs`.

use core::time::Duration;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use kachet::cache::Cache;
use kachet::core::wire::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, TaggedFields, TopicId, TopicRef, WireStr,
};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Events, Packing, pack};
use kachet::transport::{Request, Response, TcpSettings, TcpTransport, Transport, TransportError};
use tokio::time::{Instant, timeout};

use super::replica::{Asked, Does, RACK, REPLICA_ID, Racks, State};
use super::{RECORDS_PER_BATCH, TOPIC, append, within};

const PARTITIONS: u16 = 3;
const BATCHES: u64 = 6;
const END: i64 = 60;

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
    let statistics = scene.cache.statistics();
    assert_eq!(
        (statistics.replica_bytes, statistics.upstream_fetches),
        (statistics.upstream_bytes, 3)
    );
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
    for does in [Does::Refuse(1), Does::Refuse(78), Does::Refuse(100), Does::Break] {
        let scene = scene().await?;
        // Cached by the leader's word; the replica's is not to touch it.
        scene.read(&scene.request(&[(0, 50)])).await?;
        scene.racks.take_asked();
        scene.racks.does(does);
        let cold = FetchRequest {
            max_bytes: 1,
            ..scene.request(&[(0, 30)])
        };
        assert_eq!(scene.read(&cold).await?, scene.direct(&cold).await?, "{does:?}");
        let asked = [of_replica(&[0]), of_leader("", &[0])];
        assert_eq!(scene.racks.take_asked(), asked, "{does:?}");
        assert_eq!(scene.cache.statistics().batches, 2, "{does:?}");
        scene.cache.clear();
        scene.read(&cold).await?;
        assert_eq!(scene.racks.take_asked(), [of_leader("", &[0])], "{does:?}");
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
    assert!(!sizes[0], "the leader is not asked beside every answer");
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
    // Nor is it lost where more was to be waited for, which only the leader could say.
    scene.cache.clear();
    let waits_for_more = FetchRequest {
        min_bytes: 1 << 20,
        ..scene.request(&[(0, 0), (1, END)])
    };
    assert_eq!(
        scene.read(&waits_for_more).await?.topics,
        scene.direct(&waits_for_more).await?.topics
    );
    // At the end there is nobody who could say that there is no more.
    assert!(scene.ask(&scene.request(&[(0, END)]), 13).await.is_err());
    scene.cache.clear();
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
    let at_the_end = waits(&[(2, END), (0, END)]);
    let reading = scene.read(&at_the_end);
    let written = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        append(&scene.broker, 9, 1)
    };
    let (read, written) = tokio::join!(reading, written);
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
    scene.read(&scene.request(&[(0, 30)])).await?;
    assert_eq!(scene.cache.statistics().batches, 3);
    scene.racks.does(Does::LagFrom(40));
    scene.racks.take_asked();
    // From before what is cached, with a high watermark that lies within it (H7).
    let cold = FetchRequest {
        max_bytes: 1,
        ..scene.request(&[(0, 0)])
    };
    scene.read(&cold).await?;
    assert_eq!(scene.racks.take_asked(), [of_replica(&[0])]);
    assert_eq!(scene.cache.statistics().batches, 4);
    let read = scene.read(&scene.request(&[(0, 50)])).await?;
    assert_eq!(scene.racks.take_asked(), [], "it is a hit");
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
