//! Proves the array counts of a message before `kafka-protocol` decodes it.
//!
//! That crate allocates whatever an array's count claims before it reads the first element, so that twenty bytes
//! from the network could ask for gigabytes and abort the process. Fetch and `ApiVersions` need none of this:
//! their decoders here never trust a count.

use kafka_protocol::messages::ApiKey;

/// Whether every array in the body of a response has as many elements as it claims. Of the responses that this
/// crate does not ask for itself it knows nothing, and says yes.
pub(crate) fn response_arrays_are_whole(api_key: i16, version: i16, body: &[u8]) -> bool {
    let walk = |first_flexible| ArrayWalk::new(body, version >= first_flexible);
    match ApiKey::try_from(api_key) {
        Ok(ApiKey::Metadata) => metadata(&mut walk(9), version),
        Ok(ApiKey::ListOffsets) => list_offsets(&mut walk(6), version),
        Ok(ApiKey::OffsetForLeaderEpoch) => offset_for_leader_epoch(&mut walk(4)),
        Ok(ApiKey::DescribeConfigs) => describe_configs(&mut walk(4), version),
        Ok(ApiKey::SaslHandshake) => sasl_handshake(&mut walk(i16::MAX)),
        _ => Some(()),
    }
    .is_some()
}

fn metadata(walk: &mut ArrayWalk<'_>, version: i16) -> Option<()> {
    walk.skip(if version >= 3 { 4 } else { 0 })?;
    walk.array(|broker| {
        broker.skip(4)?;
        broker.string()?;
        broker.skip(4)?;
        if version >= 1 { broker.string() } else { Some(()) }
    })?;
    if version >= 2 {
        walk.string()?;
    }
    walk.skip(if version >= 1 { 4 } else { 0 })?;
    walk.array(|topic| {
        topic.skip(2)?;
        topic.string()?;
        topic.skip(if version >= 10 { 16 } else { 0 })?;
        topic.skip(usize::from(version >= 1))?;
        topic.array(|partition| {
            partition.skip(if version >= 7 { 14 } else { 10 })?;
            for _ in 0..if version >= 5 { 3 } else { 2 } {
                partition.array_of_i32()?;
            }
            Some(())
        })?;
        topic.skip(if version >= 8 { 4 } else { 0 })
    })
}

fn list_offsets(walk: &mut ArrayWalk<'_>, version: i16) -> Option<()> {
    walk.skip(if version >= 2 { 4 } else { 0 })?;
    walk.array(|topic| {
        topic.string()?;
        topic.array(|partition| partition.skip(if version >= 4 { 26 } else { 22 }))
    })
}

/// From version 2 on, the oldest that is asked for.
fn offset_for_leader_epoch(walk: &mut ArrayWalk<'_>) -> Option<()> {
    walk.skip(4)?;
    walk.array(|topic| {
        topic.string()?;
        topic.array(|partition| partition.skip(18))
    })
}

/// From version 1 on, the oldest that is asked for.
fn describe_configs(walk: &mut ArrayWalk<'_>, version: i16) -> Option<()> {
    walk.skip(4)?;
    walk.array(|result| {
        result.skip(2)?;
        result.string()?;
        result.skip(1)?;
        result.string()?;
        result.array(|config| {
            config.string()?;
            config.string()?;
            config.skip(3)?;
            config.array(|synonym| {
                synonym.string()?;
                synonym.string()?;
                synonym.skip(1)
            })?;
            if version >= 3 {
                config.skip(1)?;
                config.string()?;
            }
            Some(())
        })
    })
}

/// An error code and the mechanisms; never flexible.
fn sasl_handshake(walk: &mut ArrayWalk<'_>) -> Option<()> {
    walk.skip(2)?;
    walk.array_of_strings()
}

/// Walks over fields; `None` where the input ends too early. What follows a message's last array is left to the
/// decoder.
pub(crate) struct ArrayWalk<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> ArrayWalk<'a> {
    /// Over `body`, in whose version lengths are compact and structures end in tagged fields (KIP-482) if it is
    /// `flexible`.
    pub(crate) fn new(body: &'a [u8], flexible: bool) -> Self {
        Self { rest: body, flexible }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn skip(&mut self, length: usize) -> Option<()> {
        self.take(length).map(|_| ())
    }

    fn uvarint(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let byte = *self.take(1)?.first()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A length or count; 0 for null.
    fn length<const PREFIX_BYTES: usize>(&mut self) -> Option<usize> {
        let length = if self.flexible {
            i64::from(self.uvarint()?) - 1
        } else {
            // Sign-extended from the prefix's own width.
            let prefix = self.take(PREFIX_BYTES)?;
            let negative = prefix.first()? & 0x80 != 0;
            let value = prefix.iter().fold(0, |value, byte| value << 8 | i64::from(*byte));
            if negative { -1 } else { value }
        };
        usize::try_from(length.max(0)).ok()
    }

    pub(crate) fn string(&mut self) -> Option<()> {
        let length = self.length::<2>()?;
        self.skip(length)
    }

    /// An array whose elements are structures. Each takes a byte at least, so that the input bounds the loop.
    pub(crate) fn array(&mut self, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        for _ in 0..self.length::<4>()? {
            element(self)?;
            self.tagged_fields()?;
        }
        Some(())
    }

    pub(crate) fn array_of_strings(&mut self) -> Option<()> {
        for _ in 0..self.length::<4>()? {
            self.string()?;
        }
        Some(())
    }

    fn array_of_i32(&mut self) -> Option<()> {
        let size_bytes = self.length::<4>()?.checked_mul(4)?;
        self.skip(size_bytes)
    }

    fn tagged_fields(&mut self) -> Option<()> {
        if !self.flexible {
            return Some(());
        }
        for _ in 0..self.uvarint()? {
            self.uvarint()?;
            let length = usize::try_from(self.uvarint()?).ok()?;
            self.skip(length)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use core::ops::RangeInclusive;

    use bytes::BytesMut;
    use kafka_protocol::messages::describe_configs_response::{
        DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
    };
    use kafka_protocol::messages::list_offsets_response::{
        ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
    };
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::offset_for_leader_epoch_response::{
        EpochEndOffset, OffsetForLeaderTopicResult,
    };
    use kafka_protocol::messages::{
        BrokerId, DescribeConfigsResponse, ListOffsetsResponse, MetadataResponse,
        OffsetForLeaderEpochResponse, TopicName,
    };
    use kafka_protocol::protocol::{Encodable, StrBytes};

    use super::*;

    /// A response in a version.
    type Encoded = fn(i16) -> Vec<u8>;

    fn encoded(message: &impl Encodable, version: i16) -> Vec<u8> {
        let mut body = BytesMut::new();
        message.encode(&mut body, version).unwrap();
        body.to_vec()
    }

    fn name() -> TopicName {
        TopicName(StrBytes::from_static_str("orders"))
    }

    fn metadata_response(version: i16) -> Vec<u8> {
        let partition = MetadataResponsePartition::default()
            .with_replica_nodes(vec![BrokerId(1), BrokerId(2)])
            .with_isr_nodes(vec![BrokerId(1)]);
        let topic = MetadataResponseTopic::default().with_name(Some(name()));
        let topic = topic.with_partitions(vec![partition.clone(), partition]);
        let broker = MetadataResponseBroker::default().with_host(StrBytes::from_static_str("localhost"));
        let response = MetadataResponse::default().with_brokers(vec![broker.clone(), broker]);
        encoded(&response.with_topics(vec![topic.clone(), topic]), version)
    }

    fn list_offsets_response(version: i16) -> Vec<u8> {
        let partitions = vec![ListOffsetsPartitionResponse::default(); 3];
        let topic = ListOffsetsTopicResponse::default()
            .with_name(name())
            .with_partitions(partitions);
        encoded(
            &ListOffsetsResponse::default().with_topics(vec![topic.clone(), topic]),
            version,
        )
    }

    fn epoch_response(version: i16) -> Vec<u8> {
        let partitions = vec![EpochEndOffset::default(); 3];
        let topic = OffsetForLeaderTopicResult::default()
            .with_topic(name())
            .with_partitions(partitions);
        encoded(
            &OffsetForLeaderEpochResponse::default().with_topics(vec![topic.clone(), topic]),
            version,
        )
    }

    fn configs_response(version: i16) -> Vec<u8> {
        let synonym = DescribeConfigsSynonym::default();
        let config = DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str("cleanup.policy"))
            .with_synonyms(vec![synonym.clone(), synonym]);
        let result = DescribeConfigsResult::default().with_configs(vec![config.clone(), config]);
        encoded(
            &DescribeConfigsResponse::default().with_results(vec![result.clone(), result]),
            version,
        )
    }

    #[test]
    fn whole_responses_of_every_version_pass_and_cut_ones_do_not() {
        let cases: [(ApiKey, Encoded, RangeInclusive<i16>); 4] = [
            (ApiKey::Metadata, metadata_response, 1..=13),
            (ApiKey::ListOffsets, list_offsets_response, 1..=10),
            (ApiKey::OffsetForLeaderEpoch, epoch_response, 2..=4),
            (ApiKey::DescribeConfigs, configs_response, 1..=4),
        ];
        for (api, response, versions) in cases {
            for version in versions {
                let body = response(version);
                let whole = |body: &[u8]| response_arrays_are_whole(api as i16, version, body);
                assert!(whole(&body), "{api:?} v{version}");
                // Only what follows the last array may be missing.
                assert!(!whole(&body[..body.len() / 2]), "{api:?} v{version}");
            }
        }
    }

    #[test]
    fn a_count_beyond_the_input_is_found_in_every_array() {
        for (api, version, body) in [
            (ApiKey::Metadata, 1, metadata_response(1)),
            (ApiKey::ListOffsets, 2, list_offsets_response(2)),
            (ApiKey::OffsetForLeaderEpoch, 3, epoch_response(3)),
            (ApiKey::DescribeConfigs, 3, configs_response(3)),
        ] {
            let mut found = 0;
            for at in 0..body.len() - 3 {
                let mut changed = body.clone();
                changed[at..at + 4].copy_from_slice(&i32::MAX.to_be_bytes());
                found += usize::from(!response_arrays_are_whole(api as i16, version, &changed));
            }
            assert!(found >= 3, "{api:?}: {found}");
        }
    }
}
