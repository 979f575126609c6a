//! One broker: kcat and Java produce, read, seek, join groups, transact and administer through the proxy.

use anyhow::Result;
use kachet_core::time::MaxStaleness;
use kachet_tests::java::{self, Isolation, TopicWriter};
use kachet_tests::kafka::{KafkaSettings, own_kafka, shared_kafka};
use kachet_tests::{kcat, records};

use crate::{blocking, proxy_before, read_by_group};

const FRESH: MaxStaleness = MaxStaleness::Within(core::time::Duration::from_secs(1));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kcat_produces_and_reads_what_it_reads_from_the_broker() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    if !kcat::is_there() {
        return Ok(());
    }
    let proxy = proxy_before(&broker.bootstrap(), FRESH).await?;
    let (through, direct) = (proxy.address().to_string(), broker.bootstrap());
    let topic = "proxy-kcat";
    blocking(move || {
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            let values: Vec<String> = (0..300).map(|index| records::value(7, index)).collect();
            kcat::produce(&through, topic, 0, codec, &values)?;
        }
        let own = kcat::read_records(&direct, topic, 0, 0)?;
        assert_eq!(own.len(), 1_500);
        for _ in 0..2 {
            assert_eq!(kcat::read_records(&through, topic, 0, 0)?, own);
        }
        for offset in [0_usize, 1, 299, 300, 777, 1_400, 1_499] {
            let (seek, one) = (offset.to_string(), ["-c", "1"]);
            let arguments = [
                "-C", "-q", "-J", "-b", &through, "-t", topic, "-p", "0", "-o", &seek, one[0], one[1],
            ];
            let read: serde_json::Value = serde_json::from_slice(&kcat::run(&arguments, b"")?)?;
            assert_eq!(read, own[offset]);
        }
        assert!(kcat::read_records(&through, topic, 0, 1_500)?.is_empty());
        Ok(())
    })
    .await?;
    let statistics = proxy.cache().statistics();
    assert!(statistics.hits > 5 && statistics.errors == 0, "{statistics:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_administers_transacts_and_reads_both_isolation_levels() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let proxy = proxy_before(&broker.bootstrap(), FRESH).await?;
    let (through, direct) = (proxy.address().to_string(), broker.bootstrap());
    blocking(move || {
        let topic = "proxy-transactions";
        let mut writer = TopicWriter::start(&through)?;
        writer.command(&format!("create {topic} 1"))?;
        writer.produce(topic, 0, "zstd", (200, 20), 1)?;
        writer.command(&format!("transaction commit {topic} 0 30 proxy-a"))?;
        writer.command(&format!("transaction abort {topic} 0 30 proxy-b"))?;
        writer.produce(topic, 0, "none", (20, 20), 2)?;
        writer.command(&format!("transaction open {topic} 0 10 proxy-c"))?;
        for isolation in [Isolation::ReadCommitted, Isolation::ReadUncommitted] {
            let own = java::read_records(&direct, topic, 0, 0, isolation)?;
            for _ in 0..2 {
                assert_eq!(
                    java::read_records(&through, topic, 0, 0, isolation)?,
                    own,
                    "{isolation:?}"
                );
            }
        }
        writer.command("end-transaction commit proxy-c")?;
        let ends = writer.command(&format!("end-offsets {topic}"))?;
        assert_eq!(
            ends,
            TopicWriter::start(&direct)?.command(&format!("end-offsets {topic}"))?
        );
        writer.command(&format!("delete-records {topic} 0 100"))?;
        // For the log start to be known to the proxy.
        std::thread::sleep(core::time::Duration::from_millis(1_500));
        let own = java::read_records(&direct, topic, 0, 100, Isolation::ReadCommitted)?;
        assert_eq!(
            java::read_records(&through, topic, 0, 100, Isolation::ReadCommitted)?,
            own
        );
        assert!(java::read_records(&through, topic, 0, 50, Isolation::ReadCommitted).is_err());
        writer.command(&format!("delete {topic}"))?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_reads_many_partitions_by_incremental_sessions() -> Result<()> {
    const PARTITIONS: i32 = 240;
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let proxy = proxy_before(&broker.bootstrap(), FRESH).await?;
    let (through, direct) = (proxy.address().to_string(), broker.bootstrap());
    blocking(move || {
        let topic = "proxy-many-partitions";
        let mut writer = TopicWriter::start(&direct)?;
        writer.command(&format!("create {topic} {PARTITIONS}"))?;
        for partition in 0..PARTITIONS {
            writer.produce(topic, partition, "lz4", (25, 5), i64::from(partition))?;
        }
        let count = usize::try_from(PARTITIONS * 25)?;
        // Small fetches, so that a session has to go round several times.
        let small = [
            "fetch.max.bytes=20000",
            "max.partition.fetch.bytes=3000",
            "max.poll.records=100",
        ];
        let read = read_by_group(&through, "proxy-group", topic, count, &small)?;
        let own = read_by_group(&direct, "direct-group", topic, count, &small)?;
        assert_eq!(read.records, own.records);
        assert_eq!(read.committed, own.committed);
        assert_eq!(read.committed.len(), usize::try_from(PARTITIONS)?);
        // The group goes on where it was, with what has come since.
        writer.produce(topic, 17, "none", (3, 3), 99)?;
        let news = read_by_group(&through, "proxy-group", topic, 3, &[])?;
        assert_eq!(news.records.len(), 3);
        assert!(
            news.records.iter().all(|record| record.starts_with("17 2")),
            "{:?}",
            news.records
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_is_cached_needs_no_broker() -> Result<()> {
    let Some(mut broker) = own_kafka(&KafkaSettings::default()) else {
        return Ok(());
    };
    if !kcat::is_there() {
        return Ok(());
    }
    let proxy = proxy_before(&broker.bootstrap(), MaxStaleness::Forever).await?;
    let through = proxy.address().to_string();
    let cache = proxy.cache().clone();
    blocking(move || {
        let topic = "proxy-replay";
        let values: Vec<String> = (0..500).map(|index| records::value(3, index)).collect();
        kcat::produce(&through, topic, 0, "zstd", &values)?;
        // An absolute offset and a count, so that the client asks for no offsets, and nothing at the end.
        let all = [
            "-C", "-q", "-J", "-b", &through, "-t", topic, "-p", "0", "-o", "0", "-c", "500",
        ];
        let warm = kcat::run(&all, b"")?;
        // Under names, batches are kept a little after they were handed on.
        let mut batches = 0;
        while batches == 0 || cache.statistics().batches != batches {
            batches = cache.statistics().batches;
            std::thread::sleep(core::time::Duration::from_secs(1));
        }
        broker.stop();
        assert_eq!(kcat::run(&all, b"")?, warm);
        Ok(())
    })
    .await
}
