//! Three brokers: clients are told of them at the proxy only, also when leaders move.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use kachet::transport::{Request, Response, TcpSettings, TcpTransport, Transport};
use kachet_core::time::MaxStaleness;
use kachet_core::wire::{
    FetchPartition, FetchRequest, FetchTopic, PartitionData, TaggedFields, TopicRef, WireStr,
};
use kachet_tests::cluster::KafkaCluster;
use kachet_tests::java::TopicWriter;
use kachet_tests::kcat;

use crate::racks::Racks;
use crate::{CachingProxy, blocking, proxy_before, read_by_group};

const TOPIC: &str = "proxy-cluster";
const PARTITIONS: i32 = 9;
const RECORDS: usize = 9 * 40;

struct Started {
    cluster: KafkaCluster,
    proxy: CachingProxy,
    writer: TopicWriter,
    before: BTreeSet<String>,
}

/// A topic that was written and read through the proxy, by clients that were told of no other address.
async fn started() -> Result<Option<Started>> {
    let Some(cluster) = KafkaCluster::start(3)? else {
        return Ok(None);
    };
    if !kcat::is_there() {
        return Ok(None);
    }
    let proxy = proxy_before(
        &cluster.bootstrap(),
        MaxStaleness::Within(core::time::Duration::from_secs(1)),
    )
    .await?;
    let ports = proxy.ports();
    assert_eq!(ports.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    let (through, direct) = (proxy.address().to_string(), cluster.bootstrap());
    let writer = cluster.writer().context("no Java")?;
    let (writer, before) = blocking(move || {
        let mut writer = writer;
        writer.command(&format!("create {TOPIC} {PARTITIONS}"))?;
        for partition in 0..PARTITIONS {
            let values: Vec<String> = (0..40).map(|index| format!("{partition}-{index}")).collect();
            kcat::produce(&through, TOPIC, partition, "lz4", &values)?;
        }
        let read = read_by_group(&through, "g1", TOPIC, RECORDS, &[])?;
        assert_eq!(
            read.records,
            read_by_group(&direct, "g2", TOPIC, RECORDS, &[])?.records
        );
        // DescribeCluster tells the proxy's listeners, with the brokers' own ids.
        let told: Vec<String> = ports
            .iter()
            .map(|(id, port)| format!("{id} 127.0.0.1 {port}"))
            .collect();
        let mut nodes = read.nodes.clone();
        nodes.sort_unstable();
        assert_eq!(nodes, told);
        Ok((writer, read.records))
    })
    .await?;
    Ok(Some(Started {
        cluster,
        proxy,
        writer,
        before,
    }))
}

/// In one test, because three brokers take long to start; the last part ends one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_reach_every_broker_through_the_proxy_and_read_on_when_one_dies() -> Result<()> {
    let Some(mut started) = started().await? else {
        return Ok(());
    };
    a_client_that_names_its_rack_is_sent_nowhere_else(&mut started).await?;
    let racks = Racks::start(&mut started.cluster, &mut started.writer).await?;
    racks
        .read_from_the_replica_in_the_proxys_rack(&mut started.cluster)
        .await?;
    a_client_that_has_connected_reads_on_when_a_leader_dies(started, racks).await
}

/// A fetch of the first partition by a client in a rack.
async fn fetch_in(rack: &str, from: &str) -> Result<PartitionData> {
    let request = FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        rack_id: WireStr::copy_from(rack).context("too long")?,
        topics: vec![FetchTopic {
            topic: TopicRef::Name(WireStr::from_static(TOPIC)),
            partitions: vec![FetchPartition::new(0, 0, 1 << 20)],
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    };
    let request = Request::Fetch { version: 11, request };
    let transport = TcpTransport::new(TcpSettings::default());
    let Response::Fetch(response) = transport.round_trip(&from.parse()?, request).await? else {
        anyhow::bail!("no answer to a Fetch");
    };
    let (_, data) = response.partitions().next().context("no partition")?;
    assert_eq!(data.error_code, 0, "{from} in {rack}");
    Ok(data.clone())
}

/// A leader answers it with the name of a follower in place of data; the proxy with data (H16).
async fn a_client_that_names_its_rack_is_sent_nowhere_else(started: &mut Started) -> Result<()> {
    let mut redirected = 0;
    for node_id in 1..=3 {
        let direct = started.cluster.node(node_id)?.bootstrap();
        let through = format!("127.0.0.1:{}", started.proxy.ports()[&node_id]);
        for rack in ["rack-1", "rack-2", "rack-3"] {
            let own = fetch_in(rack, &direct).await?;
            let read = fetch_in(rack, &through).await?;
            assert_eq!(read.preferred_read_replica, -1, "node {node_id} in {rack}");
            let own = if own.preferred_read_replica >= 0 {
                redirected += 1;
                assert_eq!(own.records_size_bytes(), 0, "a redirection excludes data");
                fetch_in("", &direct).await?
            } else {
                own
            };
            assert!(own.records_size_bytes() > 0);
            assert_eq!(read.records, own.records, "node {node_id} in {rack}");
        }
    }
    assert_eq!(
        redirected, 2,
        "the leader names the others, each to those in its rack"
    );
    Ok(())
}

async fn a_client_that_has_connected_reads_on_when_a_leader_dies(
    started: Started,
    racks: Racks,
) -> Result<()> {
    let Started {
        mut cluster,
        proxy,
        mut writer,
        before,
    } = started;
    let through = proxy.address().to_string();
    let reading =
        tokio::task::spawn_blocking(move || read_by_group(&through, "g3", TOPIC, RECORDS + 27, &[]));
    tokio::time::sleep(core::time::Duration::from_secs(4)).await;
    cluster.node(3)?.kill();
    racks.read_on_when_the_node_of_both_has_died(&mut cluster).await?;
    let through = proxy.address().to_string();
    blocking(move || {
        for partition in 0..PARTITIONS {
            let values: Vec<String> = (0..3).map(|index| format!("late-{partition}-{index}")).collect();
            kcat::produce(&through, TOPIC, partition, "none", &values)?;
        }
        writer.command(&format!("end-offsets {TOPIC}"))?;
        Ok(())
    })
    .await?;
    let after = reading.await.context("the reader panicked")??;
    assert_eq!(after.records.len(), RECORDS + 27);
    assert!(after.records.is_superset(&before));
    Ok(())
}
