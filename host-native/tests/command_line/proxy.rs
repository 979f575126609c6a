//! `kachet proxy`: it says where it is, ends in order, and goes on where it was.

use core::time::Duration;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Events, Packing, pack};
use kachet_tests::child::{self, command};

use super::{kachet, without_environment};

const DEADLINE: Duration = Duration::from_secs(30);

/// A proxy in a process of its own; dropping it ends it.
pub(super) struct Running {
    child: Child,
    /// What it said when it was ready.
    said: String,
    pub(super) address: String,
}

impl Running {
    pub(super) fn start(arguments: &[&str]) -> Result<Self> {
        let mut program = command(env!("CARGO_BIN_EXE_kachet"));
        without_environment(program.arg("proxy").args(arguments));
        let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut said = String::new();
        let stdout = child.stdout.as_mut().context("no stdout")?;
        BufReader::new(stdout).read_line(&mut said)?;
        let address = said
            .split([' ', ';'])
            .find(|word| word.contains(':'))
            .unwrap_or_default()
            .to_owned();
        Ok(Self { child, said, address })
    }

    /// The number of the process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; gives the exit status and what was said on stderr.
    pub(super) fn end(mut self, signal: &str) -> Result<(ExitStatus, String)> {
        let mut kill = command("kill");
        kill.args([signal, &self.child.id().to_string()]);
        child::run_ok(kill, b"", DEADLINE)?;
        let status = child::wait(&mut self.child, DEADLINE).context("it does not end")?;
        let mut stderr = String::new();
        let mut said = self.child.stderr.take().context("no stderr")?;
        said.read_to_string(&mut stderr)?;
        Ok((status, stderr))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        child::end(&mut self.child, Duration::ZERO);
    }
}

/// Two ports next to each other but one, so that the broker with the node id 1 gets the second.
pub(super) fn free_port() -> Result<u16> {
    loop {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        if port < u16::MAX - 2 && std::net::TcpListener::bind(("127.0.0.1", port + 2)).is_ok() {
            return Ok(port);
        }
    }
}

pub(super) fn fetch(address: &str) -> Result<String> {
    let finished = kachet(
        &[
            "fetch",
            "--timeout",
            "5s",
            "--bootstrap",
            address,
            "orders/0@3",
            "--count",
            "5",
        ],
        DEADLINE,
    )?;
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    Ok(String::from_utf8(finished.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_in_order_and_a_mount_point_serves_the_next_one_without_any_broker() -> Result<()> {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    broker.create_topic("orders", 1)?;
    let events: Vec<_> = Events::new(1).take(10).collect();
    broker.append("orders", 0, pack(&events, Packing::Lz4)?)?;
    let folder = tempfile::tempdir()?;
    let (mount, port) = (folder.path().join("mount"), free_port()?);
    let (mount, listen) = (mount.display().to_string(), format!("localhost:{port}"));
    let bootstrap = broker.address().to_string();
    let arguments = [
        "--bootstrap",
        &bootstrap,
        "--listen",
        &listen,
        "--mount",
        &mount,
        "--max-staleness",
        "forever",
    ];
    let proxy = Running::start(&arguments)?;
    assert!(
        proxy.said.contains(&format!("broker 1 on port {}", port + 2)),
        "{}",
        proxy.said
    );
    let direct = fetch(&bootstrap)?;
    assert_eq!(direct.lines().count(), 5);
    assert_eq!(fetch(&proxy.address)?, direct);
    // Under names, batches are kept a little after they were handed on.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    let (status, stderr) = proxy.end("-TERM")?;
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert!(started.elapsed() < Duration::from_secs(5));

    broker.stop().await;
    let proxy = Running::start(&arguments)?;
    assert_eq!(fetch(&proxy.address)?, direct);
    let (status, stderr) = proxy.end("-INT")?;
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    Ok(())
}

#[test]
fn what_keeps_it_from_starting_is_told_in_one_line() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let (taken, gone) = (taken.local_addr()?.to_string(), "127.0.0.1:1");
    for (arguments, code, words) in [
        (["--bootstrap", gone, "--listen", "127.0.0.1:0"], 4, gone),
        (["--bootstrap", gone, "--listen", &taken], 1, taken.as_str()),
        (["--bootstrap", gone, "--listen", "nonsense"], 2, "0.0.0.0:19092"),
    ] {
        let finished = kachet(
            &[&["proxy", "--timeout", "2s"][..], &arguments].concat(),
            DEADLINE,
        )?;
        let said = finished.stderr.trim_end();
        assert_eq!(finished.status.code(), Some(code), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(words), "{said}");
    }
    Ok(())
}
