//! Every address in every version, with kafka-protocol as a witness: what is no address stays as it was.

use core::cell::RefCell;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponseTopic};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, DescribeClusterResponse, FindCoordinatorResponse,
    MetadataResponse, ProduceResponse, ShareAcknowledgeResponse, ShareFetchResponse, TopicName,
    share_acknowledge_response, share_fetch_response,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::*;
use crate::proxy::apis::{intersect, spoken};
use crate::proxy::splice::Advertised;

/// Says `proxy.example` and the port after the node id, and keeps in mind what it was asked for.
#[derive(Default)]
struct Told(RefCell<Vec<(i32, String, i32)>>);

impl Advertise for Told {
    fn advertise(&self, node_id: i32, host: &str, port: i32) -> Result<Advertised, RewriteError> {
        self.0.borrow_mut().push((node_id, host.to_owned(), port));
        Ok(Advertised {
            host: "proxy.example".into(),
            port: u16::try_from(19_093 + node_id).unwrap(),
        })
    }
}

/// A response with its header.
fn framed(api: ApiKey, version: i16, message: &impl Encodable) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_i32(7);
    if api.response_header_version(version) >= 1 {
        // A tagged field that nobody knows.
        frame.put_slice(&[1, 9, 2, 0xab, 0xcd]);
    }
    message.encode(&mut frame, version).unwrap();
    frame.to_vec()
}

fn host(of_proxy: bool, node_id: i32) -> (StrBytes, i32) {
    if of_proxy {
        (StrBytes::from_static_str("proxy.example"), 19_093 + node_id)
    } else {
        (StrBytes::from_string(format!("broker-{node_id}.internal")), 9_092)
    }
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn unknown_tag() -> std::collections::BTreeMap<i32, Bytes> {
    [(77, Bytes::from_static(b"kept"))].into()
}

fn metadata(of_proxy: bool, version: i16) -> MetadataResponse {
    let broker = |node_id| {
        let (host, port) = host(of_proxy, node_id);
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(node_id))
            .with_host(host)
            .with_port(port);
        let broker = if version >= 1 {
            broker.with_rack(Some(text("a")))
        } else {
            broker
        };
        if version >= 9 {
            broker.with_unknown_tagged_fields(unknown_tag())
        } else {
            broker
        }
    };
    let topic = MetadataResponseTopic::default().with_name(Some(TopicName(text("orders"))));
    MetadataResponse::default()
        .with_brokers(vec![broker(1), broker(2)])
        .with_topics(vec![topic])
}

fn coordinator(of_proxy: bool, version: i16) -> FindCoordinatorResponse {
    let (host, port) = host(of_proxy, 2);
    let response = FindCoordinatorResponse::default();
    if version < 4 {
        return response.with_node_id(BrokerId(2)).with_host(host).with_port(port);
    }
    let found = Coordinator::default()
        .with_key(text("group"))
        .with_node_id(BrokerId(2))
        .with_host(host)
        .with_port(port);
    let none = Coordinator::default()
        .with_key(text("other"))
        .with_node_id(BrokerId(-1))
        .with_port(-1)
        .with_error_code(15);
    response.with_coordinators(vec![none, found])
}

fn cluster(of_proxy: bool, version: i16) -> DescribeClusterResponse {
    let broker = |node_id| {
        let (host, port) = host(of_proxy, node_id);
        let broker = DescribeClusterBroker::default()
            .with_broker_id(BrokerId(node_id))
            .with_host(host)
            .with_port(port);
        if version >= 2 {
            broker.with_is_fenced(true)
        } else {
            broker
        }
    };
    DescribeClusterResponse::default()
        .with_cluster_id(text("cluster"))
        .with_error_message(Some(text("none")))
        .with_brokers(vec![broker(0), broker(3)])
}

fn produced(of_proxy: bool, version: i16) -> ProduceResponse {
    let (host, port) = host(of_proxy, 3);
    let node = NodeEndpoint::default()
        .with_node_id(BrokerId(3))
        .with_host(host)
        .with_port(port);
    let error = BatchIndexAndErrorMessage::default().with_batch_index_error_message(Some(text("bad")));
    let partition = PartitionProduceResponse::default()
        .with_record_errors(vec![error])
        .with_error_code(6);
    let topic = TopicProduceResponse::default().with_partition_responses(vec![partition]);
    let topic = if version >= 13 {
        topic
    } else {
        topic.with_name(TopicName(text("orders")))
    };
    ProduceResponse::default()
        .with_responses(vec![topic])
        .with_node_endpoints(vec![node])
        .with_unknown_tagged_fields(unknown_tag())
}

fn shared(of_proxy: bool, _version: i16) -> ShareFetchResponse {
    use share_fetch_response::{AcquiredRecords, NodeEndpoint, PartitionData, ShareFetchableTopicResponse};
    let (host, port) = host(of_proxy, 3);
    let node = NodeEndpoint::default()
        .with_node_id(BrokerId(3))
        .with_host(host)
        .with_port(port);
    let partition = PartitionData::default()
        .with_records(Some(Bytes::from_static(b"records")))
        .with_acquired_records(vec![AcquiredRecords::default(); 2]);
    let topic = ShareFetchableTopicResponse::default().with_partitions(vec![partition.clone(), partition]);
    ShareFetchResponse::default()
        .with_responses(vec![topic])
        .with_node_endpoints(vec![node])
}

fn acknowledged(of_proxy: bool, _version: i16) -> ShareAcknowledgeResponse {
    use share_acknowledge_response::{NodeEndpoint, PartitionData, ShareAcknowledgeTopicResponse};
    let (host, port) = host(of_proxy, 3);
    let node = NodeEndpoint::default()
        .with_node_id(BrokerId(3))
        .with_host(host)
        .with_port(port);
    let topic = ShareAcknowledgeTopicResponse::default().with_partitions(vec![PartitionData::default()]);
    ShareAcknowledgeResponse::default()
        .with_responses(vec![topic])
        .with_node_endpoints(vec![node])
}

/// Rewrites the response in every version that the witness and we speak; also each cut of it, which has to be an error
/// up to where the last address ends.
fn check<M>(api: ApiKey, build: impl Fn(bool, i16) -> M, nodes: &[i32])
where
    M: Encodable + Decodable + PartialEq + core::fmt::Debug,
{
    let ours = spoken(api as i16).unwrap();
    let mut versions = 0;
    for version in ours {
        if !api.valid_versions().contains(version) || !names_brokers(api as i16, version) {
            continue;
        }
        versions += 1;
        let told = Told::default();
        let frame = framed(api, version, &build(false, version));
        let rewritten = addresses(api as i16, version, &frame, &told).unwrap();
        assert_eq!(
            rewritten,
            framed(api, version, &build(true, version)),
            "{api:?} v{version}"
        );
        let asked: Vec<i32> = told.0.borrow().iter().map(|(node_id, ..)| *node_id).collect();
        assert_eq!(asked, nodes, "{api:?} v{version}");
        for (node_id, host, port) in told.0.borrow().iter() {
            assert_eq!(
                (host.as_str(), *port),
                (format!("broker-{node_id}.internal").as_str(), 9_092)
            );
        }
        let last = frame
            .windows(8)
            .rposition(|window| window == b"internal")
            .unwrap()
            + 8;
        for cut in 0..last {
            assert!(
                addresses(api as i16, version, &frame[..cut], &told).is_err(),
                "{api:?} v{version} {cut}"
            );
        }
    }
    assert!(versions > 0, "{api:?}");
}

trait Contains {
    fn contains(&self, version: i16) -> bool;
}

impl Contains for kafka_protocol::protocol::VersionRange {
    fn contains(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

#[test]
fn addresses_are_replaced_and_nothing_else_is_in_every_version() {
    check(ApiKey::Metadata, metadata, &[1, 2]);
    check(ApiKey::FindCoordinator, coordinator, &[2]);
    check(ApiKey::DescribeCluster, cluster, &[0, 3]);
    check(ApiKey::Produce, produced, &[3]);
    check(ApiKey::ShareFetch, shared, &[3]);
    check(ApiKey::ShareAcknowledge, acknowledged, &[3]);
}

#[test]
fn counts_and_lengths_that_claim_too_much_are_errors_and_cost_nothing() {
    let told = Told::default();
    for (version, frame) in [
        (1, [&[0, 0, 0, 7][..], &i32::MAX.to_be_bytes()].concat()),
        (
            12,
            [&[0, 0, 0, 7, 0, 0, 0, 0, 0][..], &[0xff, 0xff, 0xff, 0xff, 0x0f]].concat(),
        ),
        (12, [&[0, 0, 0, 7][..], &[0xff, 0xff, 0xff, 0xff, 0x0f]].concat()),
        (
            12,
            [&[0, 0, 0, 7][..], &[1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat(),
        ),
    ] {
        assert!(
            addresses(3, version, &frame, &told).is_err(),
            "v{version} {frame:?}"
        );
    }
}

#[test]
fn clients_are_told_the_versions_that_both_sides_speak() {
    let range = |key, min, max| {
        ApiVersion::default()
            .with_api_key(key)
            .with_min_version(min)
            .with_max_version(max)
    };
    for version in 0..=4 {
        let given = vec![
            range(0, 0, 13),
            range(1, 4, 99),
            range(1, 0, 17),
            range(17, 0, 2),
            range(17, 2, 2),
            range(8, 2, 99),
            range(56, 2, 3),
            range(1_000, 0, 1),
        ];
        let kept = vec![
            range(0, 0, 13),
            range(1, 4, 18),
            range(1, 4, 17),
            range(17, 0, 1),
            range(8, 2, 99),
        ];
        let told = |ranges| {
            let told = ApiVersionsResponse::default().with_api_keys(ranges);
            let told = if version >= 1 {
                told.with_throttle_time_ms(5)
            } else {
                told
            };
            if version >= 3 {
                told.with_finalized_features_epoch(9)
            } else {
                told
            }
        };
        let frame = framed(ApiKey::ApiVersions, version, &told(given));
        let intersected = intersect(version, &frame, &Told::default()).unwrap();
        assert_eq!(
            intersected,
            framed(ApiKey::ApiVersions, version, &told(kept)),
            "v{version}"
        );
        for cut in 0..frame.len() - 20 {
            assert!(
                intersect(version, &frame[..cut], &Told::default()).is_err(),
                "v{version} {cut}"
            );
        }
    }
    // Error 35 comes in version 0, whatever was asked.
    let unsupported = ApiVersionsResponse::default()
        .with_error_code(35)
        .with_api_keys(vec![range(18, 0, 9)]);
    let frame = framed(ApiKey::ApiVersions, 0, &unsupported);
    let expected = unsupported.with_api_keys(vec![range(18, 0, 5)]);
    let intersected = intersect(4, &frame, &Told::default()).unwrap();
    assert_eq!(intersected, framed(ApiKey::ApiVersions, 0, &expected));
}
