//! Records as lines of JSON, for every host that prints them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::str::from_utf8;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// A record with where it lies and what its time tells. Serialized it is an object with the field names and the order of
/// `kcat -J`. Bytes that are not UTF-8 come as base64, and `key_encoding`, `payload_encoding` or `headers_encoding` say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordJson<'a> {
    /// The topic's name, or its id where nothing else is known.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// Its time, in milliseconds since 1970; −1 for none.
    pub timestamp_ms: i64,
    /// Whether the broker set the time when it appended the batch.
    pub is_log_append_time: bool,
    /// The key, or null.
    pub key: Option<&'a [u8]>,
    /// The value, or null (a tombstone).
    pub value: Option<&'a [u8]>,
    /// The headers in order: keys, and values or null.
    pub headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

impl RecordJson<'_> {
    /// The object and the end of the line.
    pub fn to_line(&self) -> String {
        // It fails on nothing but keys that are not strings, of which there are none.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

impl Serialize for RecordJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("topic", self.topic)?;
        object.serialize_entry("partition", &self.partition)?;
        object.serialize_entry("offset", &self.offset)?;
        object.serialize_entry("tstype", self.timestamp_type())?;
        object.serialize_entry("ts", &self.timestamp_ms)?;
        if !self.headers.is_empty() {
            self.serialize_headers(&mut object)?;
        }
        serialize_bytes(&mut object, "key", self.key)?;
        serialize_bytes(&mut object, "payload", self.value)?;
        object.end()
    }
}

impl RecordJson<'_> {
    fn timestamp_type(&self) -> &'static str {
        match (self.timestamp_ms, self.is_log_append_time) {
            (..0, _) => "unknown",
            (_, true) => "logappend",
            (_, false) => "create",
        }
    }

    /// A flat list of keys and values; if one of them is not UTF-8, all are base64.
    fn serialize_headers<M: SerializeMap>(&self, object: &mut M) -> Result<(), M::Error> {
        let parts = || self.headers.iter().flat_map(|(key, value)| [Some(*key), *value]);
        let texts: Result<Vec<Option<&str>>, _> =
            parts().map(|part| part.map(from_utf8).transpose()).collect();
        if let Ok(texts) = texts {
            return object.serialize_entry("headers", &texts);
        }
        let encoded: Vec<Option<String>> = parts()
            .map(|part| part.map(|part| STANDARD.encode(part)))
            .collect();
        object.serialize_entry("headers", &encoded)?;
        object.serialize_entry("headers_encoding", "base64")
    }
}

fn serialize_bytes<M: SerializeMap>(
    object: &mut M,
    field: &str,
    bytes: Option<&[u8]>,
) -> Result<(), M::Error> {
    match bytes.map(|bytes| (bytes, from_utf8(bytes))) {
        Some((bytes, Err(_))) => {
            object.serialize_entry(field, &STANDARD.encode(bytes))?;
            object.serialize_entry(&format!("{field}_encoding"), "base64")
        }
        text => object.serialize_entry(field, &text.and_then(|(_, text)| text.ok())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> RecordJson<'static> {
        RecordJson {
            topic: "t",
            partition: 3,
            offset: 42,
            timestamp_ms: 1_700_000_000_123,
            is_log_append_time: false,
            key: Some(b"k"),
            value: Some(b"v \"1\""),
            headers: Vec::from([(&b"a"[..], Some(&b"b"[..])), (b"c", None)]),
        }
    }

    #[test]
    fn the_fields_are_those_of_kcat() {
        assert_eq!(
            record().to_line(),
            "{\"topic\":\"t\",\"partition\":3,\"offset\":42,\"tstype\":\"create\",\"ts\":1700000000123,\
             \"headers\":[\"a\",\"b\",\"c\",null],\"key\":\"k\",\"payload\":\"v \\\"1\\\"\"}\n"
        );
        let appended = RecordJson {
            is_log_append_time: true,
            headers: Vec::new(),
            value: None,
            ..record()
        };
        assert_eq!(
            appended.to_line(),
            "{\"topic\":\"t\",\"partition\":3,\"offset\":42,\"tstype\":\"logappend\",\"ts\":1700000000123,\"key\":\"k\",\"payload\":null}\n"
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_come_as_base64_and_say_so() {
        let binary: &[u8] = &[0xff, 0];
        let line = RecordJson {
            key: None,
            value: Some(binary),
            headers: Vec::from([(&b"a"[..], Some(binary))]),
            timestamp_ms: -1,
            ..record()
        };
        assert_eq!(
            line.to_line(),
            "{\"topic\":\"t\",\"partition\":3,\"offset\":42,\"tstype\":\"unknown\",\"ts\":-1,\"headers\":[\"YQ==\",\"/wA=\"],\
             \"headers_encoding\":\"base64\",\"key\":null,\"payload\":\"/wA=\",\"payload_encoding\":\"base64\"}\n"
        );
    }
}
