//! What was captured from a real Apache Kafka 4.4.0, as files beside these tests.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kachet_core::wire::{FETCH_VERSION_MAX, FETCH_VERSION_MIN};

/// A request and what the broker answered, both without their headers.
pub(crate) struct Fixture {
    pub(crate) version: i16,
    pub(crate) case: &'static str,
    pub(crate) request: Bytes,
    pub(crate) response: Bytes,
}

/// Every case and the first version that has it.
const CASES: [(&str, i16); 8] = [
    ("codecs", 4),
    ("transactions", 4),
    ("truncated", 4),
    ("errors", 4),
    ("end", 4),
    ("session", 7),
    ("epochs", 9),
    ("diverging", 12),
];

impl Fixture {
    fn load(version: i16, case: &'static str) -> Self {
        let read = |kind: &str| -> Bytes {
            let path = folder().join(format!("v{version:02}-{case}.{kind}"));
            fs::read(&path)
                .unwrap_or_else(|why| panic!("{}: {why}", path.display()))
                .into()
        };
        Self {
            version,
            case,
            request: read("request"),
            response: read("response"),
        }
    }

    /// Names the fixture in a failure.
    pub(crate) fn name(&self) -> String {
        format!("v{:02}-{}", self.version, self.case)
    }
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// All cases of all versions; panics if a file is missing.
pub(crate) fn fixtures() -> Vec<Fixture> {
    (FETCH_VERSION_MIN..=FETCH_VERSION_MAX)
        .flat_map(|version| {
            let there = CASES.iter().filter(move |(_, since)| *since <= version);
            there.map(move |(case, _)| Fixture::load(version, case))
        })
        .collect()
}
