//! CRC-32C (Castagnoli), which Kafka keeps in every record batch.

use core::fmt;

use super::made_table::MadeTable;

/// How to compute a CRC-32C. The core brings a portable one; a host that has a faster one, such as by the
/// processor's own instructions, hands it in.
#[derive(Clone, Copy)]
pub struct Crc32c(fn(&[u8]) -> u32);

const TABLE: crc::Crc<u32, crc::Table<16>> = crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISCSI);

static MADE: MadeTable = MadeTable::new(0x82f6_3b78);

impl Crc32c {
    /// By tables, without any instruction set extension. About a tenth of the speed of the hardware.
    pub const PORTABLE: Self = Self(|bytes| TABLE.checksum(bytes));

    /// By tables that are made when they are first needed, for hosts whose programs are to be small: they carry 16 KiB less. Half as
    /// quick as [`Self::PORTABLE`].
    pub const COMPACT: Self = Self(|bytes| MADE.checksum(bytes));

    /// A function of the host, which must give the CRC-32C of the bytes (initial value and final xor included).
    pub const fn from_fn(function: fn(&[u8]) -> u32) -> Self {
        Self(function)
    }

    /// The CRC-32C of `bytes`.
    pub fn of(self, bytes: &[u8]) -> u32 {
        (self.0)(bytes)
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::PORTABLE
    }
}

impl fmt::Debug for Crc32c {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Crc32c")
    }
}

#[cfg(test)]
mod tests {
    use super::Crc32c;

    #[test]
    fn portable_gives_the_check_value_of_the_catalogue_and_of_rfc_3720() {
        assert_eq!(Crc32c::PORTABLE.of(b"123456789"), 0xe306_9283);
        assert_eq!(Crc32c::PORTABLE.of(&[0; 32]), 0x8a91_36aa);
        assert_eq!(Crc32c::PORTABLE.of(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(Crc32c::PORTABLE.of(&[]), 0);
    }
}
