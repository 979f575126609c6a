//! Two brokers, each with a log of its own behind it.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use kachet_core::wire::{FetchPartition, WireStr};
use tokio::time::sleep;

use super::*;
use crate::transport::ApiVersions;
use crate::transport::{Request, Response};

const BATCH_BYTES: usize = 100;
/// What a broker gives at the end of its log.
const END: i64 = 10;

/// Broker 1 leads the partitions 0 and 2, broker 2 the partitions 1 and 3; one that is down answers nobody.
struct Cluster {
    down: Option<u16>,
}

fn broker(port: u16) -> BrokerAddress {
    BrokerAddress {
        host: "broker".into(),
        port,
    }
}

impl Transport for Cluster {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        let Request::Fetch { request, .. } = request else {
            panic!("only fetches are asked for")
        };
        if self.down == Some(broker.port) {
            return Err(TransportError::Closed {
                broker: broker.clone(),
            });
        }
        let has_any = request
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .any(|asked| asked.fetch_offset < END);
        if !has_any {
            sleep(Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap())).await;
        }
        let data = |asked: &FetchPartition| {
            assert_eq!(
                u16::try_from(asked.partition % 2 + 1).unwrap(),
                broker.port,
                "asked of the wrong broker"
            );
            let mut data = PartitionData::error(asked.partition, 0);
            let size = if asked.fetch_offset < END { BATCH_BYTES } else { 0 };
            data.records = Some(Bytes::from(vec![7; size]).into());
            data
        };
        let topics = request.topics.iter().map(|topic| FetchableTopic {
            topic: topic.topic.clone(),
            partitions: topic.partitions.iter().map(data).collect(),
            unknown_tags: TaggedFields::default(),
        });
        Ok(Response::Fetch(FetchResponse {
            topics: topics.collect(),
            ..FetchResponse::default()
        }))
    }

    async fn api_versions(&self, broker: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        Err(TransportError::Closed {
            broker: broker.clone(),
        })
    }
}

fn topic() -> TopicRef {
    TopicRef::Name(WireStr::from_static("orders"))
}

fn leaders() -> Leaders {
    let leaders = Leaders::new(vec![broker(1)]);
    let led = (0..4).map(|index| (index, broker(u16::try_from(index % 2 + 1).unwrap())));
    leaders.known().topics.insert(topic(), led.collect());
    leaders
}

fn request(partitions: &[(i32, i64)]) -> FetchRequest {
    let asked = partitions
        .iter()
        .map(|(index, offset)| FetchPartition::new(*index, *offset, 1 << 20));
    FetchRequest {
        max_wait_ms: 5_000,
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic: topic(),
            partitions: asked.collect(),
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    }
}

/// Partition, error and bytes of each.
async fn fetched(cluster: &Cluster, request: FetchRequest) -> Vec<(i32, i16, usize)> {
    let parts = leaders().split(&request).unwrap();
    let response = ask(cluster, 11, parts, &request).await.unwrap();
    let of = |data: &PartitionData| (data.partition_index, data.error_code, data.records_size_bytes());
    response.partitions().map(|(_, data)| of(data)).collect()
}

#[tokio::test]
async fn partitions_come_in_the_order_of_the_request_and_within_its_limit() {
    let cluster = Cluster { down: None };
    let all = request(&[(3, 0), (0, 0), (1, 10), (2, 0)]);
    let whole = [(3, 0, 100), (0, 0, 100), (1, 0, 0), (2, 0, 100)];
    assert_eq!(fetched(&cluster, all.clone()).await, whole);
    for (max_bytes, sizes) in [
        (0, [100, 0, 0, 0]),
        (150, [100, 0, 0, 0]),
        (200, [100, 100, 0, 0]),
    ] {
        let limited = FetchRequest {
            max_bytes,
            ..all.clone()
        };
        let read = fetched(&cluster, limited).await;
        let read: Vec<usize> = read.iter().map(|(_, _, size_bytes)| *size_bytes).collect();
        assert_eq!(read, sizes, "{max_bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_at_its_end_holds_nobody_back_and_where_all_are_it_is_waited() {
    let cluster = Cluster { down: None };
    let begun = tokio::time::Instant::now();
    let read = fetched(&cluster, request(&[(0, 10), (1, 0)])).await;
    assert_eq!(read, [(0, 0, 0), (1, 0, 100)]);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let read = fetched(&cluster, request(&[(0, 10), (1, 10)])).await;
    assert_eq!(read, [(0, 0, 0), (1, 0, 0)]);
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
}

#[tokio::test]
async fn a_leader_that_is_down_costs_its_own_partitions_only() {
    let begun = Instant::now();
    let cluster = Cluster { down: Some(2) };
    let read = fetched(&cluster, request(&[(1, 0), (0, 0), (3, 0)])).await;
    assert_eq!(read, [(1, 5, 0), (0, 0, 100), (3, 5, 0)]);
    // An error is an answer; nobody waits for more.
    assert!(begun.elapsed() < Duration::from_secs(4));
    let parts = leaders().split(&request(&[(1, 0)])).unwrap();
    assert!(ask(&cluster, 11, parts, &request(&[(1, 0)])).await.is_err());
}
