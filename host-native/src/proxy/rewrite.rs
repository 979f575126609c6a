//! The responses that name brokers, and what clients are told instead (H17).
//!
//! Of Apache Kafka 4.4.0's message schemas these carry addresses of brokers: Metadata, `FindCoordinator`,
//! `DescribeCluster`, and as `NodeEndpoints` Produce, Fetch, `ShareFetch` and `ShareAcknowledge` (KIP-951). Node ids stay
//! as they are, so that every id and every endpoint in any response mean the same broker.
//!
//! Addresses that are left alone, because no client dials them as a broker: the controllers' in `DescribeQuorum`, which
//! are shown to people; the applications' own in `StreamsGroupHeartbeat` and `StreamsGroupDescribe`; the hosts in ACLs.

use bytes::Bytes;

use super::apis::{self, key};
use super::splice::{Advertise, RewriteError, Splice, Walked};

/// Whether a response of this API can name brokers, Fetch aside, which is decoded.
pub(super) fn names_brokers(api_key: i16, version: i16) -> bool {
    match api_key {
        key::METADATA
        | key::FIND_COORDINATOR
        | key::DESCRIBE_CLUSTER
        | key::SHARE_FETCH
        | key::SHARE_ACKNOWLEDGE => true,
        // NodeEndpoints came with version 10.
        key::PRODUCE => version >= 10,
        _ => false,
    }
}

/// A response with its header, with what clients are to be told in place of the brokers' addresses.
pub(super) fn addresses(
    api_key: i16,
    version: i16,
    response: &[u8],
    advertise: &dyn Advertise,
) -> Result<Bytes, RewriteError> {
    let flexible = apis::is_flexible(api_key, version);
    let mut walk = Splice::new(response, flexible, advertise);
    walk.skip(4)?;
    walk.tagged_fields()?;
    match api_key {
        key::METADATA => metadata(&mut walk, version)?,
        key::FIND_COORDINATOR => find_coordinator(&mut walk, version)?,
        key::DESCRIBE_CLUSTER => describe_cluster(&mut walk, version)?,
        key::PRODUCE => produce(&mut walk, version)?,
        key::SHARE_FETCH => share_fetch(&mut walk)?,
        key::SHARE_ACKNOWLEDGE => share_acknowledge(&mut walk, version)?,
        _ => {}
    }
    Ok(walk.finish())
}

/// `MetadataResponse.json`, versions 0 to 13.
fn metadata(walk: &mut Splice<'_>, version: i16) -> Walked {
    walk.skip(if version >= 3 { 4 } else { 0 })?;
    walk.array(|broker| {
        broker.endpoint()?;
        if version >= 1 {
            broker.string()?;
        }
        Ok(())
    })
}

/// `FindCoordinatorResponse.json`, versions 0 to 6.
fn find_coordinator(walk: &mut Splice<'_>, version: i16) -> Walked {
    walk.skip(if version >= 1 { 4 } else { 0 })?;
    if version >= 4 {
        return walk.array(|coordinator| {
            coordinator.string()?;
            coordinator.endpoint()?;
            coordinator.skip(2)?;
            coordinator.string().map(|_| ())
        });
    }
    walk.skip(2)?;
    if version >= 1 {
        walk.string()?;
    }
    walk.endpoint()
}

/// `DescribeClusterResponse.json`, versions 0 to 2. A broker describes brokers only.
fn describe_cluster(walk: &mut Splice<'_>, version: i16) -> Walked {
    walk.skip(6)?;
    walk.string()?;
    walk.skip(usize::from(version >= 1))?;
    walk.string()?;
    walk.skip(4)?;
    walk.array(|broker| {
        broker.endpoint()?;
        broker.string()?;
        broker.skip(usize::from(version >= 2))
    })
}

/// `ProduceResponse.json`, versions 10 to 13.
fn produce(walk: &mut Splice<'_>, version: i16) -> Walked {
    walk.array(|topic| {
        if version >= 13 {
            topic.skip(16)?;
        } else {
            topic.string()?;
        }
        topic.array(|partition| {
            partition.skip(4 + 2 + 8 + 8 + 8)?;
            partition.array(|error| {
                error.skip(4)?;
                error.string().map(|_| ())
            })?;
            partition.string().map(|_| ())
        })
    })?;
    walk.skip(4)?;
    walk.tagged_fields_with(|field, tag| {
        if tag == 0 {
            return node_endpoints(field);
        }
        Ok(())
    })
}

/// `ShareFetchResponse.json`, versions 1 and 2.
fn share_fetch(walk: &mut Splice<'_>) -> Walked {
    walk.skip(6)?;
    walk.string()?;
    walk.skip(4)?;
    walk.array(|topic| {
        topic.skip(16)?;
        topic.array(|partition| {
            partition.skip(6)?;
            partition.string()?;
            partition.skip(2)?;
            partition.string()?;
            current_leader(partition)?;
            partition.compact_bytes()?;
            partition.array(|acquired| acquired.skip(18))
        })
    })?;
    node_endpoints(walk)
}

/// `ShareAcknowledgeResponse.json`, versions 1 and 2.
fn share_acknowledge(walk: &mut Splice<'_>, version: i16) -> Walked {
    walk.skip(6)?;
    walk.string()?;
    walk.skip(if version >= 2 { 4 } else { 0 })?;
    walk.array(|topic| {
        topic.skip(16)?;
        topic.array(|partition| {
            partition.skip(6)?;
            partition.string()?;
            current_leader(partition)
        })
    })?;
    node_endpoints(walk)
}

fn current_leader(walk: &mut Splice<'_>) -> Walked {
    walk.skip(8)?;
    walk.tagged_fields()
}

fn node_endpoints(walk: &mut Splice<'_>) -> Walked {
    walk.array(|node| {
        node.endpoint()?;
        node.string().map(|_| ())
    })
}

#[cfg(test)]
mod tests;
