//! `kachet proxy`: it says where it is, ends in order, and goes on where it was.

use core::time::Duration;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Events, Packing, pack};
use kachet_tests::certificates::{Authority, Validity};
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
        Self::start_with(arguments, &[])
    }

    pub(super) fn in_front_of(broker: &EmbeddedBroker) -> Result<Self> {
        let (bootstrap, listen) = (
            broker.address().to_string(),
            format!("localhost:{}", free_port()?),
        );
        Self::start(&["--bootstrap", &bootstrap, "--listen", &listen])
    }

    fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Self> {
        let mut program = command(env!("CARGO_BIN_EXE_kachet"));
        without_environment(program.arg("proxy").args(arguments)).envs(variables.iter().copied());
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

    fn signal(&self, signal: &str) -> Result<()> {
        let mut kill = command("kill");
        kill.args([signal, &self.child.id().to_string()]);
        child::run_ok(kill, b"", DEADLINE).map(drop)
    }

    /// Sends a signal; gives the exit status and what was said on stderr.
    pub(super) fn end(mut self, signal: &str) -> Result<(ExitStatus, String)> {
        self.signal(signal)?;
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
fn free_port() -> Result<u16> {
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
        (
            ["--bootstrap", gone, "--listen", "no.such.host.invalid:1"],
            2,
            "listen by --listen",
        ),
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

fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").as_bytes())?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_certificates_anew_and_a_service_manager_is_told_when_it_is_ready() -> Result<()> {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    let folder = tempfile::tempdir()?;
    let authority = Authority::new(folder.path(), "authority")?;
    let identity = authority.sign("proxy", &["localhost"], Validity::Current)?;
    let manager = folder.path().join("notify");
    let manager_socket = std::os::unix::net::UnixDatagram::bind(&manager)?;
    manager_socket.set_read_timeout(Some(DEADLINE))?;
    let told = || -> Result<String> {
        let mut told = [0; 64];
        let size = manager_socket.recv(&mut told)?;
        Ok(String::from_utf8_lossy(&told[..size]).trim_end().to_owned())
    };
    let admin = format!("127.0.0.1:{}", free_port()?);
    let settings = folder.path().join("kachet.toml");
    let text = format!(
        "bootstrap = '{}'\nlisten = '127.0.0.1:0'\nadmin = '127.0.0.1:1'\ntls_listen_cert = '{}'\ntls_listen_key = '{}'\n",
        broker.address(),
        identity.certificate.display(),
        identity.key.display(),
    );
    std::fs::write(&settings, text)?;
    let (settings, manager) = (settings.display().to_string(), manager.display().to_string());
    let proxy = Running::start_with(
        &["--config", &settings],
        &[("NOTIFY_SOCKET", &manager), ("KACHET_ADMIN", &admin)],
    )?;
    assert_eq!(told()?, "READY=1");
    let reloads = |outcome: &str| -> Result<u64> {
        let metrics = get(&admin, "/metrics")?;
        let name = format!("kachet_proxy_certificate_reloads_total{{outcome=\"{outcome}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        Ok(line.context("no such metric")?.parse()?)
    };
    let wait_for = |outcome: &str| -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while reloads(outcome)? == 0 {
            anyhow::ensure!(Instant::now() < deadline, "no reload was {outcome}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    proxy.signal("-HUP")?;
    wait_for("done")?;
    std::fs::write(&identity.key, "no key")?;
    proxy.signal("-HUP")?;
    wait_for("failed")?;
    let probed = kachet(
        &["proxy", "--bootstrap", "b:1", "--admin", &admin, "--probe"],
        DEADLINE,
    )?;
    assert_eq!(probed.status.code(), Some(0), "{}", probed.stderr);
    let (status, stderr) = proxy.end("-TERM")?;
    assert_eq!(told()?, "STOPPING=1");
    assert_eq!(status.code(), Some(0));
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.contains("those from before go on") && stderr.contains("proxy.key.pem"),
        "{stderr}"
    );
    let probed = kachet(
        &["proxy", "--bootstrap", "b:1", "--admin", &admin, "--probe"],
        DEADLINE,
    )?;
    assert_eq!(probed.status.code(), Some(1), "{}", probed.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_sighup_does_nothing() -> Result<()> {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    let bootstrap = broker.address().to_string();
    let proxy = Running::start(&["--bootstrap", &bootstrap, "--listen", "127.0.0.1:0"])?;
    proxy.signal("-HUP")?;
    std::thread::sleep(Duration::from_millis(200));
    let (status, stderr) = proxy.end("-TERM")?;
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    Ok(())
}

/// Runs `kachet proxy --check` and more with these variables.
fn check(arguments: &[&str], variables: &[(&str, &str)]) -> Result<child::Finished> {
    let mut program = command(env!("CARGO_BIN_EXE_kachet"));
    without_environment(program.args(["proxy", "--check"]).args(arguments)).envs(variables.iter().copied());
    child::run(program, b"", DEADLINE)
}

#[test]
fn a_check_says_what_would_be_done_and_opens_nothing() -> Result<()> {
    // Nothing could be opened: the ports are taken, and there is neither a broker nor the folder.
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let listen = taken.local_addr()?.to_string();
    let folder = tempfile::tempdir()?;
    let mount = folder.path().join("mount");
    let settings = folder.path().join("kachet.toml");
    let text = format!(
        "bootstrap = ['127.0.0.1:1', '127.0.0.1:2']\nsize_limit = '2GiB'\nmax_staleness = '5s'\nmount = '{}'\n",
        mount.display()
    );
    std::fs::write(&settings, text)?;
    let settings = settings.display().to_string();
    let arguments = ["--config", &settings, "--listen", &listen, "--admin", &listen];
    let variables = [
        ("KACHET_SIZE_LIMIT", "3GiB"),
        ("KACHET_TRUST_CLIENTS", "yes"),
        ("KACHET_LISTEN", "x:1"),
        ("KACHET_RACK", "eu-1b"),
    ];
    let checked = check(&arguments, &variables)?;
    assert_eq!(checked.status.code(), Some(0), "{}", checked.stderr);
    assert!(!mount.exists());
    let said = String::from_utf8(checked.stdout)?;
    for line in [
        format!("listen = \"{listen}\"  # by --listen"),
        "size_limit = \"3GiB\"  # by KACHET_SIZE_LIMIT of the environment".to_owned(),
        "trust_clients = true  # by KACHET_TRUST_CLIENTS of the environment".to_owned(),
        "rack = \"eu-1b\"  # by KACHET_RACK of the environment".to_owned(),
        format!("max_staleness = \"5s\"  # by {settings}, line 3"),
        "#idle_timeout = \"10m\"  # by default".to_owned(),
        format!(
            "# clients begin at {listen}; broker N on port {} + N",
            taken.local_addr()?.port() + 1
        ),
    ] {
        assert!(said.lines().any(|said| said == line), "no '{line}' in {said}");
    }
    // What it prints is a file of settings, and says the same.
    let printed = folder.path().join("printed.toml");
    std::fs::write(&printed, &said)?;
    let printed = printed.display().to_string();
    let values = |finished: child::Finished| -> Result<Vec<(String, serde_json::Value)>> {
        assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
        let said: serde_json::Value = serde_json::from_slice(&finished.stdout)?;
        let settings = said["settings"].as_object().context("no settings")?.iter();
        Ok(settings
            .map(|(key, setting)| (key.clone(), setting["value"].clone()))
            .collect())
    };
    let of_printed = values(check(&["--config", &printed, "--json"], &[])?)?;
    let of_all = values(check(&[&arguments[..], &["--json"]].concat(), &variables)?)?;
    assert_eq!(of_printed, of_all);
    let without_folder = check(&["--bootstrap", "b:1"], &[])?;
    std::fs::write(&printed, &without_folder.stdout)?;
    assert_eq!(check(&["--config", &printed], &[])?.status.code(), Some(0));
    Ok(())
}

#[test]
fn a_check_names_what_is_wrong_and_who_has_said_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = folder.path().join("kachet.toml");
    let path = settings.display().to_string();
    for (text, variables, words) in [
        (
            "bootstrap = 'b:1'\nsize_limt = '1GiB'",
            &[][..],
            &[path.as_str(), "line 2, column 1", "'size_limit'"][..],
        ),
        (
            "bootstrap = 'b:1'",
            &[("KACHET_SIZE_LIMIT", "much")],
            &["much", "KACHET_SIZE_LIMIT in the environment"],
        ),
        (
            "bootstrap = 'b:1'\ntls_listen_key = 'k'",
            &[],
            &["--tls-listen-cert", path.as_str()],
        ),
        (
            "bootstrap = 'b:1'\nmount = '/m'\nsize_limit = 0",
            &[],
            &["--size-limit 0"],
        ),
        (
            "bootstrap = 'b:1'\ntls_ca = 'x'\ntls = false",
            &[],
            &["--tls is false"],
        ),
        (
            "bootstrap = 'b:1'\ntls_listen_key = '/no/k'\ntls_listen_cert = '/no/c'",
            &[],
            &["/no/c"],
        ),
        (
            "bootstrap = 'b:1'\nlisten = 'no.such.host.invalid:1'",
            &[],
            &["no.such.host.invalid:1", "kachet.toml, line 2"],
        ),
        ("", &[], &["--bootstrap"]),
    ] {
        std::fs::write(&settings, text)?;
        let checked = check(&["--config", &path], variables)?;
        assert_eq!(checked.status.code(), Some(2), "{text}: {}", checked.stderr);
        assert!(checked.stdout.is_empty(), "{text}");
        for word in words {
            assert!(
                checked.stderr.contains(word),
                "{text}: no '{word}' in {}",
                checked.stderr
            );
        }
    }
    Ok(())
}
