//! Topic ids as people write them.

use kachet_core::wire::TopicId;

/// Reads a topic id: 22 characters of base64 as Kafka's own tools print it, or a UUID with or without hyphens.
pub fn parse_topic_id(text: &str) -> Option<TopicId> {
    let text = text.as_bytes();
    if text.len() == 22 {
        return from_base64(text);
    }
    let mut id = [0; 16];
    let mut digits = 0;
    for &character in text {
        if character == b'-' {
            continue;
        }
        let digit = char::from(character).to_digit(16)?;
        let byte = id.get_mut(digits / 2)?;
        *byte = *byte << 4 | u8::try_from(digit).ok()?;
        digits += 1;
    }
    (digits == 32 && matches!(text.len(), 32 | 36)).then_some(TopicId(id))
}

/// URL-safe base64 without padding: 22 characters, of which the last has four bits that are zero.
fn from_base64(text: &[u8]) -> Option<TopicId> {
    let mut bits: u128 = 0;
    for (at, &character) in text.iter().enumerate() {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        if at < 21 {
            bits = bits << 6 | u128::from(value);
        } else if value % 16 == 0 {
            bits = bits << 2 | u128::from(value >> 4);
        } else {
            return None;
        }
    }
    Some(TopicId(bits.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_an_id_are_read() {
        let id = TopicId(core::array::from_fn(|at| u8::try_from(at * 17 % 251).unwrap()));
        assert_eq!(
            parse_topic_id("00112233-4455-6677-8899-aabbccddeeff"),
            Some(TopicId([
                0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee,
                0xff
            ]))
        );
        assert_eq!(
            parse_topic_id("ABEiM0RVZneImaq7zN3u_w"),
            parse_topic_id("00112233445566778899AABBCCDDEEFF")
        );
        assert_eq!(parse_topic_id(&alloc::format!("{id}")), Some(id));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for wrong in [
            "",
            "numbers",
            "0011",
            "00112233-4455-6677-8899-aabbccddeef",
            "ABEiM0RVZneImaq7zN3u_x",
            "ABEiM0RVZneImaq7zN3u/w",
            "00112233445566778899aabbccddeeff00",
            "g0112233-4455-6677-8899-aabbccddeeff",
        ] {
            assert_eq!(parse_topic_id(wrong), None, "{wrong}");
        }
    }
}
