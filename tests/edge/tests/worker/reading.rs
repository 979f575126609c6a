//! What the Worker answers is what the brokers hold, and it asks once.

use anyhow::Result;
use bytes::Bytes;
use kachet_core::wire::{Batches, RecordBytes};
use kachet_tests::curl;
use kachet_wasm::frame::{RequestFrame, decode_response};

use crate::{CachingGateway, Edge, TOKEN, gateway_before, lines_of, own_lines, set_up};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_every_codec_are_the_brokers_and_come_from_the_cache_the_second_time() -> Result<()> {
    let Some((broker, mut writer)) = set_up() else {
        return Ok(());
    };
    let topic = "edge.reading";
    writer.command(&format!("create {topic} 2"))?;
    for (seed, codec) in (1..).zip(["none", "gzip", "snappy", "lz4", "zstd"]) {
        writer.command(&format!(
            "produce {topic} 0 {codec} 40 20 {seed} headers nullkeys"
        ))?;
    }
    let gateway = gateway_before(broker).await?;
    let edge = Edge::start(gateway.address(), &[])?;

    let own = own_lines(&gateway, &format!("/topics/{topic}/0/records?offset=0&count=500"))?;
    assert_eq!(own.len(), 200);
    let (first, hit) = edge.lines(&format!("/topics/{topic}/0?offset=0&count=500"))?;
    assert_eq!((&first, hit), (&own, false));
    let fetches = edge.figure("upstream_fetches")?;
    let (second, hit) = edge.lines(&format!("/topics/{topic}/0?offset=0&count=200"))?;
    assert_eq!((&second, hit), (&own, true));
    for offset in [0_usize, 19, 20, 77, 140, 199] {
        let (record, hit) = edge.lines(&format!("/topics/{topic}/0/{offset}"))?;
        assert_eq!((&record[0], hit), (&own[offset], true));
        let value = edge.ask(
            &format!("/topics/{topic}/0/{offset}"),
            &["--header", "Accept: application/octet-stream"],
        )?;
        assert_eq!(
            String::from_utf8(value.body.clone())?,
            own[offset]["payload"].as_str().unwrap_or_default()
        );
        assert_eq!(value.header("kachet-offset"), offset.to_string());
    }
    let (few, _) = edge.lines(&format!("/topics/{topic}/0?offset=37&count=5"))?;
    assert_eq!(few, own[37..42]);
    assert_eq!(edge.figure("upstream_fetches")?, fetches);

    let (nothing, _) = edge.lines(&format!("/topics/{topic}/0?offset=200"))?;
    assert!(nothing.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_to_the_byte_what_the_gateway_fetches_by_kafkas_own_protocol() -> Result<()> {
    let Some((broker, mut writer)) = set_up() else {
        return Ok(());
    };
    let topic = "edge-batches";
    writer.command(&format!("create {topic} 1"))?;
    writer.command(&format!("produce {topic} 0 zstd 60 20 7"))?;
    let gateway = gateway_before(broker).await?;
    let edge = Edge::start(gateway.address(), &[])?;
    let batches = fetched(&gateway, topic)?;
    assert_eq!(batches.len(), 3);
    for (offset, hit) in [(25, "miss"), (39, "hit"), (0, "miss"), (59, "hit")] {
        let answer = edge.ask(&format!("/topics/{topic}/0/{offset}/batch"), &[])?;
        assert_eq!(
            (answer.status, answer.header("kachet-cache")),
            (200, hit),
            "{offset}"
        );
        assert!(answer.body == batches[offset / 20], "{offset}");
    }
    Ok(())
}

/// The batches of a topic's first partition. Frames have no length in front, on both sides.
fn fetched(gateway: &CachingGateway, topic: &str) -> Result<Vec<Bytes>> {
    let origin = format!("http://{}/v1", gateway.address());
    let told = curl::ask(
        &["--oauth2-bearer", TOKEN, &format!("{origin}/topics/{topic}")],
        b"",
    )?
    .json()?;
    let hex = told["id"].as_str().unwrap_or_default().replace('-', "");
    let topic_id = u128::from_str_radix(&hex, 16)?.to_be_bytes();
    let mut frame = Vec::new();
    // Fetch 13 with correlation id 5, without a name of the client and without tags.
    frame.extend([0, 1, 0, 13, 0, 0, 0, 5, 0xff, 0xff, 0]);
    // No replica, 100 ms, a byte, a mebibyte, uncommitted, no session.
    frame.extend((-1_i32).to_be_bytes());
    frame.extend([100_i32, 1, 1 << 20].map(i32::to_be_bytes).concat());
    frame.push(0);
    frame.extend([0_i32, -1].map(i32::to_be_bytes).concat());
    // One topic, one partition: 0, no epoch, offset 0, no epoch, no log start, a mebibyte.
    frame.push(2);
    frame.extend(topic_id);
    frame.push(2);
    frame.extend([0_i32, -1].map(i32::to_be_bytes).concat());
    frame.extend(0_i64.to_be_bytes());
    frame.extend((-1_i32).to_be_bytes());
    frame.extend((-1_i64).to_be_bytes());
    frame.extend((1_i32 << 20).to_be_bytes());
    // Tags of the partition and of the topic, nothing forgotten, no rack, tags.
    frame.extend([0, 0, 1, 1, 0]);
    let url = format!("{origin}/fetch");
    let arguments = ["--oauth2-bearer", TOKEN, "--data-binary", "@-", "--header"];
    let arguments = [
        &arguments[..],
        &["Content-Type: application/vnd.kafka.fetch", &url],
    ]
    .concat();
    let answer = curl::ask(&arguments, &frame)?;
    assert_eq!(answer.status, 200, "{answer:?}");
    // The WebAssembly host's own reading of frames, both ways.
    let RequestFrame { header, .. } = RequestFrame::decode(&Bytes::from(frame))?;
    let response = decode_response(&Bytes::from(answer.body), header.version, header.correlation_id)?;
    let (_, data) = response.partitions().next().expect("one partition");
    let bytes = data
        .records
        .as_ref()
        .map(RecordBytes::to_bytes)
        .unwrap_or_default();
    let mut batches = Batches::new(&bytes);
    let mut found = Vec::new();
    let mut from = 0;
    while batches.next().is_some() {
        found.push(bytes.slice(from..batches.at_byte()));
        from = batches.at_byte();
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_at_several_places_come_in_one_answer() -> Result<()> {
    let Some((broker, mut writer)) = set_up() else {
        return Ok(());
    };
    let topic = "edge-several";
    writer.command(&format!("create {topic} 2"))?;
    writer.command(&format!("produce {topic} 0 lz4 40 20 1"))?;
    writer.command(&format!("produce {topic} 1 none 10 10 2"))?;
    let gateway = gateway_before(broker).await?;
    let edge = Edge::start(gateway.address(), &[])?;
    let place = |partition: i32, offset: i64| serde_json::json!({ "topic": topic, "partition": partition, "offset": offset });
    let places = serde_json::json!([
        place(0, 35),
        place(1, 3),
        place(0, 5),
        place(1, 99),
        place(9, 0),
        place(0, 21)
    ]);
    let ask = || {
        curl::ask(
            &["--data-binary", "@-", &edge.url("/records")],
            places.to_string().as_bytes(),
        )
    };
    for pass in 0..2 {
        let answer = ask()?;
        assert_eq!(answer.status, 200, "{answer:?}");
        let lines = lines_of(&answer)?;
        assert_eq!(lines.len(), 6, "{lines:?}");
        for (at, (partition, offset)) in [(0, (0, 35)), (1, (1, 3)), (2, (0, 5)), (5, (0, 21))] {
            let own = own_lines(&gateway, &format!("/topics/{topic}/{partition}/records/{offset}"))?;
            assert_eq!(lines[at], own[0], "pass {pass}");
        }
        assert_eq!(lines[3]["problem"]["code"], "beyond-end");
        assert_eq!(lines[4]["problem"]["code"], "no-such-partition");
    }
    // That there is no partition 9 says nothing of the others.
    let places = serde_json::json!([place(0, 35), place(0, 5), place(0, 21)]);
    let answer = curl::ask(
        &["--data-binary", "@-", &edge.url("/records")],
        places.to_string().as_bytes(),
    )?;
    assert_eq!(
        (answer.status, answer.header("kachet-cache")),
        (200, "hit"),
        "{answer:?}"
    );
    Ok(())
}
