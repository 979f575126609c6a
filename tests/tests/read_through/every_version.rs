//! Raw Fetch requests of every version, through the cache and directly.

use core::time::Duration;

use anyhow::{Result, ensure};
use kachet::cache::Cache;
use kachet::cluster::describe;
use kachet::transport::{BrokerAddress, Request, Response, TcpSettings, TcpTransport, Transport};
use kachet_core::wire::{
    FETCH_VERSION_MAX, FETCH_VERSION_MIN, FETCH_VERSION_TOPIC_IDS, FetchPartition, FetchRequest,
    FetchResponse, FetchTopic, PartitionData, TaggedFields, TopicRef, WireStr,
};
use kachet_tests::kafka::{shared_kafka, writer_for};
use tokio::time::{sleep, timeout};

use super::CACHE_BYTES;

async fn fetch<T: Transport>(
    transport: &T,
    broker: &BrokerAddress,
    version: i16,
    request: &FetchRequest,
) -> Result<FetchResponse> {
    let request = Request::Fetch {
        version,
        request: request.clone(),
    };
    match transport.round_trip(broker, request).await? {
        Response::Fetch(response) => Ok(response),
        Response::Other(_) => anyhow::bail!("not a Fetch response"),
    }
}

/// What must be the same however the answer came: everything but the truncated tail.
fn comparable(response: &FetchResponse) -> Vec<PartitionData> {
    let whole = |data: &PartitionData| {
        let bytes = data
            .records
            .as_ref()
            .map(kachet_core::wire::RecordBytes::to_bytes)
            .unwrap_or_default();
        let mut batches = kachet_core::wire::Batches::new(&bytes);
        while batches.next().is_some() {}
        PartitionData {
            records: Some(bytes.slice(..batches.at_byte()).into()),
            ..data.clone()
        }
    };
    response.partitions().map(|(_, data)| whole(data)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fetch_version_is_answered_alike_directly_and_from_the_cache() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    let topic = "every-version";
    writer.command(&format!("create {topic} 2"))?;
    for partition in 0..2 {
        writer.command(&format!("produce {topic} {partition} lz4 90 30 {partition}"))?;
    }
    let address: BrokerAddress = broker.bootstrap().parse()?;
    let tcp = TcpTransport::new(TcpSettings::default());
    let name = TopicRef::Name(WireStr::from_static(topic));
    let topology = describe(&tcp, &address, std::slice::from_ref(&name)).await?;
    let id = TopicRef::Id(topology.topics[0].topic_id);

    for version in FETCH_VERSION_MIN..=FETCH_VERSION_MAX {
        let by = if version >= FETCH_VERSION_TOPIC_IDS {
            &id
        } else {
            &name
        };
        for isolation_level in [0, 1] {
            let cache = Cache::builder(TcpTransport::new(TcpSettings::default()))
                .size_limit_bytes(CACHE_BYTES)
                .build();
            let request = |first, second| FetchRequest {
                max_wait_ms: 100,
                min_bytes: 1,
                max_bytes: 1 << 20,
                isolation_level,
                topics: vec![FetchTopic {
                    topic: by.clone(),
                    partitions: vec![
                        FetchPartition::new(0, first, 1 << 20),
                        FetchPartition::new(1, second, 1 << 20),
                    ],
                    unknown_tags: TaggedFields::default(),
                }],
                ..FetchRequest::default()
            };
            for (first, second) in [(0, 45), (0, 45), (30, 0), (89, 89), (60, 30)] {
                let request = request(first, second);
                let direct = fetch(&tcp, &address, version, &request).await?;
                let before = cache.statistics();
                let through = fetch(&cache, &address, version, &request).await?;
                if cache.statistics().upstream_fetches > before.upstream_fetches {
                    // What came by name is kept once the name was asked for again.
                    timeout(Duration::from_secs(5), async {
                        while cache.statistics().inserts == before.inserts {
                            sleep(Duration::from_millis(2)).await;
                        }
                    })
                    .await?;
                }
                assert_eq!(
                    comparable(&through),
                    comparable(&direct),
                    "v{version}, isolation {isolation_level}, {first} and {second}"
                );
            }
            let statistics = cache.statistics();
            // The first fetch misses twice; the third misses partition 1 below 30.
            assert_eq!(statistics.upstream_fetches, 2, "v{version}: {statistics:?}");
            assert_eq!(
                (statistics.lookups, statistics.hits),
                (10, 7),
                "v{version}: {statistics:?}"
            );
            ensure!(statistics.errors == 0, "v{version}: {statistics:?}");
        }
    }
    Ok(())
}
