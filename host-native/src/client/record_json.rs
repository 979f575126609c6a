//! Records as lines of JSON.

use std::io::{self, Write};

use kachet_core::record_json::RecordJson;

use super::{Record, TimestampType};

impl Record {
    /// Writes the record as one line: a JSON object with the field names of `kcat -J`. Bytes that are not UTF-8 come as
    /// base64, and `key_encoding`, `payload_encoding` or `headers_encoding` say so.
    pub fn write_json(&self, out: &mut impl Write, topic: &str, partition: i32) -> io::Result<()> {
        let headers = self.headers.iter();
        let json = RecordJson {
            topic,
            partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            is_log_append_time: self.timestamp_type == TimestampType::LogAppend,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: headers.map(|(key, value)| (&key[..], value.as_deref())).collect(),
        };
        out.write_all(json.to_line().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_all_of_a_record() {
        let record = Record {
            offset: 42,
            timestamp_ms: 1_700_000_000_123,
            timestamp_type: TimestampType::LogAppend,
            key: None,
            value: Some("v".into()),
            headers: vec![("a".into(), Some("b".into())), ("c".into(), None)],
        };
        let mut out = Vec::new();
        record.write_json(&mut out, "t", 3).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"topic\":\"t\",\"partition\":3,\"offset\":42,\"tstype\":\"logappend\",\"ts\":1700000000123,\
             \"headers\":[\"a\",\"b\",\"c\",null],\"key\":null,\"payload\":\"v\"}\n"
        );
    }
}
