//! DescribeConfigs, asked for the one setting of a topic that matters to a cache: whether the cleaner rewrites it.

use core::time::Duration;
use std::collections::BTreeMap;

use kachet_core::wire::WireStr;
use kafka_protocol::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use kafka_protocol::protocol::StrBytes;

use crate::transport::{BrokerAddress, Transport, TransportError, call_with};

/// Kafka's number for a resource that is a topic.
const RESOURCE_TOPIC: i8 = 2;
const CLEANUP_POLICY: &str = "cleanup.policy";

/// Asks a broker, any of the cluster, which of some topics are compacted. A topic that the broker says nothing of,
/// for instance because this client may not read its settings, is missing.
pub async fn compacted_topics<T: Transport>(
    transport: &T,
    broker: &BrokerAddress,
    topics: &[WireStr],
) -> Result<BTreeMap<WireStr, bool>, TransportError> {
    let resource = |topic: &WireStr| {
        DescribeConfigsResource::default()
            .with_resource_type(RESOURCE_TOPIC)
            .with_resource_name(StrBytes::from_string(topic.as_str().to_owned()))
            .with_configuration_keys(Some(vec![StrBytes::from_static_str(CLEANUP_POLICY)]))
    };
    let build = |_| DescribeConfigsRequest::default().with_resources(topics.iter().map(resource).collect());
    let (_, response) = call_with(transport, broker, 1..=4, Duration::ZERO, build).await?;
    let mut compacted = BTreeMap::new();
    for result in response.results.iter().filter(|result| result.error_code == 0) {
        let policy = result
            .configs
            .iter()
            .find(|config| config.name.as_str() == CLEANUP_POLICY);
        let policy = policy.and_then(|config| config.value.as_ref());
        if let (Some(name), Some(policy)) = (WireStr::copy_from(result.resource_name.as_str()), policy) {
            compacted.insert(name, policy.as_str().contains("compact"));
        }
    }
    Ok(compacted)
}
