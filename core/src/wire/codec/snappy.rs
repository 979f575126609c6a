//! Snappy: raw blocks, and Xerial's framing around them.
//!
//! By hand, for want of a decoder without std. The format is in `format_description.txt` of
//! <https://github.com/google/snappy>; the framing is that of snappy-java's `SnappyOutputStream`, which Kafka's
//! Java client writes. Other clients write a single raw block.

use alloc::vec::Vec;

use super::{Codec, CodecError, Input, Output};

/// Begins a Xerial stream. No raw block begins so: it would be one of 10 626 bytes whose first element copies
/// from output that does not exist.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// The version of the stream and the lowest version that can read it. Only 1 was ever written.
const XERIAL_VERSIONS_BYTES: usize = 8;

/// Elements are copied in one of two fixed widths where there is room, since a copy of constant length is a few
/// instructions.
const NARROW_BYTES: usize = 16;
const WIDE_BYTES: usize = 64;

/// Decompresses a Xerial stream, several of them in a row, or a single raw block.
pub(super) fn decompress(bytes: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CodecError> {
    let mut claimed = 0usize;
    each_block(bytes, |mut block| {
        claimed = claimed.saturating_add(preamble(&mut block)?);
        Ok(())
    })?;
    let mut output = Output::new(Codec::Snappy, bytes.len(), limit_bytes);
    output.claim(claimed, WIDE_BYTES)?;
    each_block(bytes, |block| decompress_block(block, &mut output))?;
    Ok(output.into_vec())
}

/// Calls `each` with every raw block in `bytes`.
fn each_block<'a>(
    bytes: &'a [u8],
    mut each: impl FnMut(Input<'a>) -> Result<(), CodecError>,
) -> Result<(), CodecError> {
    let mut input = Input::new(Codec::Snappy, bytes);
    if !skip_xerial_header(&mut input)? {
        return each(input);
    }
    while !input.is_empty() {
        // Streams written one after the other: their magic, read as a length, would be negative.
        if skip_xerial_header(&mut input)? {
            continue;
        }
        let at_length = input;
        let length = i32::from_be_bytes(input.array("the length of a Xerial block")?);
        let length = usize::try_from(length).map_err(|_| at_length.malformed("a length of zero or more"))?;
        each(input.take_input(length, "a whole Xerial block")?)?;
    }
    Ok(())
}

/// Skips a Xerial header if one is next, and tells whether it was.
fn skip_xerial_header(input: &mut Input) -> Result<bool, CodecError> {
    if !input.rest.starts_with(&XERIAL_MAGIC) {
        return Ok(false);
    }
    input.take(
        XERIAL_MAGIC.len() + XERIAL_VERSIONS_BYTES,
        "the header of a Xerial stream",
    )?;
    Ok(true)
}

/// Decompresses one raw block, which fills `input`.
fn decompress_block(mut input: Input, output: &mut Output) -> Result<(), CodecError> {
    let start = output.len;
    let end = start.saturating_add(preamble(&mut input)?);
    let mut block = Block {
        input,
        output,
        start,
        end,
    };
    block.elements()?;
    if block.output.len == end {
        Ok(())
    } else {
        Err(block.input.malformed("as much data as the block states"))
    }
}

/// The decompressed length: a little-endian base-128 integer of at most 32 bits.
fn preamble(input: &mut Input) -> Result<usize, CodecError> {
    const EXPECTED: &str = "the block's length, of at most 32 bits";
    let start = *input;
    let mut length = 0u64;
    for shift in [0, 7, 14, 21, 28] {
        let [byte] = input.array(EXPECTED)?;
        length |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let length = u32::try_from(length)
                .ok()
                .and_then(|length| usize::try_from(length).ok());
            return length.ok_or_else(|| start.malformed(EXPECTED));
        }
    }
    Err(start.malformed(EXPECTED))
}

/// A raw block behind its preamble. `start` and `end` bound its part of the output.
struct Block<'i, 'o> {
    input: Input<'i>,
    output: &'o mut Output,
    start: usize,
    end: usize,
}

impl Block<'_, '_> {
    fn elements(&mut self) -> Result<(), CodecError> {
        const OFFSET: &str = "the offset of a copy";
        while let Some((&tag, rest)) = self.input.rest.split_first() {
            self.input.rest = rest;
            let short = usize::from(tag >> 2);
            match tag & 0b11 {
                0 => self.literal(short)?,
                1 => {
                    let [low] = self.input.array(OFFSET)?;
                    let offset = usize::from(tag >> 5) << 8 | usize::from(low);
                    self.copy(offset, (short & 0b111) + 4)?;
                }
                2 => {
                    let offset = u16::from_le_bytes(self.input.array(OFFSET)?);
                    self.copy(usize::from(offset), short + 1)?;
                }
                _ => {
                    let offset = u32::from_le_bytes(self.input.array(OFFSET)?);
                    // Where it does not fit it is too far back in any case.
                    self.copy(usize::try_from(offset).unwrap_or(usize::MAX), short + 1)?;
                }
            }
        }
        Ok(())
    }

    /// Copies bytes of the input. `short` is the length less one, or from 60 on the number of bytes less 59
    /// in which that follows.
    fn literal(&mut self, short: usize) -> Result<(), CodecError> {
        let len = if short < 60 {
            short + 1
        } else {
            self.long_length(short - 59)?
        };
        let from = self.input.rest;
        // Taken before there is room for it: its length is a claim until then.
        let exact = self.input.take(len, "a whole literal")?;
        let (_, to) = self.room(len)?;
        if !copy_in_fixed_width(from, to, len)
            && let Some(to) = to.get_mut(..len)
        {
            to.copy_from_slice(exact);
        }
        self.output.len += len;
        Ok(())
    }

    #[cold]
    fn long_length(&mut self, length_bytes: usize) -> Result<usize, CodecError> {
        const EXPECTED: &str = "the length of a literal";
        let bytes = self.input.take(length_bytes, EXPECTED)?;
        let len = bytes
            .iter()
            .rev()
            .fold(0u64, |len, byte| len << 8 | u64::from(*byte))
            + 1;
        usize::try_from(len).map_err(|_| self.input.malformed(EXPECTED))
    }

    /// Repeats `len` bytes that begin `offset` bytes back, and may overlap what they write.
    fn copy(&mut self, offset: usize, len: usize) -> Result<(), CodecError> {
        let (start, to) = (self.start, self.output.len);
        let from = match to.checked_sub(offset) {
            Some(from) if from >= start && offset > 0 => from,
            _ => {
                return Err(self
                    .input
                    .malformed("a copy of what the block has given before it"));
            }
        };
        let (before, after) = self.room(len)?;
        if !copy_in_fixed_width(before.get(from..).unwrap_or_default(), after, len) {
            // What lies between `from` and `next` repeats with period `offset`, so its copied part may double.
            // No range leaves the buffer: `from < to`, and there is room up to `to + len`.
            let mut next = to;
            while next < to + len {
                let width = (next - from).min(to + len - next);
                self.output.buffer.copy_within(from..from + width, next);
                next += width;
            }
        }
        self.output.len += len;
        Ok(())
    }

    /// The output so far and the room behind it, made to hold an element of `len` bytes. Refuses one that would
    /// pass the block's end, which lies within the limit.
    fn room(&mut self, len: usize) -> Result<(&[u8], &mut [u8]), CodecError> {
        if len > self.end - self.output.len {
            return Err(self.input.malformed("no more data than the block states"));
        }
        if len > self.output.buffer.len() - self.output.len {
            self.output.grow(len);
        }
        let (before, after) = self.output.buffer.split_at_mut(self.output.len);
        Ok((before, after))
    }
}

/// Copies the first `len` bytes, and some more, if both sides have them. Says whether it did.
fn copy_in_fixed_width(from: &[u8], to: &mut [u8], len: usize) -> bool {
    if len <= NARROW_BYTES
        && let Some(from) = from.first_chunk::<NARROW_BYTES>()
        && let Some(to) = to.first_chunk_mut()
    {
        *to = *from;
        return true;
    }
    if len <= WIDE_BYTES
        && let Some(from) = from.first_chunk::<WIDE_BYTES>()
        && let Some(to) = to.first_chunk_mut()
    {
        *to = *from;
        return true;
    }
    false
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::super::tests::{LIMIT, malformed_at};
    use super::*;

    /// Xerial framing around `blocks`.
    fn xerial(blocks: &[&[u8]]) -> Vec<u8> {
        let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
        for block in blocks {
            out.extend_from_slice(&i32::try_from(block.len()).unwrap().to_be_bytes());
            out.extend_from_slice(block);
        }
        out
    }

    #[test]
    fn elements_of_every_kind_are_understood() {
        let literal_65 = [&[65, 60 << 2, 64][..], &[b'x'; 65]].concat();
        let long = vec![b'y'; 70_000];
        let literal_70_000 = [&[0xf0, 0xa2, 0x04, 62 << 2, 0x6f, 0x11, 0x01][..], &long].concat();
        for (packed, expected) in [
            (&[0][..], &b""[..]),
            (&[1, 0, b'a'], b"a"),
            (b"\x0a\x04ab\x11\x02", b"ababababab"),
            (b"\x06\x08abc\x0a\x03\0", b"abcabc"),
            (b"\x06\x08abc\x0b\x03\0\0\0", b"abcabc"),
            (&literal_65, &[b'x'; 65]),
            (&literal_70_000, &long),
        ] {
            assert_eq!(decompress(packed, LIMIT).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn elements_out_of_bounds_are_errors() {
        for (packed, at_byte) in [
            (&b""[..], 0),
            (b"\x80\x80\x80\x80\x80\0", 0),
            (b"\xff\xff\xff\xff\x1f", 0),
            (b"\x02\0a", 3),
            (b"\x01\x04ab\0c", 4),
            (b"\x05\0a\x11\0", 5),
            (b"\x09\0a\x11\x02", 5),
            (b"\x04\0a\x11\x01", 5),
            (b"\x06\0a\x12\xff", 4),
            (b"\x06\0a\x13\xff\xff\xff\xff", 8),
            (b"\x06\xfc\xff\xff\xff\xff", 6),
        ] {
            assert_eq!(malformed_at(Codec::Snappy, packed), at_byte, "{packed:02x?}");
        }
    }

    #[test]
    fn xerial_streams_in_a_row_are_one_output() {
        let first = xerial(&[b"\x06\x14hello ", b"\x03\x08wor"]);
        let packed = [first, xerial(&[]), xerial(&[b"\0", b"\x02\x04ld"])].concat();
        assert_eq!(decompress(&packed, 11).as_deref(), Ok(&b"hello world"[..]));
        assert_eq!(decompress(&xerial(&[]), 0), Ok(vec![]));
    }

    #[test]
    fn xerial_blocks_keep_to_themselves() {
        let copies_from_before = xerial(&[b"\x01\0a", b"\x04\x01\x01"]);
        assert_eq!(
            malformed_at(Codec::Snappy, &copies_from_before),
            copies_from_before.len()
        );
        let negative = [xerial(&[]), vec![0xff, 0xff, 0xff, 0xff]].concat();
        assert_eq!(malformed_at(Codec::Snappy, &negative), 16);
        assert_eq!(malformed_at(Codec::Snappy, &xerial(&[b""])), 20);
    }
}
