//! `POST /v1/fetch` in every version, beside the broker itself.

use anyhow::Result;
use bytes::Bytes;
use kachet_core::time::MaxStaleness;
use kachet_core::wire::{FETCH_VERSION_TOPIC_IDS, FetchRequest, TopicId, TopicRef, WireStr};
use kachet_tests::curl;
use kachet_tests::kafka::{shared_kafka, writer_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{PROTOCOLS, comparable, decode, fetch_of, frame, gateway_before, id_of, post};

/// What the broker answers, without its size.
async fn own(stream: &mut TcpStream, frame: &[u8]) -> Result<Bytes> {
    stream.write_u32(u32::try_from(frame.len())?).await?;
    stream.write_all(frame).await?;
    let size_bytes = usize::try_from(stream.read_u32().await?)?;
    let mut answer = vec![0; size_bytes];
    stream.read_exact(&mut answer).await?;
    Ok(answer.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_reads_what_the_broker_itself_gives() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    if !curl::is_there() {
        return Ok(());
    }
    let names = ["gateway-fetch-a", "gateway-fetch-b"];
    for name in names {
        writer.command(&format!("create {name} 2"))?;
        writer.command(&format!("produce {name} 0 zstd 90 30 1"))?;
        writer.command(&format!("transaction abort {name} 1 10 {name}"))?;
        writer.command(&format!("produce {name} 1 none 40 10 2"))?;
    }
    let bound = MaxStaleness::Within(core::time::Duration::from_secs(60));
    let gateway = gateway_before(&broker.bootstrap(), bound).await?;
    let ids = [id_of(&gateway, names[0])?, id_of(&gateway, names[1])?];
    let mut stream = TcpStream::connect(broker.bootstrap()).await?;
    for version in (4..=18).rev() {
        let topic = |index: usize| {
            if version >= FETCH_VERSION_TOPIC_IDS {
                TopicRef::Id(ids[index])
            } else {
                TopicRef::Name(WireStr::from_static(names[index]))
            }
        };
        let nothing = || {
            if version >= FETCH_VERSION_TOPIC_IDS {
                TopicRef::Id(TopicId([7; 16]))
            } else {
                TopicRef::Name(WireStr::from_static("gateway-fetch-nothing"))
            }
        };
        let two = fetch_of(vec![(topic(0), vec![(0, 45), (1, 3)]), (topic(1), vec![(1, 0)])]);
        let committed = FetchRequest {
            isolation_level: 1,
            ..two.clone()
        };
        let wrong = fetch_of(vec![
            (nothing(), vec![(0, 0)]),
            (topic(1), vec![(0, 999), (2, 0)]),
        ]);
        for (request, protocol) in [
            (two, PROTOCOLS[0]),
            (committed, PROTOCOLS[1]),
            (wrong, PROTOCOLS[0]),
        ] {
            let frame = frame(version, &request);
            let own = decode(version, &own(&mut stream, &frame).await?)?;
            for _ in 0..2 {
                let read = decode(version, &post(&gateway, &frame, protocol)?)?;
                assert_eq!(read.error_code, own.error_code);
                assert_eq!(comparable(&read), comparable(&own), "v{version} {request:?}");
                assert!(read.node_endpoints.is_empty());
            }
        }
    }
    let statistics = gateway.cache().statistics();
    assert!(statistics.hits > 50 && statistics.errors == 0, "{statistics:?}");
    Ok(())
}
