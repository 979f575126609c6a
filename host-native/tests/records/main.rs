//! Records as streams and at many offsets, against the embedded broker, on logs with gaps, markers and a moved start.
#![cfg(feature = "embedded-broker")]

mod backwards;
mod forwards;
mod hindrances;
mod invalidation;
mod neighbours;
mod random_logs;
mod scattered;

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings, Record};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Event, Events, Packing, pack};
use kachet::transport::{TcpSettings, TcpTransport};
use kafka_protocol::records::{
    Compression, Record as Written, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

const TOPIC: &str = "orders";

/// A broker with one topic of one partition that holds `batches` batches of ten records.
async fn broker_with(batches: u64) -> Result<EmbeddedBroker> {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    broker.create_topic(TOPIC, 1)?;
    append(&broker, 0, batches)?;
    Ok(broker)
}

fn append(broker: &EmbeddedBroker, partition: i32, batches: u64) -> Result<()> {
    let mut events = Events::new(1);
    for _ in 0..batches {
        let batch: Vec<_> = events.by_ref().take(10).collect();
        broker.append(TOPIC, partition, pack(&batch, Packing::Lz4)?)?;
    }
    Ok(())
}

/// A batch of records that hold little but their times.
fn batch_of_times(times_ms: &[i64]) -> Result<Bytes> {
    let event = |timestamp_ms: &i64| Event {
        timestamp_ms: *timestamp_ms,
        key: Bytes::from_static(b"key"),
        value: Bytes::from(format!("at {timestamp_ms}")),
        headers: Vec::new(),
    };
    let events: Vec<_> = times_ms.iter().map(event).collect();
    Ok(pack(&events, Packing::Plain)?)
}

/// A batch that holds the marker of a committed transaction.
fn marker() -> Result<Bytes> {
    let marker = Written {
        transactional: true,
        control: true,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: 7,
        producer_epoch: 0,
        timestamp_type: TimestampType::Creation,
        offset: 0,
        sequence: -1,
        timestamp: 1,
        key: Some(Bytes::from_static(&[0, 0, 0, 1])),
        value: Some(Bytes::from_static(&[0, 0, 0, 0, 0, 0])),
        headers: core::iter::empty().collect(),
    };
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    let mut batch = BytesMut::new();
    RecordBatchEncoder::encode(&mut batch, [&marker], &options)?;
    Ok(batch.freeze())
}

/// Reads past no cache, so that the broker counts every fetch.
fn direct_client(broker: &EmbeddedBroker, fetch_max_bytes: usize) -> Result<Client<TcpTransport>> {
    let settings = ClientSettings {
        fetch_max_bytes,
        ..ClientSettings::default()
    };
    let transport = TcpTransport::new(TcpSettings::default());
    Ok(Client::new(transport, vec![broker.address().clone()], settings)?)
}

fn cached_client(broker: &EmbeddedBroker) -> Result<Client<Cache<TcpTransport>>> {
    let client = Client::builder().bootstrap(&broker.address().to_string());
    Ok(client.size_limit_bytes(16 << 20).build()?)
}

fn offsets(records: &[Record]) -> Vec<i64> {
    records.iter().map(|record| record.offset).collect()
}
