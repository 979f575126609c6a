//! The hazards of a cache in front of a log, each provoked on a real Kafka: what comes through the cache equals what the
//! broker itself answers, or what is asked for fails as the broker would fail it.
//!
//! | hazard | shown by |
//! |---|---|
//! | H1 isolation | `read_through::topics::transactions_equal_the_brokers_answer_in_both_isolations`, `an_open_transaction_holds_committed_readers_back_and_not_the_others` |
//! | H2 aborted transactions | `read_through::streams::transactions_of_every_outcome_read_the_same_forwards_and_backwards`: each offset, both isolations, beside the Java consumer |
//! | H3 control batches | `read_through::records::markers_and_aborted_records_are_absent_and_offsets_beyond_the_end_are_errors` |
//! | H4 log start | `deletion::what_retention_took_is_not_served_past_the_bound`, `read_through::freshness::deleted_records_are_gone_within_the_bound` (inside of a batch) |
//! | H5 compaction | `read_through::streams::the_gaps_of_a_compacted_topic_are_stepped_over_in_both_directions`, `read_through::freshness::what_the_cleaner_removed_is_gone_within_the_bound_for_compacted_topics` |
//! | H6 delete and create anew | `deletion::a_topic_that_is_created_anew_again_and_again_under_load_is_never_mixed_up_past_the_bound` |
//! | H7 truncation | `elections::what_an_unclean_election_cut_off_is_not_served_past_the_bound`, `nearest::a_follower_that_is_behind_drops_nothing` |
//! | H8 followers, H9 epochs | `read_through::every_version`, and `core/src/cache/tests/freshness.rs`, which names every epoch |
//! | H10 watermarks, H11 offsets inside of a batch | `read_through::topics::every_codec_by_the_java_client_equals_the_brokers_answer_twice` |
//! | H12 limits | `read_through::every_version::every_fetch_version_is_answered_alike_directly_and_from_the_cache` |
//! | H13 emptiness | `read_through::topics::an_empty_topic_gives_nothing_and_keeps_nothing` |
//! | H14 waiting | `waiting::a_partition_at_its_end_does_not_hold_back_a_cached_one` |
//! | H15 sessions, H17 addresses, H18 versions, H19 rights | the tests of the proxy: `tests/proxy/`, `host-native/tests/proxy/` |
//! | H16 the nearest replica | `nearest::records_come_from_the_replica_in_the_clients_rack` and what follows it; `tests/tests/proxy/racks.rs` |
//! | H20 quotas, H22 identity | a single broker cannot be made to show them: `host-native/tests/cache_layer/` |
//! | H21 fills go on | `waiting::a_fill_is_kept_though_its_caller_has_gone` |
//! | H23 fail open | `network::every_fault_of_the_network_ends_in_time_with_the_right_bytes_or_an_error`, `mounted/` |
//! | H24 integrity | `host-native/tests/engine_on_files/` |
//! | H25 one fetch for many | `read_through::topics::fifty_concurrent_misses_make_one_upstream_fetch` |
//! | H26 memory | `core/tests/engine/` |
//! | H27 to the byte | `read_through::topics`, all of it |
//! | H28 poison | `waiting::an_unknown_topic_id_beside_a_known_one_holds_nobody_up` |
//!
//! Leaders that die: `tests/leaders.rs`; leaders that move under load: `elections`.

#[path = "../counting/mod.rs"]
mod counting;
mod deletion;
mod elections;
mod nearest;
mod network;
mod toxic_proxy;
mod waiting;

use core::time::Duration;
use std::sync::OnceLock;

use anyhow::{Result, bail};
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings};
use kachet::transport::{BrokerAddress, Request, Response, TcpSettings, TcpTransport, Transport};
use kachet_core::time::MaxStaleness;
use kachet_core::wire::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, TaggedFields, TopicId, TopicRef,
};
use kachet_tests::cluster::KafkaCluster;
use tokio::sync::{Mutex, MutexGuard};

const CACHE_BYTES: u64 = 64 << 20;
/// The staleness bound of these tests.
const BOUND: Duration = Duration::from_millis(400);
/// For a dead broker to be noticed and others to take over, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Three brokers, each in a rack of its own, `rack-1` to `rack-3`.
const NODES: u32 = 3;

/// The cluster that these tests share, for one at a time, because they stop its brokers; whoever stops one starts it again.
/// `None` where there is no Kafka.
async fn cluster() -> Result<Option<MutexGuard<'static, KafkaCluster>>> {
    static CLUSTER: OnceLock<Result<Option<Mutex<KafkaCluster>>, String>> = OnceLock::new();
    let started = CLUSTER.get_or_init(|| {
        let cluster = KafkaCluster::start_with(NODES, |_, settings| {
            settings
                .with("auto.leader.rebalance.enable", "false")
                // Segments that are too old or too many go soon.
                .with("log.initial.task.delay.ms", "500")
                .with("log.retention.check.interval.ms", "500")
        });
        Ok(cluster.map_err(|error| format!("{error:#}"))?.map(Mutex::new))
    });
    match started {
        Ok(Some(cluster)) => Ok(Some(cluster.lock().await)),
        Ok(None) => Ok(None),
        Err(error) => bail!("the cluster does not start: {error}"),
    }
}

/// A client that reads through a cache and goes on trying while brokers are elected.
fn cached(bootstrap: &str, size_limit_bytes: u64) -> Result<Client<Cache<TcpTransport>>> {
    let settings = ClientSettings {
        retry_timeout: PATIENCE,
        ..ClientSettings::default()
    };
    let tcp = TcpSettings {
        request_timeout: Duration::from_secs(5),
        ..TcpSettings::default()
    };
    Ok(Client::builder()
        .bootstrap(bootstrap)
        .size_limit_bytes(size_limit_bytes)
        .max_staleness(MaxStaleness::Within(BOUND))
        .settings(settings)
        .tcp(tcp)
        .build()?)
}

fn direct(bootstrap: &str) -> Result<Client<TcpTransport>> {
    let brokers: Result<Vec<_>, _> = bootstrap.split(',').map(str::parse).collect();
    let transport = TcpTransport::new(TcpSettings::default());
    Ok(Client::new(transport, brokers?, ClientSettings::default())?)
}

/// A Fetch of partitions of topics, each from an offset on.
fn request(partitions: &[(TopicId, i32, i64)], max_wait: Duration) -> FetchRequest {
    let topics = partitions.iter().map(|(topic_id, partition, offset)| FetchTopic {
        topic: TopicRef::Id(*topic_id),
        partitions: vec![FetchPartition::new(*partition, *offset, 1 << 20)],
        unknown_tags: TaggedFields::default(),
    });
    FetchRequest {
        max_wait_ms: i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: topics.collect(),
        ..FetchRequest::default()
    }
}

/// In the newest version of Fetch.
async fn fetch<T: Transport>(
    transport: &T,
    broker: &BrokerAddress,
    request: FetchRequest,
) -> Result<FetchResponse> {
    let version = kachet_core::wire::FETCH_VERSION_MAX;
    match transport
        .round_trip(broker, Request::Fetch { version, request })
        .await?
    {
        Response::Fetch(response) => Ok(response),
        Response::Other(_) => bail!("not a Fetch response"),
    }
}
