//! What a real Kafka was asked and answered gives the same bytes in workerd and in Chromium as natively.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kachet_edge_tests::workerd::{self, Workerd};
use kachet_edge_tests::{copy_folder, made, static_files};
use kachet_tests::chromium::Chromium;
use kachet_tests::curl;
use kachet_tests::setup::or_skip;
use serde_json::{Value, json};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// As it stands in the file that the native tests compare with.
fn written() -> Result<Vec<String>> {
    let text = fs::read_to_string(workspace().join("host-wasm/tests/answers.txt"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The fixtures as frames in base64; each repeats a correlation id of 7.
fn fixtures() -> Result<Value> {
    let mut fixtures = Vec::new();
    for line in written()? {
        let name = line.split(' ').next().unwrap_or_default();
        let version: i16 = name[1..3].parse()?;
        let has_tags = version >= 12;
        let frame = |mut head: Vec<u8>, kind: &str| -> Result<String> {
            head.extend(if has_tags { &[0][..] } else { &[] });
            head.extend(fs::read(
                workspace().join(format!("core/tests/fixtures/{name}.{kind}")),
            )?);
            Ok(STANDARD.encode(head))
        };
        let head = [&[0, 1][..], &version.to_be_bytes(), &[0, 0, 0, 7, 0, 4], b"test"].concat();
        let request = frame(head, "request")?;
        let response = frame(vec![0, 0, 0, 7], "response")?;
        fixtures.push(json!({ "name": name, "request": request, "response": response }));
    }
    Ok(Value::Array(fixtures))
}

const WORKER: &str = "
import { Cache } from 'kachet';
import { answerLines } from 'other.js';
export default { fetch: async (request) => Response.json(answerLines(Cache, await request.json())) };
";

/// Makes the lines of fixtures; the tests in Node use it as well.
fn answers() -> PathBuf {
    workspace().join("host-wasm/js/test/answers.mjs")
}

#[test]
fn fixtures_give_the_same_bytes_in_workerd() -> Result<()> {
    if or_skip(made("npm/worker").and_then(|_| workerd::program())).is_none() || !curl::is_there() {
        return Ok(());
    }
    let folder = workerd::example_beginning_with(WORKER, &answers())?;
    let path = folder.path().join("config.capnp");
    let snapshots = format!("--directory-path=snapshots={}", folder.path().display());
    let workerd = Workerd::start(&path, &[], &[snapshots])?;
    let url = format!("http://{}/", workerd.address());
    let answer = curl::ask(&["--data-binary", "@-", &url], fixtures()?.to_string().as_bytes())?;
    assert_eq!(answer.status, 200, "{}", workerd.log());
    let lines: Vec<String> = serde_json::from_slice(&answer.body)?;
    assert_eq!(lines, written()?);
    Ok(())
}

#[test]
fn fixtures_give_the_same_bytes_in_chromium() -> Result<()> {
    let Some(example) = or_skip(made("npm/browser")) else {
        return Ok(());
    };
    let Some(mut browser) = Chromium::start()? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    copy_folder(&example.join("kachet"), &folder.path().join("kachet"))?;
    fs::copy(answers(), folder.path().join("answers.mjs"))?;
    fs::write(folder.path().join("fixtures.json"), fixtures()?.to_string())?;
    fs::write(
        folder.path().join("index.html"),
        "<!doctype html><title>fixtures</title>",
    )?;
    let address = static_files::serve(folder.path().to_owned())?;
    browser.open(&format!("http://{address}/"))?;
    browser.wait_for("document.title === 'fixtures'")?;
    let lines = browser.evaluate(
        "(async () => {
            const { Cache, init } = await import('/kachet/web.js');
            const { answerLines } = await import('/answers.mjs');
            await init();
            return answerLines(Cache, await (await fetch('/fixtures.json')).json());
        })()",
    )?;
    let lines: Vec<String> = serde_json::from_value(lines).context("no lines")?;
    assert_eq!(lines, written()?);
    Ok(())
}
