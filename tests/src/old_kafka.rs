//! Brokers of older releases, one of each, for tests of what is negotiated with them.
//!
//! `cargo xtask setup` resolves the jars of [`RELEASES_OF_EVERY_TEST`]; `cargo xtask broker-versions` those of others.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::child::{self, command, spawn_for_the_process};
use crate::kafka::free_ports;
use crate::setup::classpath_of;

/// The releases that every run of the tests starts: the oldest that is supported, which has no topic ids in Fetch and needs a
/// `ZooKeeper`, and the last of the generation before this one.
pub const RELEASES_OF_EVERY_TEST: [&str; 2] = ["2.8.2", "3.9.1"];
/// The environment variable that names others, with commas between them.
pub const RELEASES_VARIABLE: &str = "KACHET_KAFKA_RELEASES";

/// How long each process may take until it serves.
const START_DEADLINE: Duration = Duration::from_secs(90);
/// A cluster id, in the form that Kafka's tools give. Each broker stands alone, so it may be the same for all.
const CLUSTER_ID: &str = "S2FjaGV0LW9sZC1LYWZrYQ";

/// The releases to be tested.
pub fn releases() -> Vec<String> {
    let named = std::env::var(RELEASES_VARIABLE).unwrap_or_default();
    let named: Vec<String> = named
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    if named.is_empty() {
        RELEASES_OF_EVERY_TEST.map(str::to_owned).to_vec()
    } else {
        named
    }
}

/// A running broker of an older release, with its `ZooKeeper` where it needs one. Dropping it kills both and removes their data.
#[derive(Debug)]
pub struct OldKafka {
    port: u16,
    processes: Vec<Child>,
    dir: TempDir,
}

impl OldKafka {
    /// Starts a broker of this release, such as `2.8.2`, and waits until it serves. An error quotes the end of its log.
    pub fn start(release: &str) -> Result<Self> {
        let classpath = classpath_of(release)?;
        let dir = tempfile::Builder::new().prefix("kachet-old-kafka-").tempdir()?;
        let [port, other] = free_ports()?;
        let mut kafka = Self {
            port,
            processes: Vec::new(),
            dir,
        };
        if release.starts_with("2.") {
            kafka.start_zookeeper(&classpath, other)?;
            kafka.write("server.properties", &kafka.zookeeper_properties(other))?;
            kafka.run(
                &classpath,
                "kafka.Kafka",
                "server.properties",
                "[KafkaServer id=1] started",
            )?;
        } else {
            kafka.write("server.properties", &kafka.kraft_properties(other))?;
            kafka.format(&classpath)?;
            kafka.run(
                &classpath,
                "kafka.Kafka",
                "server.properties",
                "Kafka Server started",
            )?;
        }
        Ok(kafka)
    }

    /// The address that clients begin with, `host:port`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn start_zookeeper(&mut self, classpath: &str, port: u16) -> Result<()> {
        let data = self.dir.path().join("zookeeper");
        fs::create_dir(&data)?;
        let settings = format!(
            "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\nmaxClientCnxns=0\n",
            data.display()
        );
        self.write("zookeeper.properties", &settings)?;
        let main = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
        self.run(classpath, main, "zookeeper.properties", "binding to port")
    }

    fn zookeeper_properties(&self, zookeeper: u16) -> String {
        format!(
            "broker.id=1\nzookeeper.connect=127.0.0.1:{zookeeper}\nlisteners=PLAINTEXT://{bootstrap}\n{rest}",
            bootstrap = self.bootstrap(),
            rest = self.common_properties()
        )
    }

    fn kraft_properties(&self, controller: u16) -> String {
        format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://{bootstrap},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://{bootstrap}\ncontroller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n{rest}",
            bootstrap = self.bootstrap(),
            rest = self.common_properties()
        )
    }

    fn common_properties(&self) -> String {
        format!(
            "log.dirs={}\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=2\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=2\ngroup.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\nlog.retention.ms=-1\n",
            self.dir.path().join("data").display()
        )
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.dir.path().join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn format(&self, classpath: &str) -> Result<()> {
        let mut format = java(classpath, "-Xmx128m");
        format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]);
        format.arg(self.dir.path().join("server.properties"));
        child::run_ok(format, b"", START_DEADLINE).context("cannot format the log folder")?;
        Ok(())
    }

    /// Runs a class with a file of settings until its log says `ready`.
    fn run(&mut self, classpath: &str, class: &str, settings: &str, ready: &str) -> Result<()> {
        let log_path = self.dir.path().join(settings).with_extension("log");
        let log = File::create(&log_path)?;
        let mut program = java(classpath, "-Xmx384m");
        program.arg(class).arg(self.dir.path().join(settings));
        program.stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log);
        self.processes.push(spawn_for_the_process(program)?);
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let said = said(&log_path);
            if said.contains(ready) {
                return Ok(());
            }
            let ended = match self.processes.last_mut() {
                Some(process) => process.try_wait()?.is_some(),
                None => true,
            };
            if ended || Instant::now() > deadline {
                bail!(
                    "{class} does not start; the end of its log:\n{}",
                    child::tail(&said)
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for OldKafka {
    fn drop(&mut self) {
        // The broker before the ZooKeeper that it talks to.
        for process in self.processes.iter_mut().rev() {
            child::end(process, Duration::ZERO);
        }
    }
}

fn java(classpath: &str, memory: &str) -> Command {
    let mut java = command("java");
    java.args([
        memory,
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-cp",
        classpath,
    ]);
    java
}

fn said(log: &Path) -> String {
    fs::read(log).map_or_else(
        |_| String::new(),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}
