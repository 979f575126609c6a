//! Three brokers: a fetch names partitions that each of them leads, which its client does not know.

use anyhow::Result;
use kachet_core::time::MaxStaleness;
use kachet_core::wire::{FETCH_VERSION_MAX, TopicRef};
use kachet_tests::cluster::KafkaCluster;
use kachet_tests::curl;

use crate::{PROTOCOLS, decode, fetch_of, frame, gateway_before, get, id_of, post};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_of_several_leaders_come_in_one_answer_also_after_one_has_died() -> Result<()> {
    const PARTITIONS: i32 = 6;
    if !curl::is_there() {
        return Ok(());
    }
    let Some(mut cluster) = KafkaCluster::start(3)? else {
        return Ok(());
    };
    let Some(mut writer) = cluster.writer() else {
        return Ok(());
    };
    let topic = "gateway-leaders";
    writer.command(&format!("create {topic} {PARTITIONS}"))?;
    for partition in 0..PARTITIONS {
        writer.command(&format!("produce {topic} {partition} lz4 20 10 {partition}"))?;
    }
    let bound = MaxStaleness::Within(core::time::Duration::from_secs(1));
    let gateway = gateway_before(&cluster.bootstrap(), bound).await?;
    let described = get(&gateway, &format!("/v1/topics/{topic}"), &[])?.json()?;
    let leaders: std::collections::BTreeSet<_> = described["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|partition| partition["leader"].as_i64())
        .collect();
    assert!(leaders.len() > 1, "{described}");
    let id = TopicRef::Id(id_of(&gateway, topic)?);
    let all = fetch_of(vec![(id, (0..PARTITIONS).map(|index| (index, 5)).collect())]);
    let frame = frame(FETCH_VERSION_MAX, &all);
    let read = |protocol| -> Result<Vec<(i32, i16, bool)>> {
        let response = decode(FETCH_VERSION_MAX, &post(&gateway, &frame, protocol)?)?;
        let partitions = response.partitions().map(|(_, data)| {
            let has_records = data.records_size_bytes() > 0;
            (data.partition_index, data.error_code, has_records)
        });
        Ok(partitions.collect())
    };
    let whole: Vec<_> = (0..PARTITIONS).map(|index| (index, 0, true)).collect();
    for protocol in PROTOCOLS {
        assert_eq!(read(protocol)?, whole);
    }
    // Node 1 is the controller, too. What another one led is led by a third, or the topic has one replica and what
    // that one led is there no more, while the rest is.
    let died = leaders.iter().copied().find(|leader| *leader != 1).unwrap();
    cluster.node(i32::try_from(died)?)?.kill();
    let led_by = |index: usize| described["partitions"][index]["leader"].as_i64();
    let mut last = Vec::new();
    for _ in 0..40 {
        tokio::time::sleep(core::time::Duration::from_millis(500)).await;
        last = read(PROTOCOLS[0])?;
        let others = (0..6).filter(|index| led_by(*index) != Some(died));
        if others.clone().count() > 0 && others.clone().all(|index| last.get(index) == whole.get(index)) {
            return Ok(());
        }
    }
    anyhow::bail!("what others lead is not read: {last:?}")
}
