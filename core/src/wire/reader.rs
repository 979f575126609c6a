//! Reads Kafka's primitive types off shared bytes, never trusting a length.

use alloc::vec::Vec;

use bytes::Bytes;

use super::error::{DecodeError, DecodeErrorKind};
use super::fetch_request::FETCH_VERSION_FLEXIBLE;
use super::tagged::{MAX_UNKNOWN_TAGS, TaggedField, TaggedFields};
use super::types::{TopicId, WireStr};

/// A position in shared bytes. Slices that it gives share the input's allocation.
///
/// The first fault is kept until [`Self::end`] tells of it. Nothing is left to read behind it, so that whoever decodes a structure
/// needs not look after each field: those that follow are zero, empty or null, and the whole is thrown away.
pub(super) struct Reader {
    input: Bytes,
    at: usize,
    /// Where `input` begins in what the caller handed in, so that errors name offsets of the whole.
    origin: usize,
    version: i16,
    fault: Option<DecodeError>,
}

impl Reader {
    /// At the beginning of a structure of this version of Fetch.
    pub(super) fn new(input: Bytes, version: i16) -> Self {
        Self {
            input,
            at: 0,
            origin: 0,
            version,
            fault: None,
        }
    }

    /// The version of Fetch that is read.
    pub(super) fn version(&self) -> i16 {
        self.version
    }

    /// Notes a fault at a position, unless there was one before it.
    #[cold]
    fn fail(&mut self, field: &'static str, at: usize, kind: DecodeErrorKind) {
        self.at = self.input.len();
        self.fault.get_or_insert(DecodeError {
            field,
            at_byte: self.origin + at,
            kind,
        });
    }

    #[cold]
    fn cut_off(&mut self, field: &'static str, needed_bytes: usize) {
        let available_bytes = self.remaining();
        self.fail(
            field,
            self.at,
            DecodeErrorKind::UnexpectedEnd {
                needed_bytes,
                available_bytes,
            },
        );
    }

    fn remaining(&self) -> usize {
        self.input.len() - self.at
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> [u8; N] {
        let Some(bytes) = self.input[self.at..].first_chunk::<N>() else {
            self.cut_off(field, N);
            return [0; N];
        };
        self.at += N;
        *bytes
    }

    pub(super) fn i8(&mut self, field: &'static str) -> i8 {
        i8::from_be_bytes(self.array(field))
    }

    pub(super) fn i16(&mut self, field: &'static str) -> i16 {
        i16::from_be_bytes(self.array(field))
    }

    pub(super) fn i32(&mut self, field: &'static str) -> i32 {
        i32::from_be_bytes(self.array(field))
    }

    pub(super) fn i64(&mut self, field: &'static str) -> i64 {
        i64::from_be_bytes(self.array(field))
    }

    pub(super) fn topic_id(&mut self, field: &'static str) -> TopicId {
        TopicId(self.array(field))
    }

    #[inline]
    pub(super) fn uvarint(&mut self, field: &'static str) -> u32 {
        // Most lengths and counts fit into a byte.
        if let Some(&byte) = self.input.get(self.at)
            && byte < 0x80
        {
            self.at += 1;
            return byte.into();
        }
        self.long_uvarint(field)
    }

    fn long_uvarint(&mut self, field: &'static str) -> u32 {
        match uvarint(&self.input[self.at..]) {
            Varint::Value(value, length) => {
                self.at += length;
                return value;
            }
            Varint::End => self.cut_off(field, self.remaining() + 1),
            Varint::TooLong => self.fail(field, self.at, DecodeErrorKind::VarintTooLong),
        }
        0
    }

    fn slice(&mut self, field: &'static str, length: usize) -> Bytes {
        if length > self.remaining() {
            self.cut_off(field, length);
            return Bytes::new();
        }
        if length == 0 {
            // Shares nothing, so that nothing is counted.
            return Bytes::new();
        }
        let bytes = self.input.slice(self.at..self.at + length);
        self.at += length;
        bytes
    }

    /// A length or count; `None` is null.
    fn length(&mut self, field: &'static str, prefix: Prefix) -> Option<usize> {
        let start = self.at;
        let length = if self.version >= FETCH_VERSION_FLEXIBLE {
            i64::from(self.uvarint(field)) - 1
        } else {
            match prefix {
                Prefix::I16 => i64::from(self.i16(field)),
                Prefix::I32 => i64::from(self.i32(field)),
            }
        };
        let counted = usize::try_from(length).ok();
        if counted.is_none() && length != -1 {
            self.fail(field, start, DecodeErrorKind::NegativeLength { length });
        }
        counted
    }

    pub(super) fn nullable_string(&mut self, field: &'static str) -> Option<WireStr> {
        let start = self.at;
        let length = self.length(field, Prefix::I16)?;
        if length > WireStr::LIMIT_BYTES {
            let limit_bytes = WireStr::LIMIT_BYTES;
            self.fail(
                field,
                start,
                DecodeErrorKind::StringTooLong { length, limit_bytes },
            );
        }
        let string = WireStr::from_utf8(self.slice(field, length));
        if string.is_none() {
            self.fail(field, start, DecodeErrorKind::InvalidUtf8);
        }
        string
    }

    pub(super) fn string(&mut self, field: &'static str) -> WireStr {
        let start = self.at;
        self.nullable_string(field).unwrap_or_else(|| {
            self.fail(field, start, DecodeErrorKind::UnexpectedNull);
            WireStr::default()
        })
    }

    pub(super) fn nullable_bytes(&mut self, field: &'static str) -> Option<Bytes> {
        let length = self.length(field, Prefix::I32)?;
        Some(self.slice(field, length))
    }

    /// The count of an array whose elements take at least `element_min_bytes` on the wire, which bounds what a claimed count can
    /// make anybody allocate.
    fn count(&mut self, field: &'static str, element_min_bytes: usize) -> Option<usize> {
        let count = self.length(field, Prefix::I32)?;
        let needed_bytes = count.saturating_mul(element_min_bytes);
        if needed_bytes > self.remaining() {
            self.cut_off(field, needed_bytes);
            return None;
        }
        Some(count)
    }

    /// An array whose elements take at least `element_min_bytes` on the wire.
    pub(super) fn nullable_vec<T>(
        &mut self,
        field: &'static str,
        element_min_bytes: usize,
        element: impl Fn(&mut Self) -> T,
    ) -> Option<Vec<T>> {
        let count = self.count(field, element_min_bytes)?;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(element(self));
            if self.fault.is_some() {
                break;
            }
        }
        Some(elements)
    }

    pub(super) fn vec<T>(
        &mut self,
        field: &'static str,
        element_min_bytes: usize,
        element: impl Fn(&mut Self) -> T,
    ) -> Vec<T> {
        let start = self.at;
        self.nullable_vec(field, element_min_bytes, element)
            .unwrap_or_else(|| {
                self.fail(field, start, DecodeErrorKind::UnexpectedNull);
                Vec::new()
            })
    }

    /// The tagged fields at the end of a structure that knows none; nothing before the flexible versions.
    pub(super) fn unknown_tags(&mut self, field: &'static str) -> TaggedFields {
        self.tagged(field, &mut |_, _| false)
    }

    /// The tagged fields at the end of a structure; nothing before the flexible versions.
    /// `known` decodes the tags that it knows and answers whether it did; the others are kept as they came.
    #[inline]
    pub(super) fn tagged(
        &mut self,
        field: &'static str,
        known: &mut dyn FnMut(u32, &mut Self) -> bool,
    ) -> TaggedFields {
        if self.version < FETCH_VERSION_FLEXIBLE {
            return TaggedFields::default();
        }
        match self.uvarint(field) {
            0 => TaggedFields::default(),
            count => self.some_tagged(field, count, known),
        }
    }

    fn some_tagged(
        &mut self,
        field: &'static str,
        count: u32,
        known: &mut dyn FnMut(u32, &mut Self) -> bool,
    ) -> TaggedFields {
        let mut unknown = TaggedFields::default();
        let mut previous = None;
        for left in (1..=count).rev() {
            let tag_at = self.at;
            let tag = self.uvarint(field);
            if previous >= Some(tag) {
                self.fail(field, tag_at, DecodeErrorKind::TagOrder { tag });
            }
            previous = Some(tag);
            let stated_bytes = usize::try_from(self.uvarint(field)).unwrap_or(usize::MAX);
            let mut inner = Self {
                origin: self.origin + self.at,
                at: 0,
                input: self.slice(field, stated_bytes),
                version: self.version,
                fault: None,
            };
            let data = inner.input.clone();
            if known(tag, &mut inner) {
                if inner.remaining() > 0 {
                    let used_bytes = inner.at;
                    inner.fail(
                        field,
                        used_bytes,
                        DecodeErrorKind::TagLength {
                            stated_bytes,
                            used_bytes,
                        },
                    );
                }
            } else if !unknown.push(TaggedField { tag, data }, left) {
                let limit = MAX_UNKNOWN_TAGS;
                self.fail(field, tag_at, DecodeErrorKind::TooManyTags { limit });
            }
            if let Some(fault) = inner.fault {
                self.at = self.input.len();
                self.fault.get_or_insert(fault);
            }
            if self.fault.is_some() {
                break;
            }
        }
        unknown
    }

    /// The first fault, if there was one; what is left over is not looked at.
    pub(super) fn end(self) -> Result<(), DecodeError> {
        self.fault.map_or(Ok(()), Err)
    }

    /// The same, and nothing may be left over.
    pub(super) fn finish(mut self, field: &'static str) -> Result<(), DecodeError> {
        let count = self.remaining();
        if count > 0 {
            self.fail(field, self.at, DecodeErrorKind::TrailingBytes { count });
        }
        self.end()
    }
}

#[derive(Clone, Copy)]
enum Prefix {
    I16,
    I32,
}

pub(super) enum Varint<T> {
    /// The value and the bytes that it took.
    Value(T, usize),
    End,
    TooLong,
}

/// An unsigned 32-bit LEB128 integer of at most five bytes.
pub(super) fn uvarint(bytes: &[u8]) -> Varint<u32> {
    match uvarlong(&bytes[..bytes.len().min(5)]) {
        Varint::Value(value, length) => match u32::try_from(value) {
            Ok(value) => Varint::Value(value, length),
            Err(_) => Varint::TooLong,
        },
        Varint::End if bytes.len() >= 5 => Varint::TooLong,
        Varint::End => Varint::End,
        Varint::TooLong => Varint::TooLong,
    }
}

/// An unsigned 64-bit LEB128 integer of at most ten bytes.
#[inline]
pub(super) fn uvarlong(bytes: &[u8]) -> Varint<u64> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        let payload = u64::from(byte & 0x7f);
        let shifted = payload << (7 * index);
        if index == 9 && payload > 1 {
            return Varint::TooLong;
        }
        value |= shifted;
        if byte & 0x80 == 0 {
            return Varint::Value(value, index + 1);
        }
    }
    if bytes.len() >= 10 {
        Varint::TooLong
    } else {
        Varint::End
    }
}
