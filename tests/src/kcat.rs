//! kcat, the client of librdkafka, with a deadline on every call.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::child::{self, command, find_program};
use crate::setup::or_skip;

/// How long one call may take.
const DEADLINE: Duration = Duration::from_mins(1);

/// Whether kcat is installed; says `skipped: …` where not.
///
/// # Panics
/// Where not and `CI=true`.
pub fn is_there() -> bool {
    or_skip(installed()).is_some()
}

/// Runs `kcat` with `arguments`, feeding it `stdin`; returns its stdout. Fails on an exit status other than 0 and after 60 s.
pub fn run(arguments: &[&str], stdin: &[u8]) -> Result<Vec<u8>> {
    installed()?;
    let mut kcat = command("kcat");
    kcat.args(arguments);
    child::run_ok(kcat, stdin, DEADLINE)
}

/// Produces one record to `topic`, `partition` for each item of `values`, compressed by `codec`.
///
/// librdkafka sends a batch uncompressed where compression does not make it smaller.
pub fn produce<V: AsRef<str>>(
    bootstrap: &str,
    topic: &str,
    partition: i32,
    codec: &str,
    values: &[V],
) -> Result<()> {
    let lines: String = values.iter().flat_map(|value| [value.as_ref(), "\n"]).collect();
    let (partition, codec) = (partition.to_string(), format!("compression.codec={codec}"));
    let arguments = [
        "-P",
        "-b",
        bootstrap,
        "-t",
        topic,
        "-p",
        &partition,
        "-X",
        &codec,
        "-X",
        "linger.ms=200",
    ];
    run(
        &[arguments.as_slice(), &["-H", "origin=kcat"]].concat(),
        lines.as_bytes(),
    )?;
    Ok(())
}

/// Reads the records of `topic`, `partition` from `offset` to the end, each as kcat's `-J` prints it.
pub fn read_records(bootstrap: &str, topic: &str, partition: i32, offset: i64) -> Result<Vec<Value>> {
    let (partition, offset) = (partition.to_string(), offset.to_string());
    let arguments = [
        "-C", "-q", "-e", "-J", "-b", bootstrap, "-t", topic, "-p", &partition, "-o", &offset,
    ];
    json_lines(&run(&arguments, b"")?)
}

/// Parses one JSON value a line.
pub(crate) fn json_lines(bytes: &[u8]) -> Result<Vec<Value>> {
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let parse = |line: &[u8]| {
        serde_json::from_slice(line).with_context(|| format!("not JSON: {}", String::from_utf8_lossy(line)))
    };
    lines.map(parse).collect()
}

fn installed() -> Result<()> {
    if find_program("kcat").is_none() {
        bail!("there is no `kcat` on PATH; install it with `apt-get install kcat`");
    }
    Ok(())
}
