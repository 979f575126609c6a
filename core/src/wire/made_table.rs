//! Checksums of 32 bits by tables that are made when they are first needed: numbers that a module need not carry, and that no
//! compression makes smaller.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Half of the bytes that are taken at a time: each time waits for the one before it, so sixteen bytes take little longer than
/// eight.
const HALF: usize = 8;

type Table = [AtomicU32; 256];

/// The tables of one polynomial.
pub(super) struct MadeTable {
    /// Its bits reversed.
    polynomial: u32,
    tables: [[Table; HALF]; 2],
    is_made: AtomicBool,
}

fn of(table: &Table, byte: u8) -> u32 {
    table
        .get(usize::from(byte))
        .map_or(0, |value| value.load(Ordering::Relaxed))
}

/// What eight bytes come to, of which the first is the furthest from the end.
#[inline]
fn of_half(tables: &[Table; HALF], bytes: u64) -> u32 {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = tables;
    let [b0, b1, b2, b3, b4, b5, b6, b7] = bytes.to_le_bytes();
    of(t7, b0) ^ of(t6, b1) ^ of(t5, b2) ^ of(t4, b3) ^ of(t3, b4) ^ of(t2, b5) ^ of(t1, b6) ^ of(t0, b7)
}

impl MadeTable {
    pub(super) const fn new(polynomial: u32) -> Self {
        Self {
            polynomial,
            tables: [const { [const { [const { AtomicU32::new(0) }; 256] }; HALF] }; 2],
            is_made: AtomicBool::new(false),
        }
    }

    /// Whoever finds the tables half made makes them again, with the same numbers.
    #[cold]
    fn make(&self) {
        let [first, rest @ ..] = self.tables.as_flattened() else {
            return;
        };
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
        let [low, high] = &self.tables;
        let mut crc = u32::MAX;
        let (halves, rest) = bytes.as_chunks::<HALF>();
        let (pairs, half) = halves.as_chunks::<2>();
        for [first, second] in pairs {
            let first = u64::from_le_bytes(*first) ^ u64::from(crc);
            crc = of_half(high, first) ^ of_half(low, u64::from_le_bytes(*second));
        }
        for half in half {
            crc = of_half(low, u64::from_le_bytes(*half) ^ u64::from(crc));
        }
        let [table, ..] = low;
        for byte in rest {
            crc = (crc >> 8) ^ of(table, crc.to_le_bytes()[0] ^ byte);
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
