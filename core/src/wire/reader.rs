//! Reads Kafka's primitive types off shared bytes, never trusting a length.

use alloc::vec::Vec;

use bytes::Bytes;

use super::error::{DecodeError, DecodeErrorKind};
use super::tagged::{MAX_UNKNOWN_TAGS, TaggedField, TaggedFields};
use super::types::{TopicId, WireStr};

/// A position in shared bytes. Slices that it gives share the input's allocation.
pub(super) struct Reader {
    input: Bytes,
    at: usize,
    /// Where `input` begins in what the caller handed in, so that errors name offsets of the whole.
    origin: usize,
    flexible: bool,
}

pub(super) type Decoded<T> = Result<T, DecodeError>;

impl Reader {
    pub(super) fn new(input: Bytes, flexible: bool) -> Self {
        Self {
            input,
            at: 0,
            origin: 0,
            flexible,
        }
    }

    pub(super) fn error_here<T>(&self, field: &'static str, kind: DecodeErrorKind) -> Decoded<T> {
        Err(DecodeError {
            field,
            at_byte: self.origin + self.at,
            kind,
        })
    }

    pub(super) fn remaining(&self) -> usize {
        self.input.len() - self.at
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Decoded<[u8; N]> {
        let Some(bytes) = self.input[self.at..].first_chunk::<N>() else {
            return self.end(field, N);
        };
        self.at += N;
        Ok(*bytes)
    }

    #[cold]
    fn end<T>(&self, field: &'static str, needed_bytes: usize) -> Decoded<T> {
        let available_bytes = self.remaining();
        self.error_here(
            field,
            DecodeErrorKind::UnexpectedEnd {
                needed_bytes,
                available_bytes,
            },
        )
    }

    pub(super) fn i8(&mut self, field: &'static str) -> Decoded<i8> {
        self.array(field).map(i8::from_be_bytes)
    }

    pub(super) fn i16(&mut self, field: &'static str) -> Decoded<i16> {
        self.array(field).map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Decoded<i32> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Decoded<i64> {
        self.array(field).map(i64::from_be_bytes)
    }

    pub(super) fn topic_id(&mut self, field: &'static str) -> Decoded<TopicId> {
        self.array(field).map(TopicId)
    }

    #[inline]
    pub(super) fn uvarint(&mut self, field: &'static str) -> Decoded<u32> {
        // Most lengths and counts fit into a byte.
        if let Some(&byte) = self.input.get(self.at)
            && byte < 0x80
        {
            self.at += 1;
            return Ok(byte.into());
        }
        self.long_uvarint(field)
    }

    fn long_uvarint(&mut self, field: &'static str) -> Decoded<u32> {
        match uvarint(&self.input[self.at..]) {
            Varint::Value(value, length) => {
                self.at += length;
                Ok(value)
            }
            Varint::End => self.end(field, self.remaining() + 1),
            Varint::TooLong => self.error_here(field, DecodeErrorKind::VarintTooLong),
        }
    }

    fn slice(&mut self, field: &'static str, length: usize) -> Decoded<Bytes> {
        if length > self.remaining() {
            return self.end(field, length);
        }
        if length == 0 {
            // Shares nothing, so that nothing is counted.
            return Ok(Bytes::new());
        }
        let bytes = self.input.slice(self.at..self.at + length);
        self.at += length;
        Ok(bytes)
    }

    /// The length in front of a string, byte field or array. `None` stands for null.
    fn length(&mut self, field: &'static str, prefix: Prefix) -> Decoded<Option<usize>> {
        let start = self.at;
        let length = if self.flexible {
            i64::from(self.uvarint(field)?) - 1
        } else {
            match prefix {
                Prefix::I16 => i64::from(self.i16(field)?),
                Prefix::I32 => i64::from(self.i32(field)?),
            }
        };
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => {
                self.at = start;
                self.error_here(field, DecodeErrorKind::NegativeLength { length })
            }
        }
    }

    pub(super) fn nullable_string(&mut self, field: &'static str) -> Decoded<Option<WireStr>> {
        let start = self.at;
        let Some(length) = self.length(field, Prefix::I16)? else {
            return Ok(None);
        };
        if length > WireStr::LIMIT_BYTES {
            self.at = start;
            let limit_bytes = WireStr::LIMIT_BYTES;
            return self.error_here(field, DecodeErrorKind::StringTooLong { length, limit_bytes });
        }
        let bytes = self.slice(field, length)?;
        match WireStr::from_utf8(bytes) {
            Some(string) => Ok(Some(string)),
            None => {
                self.at = start;
                self.error_here(field, DecodeErrorKind::InvalidUtf8)
            }
        }
    }

    pub(super) fn string(&mut self, field: &'static str) -> Decoded<WireStr> {
        let start = self.at;
        match self.nullable_string(field)? {
            Some(string) => Ok(string),
            None => {
                self.at = start;
                self.error_here(field, DecodeErrorKind::UnexpectedNull)
            }
        }
    }

    pub(super) fn nullable_bytes(&mut self, field: &'static str) -> Decoded<Option<Bytes>> {
        match self.length(field, Prefix::I32)? {
            Some(length) => self.slice(field, length).map(Some),
            None => Ok(None),
        }
    }

    /// An array whose elements take at least `element_min_bytes` on the wire, which bounds what a claimed
    /// count can make this allocate.
    pub(super) fn nullable_vec<T>(
        &mut self,
        field: &'static str,
        element_min_bytes: usize,
        mut element: impl FnMut(&mut Self) -> Decoded<T>,
    ) -> Decoded<Option<Vec<T>>> {
        let Some(count) = self.length(field, Prefix::I32)? else {
            return Ok(None);
        };
        let needed_bytes = count.saturating_mul(element_min_bytes);
        if needed_bytes > self.remaining() {
            return self.end(field, needed_bytes);
        }
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    pub(super) fn vec<T>(
        &mut self,
        field: &'static str,
        element_min_bytes: usize,
        element: impl FnMut(&mut Self) -> Decoded<T>,
    ) -> Decoded<Vec<T>> {
        let start = self.at;
        match self.nullable_vec(field, element_min_bytes, element)? {
            Some(elements) => Ok(elements),
            None => {
                self.at = start;
                self.error_here(field, DecodeErrorKind::UnexpectedNull)
            }
        }
    }

    /// The tagged fields at the end of a structure; nothing before the flexible versions.
    /// `known` decodes the tags that it knows and answers whether it did; the others are kept as they came.
    #[inline]
    pub(super) fn tagged(
        &mut self,
        field: &'static str,
        known: impl FnMut(u32, &mut Self) -> Decoded<bool>,
    ) -> Decoded<TaggedFields> {
        if !self.flexible {
            return Ok(TaggedFields::default());
        }
        match self.uvarint(field)? {
            0 => Ok(TaggedFields::default()),
            count => self.some_tagged(field, count, known),
        }
    }

    fn some_tagged(
        &mut self,
        field: &'static str,
        count: u32,
        mut known: impl FnMut(u32, &mut Self) -> Decoded<bool>,
    ) -> Decoded<TaggedFields> {
        let mut unknown = TaggedFields::default();
        let mut previous = None;
        for left in (1..=count).rev() {
            let tag_at = self.at;
            let tag = self.uvarint(field)?;
            if previous >= Some(tag) {
                self.at = tag_at;
                return self.error_here(field, DecodeErrorKind::TagOrder { tag });
            }
            previous = Some(tag);
            let length = self.uvarint(field)?;
            let stated_bytes = usize::try_from(length).unwrap_or(usize::MAX);
            let value_at = self.origin + self.at;
            let data = self.slice(field, stated_bytes)?;
            let mut inner = Self {
                input: data.clone(),
                at: 0,
                origin: value_at,
                flexible: true,
            };
            if known(tag, &mut inner)? {
                if inner.remaining() > 0 {
                    let used_bytes = inner.at;
                    return inner.error_here(
                        field,
                        DecodeErrorKind::TagLength {
                            stated_bytes,
                            used_bytes,
                        },
                    );
                }
            } else if !unknown.push(TaggedField { tag, data }, left) {
                self.at = tag_at;
                return self.error_here(
                    field,
                    DecodeErrorKind::TooManyTags {
                        limit: MAX_UNKNOWN_TAGS,
                    },
                );
            }
        }
        Ok(unknown)
    }

    /// Errs if anything is left.
    pub(super) fn finish(self, field: &'static str) -> Decoded<()> {
        match self.remaining() {
            0 => Ok(()),
            count => self.error_here(field, DecodeErrorKind::TrailingBytes { count }),
        }
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
