//! One record by its offset.

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use kachet::client::Client as Direct;
use kachet::core::time::MaxStaleness;
use kachet::demo::records::{Packing, pack};

use crate::client::Client;
use crate::{TOPIC, broker_with, gateway_before, settings, start};

#[tokio::test]
async fn a_record_is_the_line_that_fetch_prints_by_both_protocols() -> Result<()> {
    let (broker, events) = broker_with(2).await?;
    let gateway = gateway_before(&broker).await?;
    let direct = Direct::builder()
        .bootstrap(&broker.address().to_string())
        .build()?;
    for mut client in [
        Client::to(gateway.address()).await?,
        Client::by_http2(gateway.address()).await?,
    ] {
        for offset in [0, 9, 10, 13, 19] {
            let answer = client
                .get(&format!("/v1/topics/{TOPIC}/0/records/{offset}"))
                .await?;
            assert_eq!(
                (answer.status, answer.header("content-type")),
                (200, "application/json")
            );
            let mut line = Vec::new();
            let record = direct.record(TOPIC, 0, offset).await?.unwrap();
            record.write_json(&mut line, TOPIC, 0)?;
            assert_eq!(answer.body, line, "{offset}");
            let event = &events[usize::try_from(offset)?];
            assert_eq!(answer.json()["payload"], core::str::from_utf8(&event.value)?);
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_value_comes_as_its_bytes_with_what_else_there_is_in_headers() -> Result<()> {
    let (broker, events) = broker_with(1).await?;
    let gateway = gateway_before(&broker).await?;
    let mut client = Client::to(gateway.address()).await?;
    let octets = [("accept", "application/octet-stream")];
    let answer = client.get_with("/v1/topics/orders/0/records/7", &octets).await?;
    assert_eq!((answer.status, &answer.body), (200, &events[7].value));
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(answer.header("kachet-offset"), "7");
    assert_eq!(
        answer.header("kachet-timestamp"),
        events[7].timestamp_ms.to_string()
    );
    assert_eq!(answer.header("kachet-timestamp-type"), "create");
    assert_eq!(
        answer.header("kachet-key"),
        format!(":{}:", STANDARD.encode(&events[7].key))
    );
    assert_eq!(answer.header("kachet-topic-id").len(), 36);
    let length = answer.header("content-length").to_owned();
    let head = client
        .ask(
            Method::HEAD,
            "/v1/topics/orders/0/records/7",
            &octets,
            Bytes::new(),
        )
        .await?;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), length);
    assert_eq!(head.header("etag"), answer.header("etag"));
    let refused = client
        .get_with("/v1/topics/orders/0/records/7", &[("accept", "text/html")])
        .await?;
    assert_eq!((refused.status, refused.code().as_str()), (406, "not-acceptable"));
    Ok(())
}

#[tokio::test]
async fn a_record_that_is_known_is_not_sent_again_and_one_in_its_place_is() -> Result<()> {
    let (broker, _) = broker_with(2).await?;
    let gateway = start(
        settings(broker.address()),
        MaxStaleness::Within(core::time::Duration::ZERO),
    )
    .await?;
    let mut client = Client::to(gateway.address()).await?;
    let path = "/v1/topics/orders/0/records/15";
    let first = client.get(path).await?;
    let tag = first.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    let several = format!("\"other\", W/{tag}");
    for known in [tag.as_str(), several.as_str(), "*"] {
        let again = client.get_with(path, &[("if-none-match", known)]).await?;
        assert_eq!((again.status, again.body.len()), (304, 0), "{known}");
        assert_eq!(again.header("etag"), tag);
    }
    // Another offset of the batch, another form, and the same one after another record has taken its place.
    let other = client.get("/v1/topics/orders/0/records/16").await?;
    assert_ne!(other.header("etag"), tag);
    let form = [
        ("accept", "application/octet-stream"),
        ("if-none-match", tag.as_str()),
    ];
    assert_eq!(client.get_with(path, &form).await?.status, 200);
    broker.elect_unclean_leader(TOPIC, 0, 10)?;
    let events: Vec<_> = kachet::demo::records::Events::new(9).take(10).collect();
    broker.append(TOPIC, 0, pack(&events, Packing::Lz4)?)?;
    let replaced = client.get_with(path, &[("if-none-match", &tag)]).await?;
    assert_eq!(replaced.status, 200);
    assert_eq!(
        replaced.json()["payload"],
        core::str::from_utf8(&events[5].value)?
    );
    // A topic that was made anew under the same name.
    let tag = replaced.header("etag").to_owned();
    broker.delete_topic(TOPIC)?;
    broker.create_topic(TOPIC, 1)?;
    for _ in 0..2 {
        broker.append(TOPIC, 0, pack(&events, Packing::Lz4)?)?;
    }
    assert_eq!(
        client.get_with(path, &[("if-none-match", &tag)]).await?.status,
        200
    );
    Ok(())
}

#[tokio::test]
async fn other_caches_are_told_to_keep_a_record_no_longer_than_the_bound() -> Result<()> {
    let (broker, _) = broker_with(1).await?;
    let path = "/v1/topics/orders/0/records/3";
    let minute = gateway_before(&broker).await?;
    let mut client = Client::to(minute.address()).await?;
    // Nobody has said yet that the topic is not compacted.
    assert_eq!(client.get(path).await?.header("cache-control"), "no-cache");
    let bound = core::time::Duration::from_secs(4);
    let short = start(settings(broker.address()), MaxStaleness::Within(bound)).await?;
    let mut client = Client::to(short.address()).await?;
    let mut told = Vec::new();
    for _ in 0..30 {
        told.push(client.get(path).await?.header("cache-control").to_owned());
        tokio::time::sleep(core::time::Duration::from_millis(100)).await;
    }
    let ages: Vec<u64> = told
        .iter()
        .filter_map(|said| said.strip_prefix("public, max-age=")?.parse().ok())
        .collect();
    assert!(
        !ages.is_empty() && ages.iter().all(|age| (1..4).contains(age)),
        "{told:?}"
    );
    let forever = start(settings(broker.address()), MaxStaleness::Forever).await?;
    let mut client = Client::to(forever.address()).await?;
    assert_eq!(
        client.get(path).await?.header("cache-control"),
        "public, max-age=86400"
    );
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_is_told_by_codes_that_differ() -> Result<()> {
    let (broker, _) = broker_with(3).await?;
    broker.skip_offsets(TOPIC, 0, 5)?;
    let more: Vec<_> = kachet::demo::records::Events::new(2).take(10).collect();
    broker.append(TOPIC, 0, pack(&more, Packing::Plain)?)?;
    broker.truncate_before(TOPIC, 0, 10)?;
    let gateway = gateway_before(&broker).await?;
    let mut client = Client::to(gateway.address()).await?;
    for (path, status, code, member, value) in [
        ("nothing/0/records/0", 404, "no-such-topic", "", 0),
        ("orders/1/records/0", 404, "no-such-partition", "partitions", 1),
        (
            "orders/0/records/9",
            410,
            "below-log-start",
            "log_start_offset",
            10,
        ),
        ("orders/0/records/45", 404, "beyond-end", "end_offset", 45),
        ("orders/0/records/9999", 404, "beyond-end", "end_offset", 45),
        (
            "orders/0/records/32",
            404,
            "no-record-at-offset",
            "next_offset",
            35,
        ),
        ("orders/x/records/0", 400, "bad-parameter", "", 0),
        ("orders/-1/records/0", 400, "bad-parameter", "", 0),
        ("orders/0/records/-1", 400, "bad-parameter", "", 0),
        (
            "orders/0/records/9223372036854775808",
            400,
            "bad-parameter",
            "",
            0,
        ),
        ("orders/0/records/1?isolation=none", 400, "bad-parameter", "", 0),
        ("orders/0/records/1?offset=1", 400, "bad-parameter", "", 0),
        ("a%2Fb/0/records/1", 400, "invalid-topic-name", "", 0),
        ("%3Cb%3E/0/records/1", 400, "invalid-topic-name", "", 0),
        ("%ff/0/records/1", 400, "bad-parameter", "", 0),
        ("..%2f/0/records/1", 400, "invalid-topic-name", "", 0),
        ("orders/0/records/1/2", 404, "no-such-resource", "", 0),
    ] {
        let answer = client.get(&format!("/v1/topics/{path}")).await?;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}");
        if !member.is_empty() {
            assert_eq!(answer.json()[member], value, "{path}");
        }
        assert_eq!(
            answer.header("retry-after"),
            if code == "beyond-end" { "1" } else { "" }
        );
    }
    assert_eq!(client.get("/v1/topics/orders/0/records/10").await?.status, 200);
    let posted = client
        .ask(Method::POST, "/v1/topics/orders/0/records/10", &[], "x")
        .await?;
    assert_eq!(
        (posted.status, posted.code().as_str()),
        (405, "method-not-allowed")
    );
    assert!(posted.header("allow").contains("GET"), "{posted:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_cached_is_served_while_there_is_no_broker_and_the_rest_says_that_it_is_down() -> Result<()> {
    let (broker, _) = broker_with(2).await?;
    let gateway = start(settings(broker.address()), MaxStaleness::Forever).await?;
    let mut client = Client::to(gateway.address()).await?;
    let warm = client.get("/v1/topics/orders/0/records/3").await?;
    let listed = client.get("/v1/topics").await?;
    let address = broker.address().to_string();
    broker.stop().await;
    let again = client.get("/v1/topics/orders/0/records/4").await?;
    assert_eq!((warm.status, again.status), (200, 200));
    assert_eq!(client.get("/v1/topics/orders/0/records/3").await?.body, warm.body);
    assert_eq!(client.get("/v1/topics").await?.body, listed.body);
    assert_eq!(client.get("/v1/topics/orders").await?.status, 200);
    for path in [
        "orders/0/records/15",
        "orders/0",
        "orders/0/records?timestamp=1",
        "unknown/0/records/1",
    ] {
        let down = client.get(&format!("/v1/topics/{path}")).await?;
        assert_eq!(
            (down.status, down.code().as_str()),
            (503, "upstream-down"),
            "{path}"
        );
        assert_eq!(down.header("retry-after"), "1");
        // Addresses of brokers stay inside.
        assert!(!down.text().contains(&address), "{}", down.text());
    }
    Ok(())
}
