//! On random logs all ways to read give the same records.

use anyhow::{Result, ensure};
use futures_util::TryStreamExt;
use kachet::client::{Client, ClientError};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::transport::{TcpTransport, Transport};
use proptest::prelude::*;

use super::{TOPIC, batch_of_times, cached_client, direct_client, marker, offsets};

/// What is appended to a log.
#[derive(Clone, Debug)]
enum Step {
    Batch(u8),
    Marker,
    Gap(u16),
}

#[derive(Clone, Debug)]
struct Case {
    steps: Vec<Step>,
    /// Where the log starts, as a share of it.
    start: f64,
    fetch_max_bytes: usize,
    read_ahead_bytes: usize,
    /// Where reads begin, as shares of the log.
    places: Vec<f64>,
}

fn cases() -> impl Strategy<Value = Case> {
    let step = prop_oneof![
        4 => (1..12_u8).prop_map(Step::Batch),
        1 => Just(Step::Marker),
        1 => prop_oneof![1..4_u16, 1..2_000_u16].prop_map(Step::Gap),
    ];
    let limit = prop_oneof![Just(1_usize), 100..2_000_usize, Just(1 << 20)];
    let ahead = prop_oneof![Just(0_usize), 1..3_000_usize];
    let start = prop_oneof![Just(0.0), 0.0..1.0_f64];
    let places = proptest::collection::vec(-0.1..1.1_f64, 1..40);
    let steps = proptest::collection::vec(step, 0..40);
    (steps, start, limit, ahead, places).prop_map(
        |(steps, start, fetch_max_bytes, read_ahead_bytes, places)| Case {
            steps,
            start,
            fetch_max_bytes,
            read_ahead_bytes,
            places,
        },
    )
}

/// The log as a reader should see it.
struct Log {
    start: i64,
    end: i64,
    visible: Vec<i64>,
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn share(log_end: i64, share: f64) -> i64 {
    (log_end as f64 * share) as i64
}

fn write(broker: &EmbeddedBroker, case: &Case) -> Result<Log> {
    let (mut end, mut visible) = (0, Vec::new());
    // No log ends in a gap: the cleaner leaves its newest batch alone.
    for step in case.steps.iter().chain([&Step::Batch(1)]) {
        match step {
            Step::Batch(count) => {
                let times: Vec<i64> = (0..i64::from(*count)).map(|index| end + index).collect();
                broker.append(TOPIC, 0, batch_of_times(&times)?)?;
                visible.extend(&times);
                end += i64::from(*count);
            }
            Step::Marker => {
                broker.append(TOPIC, 0, marker()?)?;
                end += 1;
            }
            Step::Gap(count) => {
                broker.skip_offsets(TOPIC, 0, (*count).into())?;
                end += i64::from(*count);
            }
        }
    }
    let start = share(end, case.start);
    broker.truncate_before(TOPIC, 0, start)?;
    visible.retain(|offset| *offset >= start);
    Ok(Log { start, end, visible })
}

async fn check<T: Transport>(client: &Client<T>, log: &Log, case: &Case) -> Result<()> {
    let places: Vec<i64> = case.places.iter().map(|place| share(log.end, *place)).collect();
    for from in &places {
        let inside = (*from).clamp(log.start, log.end);
        let forwards = client
            .records_from(TOPIC, 0, inside)
            .read_ahead_bytes(case.read_ahead_bytes);
        let forwards: Vec<_> = forwards.try_collect().await?;
        let expected: Vec<i64> = log
            .visible
            .iter()
            .copied()
            .filter(|offset| *offset >= inside)
            .collect();
        ensure!(
            offsets(&forwards) == expected,
            "forwards from {inside}: {forwards:?}"
        );

        let backwards: Vec<_> = client.records_back(TOPIC, 0, *from).try_collect().await?;
        let expected: Vec<i64> = log
            .visible
            .iter()
            .rev()
            .copied()
            .filter(|offset| offset <= from)
            .collect();
        ensure!(
            offsets(&backwards) == expected,
            "backwards from {from}: {:?}",
            offsets(&backwards)
        );
    }
    let count = places.len();
    let last = client.last(TOPIC, 0, count).await?;
    let expected = &log.visible[log.visible.len().saturating_sub(count)..];
    ensure!(offsets(&last) == expected, "last {count}: {:?}", offsets(&last));
    check_scattered(client, log, &places).await
}

async fn check_scattered<T: Transport>(client: &Client<T>, log: &Log, places: &[i64]) -> Result<()> {
    let found = client.scattered(TOPIC, 0, places).await;
    ensure!(found.len() == places.len(), "{} of {}", found.len(), places.len());
    for (asked, found) in places.iter().zip(found) {
        let is_held = (log.start..log.end).contains(asked);
        let is_right = match &found {
            Ok(Some(record)) => record.offset == *asked && log.visible.contains(asked),
            Ok(None) => is_held && !log.visible.contains(asked),
            Err(ClientError::OffsetOutOfRange { offset, .. }) => !is_held && offset == asked,
            Err(_) => false,
        };
        ensure!(is_right, "at {asked}: {found:?}");
    }
    Ok(())
}

async fn run(case: &Case) -> Result<()> {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    broker.create_topic(TOPIC, 1)?;
    let log = write(&broker, case)?;
    let direct: Client<TcpTransport> = direct_client(&broker, case.fetch_max_bytes)?;
    check(&direct, &log, case).await?;
    check(&cached_client(&broker)?, &log, case).await
}

/// So many, or what `PROPTEST_CASES` says, for long runs.
fn case_count() -> u32 {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    wanted.and_then(|cases| cases.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: case_count(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_way_to_read_a_log_gives_the_same_records(case in cases()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let outcome = runtime.block_on(run(&case));
        prop_assert!(outcome.is_ok(), "{:?}", outcome);
    }
}
