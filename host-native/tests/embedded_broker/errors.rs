//! What a Fetch is refused with, and what a client is told of truncations.

use kachet::demo::broker::LogError;
use kachet::demo::records::{Events, Packing, pack};
use kachet_core::wire::{FetchPartition, FetchRequest, TopicId, TopicRef};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::connection::{Connection, broker, bytes_of, from, named, of};

#[tokio::test]
async fn errors_have_the_shape_of_kafka_and_unknown_partitions_come_last() {
    let (broker, id, held) = broker().await;
    broker.truncate_before("orders", 0, 7).unwrap();
    let epoch = broker.elect_leader("orders", 0).unwrap();
    let mut connection = Connection::to(&broker).await;
    for (offset, epoch, expected) in [
        (6, -1, 1),
        (51, -1, 1),
        (-1, -1, 1),
        (7, epoch - 1, 74),
        (7, epoch + 1, 75),
        (7, epoch, 0),
    ] {
        let mut request = from(id, offset);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        request.isolation_level = 1;
        let response = connection.fetch(16, &request).await;
        let data = &response.topics[0].partitions[0];
        assert_eq!(data.error_code, expected, "offset {offset}, epoch {epoch}");
        if expected == 0 {
            // The log start lies inside the batch, which is served all the same.
            assert_eq!(
                (data.log_start_offset, bytes_of(data)),
                (7, held[1..].concat().into())
            );
            continue;
        }
        assert_eq!(
            (
                data.high_watermark,
                data.last_stable_offset,
                data.log_start_offset
            ),
            (-1, -1, -1)
        );
        assert_eq!((bytes_of(data).len(), &data.aborted_transactions), (0, &None));
        let leader = data
            .current_leader
            .as_ref()
            .map(|leader| (leader.leader_id, leader.leader_epoch));
        assert_eq!(leader, (expected == 74).then_some((1, 1)));
        let ports: Vec<i32> = response.node_endpoints.iter().map(|node| node.port).collect();
        assert_eq!(
            ports,
            if expected == 74 {
                vec![i32::from(broker.address().port)]
            } else {
                vec![]
            }
        );
    }

    let mut request = of(
        TopicRef::Id(TopicId([9; 16])),
        vec![FetchPartition::new(0, 0, 100)],
    );
    let known = [5, 0, 0].into_iter().zip([0, 20, 45]);
    let known = known
        .map(|(index, offset)| FetchPartition::new(index, offset, i32::MAX))
        .collect();
    request.topics.extend(of(TopicRef::Id(id), known).topics);
    let answered = connection.read(&request).await;
    let codes: Vec<_> = answered
        .iter()
        .map(|data| (data.partition_index, data.error_code))
        .collect();
    assert_eq!(codes, [(0, 0), (0, 100), (5, 3)]);
    // Named twice, answered once, with the values of the last mention.
    assert_eq!(bytes_of(&answered[0]), held[9]);
    assert!(
        answered[1..]
            .iter()
            .all(|data| data.aborted_transactions == Some(Vec::new()))
    );
    let request = of(named("nobody"), vec![FetchPartition::new(0, 0, 100)]);
    assert_eq!(
        connection.fetch(12, &request).await.topics[0].partitions[0].error_code,
        3
    );
}

#[tokio::test]
async fn sessions_bad_isolation_levels_and_negative_limits_are_refused() {
    let (broker, id, held) = broker().await;
    let mut connection = Connection::to(&broker).await;
    let session = |session_id, session_epoch| FetchRequest {
        session_id,
        session_epoch,
        ..from(id, 45)
    };
    for (request, expected) in [
        (session(0, -1), 0),
        (session(0, 0), 0),
        (session(4, 0), 0),
        (session(4, -1), 0),
        (session(0, 1), 70),
        (session(4, 1), 70),
        (
            FetchRequest {
                isolation_level: 2,
                ..from(id, 45)
            },
            -1,
        ),
    ] {
        let response = connection.fetch(18, &request).await;
        assert_eq!(
            (response.error_code, response.session_id),
            (expected, 0),
            "{request:?}"
        );
        let records = response.partitions().map(|(_, data)| bytes_of(data)).next();
        assert_eq!(records, (expected == 0).then(|| held[9].clone()));
    }
    let by_name = of(named("orders"), vec![FetchPartition::new(0, 0, 100)]);
    let response = connection
        .fetch(
            4,
            &FetchRequest {
                isolation_level: 2,
                ..by_name
            },
        )
        .await;
    assert_eq!(response.topics[0].partitions[0].error_code, -1);
    for request in [
        of(TopicRef::Id(id), vec![FetchPartition::new(0, 0, -1)]),
        FetchRequest {
            max_bytes: -1,
            ..from(id, 0)
        },
    ] {
        assert_eq!(connection.read(&request).await[0].error_code, -1);
    }
}

#[tokio::test]
async fn the_last_fetched_epoch_shows_what_was_truncated() {
    let (broker, id, _) = broker().await;
    // Epoch 0 loses the batch of 30 to 34 and what follows; epoch 1 starts at 30.
    assert_eq!(broker.elect_unclean_leader("orders", 0, 33).unwrap(), 1);
    broker
        .append(
            "orders",
            0,
            pack(&Events::new(3).take(9).collect::<Vec<_>>(), Packing::Plain).unwrap(),
        )
        .unwrap();
    let mut connection = Connection::to(&broker).await;
    for (offset, epoch, expected) in [
        (30, 0, None),
        (31, 0, Some((0, 30))),
        (35, 1, None),
        (40, 1, Some((1, 39))),
    ] {
        let mut request = from(id, offset);
        request.topics[0].partitions[0].last_fetched_epoch = epoch;
        let data = &connection.read(&request).await[0];
        let diverging = data
            .diverging_epoch
            .as_ref()
            .map(|end| (end.epoch, end.end_offset));
        assert_eq!(
            (data.error_code, data.high_watermark, diverging),
            (0, 39, expected),
            "offset {offset}"
        );
        assert_eq!(bytes_of(data).is_empty(), expected.is_some());
    }
    let mut request = from(id, 30);
    request.topics[0].partitions[0].last_fetched_epoch = 2;
    assert_eq!(connection.read(&request).await[0].error_code, 1);

    let partition = |epoch| {
        OffsetForLeaderPartition::default()
            .with_partition(0)
            .with_leader_epoch(epoch)
    };
    let topic = OffsetForLeaderTopic::default()
        .with_topic(TopicName(StrBytes::from_static_str("orders")))
        .with_partitions(vec![partition(0), partition(1), partition(2)]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    for version in 2..=4 {
        let response = connection.call(version, &request).await;
        let ends = response.topics[0].partitions.iter();
        let ends: Vec<_> = ends
            .map(|end| (end.error_code, end.leader_epoch, end.end_offset))
            .collect();
        assert_eq!(ends, [(0, 0, 30), (0, 1, 39), (0, -1, -1)], "v{version}");
    }
}

#[tokio::test]
async fn a_topic_that_is_created_again_has_another_id() {
    let (broker, old, _) = broker().await;
    broker.delete_topic("orders").unwrap();
    let new = broker.create_topic("orders", 2).unwrap();
    assert_ne!(old, new);
    assert_eq!(
        broker.create_topic("orders", 2),
        Err(LogError::TopicExists {
            name: "orders".into()
        })
    );
    let mut connection = Connection::to(&broker).await;
    assert_eq!(connection.read(&from(old, 0)).await[0].error_code, 100);
    let data = &connection.read(&from(new, 0)).await[0];
    assert_eq!((data.error_code, data.high_watermark), (0, 0));
}
