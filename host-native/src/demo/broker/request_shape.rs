//! Proves the array counts of a request before it is decoded, see [`ArrayWalk`].

use kafka_protocol::messages::ApiKey;

use crate::transport::array_counts::ArrayWalk;

/// Whether every array in the body of a request has as many elements as it claims.
pub(super) fn arrays_are_whole(api: ApiKey, version: i16, body: &[u8]) -> bool {
    let mut walk = ArrayWalk::new(body, version >= first_flexible_version(api));
    match api {
        ApiKey::Metadata => metadata(&mut walk, version),
        ApiKey::ListOffsets => list_offsets(&mut walk, version),
        ApiKey::OffsetForLeaderEpoch => offset_for_leader_epoch(&mut walk, version),
        ApiKey::DescribeConfigs => describe_configs(&mut walk),
        // ApiVersions has no array.
        _ => Some(()),
    }
    .is_some()
}

/// The version from which on lengths are compact and structures end in tagged fields (KIP-482).
fn first_flexible_version(api: ApiKey) -> i16 {
    match api {
        ApiKey::Metadata => 9,
        ApiKey::ListOffsets => 6,
        ApiKey::OffsetForLeaderEpoch | ApiKey::DescribeConfigs => 4,
        _ => i16::MAX,
    }
}

fn metadata(walk: &mut ArrayWalk<'_>, version: i16) -> Option<()> {
    walk.array(|topic| {
        topic.skip(if version >= 10 { 16 } else { 0 })?;
        topic.string()
    })
}

fn list_offsets(walk: &mut ArrayWalk<'_>, version: i16) -> Option<()> {
    walk.skip(if version >= 2 { 5 } else { 4 })?;
    walk.array(|topic| {
        topic.string()?;
        topic.array(|partition| partition.skip(if version >= 4 { 16 } else { 12 }))
    })
}

fn offset_for_leader_epoch(walk: &mut ArrayWalk<'_>, version: i16) -> Option<()> {
    walk.skip(if version >= 3 { 4 } else { 0 })?;
    walk.array(|topic| {
        topic.string()?;
        topic.array(|partition| partition.skip(12))
    })
}

fn describe_configs(walk: &mut ArrayWalk<'_>) -> Option<()> {
    walk.array(|resource| {
        resource.skip(1)?;
        resource.string()?;
        resource.array_of_strings()
    })
}
