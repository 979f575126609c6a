//! The last records, and the first one of a time.

use anyhow::Result;

use super::{TOPIC, append, batch_of_times, broker_with, cached_client, direct_client, marker, offsets};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_records_are_counted_without_gaps_and_markers() -> Result<()> {
    let broker = broker_with(2).await?;
    broker.append(TOPIC, 0, marker()?)?;
    broker.skip_offsets(TOPIC, 0, 5_000)?;
    append(&broker, 0, 1)?;
    broker.append(TOPIC, 0, marker()?)?;
    let client = direct_client(&broker, 1 << 20)?;
    let mut all: Vec<i64> = (0..20).collect();
    all.extend(5_021..5_031);
    for count in [0, 1, 10, 11, 29, 30, 31, usize::MAX] {
        let last = client.last(TOPIC, 0, count).await?;
        assert_eq!(
            offsets(&last),
            all[all.len().saturating_sub(count)..],
            "last {count}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_record_is_the_newest_though_the_cache_knows_an_older_end() -> Result<()> {
    let broker = broker_with(1).await?;
    let client = cached_client(&broker)?;
    assert_eq!(offsets(&client.last(TOPIC, 0, 1).await?), [9]);
    append(&broker, 0, 1)?;
    assert_eq!(offsets(&client.last(TOPIC, 0, 1).await?), [19]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_partition_has_no_last_record() -> Result<()> {
    let broker = broker_with(0).await?;
    let client = direct_client(&broker, 1 << 20)?;
    assert_eq!(client.last(TOPIC, 0, 3).await?, []);
    append(&broker, 0, 1)?;
    broker.truncate_before(TOPIC, 0, 10)?;
    assert_eq!(client.last(TOPIC, 0, 3).await?, []);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_record_of_a_time_is_late_enough_itself() -> Result<()> {
    let broker = broker_with(0).await?;
    for times in [&[100, 200][..], &[300, 50, 400], &[60, 70], &[500]] {
        broker.append(TOPIC, 0, batch_of_times(times)?)?;
    }
    let client = direct_client(&broker, 1)?;
    for (since, offset) in [
        (-5, Some(0)),
        (0, Some(0)),
        (100, Some(0)),
        (101, Some(1)),
        (201, Some(2)),
        (301, Some(4)),
        (401, Some(7)),
        (500, Some(7)),
        (501, None),
        (i64::MAX, None),
    ] {
        let found = client.first_since(TOPIC, 0, since).await?;
        assert_eq!(found.map(|record| record.offset), offset, "since {since}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_marker_stands_at_the_time_the_next_record_late_enough_is_found() -> Result<()> {
    let broker = broker_with(0).await?;
    broker.append(TOPIC, 0, batch_of_times(&[0])?)?;
    // Its time is 1.
    broker.append(TOPIC, 0, marker()?)?;
    broker.append(TOPIC, 0, batch_of_times(&[0])?)?;
    broker.append(TOPIC, 0, batch_of_times(&[0, 5])?)?;
    let client = direct_client(&broker, 1)?;
    let found = client.first_since(TOPIC, 0, 1).await?;
    assert_eq!(found.map(|record| record.offset), Some(4));
    Ok(())
}
