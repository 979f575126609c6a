//! What the broker does not put up with.

use core::time::Duration;
use std::time::Instant;

use bytes::{BufMut, BytesMut};
use kachet::demo::broker::{BrokerSettings, LogError};
use kafka_protocol::messages::ApiKey;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::connection::{Connection, LONG, broker, broker_with, from};

#[tokio::test]
async fn garbage_closes_its_own_connection_and_no_other() {
    let (broker, id, _) = broker().await;
    let mut good = Connection::to(&broker).await;
    let frame = |api: ApiKey, version, body: &[u8]| {
        let mut header = BytesMut::new();
        header.put_i16(api as i16);
        header.put_i16(version);
        header.put_i32(1);
        header.put_i16(-1);
        header.put_slice(body);
        header
    };
    let half = i32::MAX.to_be_bytes();
    for (what, garbage) in [
        ("an API that is not answered", frame(ApiKey::Produce, 9, &[0])),
        ("a Fetch of an unknown version", frame(ApiKey::Fetch, 3, &[])),
        ("a Fetch that ends early", frame(ApiKey::Fetch, 4, &[0; 9])),
        ("two thousand million topics", frame(ApiKey::Metadata, 1, &half)),
        (
            "two thousand million resources",
            frame(ApiKey::DescribeConfigs, 1, &half),
        ),
        ("a header of three bytes", BytesMut::from(&[0; 3][..])),
        (
            "a header without an end",
            BytesMut::from(&frame(ApiKey::Metadata, 12, &[])[..9]),
        ),
    ] {
        assert_eq!(
            Connection::to(&broker).await.exchange(&garbage).await,
            None,
            "{what}"
        );
    }
    for size in [i32::MAX, -1, 1 << 21] {
        let mut connection = Connection::to(&broker).await;
        connection.stream.write_all(&size.to_be_bytes()).await.unwrap();
        assert_eq!(connection.receive().await, None, "a frame of {size} bytes");
    }
    assert_eq!(good.read(&from(id, 0)).await[0].error_code, 0);
}

#[tokio::test]
async fn the_settings_bound_connections_logs_and_speed() {
    let settings = BrokerSettings {
        connection_limit: 1,
        log_limit_bytes: 100_000,
        answer_delay: Duration::from_millis(60),
        ..BrokerSettings::default()
    };
    let (broker, id, held) = broker_with(settings, 1).await;
    let mut first = Connection::to(&broker).await;
    let started = Instant::now();
    first.read(&from(id, 0)).await;
    assert!(
        started.elapsed() >= Duration::from_millis(60),
        "{:?}",
        started.elapsed()
    );
    let mut second = Connection::to(&broker).await;
    let late = tokio::time::timeout(Duration::from_millis(300), second.read(&from(id, 0))).await;
    assert!(late.is_err(), "the second connection must wait");
    drop(first);
    assert!(
        tokio::time::timeout(LONG / 4, second.receive())
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(broker.requests().connections, 2);

    let mut appended = 10;
    while broker.append("orders", 0, held[0].clone()).is_ok() {
        appended += 1;
        assert!(appended < 1_000);
    }
    let full = Err(LogError::Full { limit_bytes: 100_000 });
    assert_eq!(broker.append("orders", 0, held[0].clone()), full);
    broker.truncate_before("orders", 0, 50).unwrap();
    assert!(broker.append("orders", 0, held[0].clone()).is_ok());
}

#[tokio::test]
async fn only_one_whole_and_intact_batch_can_be_appended() {
    let (broker, _, held) = broker().await;
    let mut corrupt = BytesMut::from(&held[0][..]);
    corrupt[100] ^= 1;
    assert!(matches!(
        broker.append("orders", 0, corrupt.freeze()),
        Err(LogError::Batch(_))
    ));
    assert!(matches!(
        broker.append("orders", 0, held[0].slice(..200)),
        Err(LogError::Batch(_))
    ));
    let two = broker.append("orders", 0, held[..2].concat().into());
    assert!(matches!(two, Err(LogError::SeveralBatches { .. })));
    assert!(matches!(
        broker.append("orders", 1, held[0].clone()),
        Err(LogError::UnknownPartition { .. })
    ));
    let beyond = broker.truncate_before("orders", 0, 51);
    assert!(matches!(
        beyond,
        Err(LogError::OffsetOutOfRange { end_offset: 50, .. })
    ));
}

#[tokio::test]
async fn stopping_or_dropping_the_broker_closes_connections_and_port() {
    for stops in [true, false] {
        let (broker, id, _) = broker().await;
        let mut connection = Connection::to(&broker).await;
        connection.read(&from(id, 0)).await;
        let address = broker.address().clone();
        if stops {
            broker.stop().await;
            assert!(
                TcpStream::connect((address.host.as_str(), address.port))
                    .await
                    .is_err()
            );
        } else {
            drop(broker);
        }
        let end = tokio::time::timeout(LONG / 4, connection.receive()).await;
        assert_eq!(end, Ok(None), "stops: {stops}");
    }
}
