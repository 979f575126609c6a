//! Records as lines of JSON.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Record, TimestampType};

impl Record {
    /// Writes the record as one line: a JSON object with the field names of `kcat -J`. Bytes that are not UTF-8 come as
    /// base64, and `key_encoding`, `payload_encoding` or `headers_encoding` say so.
    pub fn write_json(&self, out: &mut impl Write, topic: &str, partition: i32) -> io::Result<()> {
        serde_json::to_writer(&mut *out, &to_json(topic, partition, self))?;
        out.write_all(b"\n")
    }
}

fn to_json(topic: &str, partition: i32, record: &Record) -> Value {
    let mut object = Map::new();
    object.insert("topic".into(), topic.into());
    object.insert("partition".into(), partition.into());
    object.insert("offset".into(), record.offset.into());
    object.insert("tstype".into(), timestamp_type(record).into());
    object.insert("ts".into(), record.timestamp_ms.into());
    if !record.headers.is_empty() {
        insert_headers(&mut object, &record.headers);
    }
    insert_bytes(&mut object, "key", record.key.as_ref());
    insert_bytes(&mut object, "payload", record.value.as_ref());
    Value::Object(object)
}

fn timestamp_type(record: &Record) -> &'static str {
    match (record.timestamp_ms, record.timestamp_type) {
        (..0, _) => "unknown",
        (_, TimestampType::Create) => "create",
        (_, TimestampType::LogAppend) => "logappend",
    }
}

fn insert_bytes(object: &mut Map<String, Value>, field: &str, bytes: Option<&Bytes>) {
    let text = bytes.map(|bytes| core::str::from_utf8(bytes));
    match (bytes, text) {
        (Some(bytes), Some(Err(_))) => {
            object.insert(field.into(), STANDARD.encode(bytes).into());
            object.insert(format!("{field}_encoding"), "base64".into());
        }
        (_, Some(Ok(text))) => {
            object.insert(field.into(), text.into());
        }
        _ => {
            object.insert(field.into(), Value::Null);
        }
    }
}

/// A flat list of keys and values, as kcat prints it; if one of them is not UTF-8, all are base64.
fn insert_headers(object: &mut Map<String, Value>, headers: &[(Bytes, Option<Bytes>)]) {
    let parts = || {
        headers
            .iter()
            .flat_map(|(key, value)| [Some(key), value.as_ref()])
    };
    let is_text = parts().flatten().all(|part| core::str::from_utf8(part).is_ok());
    let encode = |part: Option<&Bytes>| match part {
        None => Value::Null,
        Some(part) if is_text => json!(String::from_utf8_lossy(part)),
        Some(part) => json!(STANDARD.encode(part)),
    };
    object.insert("headers".into(), parts().map(encode).collect());
    if !is_text {
        object.insert("headers_encoding".into(), "base64".into());
    }
}

#[cfg(test)]
mod tests {
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

    fn written(record: &Record) -> String {
        let mut out = Vec::new();
        record.write_json(&mut out, "t", 3).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_has_the_fields_of_kcat() {
        let line = written(&record());
        assert!(line.ends_with('\n'));
        let expected = json!({
            "topic": "t", "partition": 3, "offset": 42, "tstype": "create", "ts": 1_700_000_000_123_i64,
            "headers": ["a", "b", "c", null], "key": "k", "payload": "v \"1\"",
        });
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
    }

    #[test]
    fn bytes_that_are_not_utf8_come_as_base64_and_say_so() {
        let binary = Bytes::from_static(&[0xff, 0]);
        let line = written(&Record {
            key: None,
            value: Some(binary.clone()),
            headers: vec![("a".into(), Some(binary))],
            timestamp_ms: -1,
            ..record()
        });
        let expected = json!({
            "topic": "t", "partition": 3, "offset": 42, "tstype": "unknown", "ts": -1,
            "headers": ["YQ==", "/wA="], "headers_encoding": "base64",
            "key": null, "payload": "/wA=", "payload_encoding": "base64",
        });
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
    }
}
