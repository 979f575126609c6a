//! Checksums of 32 bits by tables that are made when they are first needed: numbers that a module need not carry, and that no
//! compression makes smaller.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Bytes that are taken at a time.
const WIDTH: usize = 8;

type Table = [AtomicU32; 256];

/// The tables of one polynomial.
pub(super) struct MadeTable {
    /// Its bits reversed.
    polynomial: u32,
    tables: [Table; WIDTH],
    is_made: AtomicBool,
}

fn of(table: &Table, byte: u8) -> u32 {
    table
        .get(usize::from(byte))
        .map_or(0, |value| value.load(Ordering::Relaxed))
}

impl MadeTable {
    pub(super) const fn new(polynomial: u32) -> Self {
        Self {
            polynomial,
            tables: [const { [const { AtomicU32::new(0) }; 256] }; WIDTH],
            is_made: AtomicBool::new(false),
        }
    }

    /// Whoever finds the tables half made makes them again, with the same numbers.
    #[cold]
    fn make(&self) {
        let [first, rest @ ..] = &self.tables;
        for (entry, mut value) in first.iter().zip(0_u32..) {
            for _ in 0..8 {
                value = (value >> 1) ^ (self.polynomial & (value & 1).wrapping_neg());
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
        self.is_made.store(true, Ordering::Release);
    }

    /// The checksum, with an initial value and a final xor of all ones.
    pub(super) fn checksum(&self, bytes: &[u8]) -> u32 {
        if !self.is_made.load(Ordering::Acquire) {
            self.make();
        }
        let [t0, t1, t2, t3, t4, t5, t6, t7] = &self.tables;
        let mut crc = u32::MAX;
        let (words, rest) = bytes.as_chunks::<WIDTH>();
        for [a, b, c, d, e, f, g, h] in words {
            let [i, j, k, l] = (crc ^ u32::from_le_bytes([*a, *b, *c, *d])).to_le_bytes();
            crc = of(t7, i)
                ^ of(t6, j)
                ^ of(t5, k)
                ^ of(t4, l)
                ^ of(t3, *e)
                ^ of(t2, *f)
                ^ of(t1, *g)
                ^ of(t0, *h);
        }
        for byte in rest {
            crc = (crc >> 8) ^ of(t0, crc.to_le_bytes()[0] ^ byte);
        }
        !crc
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn the_checksums_of_two_polynomials_are_those_of_other_tables() {
        let castagnoli = MadeTable::new(0x82f6_3b78);
        let iso = MadeTable::new(0xedb8_8320);
        assert_eq!(castagnoli.checksum(b"123456789"), 0xe306_9283);
        assert_eq!(iso.checksum(b"123456789"), 0xcbf4_3926);
        let one = crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISCSI);
        let other = crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISO_HDLC);
        let bytes: Vec<u8> = (0..1000_u32)
            .map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0])
            .collect();
        for length in 0..bytes.len() {
            let bytes = &bytes[length / 3..length];
            assert_eq!(castagnoli.checksum(bytes), one.checksum(bytes), "{length}");
            assert_eq!(iso.checksum(bytes), other.checksum(bytes), "{length}");
        }
    }
}
