//! `kachet proxy --check`: what would be done, and by whose word.

use std::io::{self, Write};

use kachet::proxy::ProxySettings;
use serde_json::{Map, Value, json};

use super::ProxyArguments;
use crate::cli::configuration::Origin;
use crate::cli::failure::Failure;

/// As TOML that is a file of settings itself, or as JSON.
pub(super) fn print(arguments: &ProxyArguments, settings: &ProxySettings) -> Result<(), Failure> {
    let printed = if arguments.json {
        print_json(arguments, settings)
    } else {
        print_toml(arguments, settings)
    };
    printed.map_err(Failure::Output)
}

/// In words, where what would listen.
fn listens(arguments: &ProxyArguments, settings: &ProxySettings) -> Vec<String> {
    let listen = settings.listen;
    let tls = match &settings.tls {
        None => "",
        Some(tls) if tls.demands_certificate() => ", by TLS and with a certificate of their own",
        Some(_) => ", by TLS",
    };
    let first = i64::from(listen.port()) + 1 - i64::from(settings.lowest_node_id);
    let brokers = match (listen.port(), first) {
        (0, _) => "each broker on a port that is free".to_owned(),
        (_, first) if first >= 0 => format!("broker N on port {first} + N"),
        (_, first) => format!("broker N on port N - {}", -first),
    };
    let mut lines = vec![format!("clients begin at {listen}{tls}; {brokers}")];
    lines.extend(
        arguments
            .admin
            .map(|admin| format!("those who watch look at http://{admin}/")),
    );
    lines
}

fn print_toml(arguments: &ProxyArguments, settings: &ProxySettings) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "# The settings can be used. Nothing was opened, and no broker was asked."
    )?;
    for line in listens(arguments, settings) {
        writeln!(out, "# {line}")?;
    }
    for setting in arguments.origins.settings() {
        let (key, origin) = (&setting.key, &setting.origin);
        let value = &setting.value;
        // A setting that goes with another one only, such as how a folder is read, is not said for that.
        let unsaid = if *origin == Origin::Default { "#" } else { "" };
        writeln!(out, "{unsaid}{key} = {value}  # {origin}")?;
    }
    Ok(())
}

fn print_json(arguments: &ProxyArguments, settings: &ProxySettings) -> io::Result<()> {
    let each = arguments.origins.settings().iter().map(|setting| {
        let of = json!({ "value": setting.value, "origin": setting.origin.to_string() });
        (setting.key.clone(), of)
    });
    let object = json!({
        "listens": listens(arguments, settings),
        "settings": each.collect::<Map<String, Value>>(),
    });
    writeln!(io::stdout().lock(), "{object}")
}
