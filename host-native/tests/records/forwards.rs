//! Forwards: ends, reading ahead, and what is not fetched.

use core::time::Duration;

use anyhow::Result;
use futures_util::{StreamExt, TryStreamExt};
use kachet::client::ClientError;
use tokio::time::{sleep, timeout};

use super::{TOPIC, append, broker_with, direct_client, offsets};

/// One batch of ten events a page, because they are larger than this.
const ONE_BATCH: usize = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_up_to_the_end_comes_once_and_in_order() -> Result<()> {
    let broker = broker_with(5).await?;
    let client = direct_client(&broker, ONE_BATCH)?;
    let records: Vec<_> = client.records_from(TOPIC, 0, 13).try_collect().await?;
    assert_eq!(offsets(&records), (13..50).collect::<Vec<_>>());
    assert_eq!(broker.requests().fetch, 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_is_where_the_log_ended_when_the_first_answer_came() -> Result<()> {
    let broker = broker_with(2).await?;
    let client = direct_client(&broker, ONE_BATCH)?;
    let mut records = client.records_from(TOPIC, 0, 0);
    assert!(records.try_next().await?.is_some());
    append(&broker, 0, 1)?;
    let rest: Vec<_> = records.try_collect().await?;
    assert_eq!(offsets(&rest), (1..20).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_given_end_may_lie_inside_of_a_batch() -> Result<()> {
    let broker = broker_with(3).await?;
    let client = direct_client(&broker, ONE_BATCH)?;
    for (end, fetches) in [(7, 1), (10, 1), (11, 2), (1_000, 4)] {
        let before = broker.requests().fetch;
        let records: Vec<_> = client.records_from(TOPIC, 0, 0).until(end).try_collect().await?;
        assert_eq!(offsets(&records), (0..end.min(30)).collect::<Vec<_>>());
        assert_eq!(broker.requests().fetch - before, fetches, "until {end}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_follows_gives_what_is_written_later() -> Result<()> {
    let broker = broker_with(1).await?;
    let client = direct_client(&broker, 1 << 20)?;
    let mut records = client.records_from(TOPIC, 0, 8).following();
    assert_eq!(records.try_next().await?.map(|record| record.offset), Some(8));
    assert_eq!(records.try_next().await?.map(|record| record.offset), Some(9));
    // Longer than a broker waits for data.
    assert!(timeout(Duration::from_millis(800), records.next()).await.is_err());
    append(&broker, 0, 1)?;
    let next = timeout(Duration::from_secs(5), records.try_next()).await??;
    assert_eq!(next.map(|record| record.offset), Some(10));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_fetched_before_it_is_wanted_unless_reading_ahead_is_on() -> Result<()> {
    let broker = broker_with(5).await?;
    let client = direct_client(&broker, ONE_BATCH)?;
    let unpolled = client.records_from(TOPIC, 0, 0);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(broker.requests().fetch, 0, "an unpolled stream fetches nothing");
    drop(unpolled);
    for (read_ahead_bytes, fetches) in [(0, 1), (1 << 20, 2)] {
        let before = broker.requests().fetch;
        let mut records = client
            .records_from(TOPIC, 0, 0)
            .read_ahead_bytes(read_ahead_bytes);
        for _ in 0..5 {
            assert!(records.try_next().await?.is_some());
            sleep(Duration::from_millis(30)).await;
        }
        assert_eq!(
            broker.requests().fetch - before,
            fetches,
            "one page, and one ahead at most"
        );
        drop(records);
        sleep(Duration::from_millis(50)).await;
        assert_eq!(broker.requests().fetch - before, fetches);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_ahead_gives_the_same_records() -> Result<()> {
    let broker = broker_with(7).await?;
    let client = direct_client(&broker, 1 << 20)?;
    for read_ahead_bytes in [1, 9_000, 1 << 20] {
        let stream = client
            .records_from(TOPIC, 0, 5)
            .read_ahead_bytes(read_ahead_bytes);
        let records: Vec<_> = stream.try_collect().await?;
        assert_eq!(
            offsets(&records),
            (5..70).collect::<Vec<_>>(),
            "{read_ahead_bytes}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_after_an_error() -> Result<()> {
    let broker = broker_with(3).await?;
    broker.truncate_before(TOPIC, 0, 15)?;
    let client = direct_client(&broker, ONE_BATCH)?;
    let mut gone = client.records_from(TOPIC, 0, 3);
    let error = gone.next().await;
    assert!(
        matches!(
            error,
            Some(Err(ClientError::OffsetOutOfRange {
                log_start_offset: 15,
                ..
            }))
        ),
        "{error:?}"
    );
    assert!(gone.next().await.is_none());
    Ok(())
}
