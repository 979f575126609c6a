//! `kachet gateway`: it says where it is, who may read, and ends in order.

use core::time::Duration;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Events, Packing, pack};
use kachet_tests::certificates::{Authority, Validity};
use kachet_tests::child::{self, command};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

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
        let said_by = |scheme| said.trim().strip_prefix("topics are at ")?.strip_prefix(scheme);
        let address = said_by("http://").or_else(|| said_by("https://"));
        let address = address.and_then(|rest| rest.strip_suffix("/v1/topics"));
        let address = address.with_context(|| format!("it says {said:?}"))?.to_owned();
        Ok(Self { child, address })
    }

    fn signal(&self, name: &str) -> Result<()> {
        let mut kill = command("kill");
        kill.args([name, &self.child.id().to_string()]);
        child::run_ok(kill, b"", DEADLINE)?;
        Ok(())
    }

    fn get(&self, path: &str, token: &str) -> Result<String> {
        ask(TcpStream::connect(&self.address)?, path, token)
    }

    /// The same over TLS, if its certificate is of this authority.
    fn get_safely(&self, authority: &Authority, path: &str, token: &str) -> Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&authority.file)?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost")?;
        let connection = ClientConnection::new(Arc::new(config), name)?;
        let stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        ask(StreamOwned::new(connection, stream), path, token)
    }
}

fn ask(mut stream: impl Read + Write, path: &str, token: &str) -> Result<String> {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    )?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
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
    gateway.signal("-TERM")?;
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

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_certificates_and_tokens_anew() -> Result<()> {
    const NEW: &str = "fedcba9876543210";
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    let folder = tempfile::tempdir()?;
    let before = Authority::new(folder.path(), "before")?;
    let after = Authority::new(folder.path(), "after")?;
    let identity = before.sign("gateway", &["localhost"], Validity::Current)?;
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN)?;
    let arguments = [
        "--bootstrap",
        &broker.address().to_string(),
        "--listen",
        "127.0.0.1:0",
        "--tls-listen-cert",
        &identity.certificate.display().to_string(),
        "--tls-listen-key",
        &identity.key.display().to_string(),
        "--bearer-token-file",
        &token.display().to_string(),
    ];
    let mut gateway = Running::start(&arguments)?;
    let path = "/v1/topics";
    let is_answered = |gateway: &Running, authority, token, status: &str| {
        let answer = gateway.get_safely(authority, path, token);
        answer.is_ok_and(|said| said.starts_with(&format!("HTTP/1.1 {status} ")))
    };
    assert!(is_answered(&gateway, &before, TOKEN, "200"));
    after.sign("gateway", &["localhost"], Validity::Current)?;
    std::fs::write(&token, NEW)?;
    assert!(is_answered(&gateway, &before, NEW, "401"));
    gateway.signal("-HUP")?;
    // Certificates come first, so that who sees the new token sees them, too.
    let until = Instant::now() + DEADLINE;
    while !is_answered(&gateway, &after, NEW, "200") {
        anyhow::ensure!(Instant::now() < until, "nothing was read anew");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(is_answered(&gateway, &after, TOKEN, "401"));
    assert!(gateway.get_safely(&before, path, NEW).is_err());

    // What is wrong is told, and what there was goes on.
    std::fs::write(&identity.certificate, "nothing of the kind")?;
    std::fs::write(&token, "short")?;
    gateway.signal("-HUP")?;
    let stderr = gateway.child.stderr.take().context("no stderr")?;
    let mut told = BufReader::new(stderr).lines();
    let mut failures = Vec::new();
    while failures.len() < 2 {
        let line = told.next().context("it ended")??;
        if line.contains("not read anew") {
            failures.push(line);
        } else {
            assert!(line.contains("chmod o-r") && line.contains("token"), "{line}");
        }
    }
    assert!(failures[0].contains("gateway.certificate.pem"), "{failures:?}");
    assert!(failures[1].contains("at least 16"), "{failures:?}");
    assert!(is_answered(&gateway, &after, NEW, "200"));
    gateway.signal("-TERM")?;
    let status = child::wait(&mut gateway.child, DEADLINE).context("it does not end")?;
    assert_eq!(status.code(), Some(0));
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
        (
            vec!["--tls-listen-cert", &none, "--tls-listen-key", &none],
            2,
            none.as_str(),
        ),
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
        "--tls-listen-cert",
        "--tls-listen-client-ca",
        "SIGHUP",
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
