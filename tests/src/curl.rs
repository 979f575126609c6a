//! curl, with a deadline on every call.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::child::{self, command, find_program};
use crate::setup::or_skip;

/// How long one call may take.
const DEADLINE: Duration = Duration::from_mins(1);

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The version of HTTP, such as `1.1` or `2`.
    pub version: String,
    /// The status.
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of this name; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("not JSON: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// Whether curl is installed; says `skipped: …` where not.
///
/// # Panics
/// Where not and `CI=true`.
pub fn is_there() -> bool {
    or_skip(find_program("curl").context("there is no curl")).is_some()
}

/// Runs `curl` with `arguments`, feeding it `stdin`.
pub fn ask(arguments: &[&str], stdin: &[u8]) -> Result<Answer> {
    let mut curl = command("curl");
    // Nothing of what whoever runs the tests has set, no proxy, and no question before a large body.
    curl.args([
        "-q",
        "--noproxy",
        "*",
        "--silent",
        "--show-error",
        "--include",
        "--header",
        "Expect:",
    ]);
    curl.args(arguments);
    let said = child::run_ok(curl, stdin, DEADLINE)?;
    let end = said.windows(4).position(|end| end == b"\r\n\r\n");
    let end = end.context("an answer without an end of its head")?;
    let head = String::from_utf8_lossy(&said[..end]).into_owned();
    let mut lines = head.lines();
    let mut status_line = lines.next().unwrap_or_default().split(' ');
    let version = status_line.next().and_then(|name| name.strip_prefix("HTTP/"));
    let status = status_line.next();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    Ok(Answer {
        version: version.context("no version")?.to_owned(),
        status: status
            .and_then(|status| status.parse().ok())
            .context("no status")?,
        headers: headers.collect(),
        body: said[end + 4..].to_vec(),
    })
}
