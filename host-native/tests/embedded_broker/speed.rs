//! Figures, not checks: `cargo test --release --test embedded_broker -- --ignored --nocapture`.

use std::time::Instant;

use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{EVENTS_PER_LZ4_BATCH, Event, Events, Packing, pack};
use kachet_core::wire::{FetchPartition, TopicRef};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::connection::{Connection, of};

/// About what a Fetch for one partition takes.
const REQUEST_BYTES: usize = 96;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn fetch_round_trips_per_second() {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await.unwrap();
    let id = broker.create_topic("orders", 1).unwrap();
    let (mut events, mut size_bytes) = (Events::new(1), 0);
    let started = Instant::now();
    for _ in 0..200 {
        let events: Vec<Event> = events.by_ref().take(EVENTS_PER_LZ4_BATCH).collect();
        let batch = pack(&events, Packing::Lz4).unwrap();
        size_bytes += batch.len();
        broker.append("orders", 0, batch).unwrap();
    }
    println!(
        "200 batches of {} bytes on average, made in {:?}",
        size_bytes / 200,
        started.elapsed()
    );

    let mut random = fastrand::Rng::with_seed(1);
    for (what, limit, last_offset, rounds) in
        [("one batch", 1, 8_800, 20_000), ("1 MiB", 1 << 20, 4_000, 1_000)]
    {
        let mut connection = Connection::to(&broker).await;
        let (started, sent_before) = (Instant::now(), broker.requests().bytes_sent);
        for _ in 0..rounds {
            let partition = FetchPartition::new(0, random.i64(0..last_offset), limit);
            connection.read(&of(TopicRef::Id(id), vec![partition])).await;
        }
        let per_second = f64::from(rounds) / started.elapsed().as_secs_f64();
        let answer_bytes = (broker.requests().bytes_sent - sent_before) / u64::from(rounds);
        let bare = bare_round_trips_per_second(rounds, usize::try_from(answer_bytes).unwrap()).await;
        let ratio = per_second / bare;
        println!(
            "{what}: {per_second:.0} fetches/s of {answer_bytes} bytes, {ratio:.2} of a bare loopback's {bare:.0}"
        );
    }
}

/// Round trips over a socket whose other side sends as many bytes without looking at the request.
async fn bare_round_trips_per_second(rounds: u32, answer_bytes: usize) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    tokio::spawn(async move {
        let (mut request, answer) = ([0; REQUEST_BYTES], vec![0; answer_bytes]);
        while server.read_exact(&mut request).await.is_ok() {
            server.write_all(&answer).await.unwrap();
        }
    });
    let started = Instant::now();
    for _ in 0..rounds {
        client.write_all(&[0; REQUEST_BYTES]).await.unwrap();
        client.read_exact(&mut vec![0; answer_bytes]).await.unwrap();
    }
    f64::from(rounds) / started.elapsed().as_secs_f64()
}
