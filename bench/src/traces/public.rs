//! Traces of other people's caches, as they are published: libCacheSim's oracleGeneral, and CSV.
//!
//! An object of such a trace stands for a batch. Its number becomes that of a batch of one partition, in the order in which
//! objects first appear; that says nothing of neighbours, which traces of general caches do not have.
//!
//! - **oracleGeneral**: records of 24 bytes, little-endian: time in seconds (u32), object (u64), size in bytes (u32), and when the
//!   object is read next (i64, not used here). Files are often published compressed by zstd: `.zst` is decompressed.
//! - **CSV** (`.csv`): lines of `time,object,size`, of which the object is any text. Further columns are not looked at. A first line
//!   whose size is not a number is a heading; an empty line and one that begins with `#` are passed over.
//!
//! In both an object keeps the size of its first read, because a batch has one size. A size of zero is one byte.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::{Access, BatchKey, Trace};

/// What a record of oracleGeneral takes.
const RECORD_BYTES: usize = 24;
/// More reads than this do not fit the memory of a common machine, four gigabytes of them and of what finds objects.
const READS_MAX: usize = 100_000_000;
/// A batch larger than this no broker takes, so what is larger is taken for it.
const SIZE_BYTES_MAX: u64 = 64 << 20;

/// Reads the trace in `path`, whose format its name tells: `.csv`, else oracleGeneral; each also with `.zst` behind it.
pub fn read(path: &Path) -> Result<Trace> {
    let in_file = || format!("the trace {}", path.display());
    let is = |path: &Path, extension: &str| {
        path.extension()
            .is_some_and(|of_path| of_path.eq_ignore_ascii_case(extension))
    };
    let bytes = fs::read(path).with_context(in_file)?;
    let (bytes, inner) = if is(path, "zst") {
        (
            decompressed(&bytes).with_context(in_file)?,
            path.with_extension(""),
        )
    } else {
        (bytes, path.to_path_buf())
    };
    if is(&inner, "csv") {
        let text = String::from_utf8(bytes).with_context(in_file)?;
        csv(&text).with_context(in_file)
    } else {
        oracle_general(&bytes).with_context(in_file)
    }
}

fn decompressed(bytes: &[u8]) -> Result<Vec<u8>> {
    let limit_bytes = (READS_MAX * RECORD_BYTES) as u64;
    let mut out = Vec::new();
    let mut decoder = zstd::Decoder::new(bytes)?.take(limit_bytes + 1);
    decoder.read_to_end(&mut out)?;
    ensure!(
        out.len() as u64 <= limit_bytes,
        "it expands to more than {limit_bytes} bytes"
    );
    Ok(out)
}

/// Reads records of libCacheSim's oracleGeneral.
pub fn oracle_general(bytes: &[u8]) -> Result<Trace> {
    let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
    ensure!(
        rest.is_empty(),
        "{} bytes are left behind {} records of {RECORD_BYTES}: it is no oracleGeneral, or was cut short",
        rest.len(),
        records.len()
    );
    let mut reads = Reads::default();
    for record in records {
        let (object, size) = (&record[4..12], &record[12..16]);
        let size = u32::from_le_bytes(size.try_into()?);
        reads.push(u64::from_le_bytes(object.try_into()?), size.into())?;
    }
    reads.finish()
}

/// Reads lines of time, object and size.
pub fn csv(text: &str) -> Result<Trace> {
    let mut reads = Reads::default();
    let mut is_first = true;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut columns = line.split(',').map(|column| column.trim().trim_matches('"'));
        let (Some(_), Some(object), Some(size)) = (columns.next(), columns.next(), columns.next()) else {
            bail!("line {number}: {line:?} has not the columns time, object and size");
        };
        match size.parse::<u64>() {
            Ok(size) => reads.push(object.to_owned(), size)?,
            Err(_) if is_first => {}
            Err(error) => bail!("line {number}: the size {size:?}: {error}"),
        }
        is_first = false;
    }
    reads.finish()
}

/// Reads as they come, of objects by whatever names them.
struct Reads<K> {
    known: HashMap<K, Access>,
    accesses: Vec<Access>,
}

impl<K> Default for Reads<K> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            accesses: Vec::new(),
        }
    }
}

impl<K: core::hash::Hash + Eq> Reads<K> {
    fn push(&mut self, object: K, size_bytes: u64) -> Result<()> {
        ensure!(
            self.accesses.len() < READS_MAX,
            "more than {READS_MAX} reads; cut the trace shorter"
        );
        let number = u32::try_from(self.known.len())?;
        let access = match self.known.entry(object) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => *place.insert(Access {
                key: BatchKey {
                    partition: 0,
                    batch: number,
                },
                size_bytes: u32::try_from(size_bytes.clamp(1, SIZE_BYTES_MAX))?,
            }),
        };
        self.accesses.push(access);
        Ok(())
    }

    fn finish(self) -> Result<Trace> {
        ensure!(!self.accesses.is_empty(), "there is no read in it");
        Ok(Trace {
            name: "of a file",
            accesses: self.accesses,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(time: u32, object: u64, size: u32) -> [u8; RECORD_BYTES] {
        let mut record = [0xff; RECORD_BYTES];
        record[..4].copy_from_slice(&time.to_le_bytes());
        record[4..12].copy_from_slice(&object.to_le_bytes());
        record[12..16].copy_from_slice(&size.to_le_bytes());
        record
    }

    fn numbers(trace: &Trace) -> Vec<(u32, u32)> {
        trace
            .accesses
            .iter()
            .map(|access| (access.key.batch, access.size_bytes))
            .collect()
    }

    #[test]
    fn records_are_read_in_order_and_objects_numbered_as_they_appear() -> Result<()> {
        let bytes = [
            record(1, u64::MAX, 300),
            record(1, 7, 4000),
            record(2, u64::MAX, 301),
            record(3, 8, 0),
        ];
        let trace = oracle_general(&bytes.concat())?;
        assert_eq!(numbers(&trace), [(0, 300), (1, 4000), (0, 300), (2, 1)]);
        assert_eq!(trace.distinct_bytes(), 4301);
        Ok(())
    }

    #[test]
    fn lines_are_read_with_a_heading_and_without() -> Result<()> {
        let lines = "1, a/b ,300\n# remark\n\n2,\"c\",4000,get\n3,a/b,300\r\n";
        for text in [lines.to_owned(), format!("timestamp,key,size\n{lines}")] {
            assert_eq!(numbers(&csv(&text)?), [(0, 300), (1, 4000), (0, 300)], "{text}");
        }
        Ok(())
    }

    #[test]
    fn what_is_no_trace_is_an_error_that_says_where() {
        let cut = &record(1, 2, 3)[..20];
        let whole = record(1, 2, 3);
        for bytes in [&b""[..], cut, &[&whole[..], &cut[..4]].concat()] {
            assert!(oracle_general(bytes).is_err(), "{bytes:?}");
        }
        for (text, part) in [
            ("", "no read"),
            ("1,2", "line 1"),
            ("1,2,3\n1,2,x", "line 2"),
            ("1,2,-3\n1,2,-3", "line 2"),
        ] {
            let error = csv(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_file_is_read_by_its_name_and_decompressed() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).map(|()| path)
        };
        let binary = record(1, 2, 3);
        let paths = [
            write("t.csv", b"1,2,3")?,
            write("t.csv.zst", &zstd::encode_all(&b"1,2,3"[..], 3)?)?,
            write("t.oracleGeneral", &binary)?,
            write("t.oracleGeneral.bin.zst", &zstd::encode_all(&binary[..], 3)?)?,
        ];
        for path in &paths {
            assert_eq!(numbers(&read(path)?), [(0, 3)], "{}", path.display());
        }
        let error = format!("{:#}", read(&folder.path().join("none")).unwrap_err());
        assert!(error.contains("none"), "{error}");
        Ok(())
    }
}
