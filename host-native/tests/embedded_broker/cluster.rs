//! What the broker tells of the cluster and of its logs.

use kachet::demo::broker::BrokerSettings;
use kachet::demo::records::Events;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, DescribeConfigsRequest, ListOffsetsRequest,
    MetadataRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use uuid::Uuid;

use crate::connection::{Connection, broker, broker_with};

#[tokio::test]
async fn metadata_tells_topics_by_name_by_id_and_all() {
    let (broker, id, _) = broker_with(BrokerSettings::default(), 2).await;
    broker.elect_leader("orders", 1).unwrap();
    let mut connection = Connection::to(&broker).await;
    let by_name =
        |name| MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str(name))));
    for version in 0..=13 {
        let all = if version == 0 { Some(vec![]) } else { None };
        for topics in [all, Some(vec![by_name("orders"), by_name("nobody")])] {
            let names_one_unknown = topics.as_ref().is_some_and(|topics| topics.len() == 2);
            let response = connection
                .call(version, &MetadataRequest::default().with_topics(topics))
                .await;
            assert_eq!(response.brokers[0].port, i32::from(broker.address().port));
            assert_eq!(response.cluster_id.is_some(), version >= 2);
            let topic = &response.topics[0];
            assert_eq!((topic.error_code, topic.partitions.len()), (0, 2), "v{version}");
            assert_eq!(
                topic.topic_id.into_bytes(),
                if version >= 10 { id.0 } else { [0; 16] }
            );
            let epochs = topic.partitions.iter().map(|partition| partition.leader_epoch);
            assert!(
                epochs.eq(if version >= 7 { [0, 1] } else { [-1, -1] }),
                "v{version}"
            );
            let rest: Vec<i16> = response.topics[1..]
                .iter()
                .map(|topic| topic.error_code)
                .collect();
            assert_eq!(rest, if names_one_unknown { vec![3] } else { vec![] });
        }
    }
    let by_id = |id| {
        MetadataRequestTopic::default()
            .with_name(None)
            .with_topic_id(Uuid::from_bytes(id))
    };
    let request = MetadataRequest::default().with_topics(Some(vec![by_id([9; 16]), by_id(id.0)]));
    let response = connection.call(12, &request).await;
    assert_eq!(
        (response.topics[0].error_code, &response.topics[0].name),
        (100, &None)
    );
    assert_eq!(response.topics[1].name.as_ref().unwrap().as_str(), "orders");
    assert_eq!(broker.requests().metadata, 29);
}

#[tokio::test]
async fn offsets_are_found_by_time() {
    let (broker, _, _) = broker().await;
    broker.truncate_before("orders", 0, 3).unwrap();
    let times: Vec<i64> = Events::new(7).take(50).map(|event| event.timestamp_ms).collect();
    let offset = |at: usize| i64::try_from(at).unwrap();
    // The first offset, not before the log start, whose time is not before the one asked for.
    let first_since = |time: i64| {
        times
            .iter()
            .skip(3)
            .position(|at| *at >= time)
            .map_or(-1, |at| offset(at + 3))
    };
    let mut cases = vec![(-1, 50, -1), (-2, 3, -1), (-3, first_since(times[49]), times[49])];
    cases.extend(times.iter().map(|time| {
        let found = first_since(*time);
        (*time, found, times[usize::try_from(found).unwrap()])
    }));
    cases.push((times[49] + 1, -1, -1));
    let mut connection = Connection::to(&broker).await;
    for version in 1..=10 {
        let asked = |(timestamp, ..): &(i64, i64, i64)| {
            ListOffsetsPartition::default()
                .with_partition_index(0)
                .with_timestamp(*timestamp)
        };
        let topic = ListOffsetsTopic::default()
            .with_name(TopicName(StrBytes::from_static_str("orders")))
            .with_partitions(cases.iter().map(asked).collect());
        let response = connection
            .call(version, &ListOffsetsRequest::default().with_topics(vec![topic]))
            .await;
        for (found, expected) in response.topics[0].partitions.iter().zip(&cases) {
            let unsupported = expected.0 == -3 && version < 7;
            let expected_found = if unsupported {
                (-1, -1)
            } else {
                (expected.1, expected.2)
            };
            assert_eq!(found.error_code, if unsupported { 35 } else { 0 }, "v{version}");
            assert_eq!(
                (found.offset, found.timestamp),
                expected_found,
                "v{version} {expected:?}"
            );
            assert_eq!(
                found.leader_epoch,
                if version >= 4 && found.offset >= 0 { 0 } else { -1 }
            );
        }
        assert_eq!(response.topics[0].partitions.len(), cases.len());
    }
}

#[tokio::test]
async fn a_topics_configuration_says_that_it_is_not_compacted() {
    let (broker, _, _) = broker().await;
    let mut connection = Connection::to(&broker).await;
    let resource = |name| {
        let name = StrBytes::from_static_str(name);
        DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(name)
            .with_configuration_keys(None)
    };
    let request =
        DescribeConfigsRequest::default().with_resources(vec![resource("orders"), resource("nobody")]);
    for version in 1..=4 {
        let response = connection.call(version, &request).await;
        let config = &response.results[0].configs[0];
        assert_eq!(
            (config.name.as_str(), config.value.as_deref()),
            ("cleanup.policy", Some("delete"))
        );
        assert_eq!(response.results[1].error_code, 3, "v{version}");
    }
}

#[tokio::test]
async fn api_versions_is_answered_in_every_version_even_in_unknown_ones() {
    let (broker, _, _) = broker().await;
    let mut connection = Connection::to(&broker).await;
    for version in 0..=4 {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("test"))
            .with_client_software_version(StrBytes::from_static_str("1"));
        let response = connection.call(version, &request).await;
        let fetch = response
            .api_keys
            .iter()
            .find(|api| api.api_key == ApiKey::Fetch as i16)
            .unwrap();
        assert_eq!((fetch.min_version, fetch.max_version), (4, 18), "v{version}");
    }
    let mut answer = connection.answer_to(ApiKey::ApiVersions, 99, &[]).await;
    let response = ApiVersionsResponse::decode(&mut answer, 0).unwrap();
    assert_eq!((response.error_code, response.api_keys[0].max_version), (35, 4));
}
