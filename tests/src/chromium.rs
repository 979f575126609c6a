//! A real browser without a window, driven by its `DevTools` protocol over pipes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::child::{self, command, find_program};
use crate::setup::{SETUP_COMMAND, or_skip};

/// Names under which it is installed.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// For an answer of the browser, on a slow machine and in its first seconds.
const DEADLINE: Duration = Duration::from_mins(1);
/// How often a page is looked at while something is waited for.
const POLL: Duration = Duration::from_millis(50);

/// A browser with one page; dropping it ends it.
#[derive(Debug)]
pub struct Chromium {
    child: Child,
    input: ChildStdin,
    said: mpsc::Receiver<Value>,
    events: Vec<Value>,
    session: Option<String>,
    next_id: u64,
    _profile: TempDir,
}

impl Chromium {
    /// Starts a browser; None, after a line `skipped: …` on stderr, where there is none.
    ///
    /// # Panics
    /// Where there is none and `CI=true`.
    pub fn start() -> Result<Option<Self>> {
        let found = PROGRAMS.iter().find(|program| find_program(program).is_some());
        let found = found.with_context(|| format!("there is no Chromium on PATH; run `{SETUP_COMMAND}`"));
        let Some(program) = or_skip(found) else {
            return Ok(None);
        };
        let profile = tempfile::tempdir()?;
        let mut shell = command("sh");
        // The protocol's pipes are 3 and 4. The sandbox does not work for root, and only pages of the tests are opened.
        shell.arg("-c").arg(format!(
            "exec {program} --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
             --no-default-browser-check --disable-background-networking --disable-component-update --disable-sync \
             --disable-extensions --force-color-profile=srgb --hide-scrollbars --user-data-dir=\"$0\" \
             --remote-debugging-pipe about:blank 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null"
        ));
        shell.arg(profile.path());
        shell.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child::spawn_for_the_process(shell)?;
        let input = child.stdin.take().context("no pipe to the browser")?;
        let output = child.stdout.take().context("no pipe from the browser")?;
        let (tell, said) = mpsc::channel();
        thread::spawn(move || {
            let messages = BufReader::new(output).split(0).map_while(Result::ok);
            for message in messages.filter_map(|message| serde_json::from_slice(&message).ok()) {
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            input,
            said,
            events: Vec::new(),
            session: None,
            next_id: 0,
            _profile: profile,
        };
        browser.attach()?;
        Ok(Some(browser))
    }

    fn attach(&mut self) -> Result<()> {
        let target = self.call("Target.createTarget", &json!({ "url": "about:blank" }))?;
        let attached = self.call(
            "Target.attachToTarget",
            &json!({ "targetId": target["targetId"], "flatten": true }),
        )?;
        self.session = Some(attached["sessionId"].as_str().context("no session")?.to_owned());
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"] {
            self.call(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(())
    }

    /// Asks the browser something of its protocol.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.next_id += 1;
        let id = self.next_id;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.input.write_all(format!("{message}\0").as_bytes())?;
        self.input.flush()?;
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut said = self
                .said
                .recv_timeout(left)
                .with_context(|| format!("the browser does not answer {method}"))?;
            if said["id"] != id {
                self.events.push(said);
                continue;
            }
            ensure!(said["error"].is_null(), "{method}: {}", said["error"]);
            return Ok(said["result"].take());
        }
    }

    /// Goes to a page, and forgets what happened before.
    pub fn open(&mut self, url: &str) -> Result<()> {
        self.events.clear();
        let opened = self.call("Page.navigate", &json!({ "url": url }))?;
        ensure!(opened["errorText"].is_null(), "{url}: {}", opened["errorText"]);
        Ok(())
    }

    /// The value of an expression on the page; of a promise, what it comes to.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut evaluated = self.call("Runtime.evaluate", &parameters)?;
        if !evaluated["exceptionDetails"].is_null() {
            bail!(
                "{expression}: {}",
                evaluated["exceptionDetails"]["exception"]["description"]
            );
        }
        Ok(evaluated["result"]["value"].take())
    }

    /// Waits until an expression is true.
    pub fn wait_for(&mut self, expression: &str) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while self.evaluate(expression)? != Value::Bool(true) {
            if Instant::now() > deadline {
                let text = self.evaluate("document.body.innerText")?;
                bail!("it does not come true: {expression}; the page says: {text}");
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Presses a key by its name, such as `Tab` or `Enter`, or a character.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            " " => 32,
            _ => key
                .chars()
                .next()
                .map_or(0, |first| u32::from(first.to_ascii_uppercase())),
        };
        let text = match key {
            "Enter" => "\r",
            key if key.chars().count() == 1 => key,
            _ => "",
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// Types into whatever has the focus.
    pub fn enter(&mut self, text: &str) -> Result<()> {
        for character in text.chars() {
            self.press(&character.to_string())?;
        }
        Ok(())
    }

    /// What assistive technology is told: role and name of every node that is not ignored.
    pub fn accessibility_tree(&mut self) -> Result<Vec<(String, String)>> {
        let tree = self.call("Accessibility.getFullAXTree", &json!({}))?;
        let nodes = tree["nodes"].as_array().context("no tree")?.iter();
        let told = nodes.filter(|node| node["ignored"] != true).map(|node| {
            let text = |of: &str| node[of]["value"].as_str().unwrap_or_default().to_owned();
            (text("role"), text("name"))
        });
        Ok(told.collect())
    }

    /// The addresses of all that was asked for since the page was opened.
    pub fn requests(&self) -> Vec<String> {
        let sent = |event: &&Value| event["method"] == "Network.requestWillBeSent";
        let url = |event: &Value| Some(event["params"]["request"]["url"].as_str()?.to_owned());
        self.events.iter().filter(sent).filter_map(url).collect()
    }

    /// What the page has complained of since it was opened: exceptions, errors and warnings.
    pub fn complaints(&self) -> Vec<String> {
        let is_one = |event: &&Value| {
            let (method, parameters) = (event["method"].as_str().unwrap_or_default(), &event["params"]);
            match method {
                "Runtime.exceptionThrown" => true,
                "Runtime.consoleAPICalled" => {
                    matches!(parameters["type"].as_str(), Some("error" | "warning" | "assert"))
                }
                "Log.entryAdded" => {
                    matches!(parameters["entry"]["level"].as_str(), Some("error" | "warning"))
                }
                _ => false,
            }
        };
        let told = self.events.iter().filter(is_one);
        told.map(|event| event["params"].to_string()).collect()
    }

    /// Gives the page so many pixels, in a light or a dark scheme.
    pub fn look(&mut self, (width, height): (u32, u32), is_dark: bool) -> Result<()> {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &metrics)?;
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", &json!({ "features": features }))?;
        Ok(())
    }

    /// What can be seen, as PNG.
    pub fn screenshot(&mut self) -> Result<Vec<u8>> {
        let shot = self.call("Page.captureScreenshot", &json!({ "format": "png" }))?;
        Ok(STANDARD.decode(shot["data"].as_str().context("no picture")?)?)
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        child::end(&mut self.child, Duration::from_secs(2));
    }
}
