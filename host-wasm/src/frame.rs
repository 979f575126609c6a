//! Kafka's frames without their length: the header of a request or a response, and its body.
//!
//! ```text
//! request    api key i16 · version i16 · correlation id i32 · client id (i16 length, −1 for null) · [tags] · body
//! response   correlation id i32 · [tags] · body
//! ```
//!
//! Tags come with the flexible versions, from 12 on. Source: `RequestHeader.json`, `ResponseHeader.json` of Apache
//! Kafka; KIP-482.

use alloc::vec::Vec;

use bytes::{BufMut, Bytes, BytesMut};
use kachet_core::wire::{
    Chunks, DecodeError, DecodeErrorKind, FETCH_API_KEY, FETCH_VERSION_FLEXIBLE, FETCH_VERSION_MAX,
    FETCH_VERSION_MIN, FetchRequest, FetchResponse,
};

use crate::error::Error;

/// Tagged fields of a header that are walked at most; none are defined by now.
const TAGS_MAX: u32 = 64;

/// A Fetch request with its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFrame {
    /// The header, which goes upstream as it came.
    pub header: RequestHeader,
    /// The body.
    pub request: FetchRequest,
}

/// The header of a Fetch request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The version of Fetch.
    pub version: i16,
    /// What the response repeats.
    pub correlation_id: i32,
    /// The header as it came.
    bytes: Bytes,
}

impl RequestHeader {
    /// A header without a client id.
    pub fn new(version: i16, correlation_id: i32) -> Self {
        let mut bytes = BytesMut::with_capacity(11);
        bytes.put_i16(FETCH_API_KEY);
        bytes.put_i16(version);
        bytes.put_i32(correlation_id);
        bytes.put_i16(-1);
        if version >= FETCH_VERSION_FLEXIBLE {
            bytes.put_u8(0);
        }
        Self {
            version,
            correlation_id,
            bytes: bytes.freeze(),
        }
    }

    /// Its size, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl RequestFrame {
    /// Decodes a request.
    pub fn decode(frame: &Bytes) -> Result<Self, Error> {
        let mut cursor = Cursor::new(frame, "request header");
        let api_key = cursor.i16().map_err(Error::Request)?;
        if api_key != FETCH_API_KEY {
            return Err(Error::NotAFetch { api_key });
        }
        let version = cursor.i16().map_err(Error::Request)?;
        if !(FETCH_VERSION_MIN..=FETCH_VERSION_MAX).contains(&version) {
            return Err(Error::Request(
                cursor.error(2, DecodeErrorKind::UnsupportedVersion { version }),
            ));
        }
        let correlation_id = cursor.i32().map_err(Error::Request)?;
        cursor.client_id().map_err(Error::Request)?;
        if version >= FETCH_VERSION_FLEXIBLE {
            cursor.tags().map_err(Error::Request)?;
        }
        let (bytes, body) = (frame.slice(..cursor.at), frame.slice(cursor.at..));
        let request = FetchRequest::decode(body, version).map_err(Error::Request)?;
        let header = RequestHeader {
            version,
            correlation_id,
            bytes,
        };
        Ok(Self { header, request })
    }

    /// Encodes a request.
    pub fn encode(header: &RequestHeader, request: &FetchRequest) -> Result<Bytes, Error> {
        let mut body = Chunks::new();
        request
            .encode(header.version, &mut body)
            .map_err(Error::Request)?;
        let mut frame = BytesMut::with_capacity(header.bytes.len() + body.size_bytes());
        frame.put_slice(&header.bytes);
        for slice in body.slices() {
            frame.put_slice(slice);
        }
        Ok(frame.freeze())
    }
}

/// Decodes the response to a request of this version, and checks that it repeats the correlation id. The records of its
/// partitions share the memory of `frame`.
pub fn decode_response(frame: &Bytes, version: i16, correlation_id: i32) -> Result<FetchResponse, Error> {
    let mut cursor = Cursor::new(frame, "response header");
    let found = cursor.i32().map_err(Error::Response)?;
    if found != correlation_id {
        return Err(Error::CorrelationId {
            expected: correlation_id,
            found,
        });
    }
    if version >= FETCH_VERSION_FLEXIBLE {
        cursor.tags().map_err(Error::Response)?;
    }
    FetchResponse::decode(frame.slice(cursor.at..), version).map_err(Error::Response)
}

/// Encodes the response to a request with this header.
pub fn encode_response(header: &RequestHeader, response: &FetchResponse) -> Result<Vec<u8>, Error> {
    let mut body = Chunks::new();
    response
        .encode(header.version, &mut body)
        .map_err(Error::Response)?;
    let mut frame = Vec::with_capacity(body.size_bytes() + 5);
    frame.put_i32(header.correlation_id);
    if header.version >= FETCH_VERSION_FLEXIBLE {
        frame.put_u8(0);
    }
    for slice in body.slices() {
        frame.extend_from_slice(slice);
    }
    Ok(frame)
}

/// Walks a header.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    field: &'static str,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8], field: &'static str) -> Self {
        Self { bytes, at: 0, field }
    }

    fn error(&self, at_byte: usize, kind: DecodeErrorKind) -> DecodeError {
        DecodeError {
            field: self.field,
            at_byte,
            kind,
        }
    }

    fn skip(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(bytes) = rest.get(..length) else {
            let (needed_bytes, available_bytes) = (length, rest.len());
            return Err(self.error(
                self.at,
                DecodeErrorKind::UnexpectedEnd {
                    needed_bytes,
                    available_bytes,
                },
            ));
        };
        self.at += length;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.skip(N)?;
        Ok(bytes.first_chunk().copied().unwrap_or([0; N]))
    }

    fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// The client id, which has the same form in every version.
    fn client_id(&mut self) -> Result<(), DecodeError> {
        let at_byte = self.at;
        let length = self.i16()?;
        match usize::try_from(length) {
            Ok(length) => self.skip(length).map(drop),
            Err(_) if length == -1 => Ok(()),
            Err(_) => Err(self.error(
                at_byte,
                DecodeErrorKind::NegativeLength {
                    length: length.into(),
                },
            )),
        }
    }

    fn tags(&mut self) -> Result<(), DecodeError> {
        let at_byte = self.at;
        let count = self.uvarint()?;
        if count > TAGS_MAX {
            let limit = TAGS_MAX as usize;
            return Err(self.error(at_byte, DecodeErrorKind::TooManyTags { limit }));
        }
        for _ in 0..count {
            self.uvarint()?;
            let length = self.uvarint()?;
            self.skip(length as usize)?;
        }
        Ok(())
    }

    fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let at_byte = self.at;
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let value = u32::try_from(value);
                return value.map_err(|_| self.error(at_byte, DecodeErrorKind::VarintTooLong));
            }
        }
        Err(self.error(at_byte, DecodeErrorKind::VarintTooLong))
    }
}
