//! The runtime of Cloudflare's Workers, with a Worker in it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kachet_tests::child;
use serde_json::Value;
use tempfile::TempDir;

use crate::{copy_folder, made};

/// How long it may take until it listens, on a slow machine.
const START_LIMIT: Duration = Duration::from_mins(1);

/// A running Worker; dropping it ends it.
#[derive(Debug)]
pub struct Workerd {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

/// The program, as npm brings it.
pub fn program() -> Result<PathBuf> {
    let packages = made("npm-tools/node_modules/@cloudflare")?;
    for package in fs::read_dir(&packages)? {
        let program = package?.path().join("bin/workerd");
        if program.is_file() {
            return Ok(program);
        }
    }
    bail!("there is no workerd for this machine in {}", packages.display())
}

/// A copy of the example that begins with another module instead, which may import this one by its name as well.
pub fn example_beginning_with(main: &str, other: &Path) -> Result<TempDir> {
    const PACKAGE: &str = "node_modules/kachet";
    let (example, folder) = (made("npm/worker")?, tempfile::tempdir()?);
    copy_folder(&example, folder.path())?;
    copy_folder(&example.join(PACKAGE), &folder.path().join(PACKAGE))?;
    fs::write(folder.path().join("main.js"), main)?;
    fs::copy(other, folder.path().join("other.js"))?;
    let path = folder.path().join("config.capnp");
    let own =
        ["main.js", "other.js"].map(|name| format!("(name = \"{name}\", esModule = embed \"{name}\"),"));
    let configuration = fs::read_to_string(&path)?;
    let configuration = configuration.replacen("modules = [", &format!("modules = [{}", own.concat()), 1);
    fs::write(&path, configuration)?;
    Ok(folder)
}

impl Workerd {
    /// Serves what a configuration says on a free port of 127.0.0.1, with these variables in the environment.
    pub fn start(configuration: &Path, environment: &[(&str, &str)], arguments: &[String]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut workerd = child::command(program()?);
        workerd
            .arg("serve")
            .arg(configuration)
            .args(["--socket-addr=http=127.0.0.1:0", "--control-fd=1"])
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("log"))?);
        // What `setpriv` is found by.
        workerd.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        let mut child = child::spawn_for_the_process(workerd)?;
        let told = child.stdout.take().context("no pipe from workerd")?;
        let (tell, ports) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(told).lines().map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(port) = event["port"].as_u64().and_then(|port| u16::try_from(port).ok())
                    && tell.send(port).is_err()
                {
                    return;
                }
            }
        });
        let mut started = Self {
            child,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            folder,
        };
        let port = ports.recv_timeout(START_LIMIT);
        let port = port.with_context(|| format!("workerd does not listen; it said: {}", started.log()))?;
        started.address.set_port(port);
        Ok(started)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it and the Worker have written.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Workerd {
    fn drop(&mut self) {
        child::end(&mut self.child, Duration::from_secs(2));
    }
}
