//! Zstandard (RFC 8878). `ruzstd` decodes the blocks; the frame headers are read here first, because a header
//! must not cost memory before it has been judged.

use alloc::vec::Vec;

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::{Codec, CodecError, Input};

const MAGIC: u32 = 0xfd2f_b528;
/// The low four bits of a skippable frame's magic are free.
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;

/// A window up to this size is accepted whatever the limit, as RFC 8878 asks (3.1.1.1.2). Producers that stream
/// state the window of their compression level (2 MiB at level 3), however little they then write, and the
/// decoder's memory grows with the output, not with the window.
const WINDOW_BYTES_ACCEPTED: u64 = 8 * 1024 * 1024;

/// What a frame's header says.
struct Header {
    content_bytes: Option<u64>,
    window_bytes: u64,
}

/// Decompresses all frames of `bytes`.
pub(super) fn decompress(bytes: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CodecError> {
    let mut input = Input::new(Codec::Zstd, bytes);
    let mut output = Vec::new();
    loop {
        let start = input;
        match u32::from_le_bytes(input.array("the magic of a zstd frame")?) {
            MAGIC => frame(start, &mut input, &mut output, limit_bytes)?,
            magic if magic & !0xf == SKIPPABLE_MAGIC => skip(&mut input)?,
            _ => return Err(start.malformed("the magic of a zstd frame (28 b5 2f fd)")),
        }
        if input.is_empty() {
            return Ok(output);
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

/// Decompresses one frame, which begins at `start` and whose magic has been read from `input`.
fn frame(
    start: Input,
    input: &mut Input,
    output: &mut Vec<u8>,
    limit_bytes: usize,
) -> Result<(), CodecError> {
    let exceeded = CodecError::LimitExceeded {
        codec: Codec::Zstd,
        limit_bytes,
    };
    let header = Header::read(input)?;
    let room_bytes = limit_bytes.saturating_sub(output.len());
    let limit = u64::try_from(limit_bytes).unwrap_or(u64::MAX);
    let room = u64::try_from(room_bytes).unwrap_or(u64::MAX);
    if header.content_bytes.is_some_and(|bytes| bytes > room)
        || header.window_bytes > limit.max(WINDOW_BYTES_ACCEPTED)
    {
        return Err(exceeded);
    }

    // A decoder for each frame: a used one would reserve the next frame's whole window.
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(u64::MAX);
    let mut source = start.rest;
    decoder
        .reset(&mut source)
        .map_err(|_| input.malformed("a zstd frame's header"))?;
    // Stops behind the block that passes the limit, at the latest.
    let wanted = BlockDecodingStrategy::UptoBytes(room_bytes.saturating_add(1));
    let finished = decoder.decode_blocks(&mut source, wanted);
    advance_to(input, source)?;
    if !finished.map_err(|_| input.malformed("a whole and valid zstd block before this"))?
        || decoder.can_collect() > room_bytes
    {
        return Err(exceeded);
    }

    let content = decoder.collect().unwrap_or_default();
    if header
        .content_bytes
        .is_some_and(|stated| u64::try_from(content.len()) != Ok(stated))
    {
        return Err(input.malformed("as much data as the frame's header states"));
    }
    if let (Some(stored), Some(computed)) = (
        decoder.get_checksum_from_data(),
        decoder.get_calculated_checksum(),
    ) && stored != computed
    {
        let at_byte = input.at_byte().saturating_sub(4);
        return Err(CodecError::ChecksumMismatch {
            codec: Codec::Zstd,
            at_byte,
            stored,
            computed,
        });
    }
    // Before the append, which may have to grow the output.
    drop(decoder);
    if output.is_empty() {
        *output = content;
    } else {
        output.extend_from_slice(&content);
    }
    Ok(())
}

/// Moves `input` to where `source`, a tail of the same bytes, begins.
fn advance_to(input: &mut Input, source: &[u8]) -> Result<(), CodecError> {
    let read = input.rest.len().saturating_sub(source.len());
    input.take(read, "a zstd frame").map(|_| ())
}

impl Header {
    /// Reads a frame's header behind its magic (RFC 8878, 3.1.1.1).
    fn read(input: &mut Input) -> Result<Self, CodecError> {
        const CONTENT_SIZE: &str = "the frame's content size";
        let start = *input;
        let [descriptor] = input.array("the descriptor of a zstd frame")?;
        let single_segment = descriptor & (1 << 5) != 0;
        if descriptor & (1 << 3) != 0 {
            return Err(start.malformed("a descriptor whose reserved bit is zero"));
        }
        let mut window_bytes = 0;
        if !single_segment {
            let [window] = input.array("the window's size")?;
            let base = 1u64 << (10 + (window >> 3));
            window_bytes = base + base / 8 * u64::from(window & 0b111);
        }
        let at_dictionary = *input;
        let dictionary = input.take(
            [0, 1, 2, 4][usize::from(descriptor & 0b11)],
            "the dictionary's id",
        )?;
        if dictionary.iter().any(|byte| *byte != 0) {
            return Err(at_dictionary.malformed("a frame without a dictionary"));
        }
        let content_bytes = match descriptor >> 6 {
            0 if single_segment => Some(u64::from(u8::from_le_bytes(input.array(CONTENT_SIZE)?))),
            0 => None,
            // The two-byte form begins where the one-byte form ends.
            1 => Some(256 + u64::from(u16::from_le_bytes(input.array(CONTENT_SIZE)?))),
            2 => Some(u64::from(u32::from_le_bytes(input.array(CONTENT_SIZE)?))),
            _ => Some(u64::from_le_bytes(input.array(CONTENT_SIZE)?)),
        };
        if single_segment {
            window_bytes = content_bytes.unwrap_or(0);
        }
        Ok(Header {
            content_bytes,
            window_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::super::tests::{LIMIT, malformed_at};
    use super::*;

    const SKIPPABLE: [u8; 11] = *b"\x5f\x2a\x4d\x18\x03\0\0\0xyz";

    /// A frame with this header behind the magic, and one block of `kind` (0 raw, 3 reserved).
    fn frame(header: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
        let size = u8::try_from(data.len()).unwrap();
        [
            &MAGIC.to_le_bytes()[..],
            header,
            &[size << 3 | kind << 1 | 1, 0, 0],
            data,
        ]
        .concat()
    }

    #[test]
    fn frames_in_a_row_and_skippable_ones_are_one_output() {
        let (hello, world) = (frame(&[0, 0], 0, b"hello "), frame(&[1 << 5, 5], 0, b"world"));
        let packed = [&SKIPPABLE[..], &hello, &SKIPPABLE, &world, &SKIPPABLE].concat();
        assert_eq!(decompress(&packed, 11).as_deref(), Ok(&b"hello world"[..]));
        let refused = CodecError::LimitExceeded {
            codec: Codec::Zstd,
            limit_bytes: 10,
        };
        assert_eq!(decompress(&packed, 10), Err(refused));
        assert_eq!(
            malformed_at(Codec::Zstd, &[&hello[..], b"more"].concat()),
            hello.len()
        );
        assert_eq!(malformed_at(Codec::Zstd, b"\x50\x2a\x4d\x18\xff\xff\xff\xff"), 8);
    }

    // Who compresses is in C.
    #[cfg(not(target_family = "wasm"))]
    #[test]
    fn a_wrong_checksum_is_seen_and_located() {
        let mut encoder = ::zstd::bulk::Compressor::new(3).unwrap();
        encoder.include_checksum(true).unwrap();
        let content = vec![b'a'; 1000];
        let mut packed = encoder.compress(&content).unwrap();
        assert_eq!(decompress(&packed, LIMIT), Ok(content));
        let at = packed.len() - 4;
        packed[at] ^= 1;
        let error = decompress(&packed, LIMIT).unwrap_err();
        assert!(
            matches!(error, CodecError::ChecksumMismatch { at_byte, stored, computed, .. } if at_byte == at && stored == computed ^ 1)
        );
    }

    #[test]
    fn content_sizes_of_every_width_must_hold() {
        let content = vec![b'a'; 31];
        for (stated, fine) in [(30, false), (31, true), (32, false)] {
            assert_eq!(
                decompress(&frame(&[1 << 5, stated], 0, &content), LIMIT).is_ok(),
                fine
            );
            let of_four = frame(&[2 << 6, 0, stated, 0, 0, 0], 0, &content);
            assert_eq!(decompress(&of_four, LIMIT).is_ok(), fine);
            let of_eight = frame(&[3 << 6, 0, stated, 0, 0, 0, 0, 0, 0, 0], 0, &content);
            assert_eq!(decompress(&of_eight, LIMIT).is_ok(), fine);
        }
        // Two bytes state 256 and more: here a block of one byte repeated 256 times.
        for (stated, fine) in [(0, true), (1, false)] {
            let block = [1 | 1 << 1, 256u16.to_le_bytes()[1] << 3, 0, b'a'];
            let packed = [&MAGIC.to_le_bytes()[..], &[1 << 6, 0, stated, 0], &block].concat();
            assert_eq!(decompress(&packed, LIMIT).is_ok(), fine, "{stated}");
        }
    }

    #[test]
    fn headers_that_are_not_understood_are_refused() {
        assert_eq!(malformed_at(Codec::Zstd, &frame(&[1 << 3, 0], 0, b"a")), 4);
        let with_dictionary = |id| frame(&[1, 0, id], 0, b"a");
        assert_eq!(decompress(&with_dictionary(0), 1), Ok(b"a".to_vec()));
        assert_eq!(malformed_at(Codec::Zstd, &with_dictionary(7)), 6);
        assert_eq!(malformed_at(Codec::Zstd, &frame(&[0, 0], 3, b"a")), 9);
    }
}
