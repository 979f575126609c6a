//! gzip (RFC 1952): header and trailer by hand, since `miniz_oxide` knows only the deflate stream between.

use alloc::boxed::Box;
use alloc::vec::Vec;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress as inflate};

use super::{Codec, CodecError, Input, Output};

const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// Room behind the claimed size in which the decoder's fast loop can run up to the last byte.
const SLACK_BYTES: usize = 512;

/// Decompresses all members of `bytes`.
pub(super) fn decompress(bytes: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CodecError> {
    let mut input = Input::new(Codec::Gzip, bytes);
    let mut output = Output::new(Codec::Gzip, bytes.len(), limit_bytes);
    output.claimed_bytes = claimed_bytes(bytes);
    // 11 KB: too much for a stack that may be a wasm module's.
    let mut decoder = Box::<DecompressorOxide>::default();
    loop {
        member(&mut input, &mut decoder, &mut output)?;
        if input.is_empty() {
            return Ok(output.into_vec());
        }
    }
}

/// Where the growth of the output may stop: the size in the last trailer, which is the whole size if there is
/// but one member of less than 4 GiB, as in every batch of a Kafka client. It reserves nothing.
fn claimed_bytes(bytes: &[u8]) -> usize {
    let size = bytes
        .last_chunk()
        .map_or(u32::MAX, |size| u32::from_le_bytes(*size));
    usize::try_from(size)
        .unwrap_or(usize::MAX)
        .saturating_add(SLACK_BYTES)
}

fn member(input: &mut Input, decoder: &mut DecompressorOxide, output: &mut Output) -> Result<(), CodecError> {
    header(input)?;
    let start = output.len;
    body(input, decoder, output)?;
    let content = output.buffer.get(start..output.len).unwrap_or_default();

    let at_byte = input.at_byte();
    let stored = u32::from_le_bytes(input.array("the member's CRC-32")?);
    let computed = crc32(content);
    if stored != computed {
        return Err(CodecError::ChecksumMismatch {
            codec: Codec::Gzip,
            at_byte,
            stored,
            computed,
        });
    }
    let at_size = *input;
    let size = u32::from_le_bytes(input.array("the member's size")?);
    // The size is stated modulo 2^32.
    let same = u64::try_from(content.len()).is_ok_and(|len| len & u64::from(u32::MAX) == u64::from(size));
    if same {
        Ok(())
    } else {
        Err(at_size.malformed("the size of the decompressed member"))
    }
}

#[cfg(not(target_family = "wasm"))]
fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// By tables that are made here: what a module carries is loaded over a network.
#[cfg(target_family = "wasm")]
fn crc32(bytes: &[u8]) -> u32 {
    use crate::wire::made_table::MadeTable;

    static MADE: MadeTable = MadeTable::new(0xedb8_8320);
    MADE.checksum(bytes)
}

fn header(input: &mut Input) -> Result<(), CodecError> {
    let start = *input;
    if input.array("a gzip member (1f 8b)")? != [0x1f, 0x8b] {
        return Err(start.malformed("a gzip member (1f 8b)"));
    }
    let at_method = *input;
    let [method, flags] = input.array("the compression method and the flags")?;
    if method != 8 {
        return Err(at_method.malformed("compression method 8 (deflate)"));
    }
    if flags & RESERVED != 0 {
        return Err(at_method.malformed("flags whose reserved bits are zero"));
    }
    input.take(6, "the modification time, extra flags and system")?;
    if flags & FEXTRA != 0 {
        let len = u16::from_le_bytes(input.array("the length of the extra field")?);
        input.take(usize::from(len), "the extra field")?;
    }
    if flags & FNAME != 0 {
        zero_terminated(input, "a file name that ends in zero")?;
    }
    if flags & FCOMMENT != 0 {
        zero_terminated(input, "a comment that ends in zero")?;
    }
    if flags & FHCRC != 0 {
        header_checksum(start, input)?;
    }
    Ok(())
}

/// Skips bytes up to and including a zero.
fn zero_terminated(input: &mut Input, expected: &'static str) -> Result<(), CodecError> {
    let end = input
        .rest
        .iter()
        .position(|byte| *byte == 0)
        .ok_or_else(|| input.malformed(expected))?;
    input.take(end + 1, expected).map(|_| ())
}

/// The low half of the CRC-32 over the header as far as read, from `start` on.
fn header_checksum(mut start: Input, input: &mut Input) -> Result<(), CodecError> {
    let at_byte = input.at_byte();
    let computed = crc32(start.take(at_byte - start.at_byte(), "the header")?) & 0xffff;
    let stored = u32::from(u16::from_le_bytes(input.array("the header's CRC-16")?));
    if stored == computed {
        return Ok(());
    }
    Err(CodecError::ChecksumMismatch {
        codec: Codec::Gzip,
        at_byte,
        stored,
        computed,
    })
}

/// Inflates one deflate stream. Each turn either ends or comes back with twice the room.
fn body(input: &mut Input, decoder: &mut DecompressorOxide, output: &mut Output) -> Result<(), CodecError> {
    decoder.init();
    let start = output.len;
    loop {
        output.grow(1);
        // From the member's start: its matches must not reach into the member before.
        let window = output.buffer.get_mut(start..).unwrap_or_default();
        let written_before = output.len - start;
        let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, read, written) = inflate(decoder, input.rest, window, written_before, flags);
        input.take(read, "deflate data")?;
        output.advance(written)?;
        match status {
            TINFLStatus::Done => return Ok(()),
            TINFLStatus::HasMoreOutput => {}
            TINFLStatus::FailedCannotMakeProgress => return Err(input.malformed("more deflate data")),
            _ => return Err(input.malformed("valid deflate data")),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::super::tests::malformed_at;
    use super::*;

    /// A header with the optional fields that `flags` names; `damage` is what its checksum is wrong by.
    fn header(flags: u8, damage: u8) -> Vec<u8> {
        let mut out = vec![0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 3];
        if flags & FEXTRA != 0 {
            out.extend_from_slice(b"\x03\0abc");
        }
        if flags & FNAME != 0 {
            out.extend_from_slice(b"name\0");
        }
        if flags & FCOMMENT != 0 {
            out.push(0);
        }
        if flags & FHCRC != 0 {
            let mut crc = flate2::Crc::new();
            crc.update(&out);
            let [low, high, ..] = crc.sum().to_le_bytes();
            out.extend_from_slice(&[low ^ damage, high]);
        }
        out
    }

    fn trailer(content: &[u8]) -> Vec<u8> {
        let mut crc = flate2::Crc::new();
        crc.update(content);
        [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat()
    }

    /// A member that holds `content` in one stored block.
    fn stored(header: &[u8], content: &[u8]) -> Vec<u8> {
        let len = u16::try_from(content.len()).unwrap();
        let (len, not_len) = (len.to_le_bytes(), (!len).to_le_bytes());
        [header, &[1], &len, &not_len, content, &trailer(content)].concat()
    }

    #[test]
    fn optional_header_fields_are_skipped_and_their_checksum_holds() {
        for flags in 0..32 {
            let packed = stored(&header(flags, 0), b"hello");
            assert_eq!(
                decompress(&packed, 5).as_deref(),
                Ok(&b"hello"[..]),
                "flags {flags}"
            );
            for len in 0..packed.len() {
                assert!(
                    decompress(&packed[..len], 5).is_err(),
                    "flags {flags} cut at {len}"
                );
            }
        }
        let error = decompress(&stored(&header(FHCRC, 1), b"hello"), 5).unwrap_err();
        assert!(
            matches!(error, CodecError::ChecksumMismatch { at_byte: 10, stored, computed, .. } if stored == computed ^ 1)
        );
    }

    #[test]
    fn headers_that_are_not_understood_are_refused() {
        assert_eq!(
            malformed_at(Codec::Gzip, &[0x1f, 0x8c, 8, 0, 0, 0, 0, 0, 0, 0]),
            0
        );
        assert_eq!(
            malformed_at(Codec::Gzip, &[0x1f, 0x8b, 7, 0, 0, 0, 0, 0, 0, 0]),
            2
        );
        assert_eq!(malformed_at(Codec::Gzip, &header(32, 0)), 2);
    }

    #[test]
    fn members_in_a_row_are_one_output_and_garbage_behind_them_is_an_error() {
        let plain = header(0, 0);
        let mut packed = [
            stored(&plain, b"hello "),
            stored(&plain, b""),
            stored(&plain, b"world"),
        ]
        .concat();
        assert_eq!(decompress(&packed, 11).as_deref(), Ok(&b"hello world"[..]));
        let end = packed.len();
        packed.push(0);
        assert_eq!(malformed_at(Codec::Gzip, &packed), end);
    }

    #[test]
    fn wrong_trailers_are_seen_and_located() {
        let mut packed = stored(&header(0, 0), b"hello");
        let end = packed.len();
        packed[end - 1] ^= 1;
        assert_eq!(malformed_at(Codec::Gzip, &packed), end - 4);
        packed[end - 8] ^= 1;
        let error = decompress(&packed, 5).unwrap_err();
        assert!(
            matches!(error, CodecError::ChecksumMismatch { at_byte, stored, computed, .. } if at_byte == end - 8 && stored == computed ^ 1)
        );
    }

    #[test]
    fn a_member_cannot_copy_from_the_one_before() {
        // A fixed block: three bytes from distance 1, then the end.
        let copies = [header(0, 0), vec![0x03, 0x02, 0x00], trailer(b"aaa")].concat();
        let before = stored(&header(0, 0), b"a");
        assert_eq!(malformed_at(Codec::Gzip, &[before, copies].concat()), 24 + 10 + 2);
    }
}
