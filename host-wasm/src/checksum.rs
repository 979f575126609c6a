//! CRC-32C with a table that is made when it is first needed: sixteen kibibytes of numbers that the module need not carry,
//! and that no compression makes smaller.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use kachet_core::wire::Crc32c;

/// The polynomial of Castagnoli, its bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// Bytes that are taken at a time.
const WIDTH: usize = 8;

static TABLE: [[AtomicU32; 256]; WIDTH] = [const { [const { AtomicU32::new(0) }; 256] }; WIDTH];
static IS_MADE: AtomicBool = AtomicBool::new(false);

/// As fast as tables of eight bytes are.
pub(crate) const CRC32C: Crc32c = Crc32c::from_fn(crc32c);

fn of(table: &[AtomicU32; 256], byte: u8) -> u32 {
    table
        .get(usize::from(byte))
        .map_or(0, |value| value.load(Ordering::Relaxed))
}

/// Whoever finds the table half made makes it again, with the same numbers.
#[cold]
fn make() {
    let [first, rest @ ..] = &TABLE;
    for (entry, mut value) in first.iter().zip(0_u32..) {
        for _ in 0..8 {
            value = (value >> 1) ^ (POLYNOMIAL & (value & 1).wrapping_neg());
        }
        entry.store(value, Ordering::Relaxed);
    }
    let mut before = first;
    for table in rest {
        for (entry, last) in table.iter().zip(before) {
            let last = last.load(Ordering::Relaxed);
            entry.store((last >> 8) ^ of(first, last.to_le_bytes()[0]), Ordering::Relaxed);
        }
        before = table;
    }
    IS_MADE.store(true, Ordering::Release);
}

fn crc32c(bytes: &[u8]) -> u32 {
    if !IS_MADE.load(Ordering::Acquire) {
        make();
    }
    let [t0, t1, t2, t3, t4, t5, t6, t7] = &TABLE;
    let mut crc = u32::MAX;
    let (words, rest) = bytes.as_chunks::<WIDTH>();
    for [a, b, c, d, e, f, g, h] in words {
        let [i, j, k, l] = (crc ^ u32::from_le_bytes([*a, *b, *c, *d])).to_le_bytes();
        crc =
            of(t7, i) ^ of(t6, j) ^ of(t5, k) ^ of(t4, l) ^ of(t3, *e) ^ of(t2, *f) ^ of(t1, *g) ^ of(t0, *h);
    }
    for byte in rest {
        crc = (crc >> 8) ^ of(t0, crc.to_le_bytes()[0] ^ byte);
    }
    !crc
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn it_is_the_sum_that_the_core_computes() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let bytes: Vec<u8> = (0..1000_u32)
            .map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0])
            .collect();
        for length in 0..bytes.len() {
            let bytes = &bytes[length / 3..length];
            assert_eq!(crc32c(bytes), Crc32c::PORTABLE.of(bytes), "{length}");
        }
    }
}
