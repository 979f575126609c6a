//! The reference implementation of each codec.

use std::io::Read;

use bytes::Bytes;
use kafka_protocol::records::Compression;

/// What Kafka's Java clients put before blocks of snappy: a magic and two versions.
const XERIAL_HEADER_BYTES: usize = 16;

/// Decompresses the records of a batch; panics where the reference implementation errs.
pub(crate) fn decompress_by_reference(codec: Compression, packed: &Bytes) -> Bytes {
    let mut out = Vec::new();
    match codec {
        Compression::None => return packed.clone(),
        Compression::Gzip => {
            let mut reader = flate2::read::MultiGzDecoder::new(packed.as_ref());
            reader.read_to_end(&mut out).unwrap();
        }
        Compression::Lz4 => {
            let mut reader = lz4_flex::frame::FrameDecoder::new(packed.as_ref());
            reader.read_to_end(&mut out).unwrap();
        }
        // The reference is in C. Natively it has seen the same bytes.
        #[cfg(target_family = "wasm")]
        Compression::Zstd => {
            use kachet_core::wire::codec::{Codec, DEFAULT_DECOMPRESSED_LIMIT_BYTES, decompress};
            out = decompress(Codec::Zstd, packed, DEFAULT_DECOMPRESSED_LIMIT_BYTES).unwrap();
        }
        #[cfg(not(target_family = "wasm"))]
        Compression::Zstd => out = zstd::decode_all(packed.as_ref()).unwrap(),
        Compression::Snappy => {
            assert_eq!(&packed[..8], b"\x82SNAPPY\0");
            let mut rest = &packed[XERIAL_HEADER_BYTES..];
            while let Some((length, blocks)) = rest.split_first_chunk() {
                let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
                out.extend(
                    snap::raw::Decoder::new()
                        .decompress_vec(&blocks[..length])
                        .unwrap(),
                );
                rest = &blocks[length..];
            }
        }
    }
    out.into()
}
