//! The clients in other languages that tests run: of the versions that `tests/clients/` pins, into the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process;
use crate::project::{root, target_dir};
use crate::system::{self, CLIENT_PARTS};

/// How long one of the package managers may take.
const LIMIT: Duration = Duration::from_mins(5);

/// Makes sure of all three. Ok(Some(why)) says what is missing and how to get it.
pub(crate) fn ensure() -> Result<Option<String>> {
    if let Some(missing) = system::ensure(&CLIENT_PARTS)? {
        return Ok(Some(missing));
    }
    let (sources, installed) = (root().join("tests").join("clients"), target_dir().join("clients"));
    let steps: [(&str, &[&str], Step); 3] = [
        ("python", &["requirements.txt"], python),
        ("node", &["package.json", "package-lock.json", "client.js"], node),
        ("go", &["go.mod", "go.sum", "main.go"], go),
    ];
    for (language, files, install) in steps {
        let (from, to) = (sources.join(language), installed.join(language));
        let wanted = contents(&from, files)?;
        let note = to.join("installed");
        if fs::read(&note).is_ok_and(|found| found == wanted) {
            continue;
        }
        fs::create_dir_all(&to).with_context(|| format!("cannot create {}", to.display()))?;
        install(&from, &to).with_context(|| format!("cannot install the client of {language}"))?;
        // Written last: what an interrupted run leaves is installed again.
        fs::write(&note, wanted).with_context(|| format!("cannot write {}", note.display()))?;
    }
    Ok(None)
}

type Step = fn(&Path, &Path) -> Result<()>;

fn contents(folder: &Path, files: &[&str]) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for file in files {
        let path = folder.join(file);
        all.extend(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(all)
}

fn python(from: &Path, to: &Path) -> Result<()> {
    process::run_within(Command::new("python3").args(["-m", "venv"]).arg(to), LIMIT)?;
    let pip: PathBuf = to.join("bin").join("pip");
    let mut install = Command::new(pip);
    install.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ]);
    process::run_within(install.arg(from.join("requirements.txt")), LIMIT)
}

fn node(from: &Path, to: &Path) -> Result<()> {
    for file in ["package.json", "package-lock.json", "client.js"] {
        fs::copy(from.join(file), to.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    let mut install = Command::new("npm");
    install.args(["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]);
    process::run_within(install.current_dir(to), LIMIT)
}

fn go(from: &Path, to: &Path) -> Result<()> {
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(to.join("client")).arg(".");
    process::run_within(build.current_dir(from), LIMIT)
}
