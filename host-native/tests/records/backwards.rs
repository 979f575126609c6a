//! Backwards: where it begins and ends, and how much it fetches.

use anyhow::Result;
use futures_util::{StreamExt, TryStreamExt};

use super::{TOPIC, broker_with, direct_client, marker, offsets};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_comes_once_from_the_newest_to_the_oldest() -> Result<()> {
    let broker = broker_with(9).await?;
    for fetch_max_bytes in [1, 20_000, 1 << 20] {
        let client = direct_client(&broker, fetch_max_bytes)?;
        for (from, newest) in [(i64::MAX, 89), (90, 89), (89, 89), (42, 42), (0, 0)] {
            let records: Vec<_> = client.records_back(TOPIC, 0, from).try_collect().await?;
            let expected: Vec<i64> = (0..=newest).rev().collect();
            assert_eq!(offsets(&records), expected, "{fetch_max_bytes} from {from}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_at_the_log_start_inside_of_a_batch_and_gives_nothing_below_it() -> Result<()> {
    let broker = broker_with(4).await?;
    broker.truncate_before(TOPIC, 0, 13)?;
    let client = direct_client(&broker, 1 << 20)?;
    let records: Vec<_> = client.records_back(TOPIC, 0, 33).try_collect().await?;
    assert_eq!(offsets(&records), (13..=33).rev().collect::<Vec<_>>());
    for below in [12, 5, 0, -1, i64::MIN] {
        let records: Vec<_> = client.records_back(TOPIC, 0, below).try_collect().await?;
        assert_eq!(offsets(&records), Vec::<i64>::new(), "from {below}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_removes_meanwhile_ends_it() -> Result<()> {
    let broker = broker_with(6).await?;
    let client = direct_client(&broker, 1)?;
    let mut records = client.records_back(TOPIC, 0, i64::MAX);
    assert_eq!(records.try_next().await?.map(|record| record.offset), Some(59));
    broker.truncate_before(TOPIC, 0, 47)?;
    let rest: Vec<_> = records.try_collect().await?;
    // The batch from 50 on is in memory, the one from 40 on is read after the start has moved.
    assert_eq!(offsets(&rest), (47..59).rev().collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wide_gaps_are_stepped_over_in_few_fetches() -> Result<()> {
    let broker = broker_with(2).await?;
    broker.skip_offsets(TOPIC, 0, 1_000_000)?;
    broker.append(TOPIC, 0, marker()?)?;
    super::append(&broker, 0, 2)?;
    let client = direct_client(&broker, 1 << 20)?;
    let records: Vec<_> = client.records_back(TOPIC, 0, i64::MAX).try_collect().await?;
    let newest = 1_000_021;
    let expected: Vec<i64> = (newest..newest + 20).rev().chain((0..20).rev()).collect();
    assert_eq!(offsets(&records), expected);
    assert!(
        broker.requests().fetch < 30,
        "{} fetches",
        broker.requests().fetch
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_record_costs_one_fetch_of_one_batch() -> Result<()> {
    let broker = broker_with(20).await?;
    let client = direct_client(&broker, 1 << 20)?;
    let mut records = client.records_back(TOPIC, 0, 95);
    assert_eq!(broker.requests().fetch, 0, "an unpolled stream fetches nothing");
    assert_eq!(records.try_next().await?.map(|record| record.offset), Some(95));
    let seen = broker.requests();
    assert_eq!(seen.fetch, 1);
    assert!(seen.bytes_sent < 20_000, "{} bytes", seen.bytes_sent);
    for _ in 0..5 {
        assert!(records.next().await.is_some());
    }
    assert_eq!(broker.requests().fetch, 1);
    Ok(())
}
