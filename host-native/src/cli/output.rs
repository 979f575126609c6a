//! Records as lines of JSON, as text for people, or as bare values.

use core::time::Duration;
use std::io::{self, Write};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use clap::ValueEnum;
use kachet::client::Record;

/// How records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object a line with the field names of `kcat -J`; bytes that are not UTF-8 come as base64, and
    /// `key_encoding`, `payload_encoding` or `headers_encoding` say so
    Json,
    /// One line a record for people: place, time, key, value
    Text,
    /// The values' bytes and nothing else
    Raw,
}

impl Format {
    /// Writes one record.
    pub(crate) fn write(
        self,
        out: &mut impl Write,
        topic: &str,
        partition: i32,
        record: &Record,
    ) -> io::Result<()> {
        match self {
            Self::Json => record.write_json(out, topic, partition),
            Self::Text => write_text(out, topic, partition, record),
            Self::Raw => out.write_all(record.value.as_deref().unwrap_or_default()),
        }
    }
}

fn write_text(out: &mut impl Write, topic: &str, partition: i32, record: &Record) -> io::Result<()> {
    write!(
        out,
        "{topic}/{partition}@{}  {}  ",
        record.offset,
        time(record.timestamp_ms)
    )?;
    for (key, value) in &record.headers {
        write!(out, "{}: {}  ", key.escape_ascii(), escaped(value.as_ref()))?;
    }
    writeln!(
        out,
        "{} → {}",
        escaped(record.key.as_ref()),
        escaped(record.value.as_ref())
    )
}

fn time(timestamp_ms: i64) -> String {
    let since_epoch = u64::try_from(timestamp_ms).ok().map(Duration::from_millis);
    // Beyond the year 9999 there is no such form.
    let in_range = since_epoch.filter(|since| since.as_secs() < 253_402_300_800);
    in_range.map_or_else(
        || timestamp_ms.to_string(),
        |since| humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string(),
    )
}

/// On one line whatever is in it, and harmless to a terminal.
fn escaped(bytes: Option<&Bytes>) -> String {
    match bytes.map(|bytes| (bytes, core::str::from_utf8(bytes))) {
        None => "null".into(),
        Some((_, Ok(text))) if !text.chars().any(char::is_control) => text.into(),
        Some((_, Ok(text))) => text.escape_debug().to_string(),
        Some((bytes, Err(_))) => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use kachet::client::TimestampType;

    use super::*;

    fn record() -> Record {
        Record {
            offset: 42,
            timestamp_ms: 1_700_000_000_123,
            timestamp_type: TimestampType::Create,
            key: Some("k".into()),
            value: Some("v \"1\"".into()),
            headers: vec![("a".into(), Some("b".into())), ("c".into(), None)],
        }
    }

    fn written(format: Format, record: &Record) -> String {
        let mut out = Vec::new();
        format.write(&mut out, "t", 3, record).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_stays_on_one_line_and_raw_is_the_value() {
        let record = Record {
            value: Some("a\nb\u{1b}[1m".into()),
            headers: vec![],
            ..record()
        };
        let line = written(Format::Text, &record);
        assert_eq!(line, "t/3@42  2023-11-14T22:13:20.123Z  k → a\\nb\\u{1b}[1m\n");
        assert_eq!(written(Format::Raw, &record), "a\nb\u{1b}[1m");
    }
}
