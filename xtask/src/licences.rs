//! Which licences dependencies may have. deny.toml holds the same list for those who have cargo-deny.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::capture;
use crate::project::cargo;

/// Licences that ask for no more than a notice.
const ALLOWED: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Fails where a dependency's licence is not among the accepted ones, naming each such crate.
pub(crate) fn run() -> Result<()> {
    let metadata = capture(cargo().args(["metadata", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata did not write JSON")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata names no packages")?;
    let refused: Vec<String> = packages.iter().filter_map(refusal).collect();
    if !refused.is_empty() {
        bail!(
            "licences that the project does not accept:\n{}\nA new licence is a decision: see ALLOWED in xtask/src/licences.rs and deny.toml.",
            refused.join("\n")
        );
    }
    eprintln!(
        "The licences of all {} packages are accepted ones.",
        packages.len()
    );
    Ok(())
}

/// Why a package cannot be used, as a line; None where it can.
fn refusal(package: &Value) -> Option<String> {
    let text = |field: &str| package[field].as_str().unwrap_or("?");
    let why = match package["license"].as_str() {
        None => "states no licence".to_owned(),
        Some(licence) => match is_allowed(licence) {
            Ok(true) => return None,
            Ok(false) => licence.to_owned(),
            Err(error) => format!("{licence} ({error})"),
        },
    };
    Some(format!("  {} {}: {why}", text("name"), text("version")))
}

/// Whether one can choose only accepted licences in an SPDX expression, such as `MIT OR (Apache-2.0 AND BSD-3-Clause)`.
fn is_allowed(expression: &str) -> Result<bool> {
    // Before SPDX expressions, crates wrote `MIT/Apache-2.0`.
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let allowed = either(&mut rest)?;
    if !rest.is_empty() {
        bail!("cannot read the expression from {:?} on", rest.join(" "));
    }
    Ok(allowed)
}

/// `a OR b`, which binds looser than AND.
fn either(rest: &mut &[&str]) -> Result<bool> {
    let mut allowed = both(rest)?;
    while let Some(("OR", after)) = split(rest) {
        *rest = after;
        allowed |= both(rest)?;
    }
    Ok(allowed)
}

/// `a AND b`.
fn both(rest: &mut &[&str]) -> Result<bool> {
    let mut allowed = single(rest)?;
    while let Some(("AND", after)) = split(rest) {
        *rest = after;
        allowed &= single(rest)?;
    }
    Ok(allowed)
}

/// A licence, one with an exception, or an expression in parentheses.
fn single(rest: &mut &[&str]) -> Result<bool> {
    match **rest {
        ["(", ref inner @ ..] => {
            *rest = inner;
            let allowed = either(rest)?;
            let Some((")", after)) = split(rest) else {
                bail!("a parenthesis is not closed")
            };
            *rest = after;
            Ok(allowed)
        }
        [licence, "WITH", exception, ref after @ ..] => {
            *rest = after;
            Ok(ALLOWED.contains(&format!("{licence} WITH {exception}").as_str()))
        }
        [licence, ref after @ ..] if !["OR", "AND", "WITH", ")"].contains(&licence) => {
            *rest = after;
            Ok(ALLOWED.contains(&licence))
        }
        _ => bail!("a licence is missing"),
    }
}

fn split<'w, 'r>(rest: &'r [&'w str]) -> Option<(&'w str, &'r [&'w str])> {
    rest.split_first().map(|(first, rest)| (*first, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_allowed_where_one_side_is() -> Result<()> {
        assert!(is_allowed("MIT OR Apache-2.0")?);
        assert!(is_allowed("MIT/Apache-2.0")?);
        assert!(is_allowed("GPL-3.0-only OR MIT")?);
        assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR Apache-2.0")?);
        assert!(!is_allowed("MPL-2.0")?);
        assert!(!is_allowed("GPL-3.0-only WITH Classpath-exception-2.0")?);
        Ok(())
    }

    #[test]
    fn a_conjunction_is_allowed_where_both_sides_are() -> Result<()> {
        assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0")?);
        assert!(!is_allowed("(MIT OR Apache-2.0) AND OpenSSL")?);
        // AND binds tighter: this is MIT OR (LGPL AND BSD).
        assert!(is_allowed("MIT OR LGPL-2.1-only AND BSD-3-Clause")?);
        Ok(())
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for expression in ["", "MIT OR", "(MIT", "MIT)", "MIT Apache-2.0", "AND MIT"] {
            assert!(is_allowed(expression).is_err(), "{expression:?}");
        }
    }

    #[test]
    fn the_list_for_cargo_deny_is_the_same() -> Result<()> {
        let deny = std::fs::read_to_string(crate::project::root().join("deny.toml"))?;
        for licence in ALLOWED {
            assert!(
                deny.contains(&format!("    \"{licence}\",\n")),
                "{licence} is not in deny.toml"
            );
        }
        let (_, list) = deny
            .split_once("\nallow = [\n")
            .context("deny.toml has no list of licences")?;
        let listed = list.lines().take_while(|line| *line != "]").count();
        assert_eq!(listed, ALLOWED.len());
        Ok(())
    }
}
