//! What comes through the cache equals what a real Kafka answers directly, to the byte; the second time without
//! asking it for data again; and what the broker no longer serves stops being served.

mod every_version;
mod freshness;
mod records;
mod streams;
mod topics;

use anyhow::{Result, ensure};
use bytes::Bytes;
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings, Isolation};
use kachet::transport::{TcpSettings, TcpTransport};
use kachet_core::time::MaxStaleness;
use kachet_core::wire::RecordBatch;

const CACHE_BYTES: u64 = 64 << 20;

fn settings(isolation: Isolation) -> ClientSettings {
    ClientSettings {
        isolation,
        ..ClientSettings::default()
    }
}

fn direct(bootstrap: &str, isolation: Isolation) -> Result<Client<TcpTransport>> {
    let transport = TcpTransport::new(TcpSettings::default());
    Ok(Client::new(
        transport,
        vec![bootstrap.parse()?],
        settings(isolation),
    )?)
}

fn cached(
    bootstrap: &str,
    isolation: Isolation,
    max_staleness: MaxStaleness,
) -> Result<Client<Cache<TcpTransport>>> {
    let builder = Client::builder()
        .bootstrap(bootstrap)
        .settings(settings(isolation));
    Ok(builder
        .size_limit_bytes(CACHE_BYTES)
        .max_staleness(max_staleness)
        .build()?)
}

/// Every batch of a partition from `offset` to the end, read one fetch after the other.
async fn all_batches<T: kachet::transport::Transport>(
    client: &Client<T>,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<Vec<Bytes>> {
    let mut batches = Vec::new();
    let mut next = offset;
    loop {
        let fetched = client.fetch(topic, partition, next).await?;
        batches.extend(fetched.batches()?);
        match fetched.next_offset() {
            Some(beyond) => {
                ensure!(
                    beyond > next,
                    "no progress at offset {next} of {topic}/{partition}"
                );
                next = beyond;
            }
            None => return Ok(batches),
        }
    }
}

/// The first and the last offset of each batch.
fn spans(batches: &[Bytes]) -> Vec<(i64, i64)> {
    let span =
        |batch: &Bytes| RecordBatch::parse(batch).map(|batch| (batch.base_offset(), batch.last_offset()));
    batches.iter().filter_map(|batch| span(batch).ok()).collect()
}
