//! Decompression of record batches, by the codecs of Kafka's producers.
//!
//! A batch's attributes name its [`Codec`]; what follows the 61-byte header is one compressed stream:
//!
//! | codec  | stream                                              | checksums verified here              |
//! |--------|-----------------------------------------------------|--------------------------------------|
//! | gzip   | RFC 1952, one member or several                     | header CRC-16, CRC-32, size          |
//! | snappy | Xerial framing of raw blocks, or one raw block      | it has none                          |
//! | lz4    | LZ4 frames (not bare blocks), skippable frames      | header, block and content, by XXH32  |
//! | zstd   | RFC 8878 frames, skippable frames, no dictionary    | content, by XXH64                    |
//!
//! The input is not trusted. No length in it is allocated for before that much output exists, the
//! output is refused once it passes the caller's limit, and a fault is an error, never a panic.
//! [`decompress`] states the bound on its memory.
//!
//! Each codec is a feature of this crate. A feature does not change what the others do: a codec that is
//! not built answers [`CodecError::NotBuilt`].

use alloc::vec::Vec;
use core::fmt;

#[cfg(feature = "gzip")]
mod gzip;
#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "snappy")]
mod snappy;
#[cfg(feature = "zstd")]
mod zstd;

/// The limit on one batch's decompressed size that suits most hosts, in bytes: 128 MiB, which is also the
/// largest zstd window that the reference decoder accepts unasked.
pub const DEFAULT_DECOMPRESSED_LIMIT_BYTES: usize = 128 * 1024 * 1024;

/// What [`decompress`] may allocate beyond a multiple of its output, in bytes.
///
/// Sketch: the first buffer takes 1 MiB at most. An LZ4 block that turns out to be large adds up to 4 MiB. The
/// tables of zstd add 0.4 MiB on input of its encoder, and 12 MiB on a block made to be costly (128 KiB of
/// zero probabilities, which `ruzstd` collects at 48 bytes for each). Real input stays below 1.5 MiB.
pub const DECOMPRESS_OVERHEAD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How the records of a batch are compressed (attributes, bits 0 to 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not compressed.
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// Snappy, in Xerial's framing or raw.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// Zstandard, RFC 8878 (KIP-110).
    Zstd,
}

impl Codec {
    /// The codec that a batch's attributes name. [`CodecError::Unknown`] for 5 to 7, which Kafka leaves free.
    pub fn from_attributes(attributes: i16) -> Result<Codec, CodecError> {
        let [_, low] = attributes.to_be_bytes();
        match low & 0b111 {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            id => Err(CodecError::Unknown { id }),
        }
    }

    /// Kafka's name of the codec, as in `compression.type`. Also the name of the feature that builds it.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a batch could not be decompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodecError {
    /// The attributes name a codec that Kafka does not define.
    Unknown {
        /// Bits 0 to 2 of the attributes.
        id: u8,
    },
    /// The codec is known, but its feature was off when this crate was built.
    NotBuilt {
        /// The codec, whose [`Codec::name`] is the feature's name.
        codec: Codec,
    },
    /// The input is not what the codec's format asks for.
    Malformed {
        /// The codec.
        codec: Codec,
        /// Offset in the input at which the fault was seen, in bytes. Where a whole block is decoded at once
        /// (gzip, zstd) it is the place up to which the decoder had read.
        at_byte: usize,
        /// What would have been right there.
        expected: &'static str,
    },
    /// A checksum inside the compressed stream does not match.
    ChecksumMismatch {
        /// The codec.
        codec: Codec,
        /// Offset of the stored checksum in the input, in bytes.
        at_byte: usize,
        /// The checksum that the input holds (16 bits for a gzip header, 8 for an LZ4 header).
        stored: u32,
        /// The checksum of what was read or decompressed.
        computed: u32,
    },
    /// The output would be larger than the caller allows, or a zstd frame asks for a window beyond that.
    LimitExceeded {
        /// The codec.
        codec: Codec,
        /// The caller's limit, in bytes.
        limit_bytes: usize,
    },
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::Unknown { id } => write!(
                f,
                "unknown codec {id}: Kafka defines 0 (none) to 4 (zstd); a newer codec needs a newer Kachet"
            ),
            CodecError::NotBuilt { codec } => {
                write!(
                    f,
                    "no {codec} in this build: build kachet-core with the feature `{codec}`"
                )
            }
            CodecError::Malformed {
                codec,
                at_byte,
                expected,
            } => write!(
                f,
                "malformed {codec} at byte {at_byte}: expected {expected}; check the batch's CRC and its producer"
            ),
            CodecError::ChecksumMismatch {
                codec,
                at_byte,
                stored,
                computed,
            } => write!(
                f,
                "{codec} checksum at byte {at_byte} is {stored:#010x}, the data give {computed:#010x}; \
                 check the batch's CRC and its producer"
            ),
            CodecError::LimitExceeded { codec, limit_bytes } => write!(
                f,
                "{codec} needs more than {limit_bytes} bytes; raise the decompressed limit if the batch is trusted"
            ),
        }
    }
}

impl core::error::Error for CodecError {}

/// Decompresses `input`, all of it, into at most `limit_bytes` bytes.
///
/// # Errors
///
/// [`CodecError::LimitExceeded`] as soon as the output would pass `limit_bytes`, or states a size that
/// would, or a zstd frame states a window larger than both `limit_bytes` and 8 MiB. A stream that is cut
/// short, goes on behind its end or fails a checksum is an error too: what was decompressed until then is
/// dropped.
///
/// # Memory
///
/// Input not counted, at most 3 × min(output, limit) + [`DECOMPRESS_OVERHEAD_BYTES_MAX`], whatever sizes the
/// input states. Two parts of the three are the output's buffer while it doubles, and one is its predecessor
/// while that is copied; with zstd it is the window while the result is copied out of it. Where the input
/// states its size truly (gzip, snappy, some lz4) it is 2 × instead of 3 ×. The result's own capacity is at
/// most twice its length.
pub fn decompress(codec: Codec, input: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CodecError> {
    match codec {
        Codec::None if input.len() > limit_bytes => Err(CodecError::LimitExceeded { codec, limit_bytes }),
        Codec::None => Ok(input.to_vec()),
        #[cfg(feature = "gzip")]
        Codec::Gzip => gzip::decompress(input, limit_bytes),
        #[cfg(feature = "snappy")]
        Codec::Snappy => snappy::decompress(input, limit_bytes),
        #[cfg(feature = "lz4")]
        Codec::Lz4 => lz4::decompress(input, limit_bytes),
        #[cfg(feature = "zstd")]
        Codec::Zstd => zstd::decompress(input, limit_bytes),
        #[cfg(not(all(feature = "gzip", feature = "snappy", feature = "lz4", feature = "zstd")))]
        codec => Err(CodecError::NotBuilt { codec }),
    }
}

/// What is left of the compressed input.
#[cfg(any(feature = "gzip", feature = "snappy", feature = "lz4", feature = "zstd"))]
#[derive(Clone, Copy)]
struct Input<'a> {
    codec: Codec,
    rest: &'a [u8],
    /// Offset in the whole input at which `rest` ends.
    end_byte: usize,
}

#[cfg(any(feature = "gzip", feature = "snappy", feature = "lz4", feature = "zstd"))]
impl<'a> Input<'a> {
    fn new(codec: Codec, input: &'a [u8]) -> Self {
        Input {
            codec,
            rest: input,
            end_byte: input.len(),
        }
    }

    fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Offset in the whole input at which `rest` begins.
    fn at_byte(&self) -> usize {
        self.end_byte.saturating_sub(self.rest.len())
    }

    /// The next `len` bytes.
    fn take(&mut self, len: usize, expected: &'static str) -> Result<&'a [u8], CodecError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| self.malformed(expected))?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `len` bytes, as an input of their own.
    #[cfg(any(feature = "snappy", feature = "lz4"))]
    fn take_input(&mut self, len: usize, expected: &'static str) -> Result<Input<'a>, CodecError> {
        let rest = self.take(len, expected)?;
        Ok(Input {
            codec: self.codec,
            rest,
            end_byte: self.at_byte(),
        })
    }

    /// The next `N` bytes, for an integer.
    fn array<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], CodecError> {
        let (head, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| self.malformed(expected))?;
        self.rest = rest;
        Ok(*head)
    }

    /// The error that something else was expected here.
    #[cold]
    fn malformed(&self, expected: &'static str) -> CodecError {
        CodecError::Malformed {
            codec: self.codec,
            at_byte: self.at_byte(),
            expected,
        }
    }
}

/// The decompressed bytes so far, and zeroed room behind them that grows with them.
///
/// Not a plain `Vec`, because safe decoders write into slices, and because the growth must keep to what was
/// really produced: a claimed size only caps it.
#[cfg(any(feature = "gzip", feature = "snappy", feature = "lz4"))]
struct Output {
    codec: Codec,
    limit_bytes: usize,
    /// The size that the input claims for the whole output. Growth stops there once, and forgets it when the
    /// output passes it. It makes nothing grow.
    claimed_bytes: usize,
    /// What the first growth takes.
    first_bytes: usize,
    /// `buffer[..len]` is output, the rest is room.
    buffer: Vec<u8>,
    len: usize,
}

#[cfg(any(feature = "gzip", feature = "snappy", feature = "lz4"))]
impl Output {
    fn new(codec: Codec, input_bytes: usize, limit_bytes: usize) -> Self {
        // Records seldom compress better than fourfold, so that one allocation mostly does. No more than 1 MiB
        // on credit, though: beyond that, doubling costs no more than a copy of what has been produced.
        let first_bytes = input_bytes
            .saturating_mul(4)
            .saturating_add(64 * 1024)
            .min(1024 * 1024);
        Output {
            codec,
            limit_bytes,
            claimed_bytes: usize::MAX,
            first_bytes,
            buffer: Vec::new(),
            len: 0,
        }
    }

    /// Grows the room to `wanted` bytes, or to one byte beyond the limit if that comes first: the byte that
    /// tells "exactly the limit" from "more".
    fn grow(&mut self, wanted: usize) {
        let most = self.limit_bytes.saturating_add(1);
        let needed = self.len.saturating_add(wanted).min(most);
        if needed <= self.buffer.len() {
            return;
        }
        let mut target = self
            .buffer
            .len()
            .saturating_mul(2)
            .max(self.first_bytes)
            .max(needed);
        if needed <= self.claimed_bytes {
            target = target.min(self.claimed_bytes);
        }
        let target = target.min(most);
        if self.buffer.is_empty() {
            // Not resize: zeroed pages come free from the system.
            self.buffer = alloc::vec![0; target];
        } else {
            self.buffer
                .reserve_exact(target.saturating_sub(self.buffer.len()));
            self.buffer.resize(target, 0);
        }
    }

    /// Counts `written` bytes of the room as output.
    #[cfg(any(feature = "gzip", feature = "lz4"))]
    fn advance(&mut self, written: usize) -> Result<(), CodecError> {
        self.len = self.len.saturating_add(written).min(self.buffer.len());
        if self.len > self.limit_bytes {
            return Err(self.limit_exceeded());
        }
        Ok(())
    }

    /// Notes that `more` bytes are claimed to follow, and refuses them if they would pass the limit.
    /// `slack_bytes` is room that the decoder likes to have behind them.
    #[cfg(any(feature = "snappy", feature = "lz4"))]
    fn claim(&mut self, more: usize, slack_bytes: usize) -> Result<(), CodecError> {
        let claimed = self.len.saturating_add(more);
        if claimed > self.limit_bytes {
            return Err(self.limit_exceeded());
        }
        // Only the first claim caps the growth: many small ones would have it copy everything for each.
        if self.buffer.is_empty() {
            self.claimed_bytes = claimed.saturating_add(slack_bytes);
        }
        Ok(())
    }

    fn limit_exceeded(&self) -> CodecError {
        CodecError::LimitExceeded {
            codec: self.codec,
            limit_bytes: self.limit_bytes,
        }
    }

    fn into_vec(mut self) -> Vec<u8> {
        self.buffer.truncate(self.len);
        if self.buffer.capacity() / 2 > self.len {
            self.buffer.shrink_to_fit();
        }
        self.buffer
    }
}

#[cfg(test)]
#[cfg(any(feature = "gzip", feature = "snappy", feature = "lz4", feature = "zstd"))]
mod tests {
    use super::{Codec, CodecError, decompress};

    /// A limit that no test of a format comes near, in bytes.
    #[allow(dead_code, reason = "not used by every codec")]
    pub(super) const LIMIT: usize = 1 << 20;

    /// The offset at which `packed` is found to be malformed.
    pub(super) fn malformed_at(codec: Codec, packed: &[u8]) -> usize {
        match decompress(codec, packed, LIMIT) {
            Err(CodecError::Malformed {
                codec: of, at_byte, ..
            }) if of == codec => at_byte,
            other => panic!("{codec}: {other:?}"),
        }
    }
}
