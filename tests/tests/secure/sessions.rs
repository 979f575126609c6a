//! Sessions that the broker bounds (KIP-368).

use core::time::Duration;

use anyhow::Result;
use kachet::cluster::describe;
use kachet::core::wire::{TopicRef, WireStr};
use kachet::transport::{BrokerAddress, TcpSettings, TcpTransport};
use kachet_tests::records;
use kachet_tests::secure::SecureKafka;
use tokio::time::{Instant, sleep};

use super::relay::Relay;
use super::{RECORDS, SEED, TOPIC, alice, client, kafka, login};

const READING: Duration = Duration::from_secs(10);

#[tokio::test]
async fn connections_are_replaced_before_the_broker_ends_them() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    let relay = Relay::start(&kafka.bootstrap(SecureKafka::SHORT)).await?;
    let [_, scram, _] = alice();
    let transport = TcpTransport::new(TcpSettings {
        security: login(scram),
        ..TcpSettings::default()
    });
    let broker: BrokerAddress = relay.address().parse()?;
    let topic = [TopicRef::Name(WireStr::from_static(TOPIC))];
    let end = Instant::now() + READING;
    while Instant::now() < end {
        describe(&transport, &broker, &topic).await?;
        sleep(Duration::from_millis(3)).await;
    }
    assert_eq!(relay.ended_by_broker(), 0);
    // Each lives for 2.1 s at least and for 2.4 s at most.
    assert!((5..=6).contains(&relay.accepted()), "{}", relay.accepted());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_across_many_sessions_fails_no_request() -> Result<()> {
    let Some(kafka) = kafka() else { return Ok(()) };
    let [plain, ..] = alice();
    let client = client(&kafka.bootstrap(SecureKafka::SHORT), login(plain), 0)?;
    let end = Instant::now() + READING;
    let reader = async |mut index: u32| -> Result<u32> {
        let mut read = 0;
        while Instant::now() < end {
            let record = client.record(TOPIC, 0, index.into()).await?;
            let value = record.and_then(|record| record.value);
            assert_eq!(value.as_deref(), Some(records::value(SEED, index).as_bytes()));
            index = (index + 7) % RECORDS;
            read += 1;
            sleep(Duration::from_millis(2)).await;
        }
        Ok(read)
    };
    let (a, b, c) = tokio::join!(reader(0), reader(1), reader(2));
    let read = a? + b? + c?;
    assert!(read > 1_000, "{read}");
    Ok(())
}
