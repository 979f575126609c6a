//! Records inside a (decompressed) batch, as views over its bytes.
//!
//! Source: `DefaultRecord.java`, `ControlRecordType.java`; KIP-98, KIP-82 (headers).

use super::batch::RecordBatch;
use super::error::{BatchError, DecodeError, DecodeErrorKind};
use super::reader::{Varint, uvarlong};

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset in the partition.
    pub offset: i64,
    /// Its time, in milliseconds since 1970; for a topic that uses log append time, that of the batch.
    pub timestamp: i64,
    /// The key, or null.
    pub key: Option<&'a [u8]>,
    /// The value, or null (a tombstone).
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
}

/// The headers of a record, proven well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Headers<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each header's key and value in the order of the record. A value may be null.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut cursor = Cursor {
            bytes: self.bytes,
            at: 0,
            limit: self.bytes.len(),
        };
        (0..self.count).map_while(move |_| cursor.header().ok())
    }
}

/// What a transaction marker says (H3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRecord {
    /// The producer's transaction was aborted.
    Abort,
    /// The producer's transaction was committed.
    Commit,
    /// A marker of another kind, such as those of the metadata log.
    Other(i16),
}

impl ControlRecord {
    /// Reads the key of a control record; `None` if it is not one.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let [_, _, kind @ ..] = key else { return None };
        Some(match i16::from_be_bytes(*kind.first_chunk()?) {
            0 => Self::Abort,
            1 => Self::Commit,
            other => Self::Other(other),
        })
    }
}

/// Walks the records of a batch. Ends after an error.
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    cursor: Cursor<'a>,
    base_offset: i64,
    base_timestamp: i64,
    /// Takes the place of every record's own time.
    log_append_time: Option<i64>,
    stated: i32,
    index: usize,
    done: bool,
}

impl<'a> RecordIter<'a> {
    pub(super) fn new(batch: &RecordBatch<'_>, decompressed: &'a [u8]) -> Self {
        Self {
            cursor: Cursor {
                bytes: decompressed,
                at: 0,
                limit: decompressed.len(),
            },
            base_offset: batch.base_offset(),
            base_timestamp: batch.base_timestamp(),
            log_append_time: batch.is_log_append_time().then(|| batch.max_timestamp()),
            stated: batch.records_count(),
            index: 0,
            done: false,
        }
    }

    #[inline]
    fn record(&mut self) -> Result<Record<'a>, DecodeError> {
        let cursor = &mut self.cursor;
        cursor.limit = cursor.bytes.len();
        let length = cursor.required_length("length")?;
        cursor.limit = cursor.at + length;
        cursor.take("attributes", 1)?;
        let timestamp_delta = cursor.varlong("timestampDelta")?;
        let offset_delta = cursor.varlong("offsetDelta")?;
        let key = cursor.nullable_bytes("key")?;
        let value = cursor.nullable_bytes("value")?;
        let headers = cursor.headers()?;
        if cursor.at != cursor.limit {
            return Err(cursor.error("record", DecodeErrorKind::TrailingBytes { count: cursor.left() }));
        }
        Ok(Record {
            offset: self.base_offset.wrapping_add(offset_delta),
            timestamp: self
                .log_append_time
                .unwrap_or(self.base_timestamp.wrapping_add(timestamp_delta)),
            key,
            value,
            headers,
        })
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if i64::try_from(self.index).unwrap_or(i64::MAX) >= i64::from(self.stated) {
            self.done = true;
            let bytes_left = self.cursor.bytes.len() - self.cursor.at;
            return (bytes_left > 0).then_some(Err(BatchError::RecordCount {
                stated: self.stated,
                bytes_left,
            }));
        }
        let index = self.index;
        self.index += 1;
        let record = self
            .record()
            .map_err(|source| BatchError::Record { index, source });
        self.done = record.is_err();
        Some(record)
    }
}

const NULL: DecodeErrorKind = DecodeErrorKind::UnexpectedNull;

/// A position in borrowed bytes, bounded by the record at hand.
#[derive(Clone, Debug)]
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The end of the record at hand; never beyond the end of `bytes`.
    limit: usize,
}

impl<'a> Cursor<'a> {
    #[cold]
    fn error(&self, field: &'static str, kind: DecodeErrorKind) -> DecodeError {
        DecodeError {
            field,
            at_byte: self.at,
            kind,
        }
    }

    #[inline]
    fn left(&self) -> usize {
        self.limit - self.at
    }

    #[inline]
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..self.limit).unwrap_or_default()
    }

    #[inline]
    fn take(&mut self, field: &'static str, length: usize) -> Result<&'a [u8], DecodeError> {
        let Some(bytes) = self.rest().get(..length) else {
            let (needed_bytes, available_bytes) = (length, self.left());
            return Err(self.error(
                field,
                DecodeErrorKind::UnexpectedEnd {
                    needed_bytes,
                    available_bytes,
                },
            ));
        };
        self.at += length;
        Ok(bytes)
    }

    /// A zigzag variable-length integer, most of which have one byte or two.
    #[inline]
    fn varlong(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        let (value, length) = match *self.rest() {
            [low @ ..0x80, ..] => (u16::from(low), 1),
            [low, high @ ..0x80, ..] => (u16::from(low & 0x7f) | u16::from(high) << 7, 2),
            _ => return self.longer_varlong(field),
        };
        self.at += length;
        Ok(i64::from(value >> 1) ^ -i64::from(value & 1))
    }

    fn longer_varlong(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        match uvarlong(self.rest()) {
            Varint::Value(value, length) => {
                self.at += length;
                let magnitude = (value >> 1).cast_signed();
                Ok(magnitude ^ -(value & 1).cast_signed())
            }
            Varint::TooLong => Err(self.error(field, DecodeErrorKind::VarintTooLong)),
            Varint::End => {
                let (needed_bytes, available_bytes) = (self.left() + 1, self.left());
                Err(self.error(
                    field,
                    DecodeErrorKind::UnexpectedEnd {
                        needed_bytes,
                        available_bytes,
                    },
                ))
            }
        }
    }

    /// A length of what follows, proven to lie within the record; `None` for −1.
    #[inline]
    fn length(&mut self, field: &'static str) -> Result<Option<usize>, DecodeError> {
        let start = self.at;
        let length = self.varlong(field)?;
        let available_bytes = self.left();
        let kind = match usize::try_from(length) {
            Ok(length) if length <= available_bytes => return Ok(Some(length)),
            Ok(needed_bytes) => DecodeErrorKind::UnexpectedEnd {
                needed_bytes,
                available_bytes,
            },
            Err(_) if length == -1 => return Ok(None),
            Err(_) if length < 0 => DecodeErrorKind::NegativeLength { length },
            // Where addresses have 32 bits.
            Err(_) => DecodeErrorKind::UnexpectedEnd {
                needed_bytes: usize::MAX,
                available_bytes,
            },
        };
        self.at = start;
        Err(self.error(field, kind))
    }

    /// A length that may not be null.
    #[inline]
    fn required_length(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        let start = self.at;
        match self.length(field)? {
            Some(length) => Ok(length),
            None => {
                self.at = start;
                Err(self.error(field, NULL))
            }
        }
    }

    #[inline]
    fn nullable_bytes(&mut self, field: &'static str) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.length(field)? {
            Some(length) => self.take(field, length).map(Some),
            None => Ok(None),
        }
    }

    #[inline]
    fn header(&mut self) -> Result<(&'a [u8], Option<&'a [u8]>), DecodeError> {
        let start = self.at;
        let Some(key) = self.nullable_bytes("header key")? else {
            self.at = start;
            return Err(self.error("header key", NULL));
        };
        Ok((key, self.nullable_bytes("header value")?))
    }

    /// Proves every header, so that reading them again cannot fail.
    #[inline]
    fn headers(&mut self) -> Result<Headers<'a>, DecodeError> {
        // A header takes two bytes at least, so a count within the record's length bounds the loop.
        let count = self.required_length("headers")?;
        let bytes = self.rest();
        for _ in 0..count {
            self.header()?;
        }
        Ok(Headers { bytes, count })
    }
}
