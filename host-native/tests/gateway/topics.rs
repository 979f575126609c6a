//! What there is to read.

use anyhow::Result;

use crate::client::Client;
use crate::{TOPIC, broker_with, gateway_before};

#[tokio::test]
async fn topics_come_in_pages_with_their_ids() -> Result<()> {
    let (broker, _) = broker_with(1).await?;
    let id = broker.create_topic("returns", 3)?;
    broker.create_topic("audit", 2)?;
    let gateway = gateway_before(&broker).await?;
    let mut client = Client::to(gateway.address()).await?;
    let all = client.get("/v1/topics").await?;
    assert_eq!(
        (all.status, all.header("content-type")),
        (200, "application/json")
    );
    let all = all.json();
    let names: Vec<_> = all["topics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|topic| &topic["name"])
        .collect();
    assert_eq!(names, ["audit", TOPIC, "returns"]);
    assert_eq!(all["topics"][2]["id"], id.to_string());
    assert_eq!(all["topics"][2]["partitions"], 3);
    assert!(all["next"].is_null());
    let page = client.get("/v1/topics?count=2").await?.json();
    assert_eq!(
        (page["topics"].as_array().unwrap().len(), &page["next"]),
        (2, &TOPIC.into())
    );
    let rest = client.get("/v1/topics?count=2&after=orders").await?.json();
    assert_eq!(
        (&rest["topics"][0]["name"], &rest["next"]),
        (&"returns".into(), &().into())
    );
    let some = client.get("/v1/topics?prefix=a").await?.json();
    assert_eq!(some["topics"].as_array().unwrap().len(), 1);
    for query in ["count=0", "count=1001", "count=x", "order=name"] {
        let wrong = client.get(&format!("/v1/topics?{query}")).await?;
        assert_eq!(
            (wrong.status, wrong.code().as_str()),
            (400, "bad-parameter"),
            "{query}"
        );
    }
    // One question to the cluster for all of these.
    assert_eq!(broker.requests().metadata, 1);
    Ok(())
}

#[tokio::test]
async fn a_topic_and_a_partition_are_described() -> Result<()> {
    let (broker, _) = broker_with(2).await?;
    broker.truncate_before(TOPIC, 0, 4)?;
    let gateway = gateway_before(&broker).await?;
    let mut client = Client::to(gateway.address()).await?;
    let topic = client.get("/v1/topics/orders").await?.json();
    assert_eq!(topic["name"], TOPIC);
    assert_eq!(topic["partitions"][0]["leader"], 1);
    assert_eq!(topic["partitions"][0]["leader_epoch"], 0);
    let partition = client.get("/v1/topics/orders/0").await?.json();
    assert_eq!(
        (&partition["log_start_offset"], &partition["end_offset"]),
        (&4.into(), &20.into())
    );
    for (path, code) in [
        ("none", "no-such-topic"),
        ("none/0", "no-such-topic"),
        ("orders/1", "no-such-partition"),
        ("a%20b", "invalid-topic-name"),
        ("orders?x=1", "bad-parameter"),
    ] {
        assert_eq!(
            client.get(&format!("/v1/topics/{path}")).await?.code(),
            code,
            "{path}"
        );
    }
    assert_eq!(client.get("/").await?.code(), "no-such-resource");
    Ok(())
}
