//! What the proxy reads of a request: its header, and of two APIs a little more. Nothing here trusts a length.

use bytes::{Buf, Bytes, TryGetError};

use super::apis::{self, key};
use super::limits::End;

/// API key, version and correlation id, with which every request begins.
pub(super) const HEAD_BYTES: usize = 8;
/// A header and the fields of a Produce up to its acknowledgements are shorter: two strings.
pub(super) const PRODUCE_START_BYTES: usize = 2 * (64 << 10) + 64;
/// A tag and its length for each.
const TAGS_LIMIT: u32 = 1024;

/// The beginning of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) api_key: i16,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
}

impl Head {
    pub(crate) fn parse(mut bytes: &[u8]) -> Result<Self, End> {
        let mut parse = || {
            Ok::<_, TryGetError>(Self {
                api_key: bytes.try_get_i16()?,
                version: bytes.try_get_i16()?,
                correlation_id: bytes.try_get_i32()?,
            })
        };
        parse().map_err(|_| End::RequestSize(0))
    }

    /// Whether the request may pass. Of `ApiVersions` any version may, because that is answered in any case.
    pub(super) fn check(self) -> Result<Self, End> {
        let spoken = apis::spoken(self.api_key).is_some_and(|spoken| spoken.contains(&self.version));
        if spoken || self.api_key == key::API_VERSIONS {
            return Ok(self);
        }
        Err(End::NotSpoken {
            api_key: self.api_key,
            version: self.version,
        })
    }
}

/// Where the body of a request begins, whose frame is given without its size.
pub(super) fn body_at(frame: &[u8], flexible: bool) -> Option<usize> {
    let mut rest = frame.get(HEAD_BYTES..)?;
    let client_id = rest.try_get_i16().ok()?;
    skip(&mut rest, usize::try_from(client_id.max(0)).ok()?)?;
    if flexible {
        let count = uvarint(&mut rest)?;
        if count > TAGS_LIMIT {
            return None;
        }
        for _ in 0..count {
            uvarint(&mut rest)?;
            let length = usize::try_from(uvarint(&mut rest)?).ok()?;
            skip(&mut rest, length)?;
        }
    }
    Some(frame.len() - rest.len())
}

/// Whether a Produce wants an answer: with acknowledgements from nobody none comes. `start` is the frame, or as much of
/// it as [`PRODUCE_START_BYTES`].
pub(super) fn produce_is_answered(start: &[u8], version: i16) -> Result<bool, End> {
    let flexible = apis::is_flexible(key::PRODUCE, version);
    let acks = || {
        let mut rest = start.get(body_at(start, flexible)?..)?;
        if version >= 3 {
            let length = if flexible {
                i64::from(uvarint(&mut rest)?) - 1
            } else {
                i64::from(rest.try_get_i16().ok()?)
            };
            skip(&mut rest, usize::try_from(length.max(0)).ok()?)?;
        }
        rest.try_get_i16().ok()
    };
    let acks = acks().ok_or_else(|| End::Request {
        api: "Produce",
        reason: "it ends before its acknowledgements".to_owned(),
    })?;
    Ok(acks != 0)
}

/// A Fetch's header, and its body.
pub(crate) fn split_fetch(frame: &Bytes, version: i16) -> Result<(Bytes, Bytes), End> {
    let flexible = apis::is_flexible(key::FETCH, version);
    let at = body_at(frame, flexible).ok_or_else(|| End::Request {
        api: "Fetch",
        reason: "its header ends too early".to_owned(),
    })?;
    Ok((frame.slice(..at), frame.slice(at..)))
}

fn skip(rest: &mut &[u8], length: usize) -> Option<()> {
    *rest = rest.get(length..)?;
    Some(())
}

fn uvarint(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u64;
    for shift in [0, 7, 14, 21, 28] {
        let byte = rest.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn produce(version: i16, transactional_id: Option<&str>, acks: i16) -> Vec<u8> {
        let flexible = version >= 9;
        let mut frame = [&[0, 0][..], &version.to_be_bytes(), &[0, 0, 0, 7], &[0, 2], b"me"].concat();
        if flexible {
            frame.extend([1, 5, 1, 9]);
        }
        match (version >= 3, flexible, transactional_id) {
            (false, ..) => {}
            (_, true, None) => frame.push(0),
            (_, false, None) => frame.extend([0xff, 0xff]),
            (_, true, Some(id)) => frame.push(u8::try_from(id.len() + 1).unwrap()),
            (_, false, Some(id)) => frame.extend(u16::try_from(id.len()).unwrap().to_be_bytes()),
        }
        if version >= 3 {
            frame.extend(transactional_id.unwrap_or_default().as_bytes());
        }
        frame.extend(acks.to_be_bytes());
        frame
    }

    #[test]
    fn acknowledgements_are_found_in_every_version_and_every_cut_is_an_error() {
        for version in 0..=13 {
            for id in [None, Some("transfers")] {
                for (acks, answered) in [(0, false), (1, true), (-1, true)] {
                    let frame = produce(version, id, acks);
                    assert_eq!(
                        produce_is_answered(&frame, version).unwrap(),
                        answered,
                        "v{version} {id:?}"
                    );
                    for cut in 0..frame.len() {
                        assert!(
                            produce_is_answered(&frame[..cut], version).is_err(),
                            "v{version} {cut}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn only_what_is_spoken_passes_and_any_api_versions() {
        for (api_key, version, passes) in [
            (key::FETCH, 3, false),
            (key::FETCH, 4, true),
            (key::FETCH, 18, true),
            (key::FETCH, 19, false),
            (key::SASL_HANDSHAKE, 0, false),
            (key::API_VERSIONS, 99, true),
            (8, 77, true),
            (52, 0, false),
            (1_000, 0, false),
            (-1, 0, false),
        ] {
            let head = Head {
                api_key,
                version,
                correlation_id: 1,
            };
            assert_eq!(head.check().is_ok(), passes, "{api_key} v{version}");
        }
    }
}
