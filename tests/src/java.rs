//! Java programs against Kafka's own client: `tests/java/*.java`, run from source.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::child::{self, command};
use crate::kcat::json_lines;
use crate::setup::kafka_classpath;

/// How long reading a partition may take.
const READ_DEADLINE: Duration = Duration::from_mins(2);
/// How long one command of the writer may take, its JVM's start and the compilation included.
const COMMAND_DEADLINE: Duration = Duration::from_secs(90);

/// Runs `tests/java/{name}.java` with `arguments`, feeding it `stdin`; returns its stdout. Fails on an exit status other
/// than 0 and after `deadline`.
pub fn run(name: &str, arguments: &[&str], stdin: &str, deadline: Duration) -> Result<String> {
    let stdout = child::run_ok(program(name, arguments)?, stdin.as_bytes(), deadline)?;
    String::from_utf8(stdout).with_context(|| format!("{name}.java wrote something that is not UTF-8"))
}

/// Which records of transactions a consumer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// All, of open and of aborted transactions too.
    ReadUncommitted,
    /// Those of committed transactions, up to the last stable offset.
    ReadCommitted,
}

impl Isolation {
    /// The value of the consumer's setting `isolation.level`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadUncommitted => "read_uncommitted",
            Self::ReadCommitted => "read_committed",
        }
    }
}

/// Reads the records of `topic`, `partition` from `offset` to the end by an ordinary Java consumer, in the fields of `kcat -J`
/// (see `RecordReader.java`).
pub fn read_records(
    bootstrap: &str,
    topic: &str,
    partition: i32,
    offset: i64,
    isolation: Isolation,
) -> Result<Vec<Value>> {
    let (partition, offset) = (partition.to_string(), offset.to_string());
    let arguments = [bootstrap, topic, &partition, &offset, isolation.as_str()];
    json_lines(run("RecordReader", &arguments, "", READ_DEADLINE)?.as_bytes())
}

/// A running `TopicWriter.java`: one JVM that carries out many commands.
///
/// The commands and the records that they write are documented at the top of `tests/java/TopicWriter.java`. Dropping it ends
/// the JVM.
#[derive(Debug)]
pub struct TopicWriter {
    child: Child,
    /// None once closed.
    stdin: Option<ChildStdin>,
    answers: mpsc::Receiver<String>,
    stderr: Arc<Mutex<String>>,
}

impl TopicWriter {
    /// Starts the JVM.
    pub fn start(bootstrap: &str) -> Result<Self> {
        let mut program = program("TopicWriter", &[bootstrap])?;
        program
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = child::spawn_for_the_process(program)?;
        let stdin = child.stdin.take();
        let answers = lines_of(child.stdout.take().context("the child has no stdout")?);
        let stderr = text_of(child.stderr.take().context("the child has no stderr")?);
        Ok(Self {
            child,
            stdin,
            answers,
            stderr,
        })
    }

    /// Carries out one command and returns the answer without its `ok `, for instance `produce NAME 0 0 99`. An answer that
    /// is an error, and none within 90 s, is an error.
    pub fn command(&mut self, command: &str) -> Result<String> {
        if command.contains('\n') || command.trim().is_empty() {
            bail!("a command is one line, not {command:?}");
        }
        let stdin = self.stdin.as_mut().context("the writer was closed")?;
        // Where the JVM has died the answer below is missing, and that error tells more than a broken pipe.
        let _ = writeln!(stdin, "{command}").and_then(|()| stdin.flush());
        let Ok(answer) = self.answers.recv_timeout(COMMAND_DEADLINE) else {
            let stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
            bail!(
                "no answer to `{command}` from TopicWriter.java. It said: {}",
                child::tail(&stderr)
            );
        };
        match answer.strip_prefix("ok ") {
            Some(answer) => Ok(answer.to_owned()),
            None => bail!("TopicWriter.java: {answer}"),
        }
    }

    /// Produces `count` records in batches of `batch_records`; returns the first and the last offset.
    pub fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        codec: &str,
        (count, batch_records): (u32, u32),
        seed: i64,
    ) -> Result<(i64, i64)> {
        let answer = self.command(&format!(
            "produce {topic} {partition} {codec} {count} {batch_records} {seed}"
        ))?;
        first_and_last(&answer)
    }
}

impl Drop for TopicWriter {
    fn drop(&mut self) {
        // The end of its input ends it in order.
        self.stdin = None;
        if child::wait(&mut self.child, Duration::from_secs(5)).is_none() {
            child::end(&mut self.child, Duration::ZERO);
        }
    }
}

/// The two offsets at the end of an answer to `produce` or `transaction`.
pub fn first_and_last(answer: &str) -> Result<(i64, i64)> {
    let mut words = answer.rsplit(' ');
    let mut offset = || words.next()?.parse().ok();
    let (last, first) = (offset(), offset());
    first
        .zip(last)
        .with_context(|| format!("no offsets in the answer {answer:?}"))
}

/// Runs one of Kafka's own command line tools by its main class, such as `TopicCommand` in `org.apache.kafka.tools`; gives its
/// stdout. Fails on an exit status other than 0 and after `deadline`.
pub fn run_tool(class: &str, arguments: &[&str], stdin: &str, deadline: Duration) -> Result<String> {
    let mut java = machine()?;
    java.arg(format!("org.apache.kafka.tools.{class}"))
        .args(arguments);
    let stdout = child::run_ok(java, stdin.as_bytes(), deadline)?;
    String::from_utf8(stdout).with_context(|| format!("{class} wrote something that is not UTF-8"))
}

fn program(name: &str, arguments: &[&str]) -> Result<Command> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("java")
        .join(format!("{name}.java"));
    let mut java = machine()?;
    java.arg(source).args(arguments);
    Ok(java)
}

/// A JVM with Kafka's jars, to be told what to run.
fn machine() -> Result<Command> {
    let mut java = command("java");
    // Short runs: a JVM tuned for its start. The client logs on stderr, where only trouble is of interest.
    java.args([
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dfile.encoding=UTF-8",
    ]);
    java.args([
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
        "-cp",
        &kafka_classpath()?,
    ]);
    Ok(java)
}

fn lines_of(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

fn text_of(pipe: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let filled = Arc::clone(&text);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut text = filled.lock().unwrap_or_else(PoisonError::into_inner);
            text.push_str(&line);
            text.push('\n');
        }
    });
    text
}
