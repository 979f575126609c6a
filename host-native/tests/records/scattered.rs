//! Many offsets at once: order, errors of their own, and how many fetches they take.

use anyhow::Result;
use kachet::client::{ClientError, Record, RecordPlace};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};

use super::{TOPIC, append, broker_with, direct_client};

fn offset(found: &Result<Option<Record>, ClientError>) -> Option<i64> {
    found
        .as_ref()
        .ok()
        .and_then(|found| found.as_ref().map(|record| record.offset))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_of_one_batch_take_one_fetch_and_are_answered_as_asked() -> Result<()> {
    let broker = broker_with(5).await?;
    let client = direct_client(&broker, 1 << 20)?;
    let asked = [27, 20, 29, 20, 23, 21, 22, 24, 25, 26, 28];
    let found = client.scattered(TOPIC, 0, &asked).await;
    assert_eq!(
        found.iter().map(offset).collect::<Vec<_>>(),
        asked.map(Some).to_vec()
    );
    assert_eq!(broker.requests().fetch, 1);
    assert!(client.scattered(TOPIC, 0, &[]).await.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_batch_is_fetched_twice_and_neighbours_share_a_fetch() -> Result<()> {
    let broker = broker_with(200).await?;
    let client = direct_client(&broker, 1 << 20)?;
    // Every hundredth record: twenty batches, one by one.
    let asked: Vec<i64> = (0..20).rev().map(|step| step * 100).collect();
    let found = client.scattered(TOPIC, 0, &asked).await;
    assert_eq!(
        found.iter().map(offset).collect::<Vec<_>>(),
        asked.iter().copied().map(Some).collect::<Vec<_>>()
    );
    assert_eq!(broker.requests().fetch, 20);
    // Every record of fifty batches: one, then the others in pages.
    let asked: Vec<i64> = (500..1_000).collect();
    let found = client.scattered(TOPIC, 0, &asked).await;
    assert!(
        found
            .iter()
            .zip(&asked)
            .all(|(found, asked)| offset(found) == Some(*asked))
    );
    assert!(
        broker.requests().fetch < 20 + 8,
        "{} fetches",
        broker.requests().fetch
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_of_a_leader_share_requests() -> Result<()> {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    broker.create_topic(TOPIC, 12)?;
    for partition in 0..12 {
        append(&broker, partition, 3)?;
    }
    let client = direct_client(&broker, 1 << 20)?;
    let place = |partition| RecordPlace {
        topic: TOPIC.into(),
        partition,
        offset: 10 + i64::from(partition),
    };
    let asked: Vec<_> = (0..12).rev().map(place).collect();
    let found = client.scattered_places(&asked).await;
    let expected: Vec<_> = asked.iter().map(|place| Some(place.offset)).collect();
    assert_eq!(found.iter().map(offset).collect::<Vec<_>>(), expected);
    assert_eq!(broker.requests().fetch, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_do_not_fit_into_a_shared_request_come_by_themselves() -> Result<()> {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    broker.create_topic(TOPIC, 3)?;
    for partition in 0..3 {
        append(&broker, partition, 2)?;
    }
    let client = direct_client(&broker, 1)?;
    let place = |partition| RecordPlace {
        topic: TOPIC.into(),
        partition,
        offset: 15,
    };
    let asked: Vec<_> = (0..3).map(place).collect();
    let found = client.scattered_places(&asked).await;
    assert_eq!(found.iter().map(offset).collect::<Vec<_>>(), [Some(15); 3]);
    assert_eq!(broker.requests().fetch, 3, "one of three, and two");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_that_fails_spoils_no_other() -> Result<()> {
    let broker = broker_with(4).await?;
    broker.truncate_before(TOPIC, 0, 12)?;
    let client = direct_client(&broker, 1 << 20)?;
    let places = [
        (TOPIC, 0, 5),
        (TOPIC, 0, 15),
        ("absent", 0, 1),
        (TOPIC, 7, 1),
        (TOPIC, 0, 40),
    ];
    let places = places.map(|(topic, partition, offset)| RecordPlace {
        topic: topic.into(),
        partition,
        offset,
    });
    let found = client.scattered_places(&places).await;
    assert!(
        matches!(
            found.as_slice(),
            [
                Err(ClientError::OffsetOutOfRange {
                    offset: 5,
                    log_start_offset: 12,
                    ..
                }),
                Ok(Some(Record { offset: 15, .. })),
                Err(ClientError::UnknownTopic { .. }),
                Err(ClientError::UnknownPartition { .. }),
                Err(ClientError::OffsetOutOfRange {
                    offset: 40,
                    high_watermark: 40,
                    ..
                })
            ]
        ),
        "{found:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_moves_is_found_again() -> Result<()> {
    let broker = broker_with(4).await?;
    let client = direct_client(&broker, 1 << 20)?;
    assert_eq!(offset(&client.scattered(TOPIC, 0, &[3]).await[0]), Some(3));
    broker.delete_topic(TOPIC)?;
    broker.create_topic(TOPIC, 1)?;
    append(&broker, 0, 4)?;
    let found = client.scattered(TOPIC, 0, &[33, 2]).await;
    assert_eq!(found.iter().map(offset).collect::<Vec<_>>(), [Some(33), Some(2)]);
    Ok(())
}
