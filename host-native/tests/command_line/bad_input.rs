//! Bad input gives one clear line and a non-zero exit code, within the timeout.

use core::time::Duration;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use anyhow::Result;
use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{Events, Packing, pack};

use super::{fails, kachet, text};

/// Answers whatever comes on each connection with `answer`, and closes it; `None` keeps silent and open.
fn serve(answer: Option<&'static [u8]>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = text(listener.local_addr()?);
    thread::spawn(move || {
        let mut silent = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            match answer {
                // A client may have gone already, which is as good.
                Some(answer) => drop(stream.read(&mut [0; 1024]).and_then(|_| stream.write_all(answer))),
                None => silent.push(stream),
            }
        }
    });
    Ok(address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_partitions_and_offsets_that_are_not_there() -> Result<()> {
    let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
    broker.create_topic("orders", 2)?;
    let events: Vec<_> = Events::new(1).take(10).collect();
    broker.append("orders", 0, pack(&events, Packing::Plain)?)?;
    let bootstrap = broker.address().to_string();
    fails(&bootstrap, &["nothing/0@0"], 3, &["'nothing'", "does not exist"])?;
    fails(
        &bootstrap,
        &["orders/2@0"],
        3,
        &["'orders' has no partition 2", "it has 2"],
    )?;
    fails(
        &bootstrap,
        &["orders/0@11"],
        3,
        &["offset 11 of orders/0 is out of range", "from 0", "10"],
    )?;
    fails(
        &bootstrap,
        &["orders/0@10"],
        3,
        &["offset 10 of orders/0 is out of range"],
    )?;
    fails(
        &bootstrap,
        &["orders/1@earliest"],
        3,
        &["offset 0 of orders/1 is out of range"],
    )?;
    fails(
        &bootstrap,
        &["orders/0@@9999999999999"],
        3,
        &["no record at or after timestamp 9999999999999"],
    )?;
    fails(
        &bootstrap,
        &["no such topic/0@0"],
        3,
        &["'no such topic' is not a topic name"],
    )
}

#[test]
fn nothing_listens_there() -> Result<()> {
    let free = text(TcpListener::bind("127.0.0.1:0")?.local_addr()?);
    fails(
        &free,
        &["orders/0@0"],
        4,
        &["cannot connect to", &free, "is the broker running"],
    )?;
    fails(
        "no-such-host.invalid:9092",
        &["orders/0@0"],
        4,
        &["no-such-host.invalid:9092"],
    )
}

#[test]
fn another_service_is_on_the_port() -> Result<()> {
    let http = serve(Some(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))?;
    fails(
        &http,
        &["orders/0@0"],
        4,
        &[&http, "does not speak Kafka's protocol", "HTTP"],
    )?;
    let ssh = serve(Some(b"SSH-2.0-OpenSSH_9.2p1\r\n"))?;
    fails(
        &ssh,
        &["orders/0@0"],
        4,
        &[&ssh, "does not speak Kafka's protocol", "SSH"],
    )?;
    let tls_alert = serve(Some(&[0x15, 3, 3, 0, 2, 2, 70]))?;
    fails(&tls_alert, &["orders/0@0"], 4, &[&tls_alert, "TLS"])?;
    let closes = serve(Some(b""))?;
    fails(
        &closes,
        &["orders/0@0"],
        4,
        &[&closes, "closed the connection", "TLS or SASL"],
    )
}

#[test]
fn a_service_that_keeps_silent_is_given_up_after_the_timeout() -> Result<()> {
    let silent = serve(None)?;
    fails(&silent, &["orders/0@0"], 4, &[&silent, "did not answer", "3s"])
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_to_write() -> Result<()> {
    for (arguments, words) in [
        (vec!["fetch", "orders/0@0"], "--bootstrap"),
        (
            vec!["fetch", "--bootstrap", "localhost:9092"],
            "TOPIC/PARTITION@OFFSET",
        ),
        (
            vec!["fetch", "--bootstrap", "localhost:9092", "orders"],
            "orders/0@42",
        ),
        (
            vec!["fetch", "--bootstrap", "localhost:9092", "orders/0@soon"],
            "latest-N",
        ),
        (
            vec!["fetch", "--bootstrap", "localhost", "orders/0@0"],
            "HOST:PORT",
        ),
        (
            vec![
                "fetch",
                "--bootstrap",
                "localhost:9092",
                "--count",
                "0",
                "orders/0@0",
            ],
            "--count",
        ),
        (
            vec![
                "fetch",
                "--bootstrap",
                "localhost:9092",
                "--size-limit",
                "much",
                "orders/0@0",
            ],
            "--size-limit",
        ),
        (
            vec![
                "fetch",
                "--bootstrap",
                "localhost:9092",
                "--max-staleness",
                "x",
                "orders/0@0",
            ],
            "--max-staleness",
        ),
        (
            vec![
                "fetch",
                "--log",
                "[",
                "--bootstrap",
                "localhost:9092",
                "orders/0@0",
            ],
            "--log",
        ),
        (vec!["nonsense"], "nonsense"),
    ] {
        let finished = kachet(&arguments, Duration::from_secs(20))?;
        assert_eq!(
            finished.status.code(),
            Some(2),
            "{arguments:?}: {}",
            finished.stderr
        );
        assert!(
            finished.stderr.contains(words),
            "{arguments:?}: {}",
            finished.stderr
        );
    }
    Ok(())
}

#[test]
fn help_names_every_setting() -> Result<()> {
    let help = kachet(&["fetch", "--help"], Duration::from_secs(20))?;
    let help = String::from_utf8(help.stdout)?;
    for setting in [
        "--bootstrap",
        "--count",
        "--size-limit",
        "--repeat",
        "--format",
        "--stats",
        "--tls",
        "--tls-ca",
        "--tls-cert",
        "--tls-key",
        "--sasl-mechanism",
        "--sasl-username",
        "--sasl-password-file",
        "KACHET_SASL_PASSWORD",
        "--sasl-token-file",
        "Examples:",
    ] {
        assert!(help.contains(setting), "{setting}");
    }
    let help = kachet(&["--help"], Duration::from_secs(20))?;
    assert!(String::from_utf8(help.stdout)?.contains("Exit codes"));
    Ok(())
}
