//! Which APIs and versions go through the proxy, and what it tells clients of that (H18).
//!
//! Source: the message schemas of Apache Kafka 4.4.0, those whose listeners include the broker's.

use core::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};

use super::splice::{Advertise, RewriteError, Splice, put_uvarint};
use crate::transport::ApiVersions;

/// The keys of APIs that the proxy looks at.
pub(super) mod key {
    pub(crate) const PRODUCE: i16 = 0;
    pub(crate) const FETCH: i16 = 1;
    pub(crate) const METADATA: i16 = 3;
    pub(crate) const FIND_COORDINATOR: i16 = 10;
    pub(crate) const SASL_HANDSHAKE: i16 = 17;
    pub(crate) const API_VERSIONS: i16 = 18;
    pub(crate) const SASL_AUTHENTICATE: i16 = 36;
    pub(crate) const DESCRIBE_CLUSTER: i16 = 60;
    pub(crate) const SHARE_FETCH: i16 = 78;
    pub(crate) const SHARE_ACKNOWLEDGE: i16 = 79;
}

/// Kafka's error for a version that is not spoken.
const UNSUPPORTED_VERSION: i16 = 35;

/// The versions of an API that may pass; `None` for an API that is not known here, which could carry addresses. What
/// is passed on untouched may have any version, since the broker says which ones it answers.
pub(super) fn spoken(api_key: i16) -> Option<RangeInclusive<i16>> {
    Some(match api_key {
        key::FETCH => kachet_core::wire::FETCH_VERSION_MIN..=kachet_core::wire::FETCH_VERSION_MAX,
        key::PRODUCE | key::METADATA => 0..=13,
        key::FIND_COORDINATOR => 0..=6,
        // After version 0 come bytes that are no requests, which nobody can tell from those that follow.
        key::SASL_HANDSHAKE => 1..=1,
        key::API_VERSIONS => 0..=5,
        key::DESCRIBE_CLUSTER => 0..=2,
        key::SHARE_FETCH | key::SHARE_ACKNOWLEDGE => 1..=2,
        2 | 8..=51 | 55 | 57 | 61 | 64..=66 | 68 | 69 | 71 | 72 | 74..=77 | 80 | 81 | 83..=94 => 0..=i16::MAX,
        _ => return None,
    })
}

/// The versions that clients are told. librdkafka takes a broker without version 0 of `SaslHandshake` for one from before
/// logins, though it uses version 1; Kafka itself tells of versions of Produce that it refuses for the like of it.
fn told(api_key: i16) -> Option<RangeInclusive<i16>> {
    if api_key == key::SASL_HANDSHAKE {
        return Some(0..=1);
    }
    spoken(api_key)
}

/// Whether messages of an API that is looked into have compact lengths and tagged fields (KIP-482), and their
/// responses a header that ends in tagged fields.
pub(super) fn is_flexible(api_key: i16, version: i16) -> bool {
    let first = match api_key {
        key::PRODUCE | key::METADATA => 9,
        key::FETCH => 12,
        key::FIND_COORDINATOR | key::API_VERSIONS => 3,
        key::DESCRIBE_CLUSTER | key::SHARE_FETCH | key::SHARE_ACKNOWLEDGE => 0,
        _ => return false,
    };
    version >= first
}

/// A broker's response to `ApiVersions`, with its header: without the APIs that are not known here, and with the
/// versions of the others that both sides speak.
pub(super) fn intersect(
    version: i16,
    response: &[u8],
    advertise: &dyn Advertise,
) -> Result<Bytes, RewriteError> {
    // The header is the oldest one, and an error comes in version 0, for ever (KIP-511).
    let error_code = response.get(4..6);
    let unsupported = error_code == Some(&UNSUPPORTED_VERSION.to_be_bytes()[..]);
    let flexible = version >= 3 && !unsupported;
    let mut walk = Splice::new(response, flexible, advertise);
    walk.skip(6)?;
    let from = walk.position();
    let mut kept = BytesMut::new();
    let mut count = 0;
    for _ in 0..walk.count()? {
        let api_key = walk.i16()?;
        let (min, max) = (walk.i16()?, walk.i16()?);
        let tags_at = walk.position();
        walk.tagged_fields()?;
        let Some(ours) = told(api_key) else { continue };
        let (min, max) = (min.max(*ours.start()), max.min(*ours.end()));
        if min <= max {
            kept.put_i16(api_key);
            kept.put_i16(min);
            kept.put_i16(max);
            kept.put_slice(walk.since(tags_at));
            count += 1;
        }
    }
    walk.replace_array(from, count, &kept)?;
    Ok(walk.finish())
}

/// A response to `ApiVersions`, without its header, out of what is known of a broker.
pub(super) fn known_api_versions(version: i16, known: &ApiVersions) -> Bytes {
    let ranges: Vec<_> = known
        .iter()
        .filter_map(|(api_key, theirs)| {
            let ours = told(api_key)?;
            let (min, max) = (*theirs.start().max(ours.start()), *theirs.end().min(ours.end()));
            (min <= max).then_some((api_key, min, max))
        })
        .collect();
    let flexible = is_flexible(key::API_VERSIONS, version);
    let mut body = BytesMut::new();
    body.put_i16(0);
    if flexible {
        put_uvarint(&mut body, u32::try_from(ranges.len() + 1).unwrap_or(1));
    } else {
        body.put_i32(i32::try_from(ranges.len()).unwrap_or(0));
    }
    for (api_key, min, max) in ranges {
        body.put_i16(api_key);
        body.put_i16(min);
        body.put_i16(max);
        body.put_slice(if flexible { &[0] } else { &[] });
    }
    if version >= 1 {
        body.put_i32(0);
    }
    body.put_slice(if flexible { &[0] } else { &[] });
    body.freeze()
}

/// The response, with its header, to an `ApiVersions` whose version is not spoken: error 35 and the range that is, in
/// version 0 (KIP-511).
pub(super) fn unsupported_api_versions(correlation_id: i32) -> Bytes {
    let mut response = BytesMut::with_capacity(16);
    response.put_i32(correlation_id);
    response.put_i16(UNSUPPORTED_VERSION);
    response.put_i32(1);
    response.put_i16(key::API_VERSIONS);
    response.put_i16(0);
    response.put_i16(5);
    response.freeze()
}
