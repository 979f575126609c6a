//! Running other programs.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What one program or step counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// What a line says that [`Display`](fmt::Display) has written.
    fn of_line(line: &str) -> Option<Self> {
        let mut counts = line.split(", ");
        let mut count = |word: &str| counts.next()?.strip_suffix(word)?.parse().ok();
        Some(Self {
            passed: count(" passed")?,
            failed: count(" failed")?,
            skipped: count(" skipped")?,
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Where `program` stands on PATH.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The command as a person would type it.
pub(crate) fn describe(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let program = program
        .file_name()
        .unwrap_or(command.get_program())
        .to_string_lossy()
        .into_owned();
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    std::iter::once(program)
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs `command` with its output on ours; an exit status other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start `{}`", describe(command)))?;
    check(command, status)
}

/// Runs `command` with its output on ours; kills it and fails after `limit`.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    announce(command);
    let child = command.stdin(Stdio::null()).spawn();
    let mut child = child.with_context(|| format!("cannot start `{}`", describe(command)))?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return check(command, status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            bail!("`{}` did not end within {limit:?}", describe(command));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Runs `command` unseen and returns its stdout; an exit status other than 0 is an error that quotes its stderr.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !output.status.success() {
        bail!(
            "`{}` ended with {}: {}",
            describe(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command` and returns what it wrote to stderr; kills it and fails after `limit`. For those that write little, less than a
/// pipe holds.
pub(crate) fn capture_errors_within(command: &mut Command, limit: Duration) -> Result<String> {
    announce(command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = command.spawn();
    let mut child = child.with_context(|| format!("cannot start `{}`", describe(command)))?;
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            bail!("`{}` did not end within {limit:?}", describe(command));
        }
        thread::sleep(Duration::from_millis(20));
    };
    let mut said = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_string(&mut said)?;
    }
    if !status.success() {
        bail!("`{}` ended with {status}: {}", describe(command), said.trim());
    }
    Ok(said)
}

/// Runs a `cargo test`, shows its output as it comes and counts the tests. Err only where it cannot be run at all.
pub(crate) fn run_tests(command: &mut Command) -> Result<Tally> {
    announce(command);
    if std::io::stderr().is_terminal() {
        // Cargo sees a pipe, yet what it writes ends on a terminal.
        command.env("CARGO_TERM_COLOR", "always");
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{}`", describe(command)))?;
    let errors = child.stderr.take();
    let errors = thread::spawn(move || {
        errors
            .map(|pipe| count(pipe, std::io::stderr()))
            .unwrap_or_default()
    });
    let mut counted = child
        .stdout
        .take()
        .map(|pipe| count(pipe, std::io::stdout()))
        .unwrap_or_default();
    let status = child.wait()?;
    counted.add(errors.join().unwrap_or_default());
    Ok(counted.tally(status.success()))
}

/// A command of this program that runs beside others, and gets the processor's time that they leave.
#[derive(Debug)]
pub(crate) struct Aside {
    child: Child,
    /// What it says.
    log: PathBuf,
}

impl Aside {
    /// Starts `command`, whose last line has to be a [`Tally`].
    pub(crate) fn start(command: &str, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        let this = std::env::current_exe()?;
        let mut aside = match find_program("nice") {
            Some(nice) => Command::new(nice),
            None => bail!("there is no `nice`, which comes with every Unix"),
        };
        aside.args(["-n", "19"]).arg(this).arg(command);
        announce(&aside);
        let child = aside
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start `{}`", describe(&aside)))?;
        let log = log.to_owned();
        Ok(Self { child, log })
    }

    /// Waits for its end, shows what it said and gives what it counted.
    pub(crate) fn finish(mut self) -> Result<Tally> {
        let status = self.child.wait()?;
        let said = fs::read_to_string(&self.log);
        let said = said.with_context(|| format!("cannot read {}", self.log.display()))?;
        eprintln!("{said}");
        match said.lines().last().and_then(Tally::of_line) {
            Some(tally) => Ok(tally),
            None => bail!("what ran beside the tests ended with {status} before it could count"),
        }
    }
}

/// Runs a `node --test` that reports as TAP, shows its output at its end and counts the tests.
pub(crate) fn run_node_tests(command: &mut Command) -> Result<Tally> {
    announce(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", describe(command)))?;
    let text = String::from_utf8_lossy(&output.stdout);
    eprintln!("{text}{}", String::from_utf8_lossy(&output.stderr));
    let tally = count_tap(&text);
    Ok(Tally {
        // It broke off before it could count, or ran nothing.
        failed: tally
            .failed
            .max((!output.status.success() || tally.passed == 0).into()),
        ..tally
    })
}

/// What the last lines of TAP say, like `# pass 22`.
fn count_tap(text: &str) -> Tally {
    let number = |word: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(word));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    };
    Tally {
        passed: number("# pass "),
        failed: number("# fail ") + number("# cancelled "),
        skipped: number("# skipped "),
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counted {
    passed: u32,
    failed: u32,
    ignored: u32,
    skipped_by_themselves: u32,
}

impl Counted {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.skipped_by_themselves += other.skipped_by_themselves;
    }

    fn tally(self, success: bool) -> Tally {
        // Failed without a failed test: it did not compile, or a test binary crashed before it could report.
        let failed = if success { self.failed } else { self.failed.max(1) };
        // A test that skips itself passes in the eyes of cargo.
        let passed = self.passed.saturating_sub(self.skipped_by_themselves);
        Tally {
            passed,
            failed,
            skipped: self.ignored + self.skipped_by_themselves,
        }
    }
}

/// Copies `from` to `to` line by line and counts what the lines say.
fn count(from: impl Read, mut to: impl Write) -> Counted {
    let mut counted = Counted::default();
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    while let Ok(1..) = lines.read_until(b'\n', &mut line) {
        // A closed terminal is no reason to stop the tests.
        let _ = to.write_all(&line).and_then(|()| to.flush());
        counted.add(count_line(&String::from_utf8_lossy(&line)));
        line.clear();
    }
    counted
}

/// What a line like `test result: ok. 5 passed; 0 failed; 1 ignored; …` or `skipped: no kcat` says.
fn count_line(line: &str) -> Counted {
    // Written past the test harness, the notice can follow the name of a test that is running: `test x ... skipped: y`.
    if line.starts_with("skipped: ") || line.contains(" ... skipped: ") {
        return Counted {
            skipped_by_themselves: 1,
            ..Counted::default()
        };
    }
    let Some((_, result)) = line.split_once("test result: ") else {
        return Counted::default();
    };
    let number_before = |word: &str| {
        let number = result
            .split([';', '.'])
            .find_map(|part| part.trim().strip_suffix(word))
            .map(str::trim);
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let (passed, failed) = (number_before("passed"), number_before("failed"));
    Counted {
        passed,
        failed,
        ignored: number_before("ignored"),
        skipped_by_themselves: 0,
    }
}

fn announce(command: &Command) {
    let folder = command
        .get_current_dir()
        .filter(|folder| *folder != crate::project::root());
    let folder = folder
        .map(|folder| format!(" (in {})", folder.display()))
        .unwrap_or_default();
    eprintln!("$ {}{folder}", describe(command));
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` ended with {status}", describe(command));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_of_cargo_test_are_counted() {
        let ok = "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 1 filtered out; finished in 0.01s\n";
        assert_eq!(
            count_line(ok),
            Counted {
                passed: 12,
                ignored: 3,
                ..Counted::default()
            }
        );
        let failed =
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s";
        assert_eq!(
            count_line(failed),
            Counted {
                passed: 1,
                failed: 2,
                ..Counted::default()
            }
        );
        assert_eq!(count_line("test result_lines ... ok"), Counted::default());
    }

    #[test]
    fn a_count_is_read_as_it_was_written() {
        let tally = Tally {
            passed: 16,
            failed: 2,
            skipped: 1,
        };
        assert_eq!(Tally::of_line(&tally.to_string()), Some(tally));
        for line in ["", "16 passed", "error: killed", "x passed, 0 failed, 0 skipped"] {
            assert_eq!(Tally::of_line(line), None, "{line}");
        }
    }

    #[test]
    fn notices_of_skipped_tests_are_counted() {
        assert_eq!(count_line("skipped: no kcat\n").skipped_by_themselves, 1);
        assert_eq!(
            count_line("test reads ... skipped: no kcat\n").skipped_by_themselves,
            1
        );
        assert_eq!(
            count_line("test nothing_is_skipped: ok\n").skipped_by_themselves,
            0
        );
    }

    #[test]
    fn a_test_that_skips_itself_is_no_passed_one_and_a_crash_is_a_failure() {
        let counted = Counted {
            passed: 5,
            failed: 0,
            ignored: 1,
            skipped_by_themselves: 2,
        };
        assert_eq!(
            counted.tally(true),
            Tally {
                passed: 3,
                failed: 0,
                skipped: 3
            }
        );
        assert_eq!(
            counted.tally(false),
            Tally {
                passed: 3,
                failed: 1,
                skipped: 3
            }
        );
    }

    #[test]
    fn nodes_counts_are_read() {
        let text = "ok 1 - a\n1..4\n# tests 4\n# pass 1\n# fail 1\n# cancelled 1\n# skipped 1\n";
        let expected = Tally {
            passed: 1,
            failed: 2,
            skipped: 1,
        };
        assert_eq!(count_tap(text), expected);
    }

    #[test]
    fn output_is_passed_on_unchanged() {
        let text = "one\ntest result: ok. 1 passed; 0 failed; 0 ignored\nno newline at the end";
        let mut shown = Vec::new();
        assert_eq!(count(text.as_bytes(), &mut shown).passed, 1);
        assert_eq!(shown, text.as_bytes());
    }
}
