//! TLS and logins from the command line.

use core::time::Duration;
use std::path::Path;

use anyhow::{Context, Result};
use kachet_tests::child::{self, Finished, command};
use kachet_tests::kafka::writer_for;
use kachet_tests::records;
use kachet_tests::secure::{PASSWORD, SecureKafka, USER, secure_kafka};

use super::{fails, kachet, without_environment};

const DEADLINE: Duration = Duration::from_secs(60);
const ALICE: [&str; 4] = ["--sasl-mechanism", "SCRAM-SHA-256", "--sasl-username", USER];

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path is not UTF-8")
}

fn with_password(arguments: &[&str], password: &str) -> Result<Finished> {
    let mut kachet = command(env!("CARGO_BIN_EXE_kachet"));
    without_environment(kachet.args(arguments)).env("KACHET_SASL_PASSWORD", password);
    child::run(kachet, b"", DEADLINE)
}

fn usage(arguments: &[&str], words: &[&str]) -> Result<()> {
    let all = [
        &["fetch", "--bootstrap", "localhost:9092", "orders/0@0"],
        arguments,
    ]
    .concat();
    let finished = kachet(&all, DEADLINE)?;
    assert_eq!(
        finished.status.code(),
        Some(2),
        "{arguments:?}: {}",
        finished.stderr
    );
    for word in words {
        assert!(
            finished.stderr.contains(word),
            "{arguments:?}: no '{word}' in: {}",
            finished.stderr
        );
    }
    Ok(())
}

#[test]
fn arguments_that_are_missing_or_do_not_go_together_are_told() -> Result<()> {
    let plain = ["--sasl-mechanism", "PLAIN"];
    usage(&["--tls-ca", "ca.pem"], &["--tls"])?;
    usage(&["--tls", "--tls-cert", "a.pem"], &["--tls-key"])?;
    usage(&["--tls", "--tls-key", "a.pem"], &["--tls-cert"])?;
    usage(
        &["--sasl-mechanism", "GSSAPI"],
        &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"],
    )?;
    usage(&plain, &["--sasl-username"])?;
    usage(&["--sasl-mechanism", "plain"], &["--sasl-username"])?;
    usage(&["--sasl-username", USER], &["--sasl-mechanism"])?;
    usage(&ALICE, &["--sasl-password-file", "KACHET_SASL_PASSWORD"])?;
    usage(&["--sasl-mechanism", "OAUTHBEARER"], &["--sasl-token-file"])?;
    let token = ["--sasl-token-file", "token"];
    usage(
        &[&ALICE[..], &token].concat(),
        &["--sasl-token-file", "cannot be used with"],
    )?;
    usage(&[&plain[..], &token].concat(), &["--sasl-username"])
}

#[test]
fn files_that_are_not_what_they_should_be_are_told() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let missing = folder.path().join("missing");
    let (missing, empty) = (path(&missing)?, folder.path().join("empty"));
    std::fs::write(&empty, "")?;
    usage(&["--tls", "--tls-ca", missing], &[missing, "cannot read"])?;
    usage(&["--tls", "--tls-ca", path(&empty)?], &["holds no certificate"])?;
    let password = [&ALICE[..], &["--sasl-password-file", missing]].concat();
    usage(&password, &[missing, "cannot read the password"])
}

/// The broker, with ten records of the seed 7 in the topic.
fn with_topic(topic: &str) -> Result<Option<&'static SecureKafka>> {
    let Some(kafka) = secure_kafka() else {
        return Ok(None);
    };
    let Some(mut writer) = writer_for(&kafka.broker) else {
        return Ok(None);
    };
    writer.command(&format!("create {topic} 1"))?;
    writer.produce(topic, 0, "lz4", (10, 10), 7)?;
    Ok(Some(kafka))
}

#[test]
fn a_record_behind_tls_and_a_login_is_read_and_strangers_are_told_why_not() -> Result<()> {
    let Some(kafka) = with_topic("behind-arguments")? else {
        return Ok(());
    };
    let target = "behind-arguments/0@3";
    let bootstrap = kafka.bootstrap(SecureKafka::TLS_LOGIN);
    let tls = ["--tls", "--tls-ca", path(&kafka.authority.file)?];
    let fetch = ["fetch", "--bootstrap", &bootstrap, "--format", "raw", target];
    let expected = records::value(7, 3);

    // The password from the environment, and from a file with a line break.
    let arguments = [&fetch[..], &tls, &ALICE].concat();
    let by_variable = with_password(&arguments, PASSWORD)?;
    assert_eq!(
        String::from_utf8(by_variable.stdout)?,
        expected,
        "{}",
        by_variable.stderr
    );
    let file = kafka.folder().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n"))?;
    let by_file = [&arguments[..], &["--sasl-password-file", path(&file)?]].concat();
    let by_file = kachet(&by_file, DEADLINE)?;
    assert_eq!(String::from_utf8(by_file.stdout)?, expected, "{}", by_file.stderr);

    // Logged in detail, nothing shows the password.
    let loud = with_password(&[&arguments[..], &["--log", "trace"]].concat(), PASSWORD)?;
    assert_eq!(loud.status.code(), Some(0));
    assert!(
        loud.stderr.contains("connected") && !loud.stderr.contains(PASSWORD),
        "{}",
        loud.stderr
    );
    let wrong = with_password(&arguments, "guessed at random")?;
    assert_eq!(wrong.status.code(), Some(4), "{}", wrong.stderr);
    assert!(
        wrong.stderr.contains("refuses the credentials"),
        "{}",
        wrong.stderr
    );
    assert!(!wrong.stderr.contains("guessed"), "{}", wrong.stderr);

    fails(
        &bootstrap,
        &[target],
        4,
        &[&bootstrap, "speaks TLS", "turn TLS on"],
    )?;
    // The system does not know the authority.
    fails(
        &bootstrap,
        &["--tls", target],
        4,
        &[&bootstrap, "no authority that is trusted here"],
    )
}

#[test]
fn a_client_certificate_is_taken_from_its_files() -> Result<()> {
    let Some(kafka) = with_topic("behind-files")? else {
        return Ok(());
    };
    let target = "behind-files/0@3";
    let bootstrap = kafka.bootstrap(SecureKafka::MUTUAL);
    let tls = ["--tls", "--tls-ca", path(&kafka.authority.file)?];
    let (certificate, key) = (path(&kafka.client.certificate)?, path(&kafka.client.key)?);
    let fetch = ["fetch", "--bootstrap", &bootstrap, "--format", "raw", target];
    let identity = ["--tls-cert", certificate, "--tls-key", key];
    let finished = kachet(&[&fetch[..], &tls, &identity].concat(), DEADLINE)?;
    assert_eq!(
        String::from_utf8(finished.stdout)?,
        records::value(7, 3),
        "{}",
        finished.stderr
    );
    let without = [&tls[..], &[target]].concat();
    fails(
        &bootstrap,
        &without,
        4,
        &[&bootstrap, "demands a client certificate"],
    )
}
