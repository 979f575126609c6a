//! Child processes that end: each has a deadline, is reaped, and dies with the process that started it.
//!
//! The kernel's parent-death signal is what kills a child when the test process is killed. It fires when the *thread* that
//! forked the child ends, and the thread of a test ends long before the process does. So long-lived children are forked by
//! one keeper thread that lives as long as the process; children that the caller waits for may be forked anywhere.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a child is looked at while its end is awaited.
const POLL: Duration = Duration::from_millis(10);
/// How much of a child's output an error quotes, in bytes.
const QUOTED_BYTES_MAX: usize = 4000;

/// What a finished child left.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All that it wrote to stdout.
    pub stdout: Vec<u8>,
    /// All that it wrote to stderr, with invalid UTF-8 replaced.
    pub stderr: String,
}

/// Where `program` stands on PATH.
pub fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// A command for `program` whose process is killed when the thread that spawned it ends (on Linux with util-linux; elsewhere
/// the program as it is).
pub fn command(program: impl AsRef<OsStr>) -> Command {
    static SETPRIV: OnceLock<Option<PathBuf>> = OnceLock::new();
    let setpriv = SETPRIV.get_or_init(|| {
        let setpriv = find_program("setpriv")?;
        // Older releases of setpriv lack the option.
        let mut probe = Command::new(&setpriv);
        probe
            .args(["--pdeathsig", "KILL", "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        probe.status().ok()?.success().then_some(setpriv)
    });
    match setpriv {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// A command waiting for the keeper thread, and where the child goes.
type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// Spawns `command` from the keeper thread, so that it lives as long as this process and no longer.
pub fn spawn_for_the_process(command: Command) -> Result<Child> {
    static KEEPER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                // The caller waits for the reply; if it is gone, so is the wish for the child, and dropping kills nothing.
                if let Err(mpsc::SendError(Ok(mut orphan))) = reply.send(command.spawn()) {
                    end(&mut orphan, Duration::ZERO);
                }
            }
        });
        requests
    });
    let program = command.get_program().to_owned();
    let (reply, child) = mpsc::channel();
    keeper
        .send((command, reply))
        .ok()
        .context("the thread that starts processes is gone")?;
    let child = child.recv().context("the thread that starts processes is gone")?;
    child.with_context(|| format!("cannot start {}", program.display()))
}

/// Runs `command` to its end, feeding it `stdin`; kills it and fails when `deadline` has passed.
pub fn run(mut command: Command, stdin: &[u8], deadline: Duration) -> Result<Finished> {
    let name = describe(&command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        // One thread a pipe: a child that fills one pipe while we wait at another would hang both sides.
        let writer = scope.spawn(move || input.map_or(Ok(()), |mut input| input.write_all(stdin)));
        let output = scope.spawn(move || read_all(output));
        let errors = scope.spawn(move || read_all(errors));
        let status = wait(&mut child, deadline);
        if status.is_none() {
            end(&mut child, Duration::ZERO);
        }
        let stdout = output.join().unwrap_or_default();
        let stderr = String::from_utf8_lossy(&errors.join().unwrap_or_default()).into_owned();
        // A child may end without reading all its input; whether that is an error is said by its exit status.
        let _ = writer.join();
        match status {
            Some(status) => Ok(Finished {
                status,
                stdout,
                stderr,
            }),
            None => bail!(
                "{name} did not end within {deadline:?}; killed. It said: {}",
                tail(&stderr)
            ),
        }
    })
}

/// Like [`run`], and an exit status other than 0 is an error that quotes stderr. Returns stdout.
pub fn run_ok(command: Command, stdin: &[u8], deadline: Duration) -> Result<Vec<u8>> {
    let name = describe(&command);
    let Finished {
        status,
        stdout,
        stderr,
    } = run(command, stdin, deadline)?;
    if !status.success() {
        let said = format!("{}\n{}", tail(&String::from_utf8_lossy(&stdout)), tail(&stderr));
        bail!("{name} ended with {status}: {}", said.trim());
    }
    Ok(stdout)
}

/// Waits until `child` has ended, or for `limit`: then None.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        // An error means that the child cannot be waited for: as good as ended, `end` reaps what there is.
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Ends `child` and reaps it: asks by SIGTERM, and after `grace` kills. A grace of zero kills at once.
pub fn end(child: &mut Child, grace: Duration) {
    if !grace.is_zero() {
        terminate(child);
        if wait(child, grace).is_some() {
            return;
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(unix)]
fn terminate(child: &Child) {
    use rustix::process::{Pid, Signal, kill_process};
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

#[cfg(not(unix))]
fn terminate(_child: &Child) {}

/// The last part of `text`, cut at a character.
pub fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(QUOTED_BYTES_MAX);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].trim()
}

fn read_all(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What was read before an error is still what the child said.
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

/// The command as a person would type it, without setpriv and with a class path cut short.
fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let own = words
        .iter()
        .position(|word| word == "--")
        .map_or(0, |separator| separator + 1);
    let own = if words.first().is_some_and(|program| program.ends_with("setpriv")) {
        own
    } else {
        0
    };
    let short = |word: &String| {
        if word.len() > 200 {
            "…".to_owned()
        } else {
            word.clone()
        }
    };
    format!(
        "`{}`",
        words[own..].iter().map(short).collect::<Vec<_>>().join(" ")
    )
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = command("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn stdin_goes_in_and_stdout_comes_out() -> Result<()> {
        let much = vec![b'x'; 1 << 20];
        assert_eq!(run_ok(command("cat"), &much, Duration::from_secs(20))?, much);
        Ok(())
    }

    #[test]
    fn a_child_that_does_not_end_is_killed_at_its_deadline() {
        let start = Instant::now();
        let error = run(
            shell("echo busy >&2; exec sleep 60"),
            b"",
            Duration::from_millis(300),
        )
        .unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(20));
        assert!(error.to_string().contains("busy"), "{error}");
    }

    #[test]
    fn a_failure_quotes_what_the_child_said() {
        let error = run_ok(shell("echo because >&2; exit 3"), b"", Duration::from_secs(20)).unwrap_err();
        assert!(
            error.to_string().contains("because") && error.to_string().contains('3'),
            "{error}"
        );
    }

    #[test]
    fn a_child_that_ignores_sigterm_is_killed_after_its_grace() -> Result<()> {
        let mut child = spawn_for_the_process(shell("trap '' TERM; while :; do sleep 0.05; done"))?;
        thread::sleep(Duration::from_millis(200));
        end(&mut child, Duration::from_millis(200));
        assert!(child.try_wait()?.is_some());
        Ok(())
    }

    #[test]
    fn a_child_spawned_for_the_process_outlives_the_thread_that_asked() -> Result<()> {
        let asked = thread::spawn(|| spawn_for_the_process(shell("exec sleep 60"))).join();
        let mut child = asked.map_err(|_| anyhow::anyhow!("the thread panicked"))??;
        thread::sleep(Duration::from_millis(200));
        assert!(child.try_wait()?.is_none());
        end(&mut child, Duration::ZERO);
        Ok(())
    }
}
