//! The file that says what a folder is: a mount point of Kachet, and of which format.
//!
//! Sixteen bytes, numbers in network order: eight of magic, the version, and the CRC-32C of these twelve. They stand at
//! the beginning in every version to come, so that a newer one is told from a damaged one.

/// The format of mount points that this release makes, and the newest that it understands.
pub const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"KACHETMT";
/// What a superblock of this version takes.
pub(super) const SUPERBLOCK_BYTES: usize = 16;
const CHECKED_BYTES: usize = 12;

/// What a superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Superblock {
    /// A mount point of a format that is understood.
    Known,
    /// A mount point of a later format.
    Newer(u32),
    /// Something else, and why.
    Damaged(&'static str),
}

pub(super) fn encode() -> [u8; SUPERBLOCK_BYTES] {
    let mut bytes = [0; SUPERBLOCK_BYTES];
    let (checked, checksum) = bytes.split_at_mut(CHECKED_BYTES);
    checked[..MAGIC.len()].copy_from_slice(&MAGIC);
    checked[MAGIC.len()..].copy_from_slice(&VERSION.to_be_bytes());
    checksum.copy_from_slice(&crc32c::crc32c(checked).to_be_bytes());
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Superblock {
    let Some((head, rest)) = bytes.split_first_chunk::<SUPERBLOCK_BYTES>() else {
        return Superblock::Damaged("it is shorter than sixteen bytes");
    };
    let (checked, checksum) = head.split_at(CHECKED_BYTES);
    let Some(version) = checked.strip_prefix(&MAGIC) else {
        return Superblock::Damaged("it does not begin as one of Kachet's does");
    };
    if crc32c::crc32c(checked).to_be_bytes() != checksum {
        return Superblock::Damaged("its checksum is wrong");
    }
    let version = version.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    match version {
        0 => Superblock::Damaged("there is no format 0"),
        VERSION if !rest.is_empty() => Superblock::Damaged("it is longer than sixteen bytes"),
        VERSION => Superblock::Known,
        newer => Superblock::Newer(newer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whichever_bit_is_flipped_it_is_damaged() {
        assert_eq!(decode(&encode()), Superblock::Known);
        for bit in 0..SUPERBLOCK_BYTES * 8 {
            let mut bytes = encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&bytes), Superblock::Damaged(_)), "bit {bit}");
        }
    }

    #[test]
    fn whatever_is_shorter_or_longer_is_damaged() {
        for length in 0..SUPERBLOCK_BYTES {
            assert!(matches!(decode(&encode()[..length]), Superblock::Damaged(_)));
        }
        let longer = [&encode()[..], &[0]].concat();
        assert!(matches!(decode(&longer), Superblock::Damaged(_)));
    }

    #[test]
    fn one_of_a_later_format_is_told_from_a_damaged_one() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(7_u32.to_be_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        bytes.extend(b"whatever comes then");
        assert_eq!(decode(&bytes), Superblock::Newer(7));
    }
}
