//! A small service that answers records by their offsets: one offset a line on stdin, one record a line on stdout.
//!
//! ```sh
//! seq 100 103 | cargo run --example random_access
//! echo 42 | cargo run --example random_access -- --bootstrap localhost:9092 --topic numbers
//! ```

mod cluster;

use std::error::Error;

use kachet::client::{Client, ClientError, Record};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

use cluster::Cluster;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = Cluster::of_arguments().await?;
    let client = Client::builder()
        .bootstrap(&cluster.bootstrap)
        .size_limit_bytes(64 << 20)
        .build()?;
    let newest = client.last(&cluster.topic, 0, 1).await?;
    if let Some(record) = newest.first() {
        eprintln!(
            "{} holds offsets up to {}; type some, and end with ctrl-D",
            cluster.topic, record.offset
        );
    }

    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        // Several on a line are asked for at once.
        let offsets: Result<Vec<i64>, _> = line.split_whitespace().map(str::parse).collect();
        let Ok(offsets) = offsets else {
            println!("not offsets: {line}");
            continue;
        };
        let found = client.scattered(&cluster.topic, 0, &offsets).await;
        for (offset, found) in offsets.iter().zip(found) {
            println!("{offset}: {}", answer(found)?);
        }
    }
    let figures = client.transport().statistics();
    eprintln!("{} hits, {} misses", figures.hits, figures.misses);
    Ok(())
}

/// What an answer says; errors that are the caller's own are answers too.
fn answer(found: Result<Option<Record>, ClientError>) -> Result<String, ClientError> {
    Ok(match found {
        Ok(Some(record)) => match record.value {
            Some(value) => String::from_utf8_lossy(&value).into_owned(),
            None => "a tombstone".into(),
        },
        Ok(None) => "no record here: a marker, an aborted record, or one that compaction has removed".into(),
        Err(error @ ClientError::OffsetOutOfRange { .. }) => error.to_string(),
        Err(error) => return Err(error),
    })
}
