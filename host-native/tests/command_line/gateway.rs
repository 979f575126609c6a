//! `kachet gateway`: it says where it is, who may read, and ends in order.

use core::time::Duration;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Events, Packing, pack};
use kachet_tests::child::{self, command};

use super::{kachet, without_environment};

const DEADLINE: Duration = Duration::from_secs(30);
const TOKEN: &str = "0123456789abcdef";

struct Running {
    child: Child,
    address: String,
}

impl Running {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut program = command(env!("CARGO_BIN_EXE_kachet"));
        without_environment(program.arg("gateway").args(arguments));
        let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut said = String::new();
        let stdout = child.stdout.as_mut().context("no stdout")?;
        BufReader::new(stdout).read_line(&mut said)?;
        let address = said.trim().strip_prefix("topics are at http://");
        let address = address.and_then(|rest| rest.strip_suffix("/v1/topics"));
        let address = address.with_context(|| format!("it says {said:?}"))?.to_owned();
        Ok(Self { child, address })
    }

    fn get(&self, path: &str, token: &str) -> Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        )?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        child::end(&mut self.child, Duration::ZERO);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_reads_with_the_token_of_the_file_and_ends_in_order() -> Result<()> {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    broker.create_topic("orders", 1)?;
    let events: Vec<_> = Events::new(1).take(10).collect();
    broker.append("orders", 0, pack(&events, Packing::Lz4)?)?;
    let bootstrap = broker.address().to_string();
    let folder = tempfile::tempdir()?;
    let (file, mount) = (folder.path().join("token"), folder.path().join("mount"));
    std::fs::write(&file, format!("{TOKEN}\n"))?;
    let (file, mount) = (file.display().to_string(), mount.display().to_string());
    let arguments = [
        "--bootstrap",
        &bootstrap,
        "--listen",
        "0.0.0.0:0",
        "--bearer-token-file",
        &file,
        "--mount",
        &mount,
        "--max-staleness",
        "forever",
    ];
    let mut gateway = Running::start(&arguments)?;
    gateway.address = gateway.address.replace("0.0.0.0", "127.0.0.1");
    let path = "/v1/topics/orders/0/records/3";
    assert!(gateway.get(path, "wrong")?.starts_with("HTTP/1.1 401"));
    let answer = gateway.get(path, TOKEN)?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("cache-control: private"), "{answer}");
    let printed = kachet(&["fetch", "--bootstrap", &bootstrap, "orders/0@3"], DEADLINE)?;
    assert!(answer.ends_with(&String::from_utf8(printed.stdout)?), "{answer}");
    let mut kill = command("kill");
    kill.args(["-TERM", &gateway.child.id().to_string()]);
    child::run_ok(kill, b"", DEADLINE)?;
    let status = child::wait(&mut gateway.child, DEADLINE).context("it does not end")?;
    assert_eq!(status.code(), Some(0));
    // What it has read serves the next one, without any broker.
    broker.stop().await;
    let mut gateway = Running::start(&arguments)?;
    gateway.address = gateway.address.replace("0.0.0.0", "127.0.0.1");
    let again = gateway.get(path, TOKEN)?;
    assert!(again.starts_with("HTTP/1.1 200"), "{again}");
    Ok(())
}

#[test]
fn what_keeps_it_from_starting_is_told_in_one_line() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    let folder = tempfile::tempdir()?;
    let short = folder.path().join("short");
    std::fs::write(&short, "secret")?;
    let (short, none) = (
        short.display().to_string(),
        folder.path().join("none").display().to_string(),
    );
    for (arguments, code, words) in [
        (vec!["--listen", "0.0.0.0:0"], 2, "--bearer-token-file"),
        (vec!["--listen", "0.0.0.0:0"], 2, "--allow-anonymous"),
        (vec!["--listen", "nonsense"], 2, "127.0.0.1:8080"),
        (vec!["--listen", &taken], 1, taken.as_str()),
        (vec!["--bearer-token-file", &none], 2, none.as_str()),
        (vec!["--bearer-token-file", &short], 2, "at least 16"),
        (vec!["--cors-origin", "app.example.org"], 2, "https://"),
        (vec!["--listen", "127.0.0.1:0", "--admin", &taken], 1, "--admin"),
    ] {
        let arguments = [&["gateway", "--bootstrap", "127.0.0.1:1"][..], &arguments].concat();
        let finished = kachet(&arguments, DEADLINE)?;
        let said = finished.stderr.trim_end();
        assert_eq!(finished.status.code(), Some(code), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(words), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
    Ok(())
}

#[test]
fn its_help_names_every_setting_and_examples() -> Result<()> {
    let help = kachet(&["gateway", "--help"], DEADLINE)?;
    let said = String::from_utf8(help.stdout)?;
    for word in [
        "--bearer-token-file",
        "--allow-anonymous",
        "--cors-origin",
        "--max-records",
        "--max-response-bytes",
        "--max-concurrent-requests",
        "--admin",
        "Examples:",
    ] {
        assert!(said.contains(word), "no '{word}' in {said}");
    }
    let both = [
        "gateway",
        "--bootstrap",
        "b:1",
        "--allow-anonymous",
        "--bearer-token-file",
        "f",
    ];
    assert_eq!(kachet(&both, DEADLINE)?.status.code(), Some(2));
    Ok(())
}
