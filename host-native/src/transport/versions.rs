//! Which versions a broker answers, and calls in the newest version that both sides speak.
//!
//! Source: `ApiVersionsRequest.json` and `ApiVersionsResponse.json` of Apache Kafka; KIP-35, KIP-511 (what a
//! broker answers to a version of `ApiVersions` that it does not know).

use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::BTreeMap;
use std::io;

use bytes::{Buf, Bytes, BytesMut, TryGetError};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::array_counts::response_arrays_are_whole;
use super::connection::Connection;
use super::frame::{Outgoing, api_name, message_error};
use super::{BrokerAddress, Request, Response, Transport, TransportError};

/// The version of `ApiVersions` that is tried first: the newest before brokers began to leave out features.
const ASKED_FIRST: i16 = 3;
/// Kafka's error for a version of a request that a broker does not know.
const UNSUPPORTED_VERSION: i16 = 35;

/// The API versions that a broker answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiVersions {
    ranges: BTreeMap<i16, (i16, i16)>,
}

impl ApiVersions {
    /// The versions of one API, `None` if the broker does not answer it.
    pub fn range(&self, api_key: i16) -> Option<RangeInclusive<i16>> {
        self.ranges.get(&api_key).map(|(min, max)| *min..=*max)
    }

    /// The highest version that both the broker and `ours` hold.
    pub fn negotiate(&self, api_key: i16, ours: RangeInclusive<i16>) -> Option<i16> {
        let (broker_min, broker_max) = *self.ranges.get(&api_key)?;
        let newest = broker_max.min(*ours.end());
        (newest >= broker_min.max(*ours.start())).then_some(newest)
    }

    /// The same, with the error for when there is none.
    pub(super) fn version_for(
        &self,
        broker: &BrokerAddress,
        api_key: i16,
        spoken: RangeInclusive<i16>,
    ) -> Result<i16, TransportError> {
        self.negotiate(api_key, spoken.clone()).ok_or_else(|| {
            let (broker_min, broker_max) = self.range(api_key).map_or((-1, -1), RangeInclusive::into_inner);
            let (min, max) = spoken.into_inner();
            TransportError::NoCommonVersion {
                broker: broker.clone(),
                api: api_name(api_key),
                broker_min,
                broker_max,
                min,
                max,
            }
        })
    }

    /// Every API with its versions, by ascending key.
    pub fn iter(&self) -> impl Iterator<Item = (i16, RangeInclusive<i16>)> {
        self.ranges
            .iter()
            .map(|(api_key, (min, max))| (*api_key, *min..=*max))
    }
}

impl FromIterator<(i16, RangeInclusive<i16>)> for ApiVersions {
    fn from_iter<I: IntoIterator<Item = (i16, RangeInclusive<i16>)>>(ranges: I) -> Self {
        Self {
            ranges: ranges
                .into_iter()
                .map(|(api_key, range)| (api_key, range.into_inner()))
                .collect(),
        }
    }
}

/// Sends a request in the newest version within `ours` that the broker and kafka-protocol speak too, and gives
/// that version with the response.
///
/// Fails with [`TransportError::Message`] if the request has a field set that the version cannot carry;
/// [`call_with`] builds the request for the version instead.
pub async fn call<T: Transport, R: kafka_protocol::protocol::Request>(
    transport: &T,
    broker: &BrokerAddress,
    request: R,
    ours: RangeInclusive<i16>,
    broker_wait: Duration,
) -> Result<(i16, R::Response), TransportError> {
    call_with(transport, broker, ours, broker_wait, |_| request).await
}

/// Like [`call`], with a request that is built for the version.
pub async fn call_with<T: Transport, R: kafka_protocol::protocol::Request>(
    transport: &T,
    broker: &BrokerAddress,
    ours: RangeInclusive<i16>,
    broker_wait: Duration,
    build: impl FnOnce(i16) -> R,
) -> Result<(i16, R::Response), TransportError> {
    let spoken = *ours.start().max(&R::VERSIONS.min)..=*ours.end().min(&R::VERSIONS.max);
    let versions = transport.api_versions(broker).await?;
    let version = versions.version_for(broker, R::KEY, spoken)?;
    let failed = |message: String| message_error(broker, R::KEY, version, &message);
    let body = encode(&build(version), version).map_err(|error| failed(format!("request: {error}")))?;
    let request = Request::Other {
        api_key: R::KEY,
        version,
        body,
        broker_wait,
    };
    match transport.round_trip(broker, request).await? {
        Response::Other(body) if !response_arrays_are_whole(R::KEY, version, &body) => Err(failed(
            "response: an array claims more elements than there are".to_owned(),
        )),
        Response::Other(mut body) => {
            let response = R::Response::decode(&mut body, version)
                .map_err(|error| failed(format!("response: {error}")))?;
            if body.has_remaining() {
                return Err(failed(format!(
                    "response: {} bytes are left over",
                    body.remaining()
                )));
            }
            Ok((version, response))
        }
        Response::Fetch(_) => Err(failed("a Fetch response came instead".to_owned())),
    }
}

fn encode<M: Encodable>(message: &M, version: i16) -> Result<Bytes, impl core::fmt::Display + use<M>> {
    let mut body = BytesMut::new();
    message.encode(&mut body, version).map(|()| body.freeze())
}

/// Asks on a new connection. What goes wrong here mostly means that the other side is no broker, or that its
/// listener wants TLS.
pub(super) async fn ask(
    connection: &Connection,
    broker: &BrokerAddress,
) -> Result<ApiVersions, TransportError> {
    let mut answer = ask_in(connection, broker, ASKED_FIRST).await?;
    if answer.error_code == UNSUPPORTED_VERSION {
        answer = ask_in(connection, broker, 0).await?;
    }
    match ResponseError::try_from_code(answer.error_code) {
        None => Ok(answer.versions),
        Some(error) => {
            let message = format!("the broker answers error {} ({error})", answer.error_code);
            Err(message_error(
                broker,
                ApiKey::ApiVersions as i16,
                answer.version,
                &message,
            ))
        }
    }
}

struct Answer {
    version: i16,
    error_code: i16,
    versions: ApiVersions,
}

async fn ask_in(
    connection: &Connection,
    broker: &BrokerAddress,
    version: i16,
) -> Result<Answer, TransportError> {
    let api_key = ApiKey::ApiVersions as i16;
    let mut request = ApiVersionsRequest::default();
    if version >= 3 {
        request.client_software_name = StrBytes::from_static_str("kachet");
        request.client_software_version = StrBytes::from_static_str(env!("CARGO_PKG_VERSION"));
    }
    let body = encode(&request, version)
        .map_err(|error| message_error(broker, api_key, version, &format!("request: {error}")))?;
    let request = Request::Other {
        api_key,
        version,
        body,
        broker_wait: Duration::ZERO,
    };
    let outgoing = Outgoing::new(broker, request)?;
    let response = connection
        .request(&outgoing)
        .await
        .map_err(|failure| match failure.error {
            TransportError::Closed { broker } => TransportError::ClosedAtStart { broker },
            TransportError::Connection { broker, source } if is_hang_up(source.kind()) => {
                TransportError::ClosedAtStart { broker }
            }
            error => error,
        })?;
    let (error_code, versions) = read_answer(outgoing.response_body(broker, response)?, version)
        .map_err(|message| message_error(broker, api_key, version, &format!("response: {message}")))?;
    Ok(Answer {
        version,
        error_code,
        versions,
    })
}

fn is_hang_up(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe
    )
}

/// Read by hand, because anything may be on the other side of a new connection, and kafka-protocol allocates
/// as many elements as an array claims to have.
fn read_answer(mut body: Bytes, version: i16) -> Result<(i16, ApiVersions), String> {
    let short = |error: TryGetError| error.to_string();
    let error_code = body.try_get_i16().map_err(short)?;
    if error_code == UNSUPPORTED_VERSION {
        // Comes in version 0, whatever the request's version was.
        return Ok((error_code, ApiVersions::default()));
    }
    let flexible = version >= 3;
    let count = if flexible {
        i64::from(try_get_uvarint(&mut body)?) - 1
    } else {
        i64::from(body.try_get_i32().map_err(short)?)
    };
    let mut ranges = BTreeMap::new();
    // Ends with the body at the latest: each turn takes some of it.
    for _ in 0..count {
        let api_key = body.try_get_i16().map_err(short)?;
        let min = body.try_get_i16().map_err(short)?;
        let max = body.try_get_i16().map_err(short)?;
        if flexible {
            skip_tagged_fields(&mut body)?;
        }
        ranges.insert(api_key, (min, max));
    }
    if version >= 1 {
        body.try_get_i32().map_err(short)?; // ThrottleTimeMs
    }
    if flexible {
        skip_tagged_fields(&mut body)?;
    }
    match body.remaining() {
        0 => Ok((error_code, ApiVersions { ranges })),
        left => Err(format!("{left} bytes are left over")),
    }
}

fn skip_tagged_fields(body: &mut Bytes) -> Result<(), String> {
    for _ in 0..try_get_uvarint(body)? {
        let _tag = try_get_uvarint(body)?;
        let size_bytes = usize::try_from(try_get_uvarint(body)?).unwrap_or(usize::MAX);
        if size_bytes > body.remaining() {
            return Err(format!(
                "a tagged field of {size_bytes} bytes where {} are left",
                body.remaining()
            ));
        }
        body.advance(size_bytes);
    }
    Ok(())
}

fn try_get_uvarint(body: &mut Bytes) -> Result<u32, String> {
    let mut value = 0_u64;
    for shift in [0, 7, 14, 21, 28] {
        let byte = body.try_get_u8().map_err(|error| error.to_string())?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).map_err(|_| "a variable-length integer is too large".to_owned());
        }
    }
    Err("a variable-length integer does not end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_negotiated() {
        let versions: ApiVersions = [(1, 4..=18), (3, 0..=13)].into_iter().collect();
        assert_eq!(versions.negotiate(1, 4..=17), Some(17));
        assert_eq!(versions.negotiate(1, 4..=20), Some(18));
        assert_eq!(versions.negotiate(1, 18..=20), Some(18));
        assert_eq!(versions.negotiate(1, 19..=20), None);
        assert_eq!(versions.negotiate(1, 0..=3), None);
        assert_eq!(versions.negotiate(2, 0..=3), None);
        assert_eq!((versions.range(3), versions.range(2)), (Some(0..=13), None));
        assert_eq!(versions.iter().count(), 2);
    }

    #[test]
    fn a_claimed_count_of_apis_costs_nothing() {
        let claimed = [&[0, 0][..], &i32::MAX.to_be_bytes(), &[0, 1, 0, 4, 0, 18]].concat();
        assert!(read_answer(claimed.into(), 0).is_err());
        let claimed = [0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 1, 0, 4, 0, 18, 0];
        assert!(read_answer(claimed.to_vec().into(), 3).is_err());
    }

    #[test]
    fn every_cut_of_an_answer_is_an_error() {
        let whole = [0, 0, 2, 0, 1, 0, 4, 0, 18, 1, 0, 1, 7, 0, 0, 0, 0, 1, 0, 1, 7];
        let (error_code, versions) = read_answer(whole.to_vec().into(), 3).unwrap();
        assert_eq!((error_code, versions.range(1)), (0, Some(4..=18)));
        for length in 0..whole.len() {
            assert!(
                read_answer(whole[..length].to_vec().into(), 3).is_err(),
                "{length}"
            );
        }
        assert!(read_answer([&whole[..], &[0]].concat().into(), 3).is_err());
    }
}
