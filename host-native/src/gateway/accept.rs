//! Which of several forms a client wants (RFC 9110, 12.5.1).

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// Headers name fewer.
const RANGES_LIMIT: usize = 64;

/// The index of the media type among `offered` that the client likes best, the first of equals; `None` if it takes none.
/// Without a word from the client that is the first.
pub(super) fn choose(headers: &HeaderMap, offered: &[&str]) -> Option<usize> {
    let said: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let ranges: Vec<(&str, u16)> = said
        .iter()
        .flat_map(|line| line.split(','))
        .filter_map(range)
        .take(RANGES_LIMIT)
        .collect();
    if ranges.is_empty() {
        return (!offered.is_empty()).then_some(0);
    }
    let mut best = None;
    for (index, media_type) in offered.iter().enumerate() {
        let quality = quality(media_type, &ranges);
        if quality > best.map_or(0, |(_, quality)| quality) {
            best = Some((index, quality));
        }
    }
    best.map(|(index, _)| index)
}

/// The range without its parameters, and its quality in thousandths.
fn range(given: &str) -> Option<(&str, u16)> {
    let mut parts = given.split(';').map(str::trim);
    let range = parts.next().filter(|range| !range.is_empty())?;
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some((range, quality.map_or(1_000, thousandths)))
}

/// What cannot be read is as good as not said.
fn thousandths(quality: &str) -> u16 {
    let (whole, fraction) = quality.split_once('.').unwrap_or((quality, ""));
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    match (whole, digits.parse::<u16>()) {
        ("0", Ok(fraction)) => fraction,
        _ => 1_000,
    }
}

/// By the most specific range that it is in.
fn quality(media_type: &str, ranges: &[(&str, u16)]) -> u16 {
    let kind = media_type.split_once('/').map_or("", |(kind, _)| kind);
    let specificity = |range: &str| {
        if range.eq_ignore_ascii_case(media_type) {
            3
        } else if range
            .strip_suffix("/*")
            .is_some_and(|of| of.eq_ignore_ascii_case(kind))
        {
            2
        } else {
            u8::from(range == "*/*")
        }
    };
    let matching = ranges
        .iter()
        .map(|(range, quality)| (specificity(range), *quality));
    let best = matching.filter(|(specificity, _)| *specificity > 0).max();
    best.map_or(0, |(_, quality)| quality)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_gets_what_it_likes_best_of_what_there_is() {
        const OFFERED: [&str; 2] = ["application/json", "application/octet-stream"];
        for (accept, chosen) in [
            ("", Some(0)),
            ("*/*", Some(0)),
            ("application/*", Some(0)),
            ("application/octet-stream", Some(1)),
            ("APPLICATION/Octet-Stream", Some(1)),
            ("application/json;q=0.5, application/octet-stream", Some(1)),
            ("application/octet-stream;q=0.001, */*;q=0", Some(1)),
            ("application/json;q=0, */*", Some(1)),
            ("application/json; charset=utf-8", Some(0)),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Some(0)),
            ("text/html", None),
            ("application/*;q=0", None),
            ("application/json;q=0.0", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(choose(&headers, &OFFERED), chosen, "{accept}");
        }
        assert_eq!(choose(&HeaderMap::new(), &OFFERED), Some(0));
    }
}
