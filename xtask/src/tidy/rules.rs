//! The rules. Patterns that a rule forbids are put together from halves, so that this file does not break it.

use std::collections::HashSet;
use std::path::Path;

use super::SourceFile;
use super::rust_text::{code_only, module_name, test_only_lines, test_only_modules};

/// A file that is longer has more than one idea in it.
const LINES_MAX: usize = 600;

/// Leftovers of unfinished work, as text anywhere in Rust.
const LEFTOVER_MACROS: [&str; 2] = [concat!("to", "do!("), concat!("unimple", "mented!(")];
/// The same as whole words.
const LEFTOVER_WORDS: [&str; 3] = [concat!("FIX", "ME"), concat!("X", "XX"), concat!("TO", "DO")];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 4] = ["util", "utils", "helpers", "common"];

/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: [&str; 3] = [
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
];

/// Where a panic would fail a fetch that the broker could serve.
const LIBRARIES: [&str; 4] = [
    "core/src/",
    "host-native/src/",
    "host-wasm/src/",
    "host-wasm/records/src/",
];
/// What panics on input.
const PANICS: [&str; 4] = [".unwrap()", ".expect(", "panic!(", "unreachable!("];
/// The comment that allows a line to panic, with its reason after it.
const EXCUSE: &str = "// tidy: ";

/// What the core's first lines must promise.
const CORE_ROOT: &str = "core/src/lib.rs";
const CORE_ATTRIBUTES: [&str; 2] = ["#![forbid(unsafe_code)]", "#![no_std]"];

/// One line for each finding: where, what, and what to do.
pub(super) fn check(files: &[SourceFile]) -> Vec<String> {
    let mut findings = Vec::new();
    let tests = test_only_files(files);
    for file in files {
        names(file, &mut findings);
        machine_paths(file, &mut findings);
        if is_rust(file) {
            length(file, &mut findings);
            leftovers(file, &mut findings);
            let is_test = tests.iter().any(|test| file.path.starts_with(test.as_str()));
            if !is_test && LIBRARIES.iter().any(|library| file.path.starts_with(library)) {
                panics(file, &mut findings);
            }
        }
    }
    core_attributes(files, &mut findings);
    findings
}

fn is_rust(file: &SourceFile) -> bool {
    Path::new(&file.path)
        .extension()
        .is_some_and(|extension| extension == "rs")
}

fn length(file: &SourceFile, findings: &mut Vec<String>) {
    let lines = file.text.lines().count();
    if lines > LINES_MAX {
        findings.push(format!(
            "{}: {lines} lines; split it by ideas, {LINES_MAX} are the most",
            file.path
        ));
    }
}

fn names(file: &SourceFile, findings: &mut Vec<String>) {
    let says_nothing = |name: &str| EMPTY_NAMES.contains(&name);
    let parts = file
        .path
        .split('/')
        .map(|part| part.split_once('.').map_or(part, |(stem, _)| stem));
    for name in parts.filter(|name| says_nothing(name)) {
        findings.push(format!(
            "{}: the name `{name}` says nothing of what is inside",
            file.path
        ));
    }
    if is_rust(file) {
        for (number, line) in numbered(&code_only(&file.text)) {
            let is_module = line.contains("mod ") && line.trim_end().ends_with(['{', ';', '}']);
            if let Some(name) = module_name(line).filter(|name| is_module && says_nothing(name)) {
                findings.push(format!(
                    "{}:{number}: the module name `{name}` says nothing of what is inside",
                    file.path
                ));
            }
        }
    }
}

fn leftovers(file: &SourceFile, findings: &mut Vec<String>) {
    for (number, line) in numbered(&file.text) {
        let macros = LEFTOVER_MACROS
            .into_iter()
            .filter(|leftover| line.contains(leftover));
        let words = LEFTOVER_WORDS
            .into_iter()
            .filter(|word| contains_word(line, word));
        for leftover in macros.chain(words) {
            findings.push(format!(
                "{}:{number}: `{leftover}`: finish it, or say in plain words why it is so",
                file.path
            ));
        }
    }
}

fn machine_paths(file: &SourceFile, findings: &mut Vec<String>) {
    for (number, line) in numbered(&file.text) {
        for path in MACHINE_PATHS.into_iter().filter(|path| contains_path(line, path)) {
            findings.push(format!(
                "{}:{number}: `{path}…` is a path of one machine",
                file.path
            ));
        }
    }
}

fn panics(file: &SourceFile, findings: &mut Vec<String>) {
    let code = code_only(&file.text);
    let test_only = test_only_lines(&code);
    let lines = code.lines().zip(file.text.lines()).zip(test_only).enumerate();
    for (index, ((code, line), test_only)) in lines {
        let excused = line
            .split_once(EXCUSE)
            .is_some_and(|(_, reason)| !reason.trim().is_empty());
        if test_only || excused {
            continue;
        }
        for panic in PANICS.into_iter().filter(|panic| code.contains(panic)) {
            let place = format!("{}:{}", file.path, index + 1);
            findings.push(format!("{place}: `{panic}` in a library; return an error, or end the line in `{EXCUSE}why it cannot happen`"));
        }
    }
}

fn core_attributes(files: &[SourceFile], findings: &mut Vec<String>) {
    // Nothing to say of a tree without the core, as in the tests below.
    let Some(root) = files.iter().find(|file| file.path == CORE_ROOT) else {
        return;
    };
    let code = code_only(&root.text);
    for attribute in CORE_ATTRIBUTES
        .into_iter()
        .filter(|attribute| !code.lines().any(|line| line.trim() == *attribute))
    {
        findings.push(format!("{CORE_ROOT}: `{attribute}` is missing"));
    }
}

/// Beginnings of the paths of files that `#[cfg(test)] mod name;` somewhere makes part of tests only.
fn test_only_files(files: &[SourceFile]) -> HashSet<String> {
    let mut tests = HashSet::new();
    for file in files.iter().filter(|file| is_rust(file)) {
        let stem = file.path.trim_end_matches(".rs");
        let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        // The modules of `a.rs` stand in `a/`, those of `a/mod.rs`, `lib.rs` and `main.rs` beside it.
        let home = if ["mod", "lib", "main"].contains(&name) {
            folder
        } else {
            stem
        };
        for module in test_only_modules(&code_only(&file.text)) {
            tests.insert(format!("{home}/{module}.rs"));
            tests.insert(format!("{home}/{module}/"));
        }
    }
    tests
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines())
}

/// Whether `word` stands in `line` and is no part of a longer one.
fn contains_word(line: &str, word: &str) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word))
}

/// Whether a path in `line` begins with `path`; `a/root/b` and `https://x.org/home/y` do not.
fn contains_path(line: &str, path: &str) -> bool {
    let is_path = |character: char| character.is_alphanumeric() || "_-.~/})*$]…".contains(character);
    let has_name =
        |rest: &str| path != MACHINE_PATHS[2] || rest.starts_with(|c: char| c.is_ascii_alphanumeric());
    line.match_indices(path)
        .any(|(at, _)| !line[..at].ends_with(is_path) && has_name(&line[at + path.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&[SourceFile {
            path: path.to_owned(),
            text: text.to_owned(),
        }])
    }

    fn assert_finding(path: &str, text: &str, what: &str) {
        let findings = findings(path, text);
        assert!(
            findings.len() == 1 && findings[0].contains(what),
            "{path}: {text}: {findings:?}"
        );
    }

    #[track_caller]
    fn assert_tidy(path: &str, text: &str) {
        assert_eq!(findings(path, text), [""; 0], "{path}: {text}");
    }

    #[test]
    fn a_rust_file_of_more_than_600_lines_is_found() {
        assert_tidy("core/src/a.rs", &"//\n".repeat(600));
        assert_finding("core/src/a.rs", &"//\n".repeat(601), "601 lines");
        assert_tidy("README.md", &"line\n".repeat(601));
    }

    #[test]
    fn leftovers_are_found_in_code_and_comments() {
        assert_finding("tests/src/a.rs", concat!("fn f() { to", "do!() }"), "a.rs:1");
        assert_finding("tests/src/a.rs", concat!("\n// TO", "DO: later"), "a.rs:2");
        assert_finding("tests/src/a.rs", concat!("// FIX", "ME"), "finish it");
        assert_tidy(
            "tests/src/a.rs",
            "// mkdtemp wants kachet-XXXXXX, AUTODOC is a word",
        );
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        assert_finding("core/src/utils.rs", "", "`utils`");
        assert_finding("bench/common/data.json", "", "`common`");
    }

    #[test]
    fn modules_whose_names_say_nothing_are_found() {
        assert_finding("tests/a.rs", "pub(crate) mod helpers;", "`helpers`");
        assert_finding("tests/a.rs", "mod util {", "`util`");
        assert_tidy(
            "tests/a.rs",
            "mod utilities;\n// mod util;\nlet s = \"mod util;\";",
        );
    }

    #[test]
    fn paths_of_one_machine_are_found_in_any_text() {
        assert_finding("README.md", concat!("run /ro", "ot/bin/x"), "README.md:1");
        assert_finding("ci.sh", concat!("cd \"/ho", "me/alice\""), "one machine");
        assert_finding("notes.txt", concat!("=/wo", "rk/main"), "one machine");
        assert_tidy(
            "README.md",
            concat!(
                "a/ro",
                "ot/b, https://example.org/ho",
                "me/x, ./wo",
                "rk/, ${D}/wo",
                "rk/x"
            ),
        );
        assert_tidy("README.md", concat!("/ho", "me/<name>"));
    }

    #[test]
    fn panics_in_libraries_are_found_outside_tests() {
        for panic in ["x.unwrap()", "x.expect(\"y\")", "panic!(\"y\")", "unreachable!()"] {
            assert_finding(
                "core/src/a.rs",
                &format!("fn f() {{ {panic} }}"),
                "core/src/a.rs:1",
            );
            assert_tidy(
                "core/src/a.rs",
                &format!("#[cfg(test)]\nmod tests {{\n  fn f() {{ {panic} }}\n}}\n"),
            );
            assert_tidy(
                "core/src/a.rs",
                &format!("{panic} // tidy: the index was checked above"),
            );
            assert_finding("core/src/a.rs", &format!("{panic} // tidy: "), "in a library");
            assert_tidy("tests/src/a.rs", panic);
            assert_tidy(
                "host-native/src/a.rs",
                &format!("/// {panic}\nconst S: &str = r#\"{panic}\"#;"),
            );
        }
        assert_tidy("core/src/a.rs", "x.unwrap_or(1).unwrap_or_default()");
    }

    #[test]
    fn panics_in_files_of_test_modules_are_no_findings() {
        let file = |path: &str, text: &str| SourceFile {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let panicking = "fn f() { x.unwrap() }";
        let files = [
            file("core/src/wire/mod.rs", "#[cfg(test)]\nmod tests;\nmod batch;"),
            file("core/src/wire/tests.rs", panicking),
            file("core/src/wire/tests/more.rs", panicking),
            file("core/src/index.rs", "#[cfg(test)]\nmod fixtures;"),
            file("core/src/index/fixtures.rs", panicking),
            file("core/src/wire/batch.rs", panicking),
        ];
        let findings = check(&files);
        assert!(
            findings.len() == 1 && findings[0].starts_with("core/src/wire/batch.rs:1"),
            "{findings:?}"
        );
    }

    #[test]
    fn the_cores_promises_are_required() {
        assert_tidy(
            "core/src/lib.rs",
            "//! Core.\n#![no_std]\n#![forbid(unsafe_code)]\n",
        );
        assert_finding(
            "core/src/lib.rs",
            "#![no_std]\n// #![forbid(unsafe_code)]\n",
            "forbid(unsafe_code)",
        );
    }
}
