//! Clients in other languages, which `cargo xtask setup` fetches: `tests/clients/`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::child::{self, command, find_program};
use crate::setup::{SETUP_COMMAND, or_skip, target_folders};

/// For all that a client does, on a slow machine.
const DEADLINE: Duration = Duration::from_mins(2);

/// A client of Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// confluent-kafka, which is librdkafka.
    Python,
    /// kafkajs.
    JavaScript,
    /// kafka-go.
    Go,
}

impl Language {
    /// The command that runs its program, or what is missing.
    fn program(self) -> Result<Command> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
        Ok(match self {
            Self::Python => {
                let mut python = command(installed("python/bin/python")?);
                python.arg(sources.join("python").join("client.py"));
                python
            }
            Self::JavaScript => {
                // Modules are looked for beside the program, so it lies there as a copy.
                let program = installed("node/client.js")?;
                let node = find_program("node").with_context(|| missing("Node.js"))?;
                let mut node = command(node);
                node.arg(program);
                node
            }
            Self::Go => command(installed("go/client")?),
        })
    }

    /// Whether its program can be run; says `skipped: …` where not.
    ///
    /// # Panics
    /// Where not and `CI=true`.
    pub fn is_there(self) -> bool {
        or_skip(self.program()).is_some()
    }

    /// What it gets from `bootstrap` with a topic of its own: lines as `tests/clients/README.md` says.
    pub fn run(self, bootstrap: &str, topic: &str) -> Result<Vec<String>> {
        let mut program = self.program()?;
        program.args([bootstrap, topic]);
        let said = String::from_utf8(child::run_ok(program, b"", DEADLINE)?)?;
        Ok(said.lines().map(str::to_owned).collect())
    }
}

fn installed(file: &str) -> Result<PathBuf> {
    let folders = target_folders();
    let mut files = folders.iter().map(|target| target.join("clients").join(file));
    let Some(found) = files.find(|file| file.exists()) else {
        bail!(missing(file));
    };
    Ok(found)
}

fn missing(what: &str) -> String {
    format!("{what} of the clients in other languages is not there; run `{SETUP_COMMAND}`")
}
