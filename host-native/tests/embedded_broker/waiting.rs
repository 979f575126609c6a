//! Fetches that wait at the end of the log.

use core::time::Duration;
use std::time::Instant;

use kachet::demo::records::Events;
use kachet_core::wire::{FetchRequest, TopicId};

use crate::connection::{Connection, LONG, append, broker, bytes_of, from};

#[tokio::test]
async fn a_fetch_at_the_end_waits_for_its_time_and_wakes_when_records_come() {
    let (broker, id, _) = broker().await;
    let mut connection = Connection::to(&broker).await;
    let waiting = |max_wait_ms, min_bytes| FetchRequest {
        max_wait_ms,
        min_bytes,
        ..from(id, 50)
    };

    let started = Instant::now();
    assert!(bytes_of(&connection.read(&waiting(150, 1)).await[0]).is_empty());
    assert!(
        started.elapsed() >= Duration::from_millis(150),
        "{:?}",
        started.elapsed()
    );

    // None of these waits: nothing is to be waited for, or there is something to say at once.
    let long = i32::try_from(LONG.as_millis()).unwrap();
    let mut out_of_range = waiting(long, 1);
    out_of_range.topics[0].partitions[0].fetch_offset = 51;
    let mut behind = waiting(long, 1_000_000);
    behind.topics[0].partitions[0].fetch_offset = 0;
    behind.max_bytes = 10;
    let unknown = FetchRequest {
        max_wait_ms: long,
        min_bytes: 1,
        ..from(TopicId([9; 16]), 0)
    };
    for request in [waiting(0, 1), waiting(long, 0), out_of_range, behind, unknown] {
        let answered = tokio::time::timeout(LONG / 4, connection.read(&request)).await;
        assert!(answered.is_ok(), "waited: {request:?}");
    }

    let request = waiting(long, 1);
    let reader = tokio::spawn(async move { connection.read(&request).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!reader.is_finished());
    let batch = append(&broker, "orders", 0, &mut Events::new(9), 50);
    let answered = tokio::time::timeout(LONG / 4, reader)
        .await
        .expect("wakes")
        .unwrap();
    assert_eq!((answered[0].high_watermark, bytes_of(&answered[0])), (55, batch));
}

#[tokio::test]
async fn a_waiting_fetch_needs_min_bytes_and_learns_that_its_topic_is_gone() {
    let (broker, id, _) = broker().await;
    let mut connection = Connection::to(&broker).await;
    let long = i32::try_from(LONG.as_millis()).unwrap();
    let request = FetchRequest {
        max_wait_ms: long,
        min_bytes: 1_000_000,
        ..from(id, 50)
    };
    let reader = tokio::spawn(async move { connection.read(&request).await });
    append(&broker, "orders", 0, &mut Events::new(9), 50);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!reader.is_finished(), "one batch is less than MinBytes");
    broker.delete_topic("orders").unwrap();
    let answered = tokio::time::timeout(LONG / 4, reader)
        .await
        .expect("wakes")
        .unwrap();
    assert_eq!(answered[0].error_code, 100);
}
