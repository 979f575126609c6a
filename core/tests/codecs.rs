//! The codecs against independent witnesses, against their limits, and against damaged and hostile input.
//!
//! The witnesses only compress here: flate2 (gzip), snap (raw snappy), `lz4_flex`'s frame module and the zstd
//! reference library, which is in C and left out in WebAssembly. Hostile input is written by hand.

#[path = "support/allocations.rs"]
mod allocations;

use allocations::{Counting, peak_bytes};
use kachet_core::wire::codec::{Codec, CodecError, DEFAULT_DECOMPRESSED_LIMIT_BYTES, decompress};

const LIMIT: usize = DEFAULT_DECOMPRESSED_LIMIT_BYTES;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Data as records hold it: JSON with some numbers that do not compress.
fn text(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut out = Vec::with_capacity(len + 128);
    while out.len() < len {
        let (id, user, price) = (random.u32(..), random.u16(..500), random.u16(..));
        let line =
            format!(r#"{{"id":{id},"user":"user-{user}","event":"view","price":{price},"tags":["a","b"]}}"#);
        out.extend_from_slice(line.as_bytes());
    }
    out.truncate(len);
    out
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

/// Short repeats at changing distances: overlapping copies of every kind.
fn repeats(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut out = noise(8, seed);
    while out.len() < len {
        let from = out.len() - random.usize(1..=out.len().min(100));
        for at in from..from + random.usize(1..300) {
            out.push(out[at]);
        }
        out.push(random.u8(..));
    }
    out.truncate(len);
    out
}

type Encode = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// One way of compressing with a witness.
struct Encoder {
    codec: Codec,
    name: String,
    /// Whether a checksum covers the content, so that damage cannot go unseen.
    checked: bool,
    encode: Encode,
}

#[cfg(feature = "gzip")]
fn gzip(data: &[u8], level: u32) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[cfg(feature = "snappy")]
fn raw_snappy(data: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(data).unwrap()
}

/// Xerial framing around `blocks`, as snappy-java writes it.
#[cfg(feature = "snappy")]
fn xerial(blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for block in blocks {
        out.extend_from_slice(&i32::try_from(block.len()).unwrap().to_be_bytes());
        out.extend_from_slice(block);
    }
    out
}

#[cfg(feature = "lz4")]
fn lz4(data: &[u8], info: lz4_flex::frame::FrameInfo) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[cfg(all(feature = "zstd", not(target_family = "wasm")))]
fn zstd_streamed(data: &[u8], level: i32, checksum: bool, sized: bool) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), level).unwrap();
    encoder.include_checksum(checksum).unwrap();
    if sized {
        encoder
            .set_pledged_src_size(Some(u64::try_from(data.len()).unwrap()))
            .unwrap();
    }
    // In pieces, as a producer writes records.
    for piece in data.chunks(10_000) {
        encoder.write_all(piece).unwrap();
    }
    encoder.finish().unwrap()
}

fn encoders() -> Vec<Encoder> {
    let mut all = Vec::new();
    let mut push = |codec, name: String, checked, encode: Encode| {
        let encoder = Encoder {
            codec,
            name,
            checked,
            encode,
        };
        all.push(encoder);
    };
    push(Codec::None, "none".into(), false, Box::new(<[u8]>::to_vec));
    #[cfg(feature = "gzip")]
    for level in [0, 1, 6, 9] {
        let encode = move |data: &[u8]| gzip(data, level);
        push(Codec::Gzip, format!("gzip {level}"), true, Box::new(encode));
    }
    #[cfg(feature = "snappy")]
    {
        push(Codec::Snappy, "snappy raw".into(), false, Box::new(raw_snappy));
        for block in [1000, 32 * 1024] {
            let encode = move |data: &[u8]| xerial(&data.chunks(block).map(raw_snappy).collect::<Vec<_>>());
            let name = format!("snappy xerial {block}");
            push(Codec::Snappy, name, false, Box::new(encode));
        }
    }
    #[cfg(feature = "lz4")]
    {
        use BlockSize::{Max1MB, Max4MB, Max64KB, Max256KB};
        use lz4_flex::frame::{BlockMode, BlockSize, FrameInfo};
        for size in [Max64KB, Max256KB, Max1MB, Max4MB] {
            for mode in [BlockMode::Independent, BlockMode::Linked] {
                for (sized, checked) in [(false, false), (true, true), (false, true), (true, false)] {
                    let encode = move |data: &[u8]| {
                        let content_size = sized.then(|| u64::try_from(data.len()).unwrap());
                        let info = FrameInfo::new().block_size(size).block_mode(mode);
                        let info = info.block_checksums(checked).content_checksum(checked);
                        lz4(data, info.content_size(content_size))
                    };
                    let sizing = if sized { "sized" } else { "unsized" };
                    let name = format!("lz4 {sizing} {size:?} {mode:?} checksums {checked}");
                    push(Codec::Lz4, name, checked, Box::new(encode));
                }
            }
        }
    }
    #[cfg(all(feature = "zstd", not(target_family = "wasm")))]
    for level in [1, 3, 19] {
        let bulk = move |data: &[u8]| zstd::bulk::compress(data, level).unwrap();
        push(Codec::Zstd, format!("zstd bulk {level}"), false, Box::new(bulk));
        for (checked, sized) in [(false, false), (true, true), (true, false), (false, true)] {
            let name = format!("zstd streamed {level} checksum {checked} sized {sized}");
            let encode = move |data: &[u8]| zstd_streamed(data, level, checked, sized);
            push(Codec::Zstd, name, checked, Box::new(encode));
        }
    }
    all
}

#[test]
fn every_way_of_compressing_comes_back_whole() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    let size = prop_oneof![0..3usize, 3..300usize, 300..70_000usize, 70_000..1_100_000usize];
    let strategy = (0..4u8, size, any::<u64>());
    for encoder in encoders() {
        let config = Config {
            cases: 12,
            failure_persistence: None,
            ..Config::default()
        };
        let outcome = TestRunner::new(config).run(&strategy, |(shape, len, seed)| {
            let data = match shape {
                0 => text(len, seed),
                1 => noise(len, seed),
                2 => repeats(len, seed),
                _ => vec![u8::try_from(seed & 0xff).unwrap(); len],
            };
            let packed = (encoder.encode)(&data);
            let unpacked = decompress(encoder.codec, &packed, LIMIT);
            prop_assert!(
                unpacked.as_deref() == Ok(&data),
                "{} of {len}: {:?}",
                encoder.name,
                unpacked.err()
            );
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{}: {error}", encoder.name));
    }
}

#[test]
fn exactly_the_limit_passes_and_one_byte_more_does_not() {
    for encoder in encoders() {
        let (codec, name) = (encoder.codec, &encoder.name);
        for len in [1, 2, 100, 65_535, 65_536, 65_537, 300_000] {
            for data in [text(len, 1), vec![7; len], noise(len, 2)] {
                let packed = (encoder.encode)(&data);
                let whole = decompress(codec, &packed, len);
                assert!(whole.as_ref() == Ok(&data), "{name} of {len}: {:?}", whole.err());
                let refused = Err(too_large(codec, len - 1));
                assert_eq!(decompress(codec, &packed, len - 1), refused, "{name} of {len}");
            }
        }
        let empty = (encoder.encode)(&[]);
        assert_eq!(decompress(codec, &empty, 0), Ok(vec![]), "{name} of nothing");
    }
}

#[test]
fn a_prefix_gives_an_error_or_a_prefix() {
    for encoder in encoders() {
        let (codec, name) = (encoder.codec, &encoder.name);
        // A Xerial stream may end behind any of its blocks, and data without codec anywhere.
        let may_end = matches!(codec, Codec::None | Codec::Snappy);
        for data in [text(400, 3), vec![5; 3000], noise(60, 4)] {
            let packed = (encoder.encode)(&data);
            for len in 0..packed.len() {
                if let Ok(unpacked) = decompress(codec, &packed[..len], LIMIT) {
                    assert!(may_end && data.starts_with(&unpacked), "{name} cut at {len}");
                }
            }
        }
    }
}

#[test]
fn a_changed_byte_gives_an_error_or_output_within_the_limit() {
    const LIMIT: usize = 100_000;
    let every_change: Vec<u8> = (1..=255).collect();
    let every_bit: Vec<u8> = (0..8).map(|bit| 1 << bit).collect();
    let samples = [
        (text(150, 5), &every_change),
        (repeats(400, 6), &every_bit),
        (vec![9; 40_000], &every_bit),
    ];
    // Larger LZ4 blocks differ in nothing here.
    let small = |encoder: &Encoder| encoder.codec != Codec::Lz4 || encoder.name.contains("Max64KB");
    for encoder in encoders().into_iter().filter(small) {
        let (codec, name) = (encoder.codec, &encoder.name);
        for (data, changes) in &samples {
            let mut packed = (encoder.encode)(data);
            for at in 0..packed.len().min(400) {
                let original = packed[at];
                for change in *changes {
                    packed[at] = original ^ change;
                    let (peak, unpacked) = peak_bytes(|| decompress(codec, &packed, LIMIT));
                    assert!(
                        peak <= 3 * LIMIT + 6_000_000,
                        "{name} byte {at} ^ {change}: {peak} bytes"
                    );
                    let Ok(unpacked) = unpacked else { continue };
                    assert!(unpacked.len() <= LIMIT, "{name} byte {at} ^ {change}");
                    assert!(
                        !encoder.checked || unpacked == *data,
                        "{name} byte {at} ^ {change}: unseen damage"
                    );
                }
                packed[at] = original;
            }
        }
    }
}

#[test]
fn memory_stays_within_its_bound() {
    // Level 19 decompresses like level 3, and takes long to compress.
    let quick = |encoder: &Encoder| !encoder.name.contains(" 19");
    for encoder in encoders().into_iter().filter(quick) {
        let (codec, name) = (encoder.codec, &encoder.name);
        let states_its_size = matches!(codec, Codec::Gzip | Codec::Snappy) || name.contains("lz4 sized");
        for data in [text(2_200_000, 7), noise(1_800_000, 8), vec![0; 9_000_000]] {
            let packed = (encoder.encode)(&data);
            for limit in [LIMIT, data.len(), data.len() - 1, data.len() / 3, 1000] {
                let (peak, unpacked) = peak_bytes(|| decompress(codec, &packed, limit));
                let (len, times) = (data.len().min(limit), if states_its_size { 2 } else { 3 });
                // What real input needs: the overhead that is promised is for input made to be costly.
                assert!(
                    peak <= times * len + 1_500_000,
                    "{name}: {peak} bytes for {len} at {limit}"
                );
                let Ok(unpacked) = unpacked else { continue };
                assert!(unpacked.capacity() <= 2 * unpacked.len() + 1, "{name} of {len}");
            }
        }
    }
}

/// The error that `codec` needs more than the limit.
fn too_large(codec: Codec, limit_bytes: usize) -> CodecError {
    CodecError::LimitExceeded { codec, limit_bytes }
}

/// Asserts that `packed` is refused for its size, and without much memory.
#[allow(dead_code, reason = "not used without any codec")]
fn assert_refused_as_too_large(codec: Codec, packed: &[u8], limit_bytes: usize) {
    let (peak, unpacked) = peak_bytes(|| decompress(codec, packed, limit_bytes));
    assert!(
        unpacked == Err(too_large(codec, limit_bytes)),
        "{:?} at {limit_bytes}",
        unpacked.map(|out| out.len())
    );
    assert!(
        peak <= 3 * limit_bytes + 6_000_000,
        "{codec}: {peak} bytes at a limit of {limit_bytes}"
    );
}

/// Asserts that `packed` is found to be malformed before it has cost more than `bytes_max`.
#[allow(dead_code, reason = "not used without any codec")]
fn assert_malformed_within(codec: Codec, packed: &[u8], bytes_max: usize) {
    let (peak, unpacked) = peak_bytes(|| decompress(codec, packed, LIMIT));
    let malformed = matches!(unpacked, Err(CodecError::Malformed { .. }));
    assert!(malformed, "{codec}: {:?}", unpacked.map(|out| out.len()));
    assert!(peak <= bytes_max, "{codec}: {peak} bytes");
}

#[test]
#[cfg(feature = "gzip")]
fn a_gzip_bomb_is_refused() {
    use flate2::{Compress, Compression, FlushCompress};
    let zeros = vec![0; 1 << 20];
    let mut mebibyte = Vec::with_capacity(10_000);
    let mut encoder = Compress::new(Compression::best(), false);
    encoder
        .compress_vec(&zeros, &mut mebibyte, FlushCompress::Full)
        .unwrap();
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0];
    let one_member = [&header[..], &mebibyte.repeat(1024), &[3, 0]].concat();
    let many = gzip(&zeros, 9).repeat(1024);
    for limit in [50, 1 << 20, 1 << 25] {
        assert_refused_as_too_large(Codec::Gzip, &one_member, limit);
        assert_refused_as_too_large(Codec::Gzip, &many, limit);
    }
}

#[test]
#[cfg(feature = "snappy")]
fn a_snappy_bomb_is_refused_and_claims_cost_nothing() {
    let mebibyte = raw_snappy(&vec![0; 1 << 20]);
    assert_refused_as_too_large(Codec::Snappy, &xerial(&vec![mebibyte; 1024]), 1 << 20);
    let one_gibibyte = [0x80, 0x80, 0x80, 0x80, 0x04];
    assert_refused_as_too_large(Codec::Snappy, &one_gibibyte, LIMIT);
    // 100 MiB stated, and one byte there; then a literal of 64 MiB stated, and nothing there.
    assert_malformed_within(Codec::Snappy, &[0x80, 0x80, 0x80, 0x32, 0, b'a'], 100_000);
    assert_malformed_within(
        Codec::Snappy,
        &[0x80, 0x80, 0x80, 0x32, 63 << 2, 0, 0, 0, 4],
        100_000,
    );
}

#[test]
#[cfg(feature = "lz4")]
fn an_lz4_bomb_is_refused_and_claims_cost_nothing() {
    use lz4_flex::frame::{BlockSize, FrameInfo};
    let of_4_mib = || FrameInfo::new().block_size(BlockSize::Max4MB);
    let zeros = vec![0; 4 << 20];
    let (once, twice) = (lz4(&zeros, of_4_mib()), lz4(&zeros.repeat(2), of_4_mib()));
    // A header of seven bytes, then blocks, then the end mark of four.
    let block = &once[7..once.len() - 4];
    assert_eq!(twice.len(), 7 + 2 * block.len() + 4);
    let one_frame = [&once[..7], &block.repeat(256), &[0; 4]].concat();
    for limit in [50, 1 << 20, 1 << 25] {
        assert_refused_as_too_large(Codec::Lz4, &one_frame, limit);
        assert_refused_as_too_large(Codec::Lz4, &once.repeat(256), limit);
    }
    let small = lz4(&[7; 100], of_4_mib());
    let (peak, unpacked) = peak_bytes(|| decompress(Codec::Lz4, &small, LIMIT));
    assert_eq!(unpacked.as_deref(), Ok(&[7; 100][..]));
    assert!(peak < 100_000, "{peak} bytes for a frame of 4 MiB blocks");
    // 100 MiB stated, and five bytes there.
    let claims = b"\x04\x22\x4d\x18\x68\x40\0\0\x40\x06\0\0\0\0\xa6\x05\0\0\x80hello\0\0\0\0";
    assert_malformed_within(Codec::Lz4, claims, 100_000);
}

/// A zstd frame without checksum and content size, with a window of `1 << (10 + exponent)` bytes.
#[cfg(feature = "zstd")]
fn zstd_frame(exponent: u8, blocks: &[u8]) -> Vec<u8> {
    [&[0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3], blocks].concat()
}

/// A zstd block of `kind` (0 raw, 1 one byte repeated, 2 compressed) whose size field is `size`.
#[cfg(feature = "zstd")]
fn zstd_block(kind: u32, size: u32, data: &[u8], last: bool) -> Vec<u8> {
    let [a, b, c, _] = (size << 3 | kind << 1 | u32::from(last)).to_le_bytes();
    [&[a, b, c], data].concat()
}

#[test]
#[cfg(feature = "zstd")]
fn a_zstd_bomb_is_refused() {
    let repeated = zstd_frame(13, &zstd_block(1, 128 * 1024, &[0], false).repeat(8192));
    // Blocks of 1 MiB, eight times what a block may hold: literals of one byte repeated, and no sequences.
    let oversized = zstd_frame(
        13,
        &zstd_block(2, 5, &[0xfd, 0xff, 0xff, 0, 0], false).repeat(1024),
    );
    for limit in [50, 1 << 20, 1 << 25] {
        assert_refused_as_too_large(Codec::Zstd, &repeated, limit);
        assert_refused_as_too_large(Codec::Zstd, &oversized, limit);
    }
}

#[test]
#[cfg(all(feature = "zstd", not(target_family = "wasm")))]
fn a_zstd_frame_that_states_too_large_a_size_is_refused_before_anything_is_held() {
    let stated = zstd::bulk::compress(&vec![0; LIMIT + 1], 1).unwrap();
    let (peak, unpacked) = peak_bytes(|| decompress(Codec::Zstd, &stated, LIMIT));
    assert!(
        unpacked.is_err() && peak == 0,
        "{peak} bytes for a size that is stated"
    );
}

#[test]
#[cfg(feature = "zstd")]
fn a_zstd_window_costs_nothing_and_is_bound_by_the_limit_but_at_least_8_mib() {
    let fits = [(13, 5, true), (14, 16 << 20, true), (17, LIMIT, true)];
    let does_not = [(14, 5, false), (18, LIMIT, false), (31, LIMIT, false)];
    for (exponent, limit_bytes, fine) in fits.into_iter().chain(does_not) {
        let packed = zstd_frame(exponent, &zstd_block(0, 5, b"hello", true));
        let (peak, unpacked) = peak_bytes(|| decompress(Codec::Zstd, &packed, limit_bytes));
        let refused = too_large(Codec::Zstd, limit_bytes);
        let expected = if fine { Ok(b"hello".to_vec()) } else { Err(refused) };
        assert_eq!(unpacked, expected, "exponent {exponent}");
        assert!(peak < 100_000, "{peak} bytes for five");
        // The same window in later frames, which must not reserve it either.
        let (peak, _) = peak_bytes(|| decompress(Codec::Zstd, &packed.repeat(10), limit_bytes.max(50)));
        assert!(peak < 100_000, "{peak} bytes for fifty");
    }
    // A content size of 100 MiB that is not there.
    let claims = [
        &[0x28, 0xb5, 0x2f, 0xfd, 2 << 6, 17 << 3, 0, 0, 0x40, 6, 9, 0, 0][..],
        b"a",
    ]
    .concat();
    assert_malformed_within(Codec::Zstd, &claims, 100_000);
}

#[test]
#[cfg(feature = "zstd")]
fn zstd_tables_made_to_be_costly_keep_to_the_overhead() {
    use kachet_core::wire::codec::DECOMPRESS_OVERHEAD_BYTES_MAX;
    // No literals, one sequence, whose table of literal lengths is a run of zero probabilities without end.
    let mut data = vec![0, 1, 2 << 6, 0x10, 0xfe];
    data.resize(128 * 1024, 0xff);
    let zeros = zstd_frame(13, &zstd_block(2, 128 * 1024, &data, true));
    assert_malformed_within(Codec::Zstd, &zeros, DECOMPRESS_OVERHEAD_BYTES_MAX);
    // As many sequences as a header can claim.
    let sequences = zstd_frame(13, &zstd_block(2, 8, &[0, 255, 255, 255, 0, 0, 0, 1], true));
    assert_malformed_within(Codec::Zstd, &sequences, 2_000_000);
}

#[test]
fn attributes_name_the_codec_by_their_low_three_bits() {
    let named = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    for (id, codec) in (0..).zip(named) {
        for others in [0, 0x78, !0b111] {
            assert_eq!(Codec::from_attributes(id | others), Ok(codec));
        }
    }
    for id in 5..8 {
        assert_eq!(
            Codec::from_attributes(i16::from(id) | 0x10),
            Err(CodecError::Unknown { id })
        );
    }
    assert_eq!(
        named.map(|codec| codec.to_string()),
        ["none", "gzip", "snappy", "lz4", "zstd"]
    );
}

#[test]
fn a_codec_that_is_not_built_says_so() {
    let built = [
        (Codec::Gzip, cfg!(feature = "gzip")),
        (Codec::Snappy, cfg!(feature = "snappy")),
        (Codec::Lz4, cfg!(feature = "lz4")),
        (Codec::Zstd, cfg!(feature = "zstd")),
    ];
    for (codec, built) in built {
        let error = decompress(codec, &[], 1).unwrap_err();
        assert_eq!(error == CodecError::NotBuilt { codec }, !built, "{error}");
    }
}

#[test]
fn messages_say_what_to_do() {
    let codec = Codec::Lz4;
    for (error, parts) in [
        (CodecError::Unknown { id: 6 }, ["codec 6", "newer Kachet"]),
        (CodecError::NotBuilt { codec }, ["no lz4", "feature `lz4`"]),
        (
            CodecError::Malformed {
                codec,
                at_byte: 12,
                expected: "a frame",
            },
            ["byte 12: expected a frame", "CRC"],
        ),
        (
            CodecError::ChecksumMismatch {
                codec,
                at_byte: 3,
                stored: 1,
                computed: 0xab,
            },
            ["byte 3 is 0x00000001", "give 0x000000ab"],
        ),
        (
            CodecError::LimitExceeded {
                codec,
                limit_bytes: 99,
            },
            ["more than 99 bytes", "raise the decompressed limit"],
        ),
    ] {
        let message = error.to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}
