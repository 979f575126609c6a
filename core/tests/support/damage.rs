//! What can happen to bytes on the way.

/// Up to this length every byte is changed to every other value; beyond it, to twelve values.
const ALL_VALUES_UP_TO_BYTES: usize = 64;

/// Every beginning of `bytes` but the whole.
pub(crate) fn prefixes(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..bytes.len()).map(|length| &bytes[..length])
}

/// Hands out `bytes` with one byte changed, and where, for every byte and many values: all others where there
/// are few bytes, else each bit flipped, the extremes and the lengths that are most often misread.
pub(crate) fn changes(bytes: &[u8], mut see: impl FnMut(&[u8], usize)) {
    let mut changed = bytes.to_vec();
    for (at, &original) in bytes.iter().enumerate() {
        let mut see_value = |value: u8| {
            if value != original {
                changed[at] = value;
                see(&changed, at);
            }
        };
        if bytes.len() <= ALL_VALUES_UP_TO_BYTES {
            (0..=u8::MAX).for_each(&mut see_value);
        } else {
            (0..8).for_each(|bit| see_value(original ^ (1 << bit)));
            [0x00, 0x7f, 0x80, 0xff].into_iter().for_each(&mut see_value);
        }
        changed[at] = original;
    }
}
