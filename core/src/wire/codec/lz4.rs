//! The LZ4 frame format: headers and checksums by hand, since `lz4_flex` without std knows only blocks.
//!
//! <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>. Kafka's old clients computed the header
//! checksum wrongly, but only in message sets of magic 0 and 1 (KAFKA-3160): in a record batch it must hold.

use alloc::vec::Vec;

use lz4_flex::block::{DecompressError, decompress_into, decompress_into_with_dict};
use twox_hash::XxHash32;

use super::{Codec, CodecError, Input, Output};

const MAGIC: u32 = 0x184d_2204;
/// The low four bits of a skippable frame's magic are free.
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;

/// How far back a match of a linked block can reach, in bytes.
const WINDOW_BYTES: usize = 64 * 1024;
/// In a block's size: the block is not compressed.
const UNCOMPRESSED: u32 = 1 << 31;

/// What a frame's descriptor says.
struct Descriptor {
    blocks_linked: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_bytes: Option<u64>,
    block_bytes_max: usize,
}

/// Decompresses all frames of `bytes`.
pub(super) fn decompress(bytes: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CodecError> {
    let mut input = Input::new(Codec::Lz4, bytes);
    let mut output = Output::new(Codec::Lz4, bytes.len(), limit_bytes);
    loop {
        let start = input;
        match u32::from_le_bytes(input.array("the magic of an LZ4 frame")?) {
            MAGIC => frame(&mut input, &mut output)?,
            magic if magic & !0xf == SKIPPABLE_MAGIC => skip(&mut input)?,
            _ => return Err(start.malformed("the magic of an LZ4 frame (04 22 4d 18)")),
        }
        if input.is_empty() {
            return Ok(output.into_vec());
        }
    }
}

fn skip(input: &mut Input) -> Result<(), CodecError> {
    let len = u32::from_le_bytes(input.array("the size of a skippable frame")?);
    // Where it does not fit it is longer than any input.
    input
        .take(
            usize::try_from(len).unwrap_or(usize::MAX),
            "a whole skippable frame",
        )
        .map(|_| ())
}

/// Decompresses one frame, whose magic has been read.
fn frame(input: &mut Input, output: &mut Output) -> Result<(), CodecError> {
    let descriptor = Descriptor::read(input)?;
    let start = output.len;
    let mut end = usize::MAX;
    if let Some(claimed) = descriptor.content_bytes {
        let claimed = usize::try_from(claimed).unwrap_or(usize::MAX);
        output.claim(claimed, 0)?;
        end = start.saturating_add(claimed);
    } else if output.buffer.is_empty() {
        output.claimed_bytes = descriptor.content_bytes_max(*input);
    }
    while block(input, output, &descriptor, start, end)? {}

    if descriptor.content_bytes.is_some() && output.len != end {
        return Err(input.malformed("as much data as the frame's descriptor states"));
    }
    if descriptor.content_checksum {
        let content = output.buffer.get(start..output.len).unwrap_or_default();
        checksum(input, content, "the frame's content checksum")?;
    }
    Ok(())
}

impl Descriptor {
    fn read(input: &mut Input) -> Result<Self, CodecError> {
        let mut start = *input;
        let [flags, block] = input.array("the descriptor of an LZ4 frame")?;
        let bit = |bit: u8| flags & (1 << bit) != 0;
        if flags >> 6 != 1 {
            return Err(start.malformed("version 1 of the LZ4 frame format"));
        }
        if bit(1) || block & 0b1000_1111 != 0 {
            return Err(start.malformed("a descriptor whose reserved bits are zero"));
        }
        if bit(0) {
            return Err(start.malformed("a frame without a dictionary"));
        }
        let block_bytes_max = match block >> 4 {
            4 => 64 * 1024,
            5 => 256 * 1024,
            6 => 1024 * 1024,
            7 => 4 * 1024 * 1024,
            _ => return Err(start.malformed("a block size of 64 KiB, 256 KiB, 1 MiB or 4 MiB (4 to 7)")),
        };
        let content_bytes = if bit(3) {
            Some(u64::from_le_bytes(input.array("the frame's content size")?))
        } else {
            None
        };
        let at_byte = input.at_byte();
        let covered = start.take(at_byte - start.at_byte(), "the descriptor")?;
        let [_, _, computed, _] = XxHash32::oneshot(0, covered).to_be_bytes();
        let [stored] = input.array("the header checksum")?;
        if stored != computed {
            let (stored, computed) = (u32::from(stored), u32::from(computed));
            return Err(CodecError::ChecksumMismatch {
                codec: Codec::Lz4,
                at_byte,
                stored,
                computed,
            });
        }
        Ok(Descriptor {
            blocks_linked: !bit(5),
            block_checksums: bit(4),
            content_checksum: bit(2),
            content_bytes,
            block_bytes_max,
        })
    }

    /// What the frame's blocks, which begin at `input`, can come to: mostly all but the last are full. Only a cap
    /// on growth, so that it may stop early at a fault.
    fn content_bytes_max(&self, mut input: Input) -> usize {
        let mut bytes = 0usize;
        while let Ok(word) = input
            .array("a block's size, or the end mark")
            .map(u32::from_le_bytes)
            && let Ok(len) = usize::try_from(word & !UNCOMPRESSED)
            && len > 0
            && input.take(len, "a whole block").is_ok()
        {
            let block = if word & UNCOMPRESSED == 0 {
                len.saturating_mul(255)
            } else {
                len
            };
            bytes = bytes.saturating_add(block.min(self.block_bytes_max));
            if self.block_checksums && input.array::<4>("the block's checksum").is_err() {
                break;
            }
        }
        bytes
    }
}

/// Decompresses the next block of the frame whose output begins at `start` and by its descriptor ends at `end`.
/// False at the frame's end mark.
fn block(
    input: &mut Input,
    output: &mut Output,
    descriptor: &Descriptor,
    start: usize,
    end: usize,
) -> Result<bool, CodecError> {
    let at_size = *input;
    let word = u32::from_le_bytes(input.array("a block's size, or the end mark")?);
    if word == 0 {
        return Ok(false);
    }
    let len = usize::try_from(word & !UNCOMPRESSED).unwrap_or(usize::MAX);
    if len > descriptor.block_bytes_max {
        return Err(at_size.malformed("a block no larger than the descriptor allows"));
    }
    let data = input.take_input(len, "a whole block")?;
    if descriptor.block_checksums {
        checksum(input, data.rest, "the block's checksum")?;
    }
    if word & UNCOMPRESSED != 0 {
        store(data.rest, output)?;
    } else {
        // Independent blocks may not look back at all, linked ones no further than their frame.
        let lookback = if descriptor.blocks_linked {
            start
        } else {
            output.len
        };
        let bytes_max = descriptor.block_bytes_max.min(end.saturating_sub(output.len));
        inflate(data, output, lookback, bytes_max)?;
    }
    Ok(true)
}

/// Appends the data of an uncompressed block.
fn store(data: &[u8], output: &mut Output) -> Result<(), CodecError> {
    output.grow(data.len());
    match output
        .buffer
        .get_mut(output.len..)
        .and_then(|room| room.get_mut(..data.len()))
    {
        Some(room) => room.copy_from_slice(data),
        None => return Err(output.limit_exceeded()),
    }
    output.advance(data.len())
}

/// Decompresses the data of one block. How large it becomes is stated nowhere, and reserving the largest
/// block for each would let a small input hold 4 MiB: so a guess, and a larger one while it proves too small.
/// `bytes_max` is the most that the frame allows.
fn inflate(data: Input, output: &mut Output, lookback: usize, bytes_max: usize) -> Result<(), CodecError> {
    let mut guess = data
        .rest
        .len()
        .saturating_mul(4)
        .saturating_add(64 * 1024)
        .min(bytes_max);
    loop {
        output.grow(guess);
        let (before, room) = output.buffer.split_at_mut(output.len);
        let room_bytes = room.len().min(guess);
        let room = room.get_mut(..room_bytes).unwrap_or_default();
        let window = before
            .get(lookback.max(before.len().saturating_sub(WINDOW_BYTES))..)
            .unwrap_or_default();
        let written = match window {
            [] => decompress_into(data.rest, room),
            window => decompress_into_with_dict(data.rest, room, window),
        };
        match written {
            Ok(written) => return output.advance(written),
            Err(DecompressError::OutputTooSmall { .. }) if room_bytes < guess => {
                return Err(output.limit_exceeded());
            }
            Err(DecompressError::OutputTooSmall { .. }) if guess < bytes_max => {
                guess = guess.saturating_mul(4).min(bytes_max);
            }
            Err(DecompressError::OutputTooSmall { .. }) => {
                return Err(data.malformed("a block that grows no larger than the descriptor allows"));
            }
            Err(_) => return Err(data.malformed("a valid LZ4 block")),
        }
    }
}

/// Compares the XXH32 of `data` with the one that comes next.
fn checksum(input: &mut Input, data: &[u8], expected: &'static str) -> Result<(), CodecError> {
    let at_byte = input.at_byte();
    let stored = u32::from_le_bytes(input.array(expected)?);
    let computed = XxHash32::oneshot(0, data);
    if stored == computed {
        return Ok(());
    }
    Err(CodecError::ChecksumMismatch {
        codec: Codec::Lz4,
        at_byte,
        stored,
        computed,
    })
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::super::tests::{LIMIT, malformed_at};
    use super::*;

    const INDEPENDENT: u8 = 1 << 5;
    const SIZED: u8 = 1 << 3;
    const SKIPPABLE: [u8; 11] = *b"\x5f\x2a\x4d\x18\x03\0\0\0xyz";
    /// No literals, then twelve bytes from four back, then five literals.
    const COPY_FROM_BEFORE: [u8; 9] = [0x08, 4, 0, 0x50, b'1', b'2', b'3', b'4', b'5'];

    /// A frame of `blocks`: the data, and whether it is compressed.
    fn frame(flags: u8, block_size: u8, size: &[u8], blocks: &[(&[u8], bool)]) -> Vec<u8> {
        let descriptor = [&[0x40 | flags, block_size << 4], size].concat();
        let mut out = [&MAGIC.to_le_bytes()[..], &descriptor, &[checksum(&descriptor)]].concat();
        for (data, compressed) in blocks {
            let size = u32::try_from(data.len()).unwrap() | if *compressed { 0 } else { UNCOMPRESSED };
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(data);
        }
        out.extend_from_slice(&[0; 4]);
        out
    }

    /// A descriptor's checksum: XXH32 of fewer than 16 bytes, written out.
    fn checksum(descriptor: &[u8]) -> u8 {
        const PRIME: [u32; 5] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d, 0x27d4_eb2f, 0x1656_67b1];
        let mut hash = PRIME[4].wrapping_add(u32::try_from(descriptor.len()).unwrap());
        let (words, rest) = descriptor.as_chunks::<4>();
        for word in words {
            hash = hash.wrapping_add(u32::from_le_bytes(*word).wrapping_mul(PRIME[2]));
            hash = hash.rotate_left(17).wrapping_mul(PRIME[3]);
        }
        for byte in rest {
            hash = hash.wrapping_add(u32::from(*byte).wrapping_mul(PRIME[4]));
            hash = hash.rotate_left(11).wrapping_mul(PRIME[0]);
        }
        hash = (hash ^ (hash >> 15)).wrapping_mul(PRIME[1]);
        hash = (hash ^ (hash >> 13)).wrapping_mul(PRIME[2]);
        (hash ^ (hash >> 16)).to_be_bytes()[2]
    }

    #[test]
    fn only_linked_blocks_copy_from_the_block_before_and_only_in_their_frame() {
        let blocks: [(&[u8], bool); 2] = [(b"abcd", false), (&COPY_FROM_BEFORE, true)];
        let linked = frame(0, 4, &[], &blocks);
        assert_eq!(
            decompress(&linked, 21).as_deref(),
            Ok(&b"abcdabcdabcdabcd12345"[..])
        );
        assert_eq!(malformed_at(Codec::Lz4, &frame(INDEPENDENT, 4, &[], &blocks)), 19);
        let apart = [frame(0, 4, &[], &blocks[..1]), frame(0, 4, &[], &blocks[1..])].concat();
        assert_eq!(malformed_at(Codec::Lz4, &apart), 30);
    }

    #[test]
    fn frames_in_a_row_and_skippable_ones_are_one_output() {
        let hello = frame(INDEPENDENT, 4, &[], &[(b"hello ", false)]);
        let world = frame(0, 7, &[], &[(b"wor", false), (b"ld", false)]);
        let packed = [&SKIPPABLE[..], &hello, &SKIPPABLE, &world, &SKIPPABLE].concat();
        assert_eq!(decompress(&packed, 11).as_deref(), Ok(&b"hello world"[..]));
        assert_eq!(malformed_at(Codec::Lz4, b"\x50\x2a\x4d\x18\xff\xff\xff\xff"), 8);
        assert_eq!(
            malformed_at(Codec::Lz4, &[&hello[..], b"more"].concat()),
            hello.len()
        );
    }

    #[test]
    fn descriptors_that_are_not_understood_are_refused() {
        for (flags, block_size) in [(0xc0, 4), (1, 4), (2, 4), (0, 3), (0, 8)] {
            let packed = frame(flags, block_size, &[], &[]);
            assert_eq!(malformed_at(Codec::Lz4, &packed), 4, "{flags} {block_size}");
        }
        let of_old_clients = [0x02, 0x21, 0x4c, 0x18, 0, 0, 0, 0];
        assert_eq!(malformed_at(Codec::Lz4, &of_old_clients), 0);
    }

    #[test]
    fn a_wrong_header_checksum_is_seen_and_located() {
        let mut packed = frame(INDEPENDENT, 4, &[], &[]);
        assert_eq!(decompress(&packed, 0), Ok(vec![]));
        packed[6] ^= 1;
        let error = decompress(&packed, 0).unwrap_err();
        assert!(
            matches!(error, CodecError::ChecksumMismatch { at_byte: 6, stored, computed, .. } if stored == computed ^ 1)
        );
    }

    #[test]
    fn a_content_size_must_hold() {
        let compressed = lz4_flex::block::compress(&[7; 500]);
        for (block, len) in [((&[7; 5][..], false), 5u64), ((&compressed, true), 500)] {
            for (stated, fine) in [(len - 1, false), (len, true), (len + 1, false)] {
                let packed = frame(SIZED, 4, &stated.to_le_bytes(), &[block]);
                assert_eq!(
                    decompress(&packed, LIMIT).is_ok(),
                    fine,
                    "{stated} stated of {len}"
                );
            }
        }
    }

    #[test]
    fn blocks_larger_than_their_frame_allows_are_refused() {
        let (fits, too_large) = (vec![1; 64 * 1024], vec![1; 64 * 1024 + 1]);
        let packed = frame(INDEPENDENT, 4, &[], &[(&fits, false)]);
        assert_eq!(decompress(&packed, LIMIT), Ok(fits));
        let packed = frame(INDEPENDENT, 4, &[], &[(&too_large, false)]);
        assert_eq!(malformed_at(Codec::Lz4, &packed), 7);
        let grows = lz4_flex::block::compress(&too_large);
        let packed = frame(INDEPENDENT, 4, &[], &[(&grows, true)]);
        assert_eq!(malformed_at(Codec::Lz4, &packed), 11);
        let packed = frame(INDEPENDENT, 5, &[], &[(&grows, true)]);
        assert_eq!(decompress(&packed, LIMIT), Ok(too_large));
    }
}
