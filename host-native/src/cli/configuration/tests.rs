//! The command as it is, with files as they come.

use clap::CommandFactory;
use serde_json::json;

use super::*;
use crate::cli::Arguments;

const NAME: &str = "settings.toml";

/// Reads arguments behind `kachet proxy`, with a file of this text.
fn read_with(text: &str, arguments: &[&str]) -> Result<(ArgMatches, Origins), Unread> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(NAME);
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    let all = [&["kachet", "proxy", "--config", &path][..], arguments].concat();
    read(
        Arguments::command(),
        all.into_iter().map(OsString::from).collect(),
    )
}

fn setting(origins: &Origins, key: &str) -> (Value, String) {
    let setting = origins.settings().iter().find(|setting| setting.key == key);
    let setting = setting.unwrap_or_else(|| panic!("no {key}"));
    (setting.value.clone(), setting.origin.to_string())
}

/// What is said of a file that cannot be used, without its path.
fn refusal(text: &str) -> String {
    match read_with(text, &["--bootstrap", "b:1"]) {
        Err(Unread::File(error)) => {
            let said = error.to_string();
            assert_eq!(said.lines().count(), 1, "{said}");
            said.split_once(NAME)
                .unwrap()
                .1
                .trim_start_matches(", ")
                .to_owned()
        }
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn options_count_before_the_file_and_the_file_before_defaults() {
    let text = "bootstrap = ['a:1', 'b:2']\n\n  size_limit = '2GiB'\nmax_connections = 7\ntrust_clients = true\nlog = 'info'\n";
    let (matches, origins) = read_with(text, &["--size-limit", "3GiB"]).unwrap();
    assert_eq!(
        setting(&origins, "size_limit"),
        (json!("3GiB"), "by --size-limit".to_owned())
    );
    let (bootstrap, origin) = setting(&origins, "bootstrap");
    assert_eq!(bootstrap, json!(["a:1", "b:2"]));
    assert!(origin.ends_with("settings.toml, line 1"), "{origin}");
    let (connections, origin) = setting(&origins, "max_connections");
    assert_eq!(connections, json!(7));
    assert!(origin.ends_with("line 4"), "{origin}");
    assert_eq!(setting(&origins, "trust_clients").0, json!(true));
    assert_eq!(
        setting(&origins, "max_staleness"),
        (json!("1s"), "by default".to_owned())
    );
    assert_eq!(matches.get_one::<String>("log").map(String::as_str), Some("info"));
    // What is on in the file can be turned off.
    let (_, origins) = read_with(text, &["--trust-clients=false"]).unwrap();
    assert_eq!(setting(&origins, "trust_clients").0, json!(false));
}

#[test]
fn without_a_file_nothing_changes() {
    let arguments = ["kachet", "proxy", "--bootstrap", "a:1"].map(OsString::from);
    let (matches, origins) = read(Arguments::command(), arguments.into()).unwrap();
    assert!(matches.subcommand_matches("proxy").is_some());
    assert_eq!(
        setting(&origins, "bootstrap"),
        (json!(["a:1"]), "by --bootstrap".to_owned())
    );
    let fetch = ["kachet", "fetch", "--bootstrap", "a:1", "t/0@0"].map(OsString::from);
    let (_, origins) = read(Arguments::command(), fetch.into()).unwrap();
    assert!(origins.settings().is_empty());
}

#[test]
fn a_file_that_cannot_be_used_is_told_with_place_and_key() {
    for (text, said) in [
        (
            "\nsize_limt = '1GiB'",
            "line 2, column 1: there is no setting 'size_limt'; did you mean 'size_limit'?",
        ),
        (
            "size-limit = '1GiB'",
            "line 1, column 1: there is no setting 'size-limit'; did you mean 'size_limit'?",
        ),
        (
            "colour = 1",
            "line 1, column 1: there is no setting 'colour'; 'kachet proxy --help' lists them, in a file with _ in place of -",
        ),
        (
            "config = 'x'",
            "line 1, column 1: there is no setting 'config'; 'kachet proxy --help' lists them, in a file with _ in place of -",
        ),
        (
            "trust_clients = 'yes'",
            "line 1, column 17: trust_clients takes true or false, not string",
        ),
        (
            "size_limit = true",
            "line 1, column 14: size_limit takes a string or an integer, not boolean",
        ),
        (
            "listen = ['a:1']",
            "line 1, column 10: listen takes a string or an integer, not array",
        ),
        (
            "bootstrap = [1]",
            "line 1, column 13: bootstrap takes a string, or an array of strings, not integer",
        ),
        (
            "mount = '/x'\n[security]\ntls = true",
            "line 2, column 2: there is no setting 'security'; 'kachet proxy --help' lists them, in a file with _ in place of -",
        ),
        (
            "listen = '0.0.0.0'",
            "line 1, column 10: listen cannot be '0.0.0.0': write HOST:PORT, such as 0.0.0.0:19092",
        ),
        (
            "sasl_mechanism = 'MD5'",
            "line 1, column 18: sasl_mechanism cannot be 'MD5': it takes PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER",
        ),
    ] {
        assert_eq!(refusal(text), said, "{text}");
    }
    for (text, words) in [
        (
            "size_limit = '12 bananas'",
            "line 1, column 14: size_limit cannot be '12 bananas': ",
        ),
        (
            "x = 1\nadmin = 'here'",
            "line 1, column 1: there is no setting 'x'",
        ),
        (
            "admin = 'here'",
            "line 1, column 9: admin cannot be 'here': invalid socket address",
        ),
        (
            "idle_timeout = 5",
            "line 1, column 16: idle_timeout cannot be '5': ",
        ),
        (
            "idle_timeout = '5 parsecs'",
            "line 1, column 16: idle_timeout cannot be '5 parsecs': ",
        ),
        (
            "max_connections = -1",
            "line 1, column 19: max_connections cannot be '-1': ",
        ),
        (
            "bootstrap = 'nowhere'",
            "line 1, column 13: bootstrap cannot be 'nowhere': ",
        ),
        (
            "listen = 'a:1'\nmount",
            "line 2, column 6: this is not TOML: key with no value",
        ),
        (
            "mount = 'a'\nmount = 'b'",
            "line 2, column 1: this is not TOML: duplicate key",
        ),
    ] {
        let said = refusal(text);
        assert!(said.starts_with(words), "{text}: {said}");
    }
}

#[test]
fn what_has_to_go_together_does_so_wherever_it_stands() {
    let refused = read_with("bootstrap = 'a:1'\ntls_listen_cert = 'c'", &[]);
    let Err(Unread::Arguments { error, note }) = refused else {
        panic!("{refused:?}");
    };
    assert!(error.to_string().contains("--tls-listen-key"), "{error}");
    assert!(note.is_some_and(|note| note.contains(NAME)));
    let text = "bootstrap = 'a:1'\ntls_listen_cert = 'c'";
    assert!(read_with(text, &["--tls-listen-key", "k"]).is_ok());
    assert!(
        matches!(read_with("", &[]), Err(Unread::Arguments { .. })),
        "no bootstrap"
    );
}

#[test]
fn a_file_that_is_not_there_or_is_too_large_is_told() {
    let arguments = ["kachet", "proxy", "--config", "/nowhere/k.toml"].map(OsString::from);
    let Err(Unread::File(error)) = read(Arguments::command(), arguments.into()) else {
        panic!("it was read");
    };
    assert!(error.to_string().starts_with("/nowhere/k.toml: "), "{error}");
    assert!(refusal(&"#".repeat((1 << 20) + 1)).contains("too large"));
}

const SAMPLE: &str = include_str!("../../../../packaging/kachet.toml");

/// The sample with every setting that it has behind a #.
fn whole_sample() -> String {
    let line = |line: &str| {
        let bare = line.strip_prefix('#').unwrap_or(line);
        let is_setting = bare.split_once(" = ").is_some_and(|(key, _)| {
            key.chars()
                .all(|letter| letter.is_ascii_lowercase() || letter == '_')
        });
        if is_setting {
            bare.to_owned()
        } else {
            line.to_owned()
        }
    };
    SAMPLE.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn the_sample_says_the_defaults() {
    let (_, origins) = read_with(SAMPLE, &[]).unwrap();
    let arguments = ["kachet", "proxy", "--bootstrap", "localhost:9092"].map(OsString::from);
    let (_, defaults) = read(Arguments::command(), arguments.into()).unwrap();
    let values = |origins: &Origins| -> Vec<(String, Value)> {
        let settings = origins.settings().iter();
        settings
            .map(|setting| (setting.key.clone(), setting.value.clone()))
            .collect()
    };
    assert_eq!(values(&origins), values(&defaults));
    let unsaid: Vec<&Setting> = origins
        .settings()
        .iter()
        .filter(|each| each.origin == Origin::Default)
        .collect();
    let unsaid: Vec<&str> = unsaid.iter().map(|setting| setting.key.as_str()).collect();
    // It goes with a folder only.
    assert_eq!(unsaid, ["mount_read_mode"]);
}

#[test]
fn the_sample_has_every_setting() {
    let command = with_variables(Arguments::command());
    let keys = keys(&command);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(NAME);
    std::fs::write(&path, whole_sample()).unwrap();
    let given = file::read(&path, &keys).unwrap();
    let named: std::collections::BTreeSet<&str> = given.iter().map(|given| given.id.as_str()).collect();
    let all: std::collections::BTreeSet<&str> = keys.iter().map(|arg| arg.get_id().as_str()).collect();
    assert_eq!(named, all);
}
