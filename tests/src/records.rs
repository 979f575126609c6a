//! The records that `TopicWriter.java` produces, computed again: what a reader must get back.

/// The timestamp of the record of index 0, in milliseconds since 1970.
pub const FIRST_TIMESTAMP_MS: i64 = 1_700_000_000_000;
/// By how much the timestamps of two successive records differ, in milliseconds.
pub const TIMESTAMP_STEP_MS: i64 = 10;

/// The key of record `index` of a `produce` command without `nullkeys` and `keys=`.
pub fn key(seed: i64, index: u32) -> String {
    format!("key-{seed}-{index}")
}

/// The value of record `index` of a `produce` command without `nullvalues` and `size=`.
pub fn value(seed: i64, index: u32) -> String {
    let letters = hash(seed, index).to_le_bytes()[0];
    value_of_size(seed, index, usize::from(letters))
}

/// The value of record `index` of a `produce` command with `size=letters`.
pub fn value_of_size(seed: i64, index: u32, letters: usize) -> String {
    let hash = hash(seed, index);
    let mut value = format!("value-{seed}-{index}-");
    // The hash turns full circle every 64 letters.
    let letters = (0..64)
        .cycle()
        .take(letters)
        .map(|at| ('a'..='z').nth((hash.rotate_right(at) % 26) as usize));
    value.extend(letters.flatten());
    value
}

/// The timestamp of record `index`, in milliseconds since 1970.
pub fn timestamp_ms(index: u32) -> i64 {
    FIRST_TIMESTAMP_MS + TIMESTAMP_STEP_MS * i64::from(index)
}

/// splitmix64 of the seed and the index, bit for bit as in Java, whose `long` wraps.
fn hash(seed: i64, index: u32) -> u64 {
    let x = seed
        .wrapping_mul(1_000_003)
        .wrapping_add(i64::from(index))
        .cast_unsigned();
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
