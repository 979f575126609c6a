//! A real Apache Kafka, one `KRaft` node, started for tests and gone with them.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::child::{self, command, spawn_for_the_process};
use crate::setup::{kafka_classpath, kafka_is_there, or_skip};

/// How long a broker may take to say that it is ready.
const START_DEADLINE: Duration = Duration::from_mins(1);
/// How long formatting the log folder may take.
const FORMAT_DEADLINE: Duration = Duration::from_mins(1);
/// How long a broker may take to shut down in order, before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(30);
/// A port that was free when we looked may be taken when Kafka binds it; then the next pair is tried.
const PORT_ATTEMPTS: u32 = 4;
/// What Kafka logs once it serves clients.
const READY: &str = "Kafka Server started";

/// How a broker is to run.
#[derive(Debug, Clone, Default)]
pub struct KafkaSettings {
    /// Lines of server.properties, after the defaults, so that they override them.
    pub properties: Vec<(String, String)>,
    /// The port for clients; a free one where None.
    pub port: Option<u16>,
    /// The folder for all that the broker writes; it is kept, and a later broker with the same folder has the same topics.
    /// A temporary one, removed with the broker, where None.
    pub dir: Option<PathBuf>,
    /// Leave a temporary folder where it is.
    pub keep: bool,
    /// The cluster that the broker joins; where None, it is a cluster by itself.
    pub joins: Option<Membership>,
    /// More listeners, on 127.0.0.1.
    pub extra_listeners: Vec<Listener>,
    /// Users for SCRAM from the beginning on, as `StorageTool format --add-scram` takes them.
    pub scram_users: Vec<String>,
    /// A folder of the caller's, for instance of certificates, which goes with this process at the latest.
    pub removes: Option<PathBuf>,
    /// Run it as Java runs a server, for whoever measures it. Otherwise with the quick compiler and the small collector: a
    /// broker that lives for a test only takes a third less of the processor with them.
    pub is_measured: bool,
}

/// A listener beside the one for clients in plaintext.
#[derive(Debug, Clone)]
pub struct Listener {
    /// In upper case. Its properties begin with `listener.name.` and the name in lower case.
    pub name: String,
    /// `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
    pub protocol: &'static str,
    /// A free port.
    pub port: u16,
}

/// A place in the cluster of another broker.
#[derive(Debug, Clone)]
pub struct Membership {
    node_id: u32,
    cluster_id: String,
    /// Where the cluster's controller is, `host:port`.
    controller: String,
}

impl KafkaSettings {
    /// These settings with one more property.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.properties.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running broker. Dropping it kills it and removes its folder; a process that ends or is killed without dropping it does so too.
#[derive(Debug)]
pub struct KafkaBroker {
    settings: KafkaSettings,
    classpath: String,
    folder: Folder,
    port: u16,
    /// None while stopped.
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    kafka: Child,
    /// None where there is no shell to be it.
    janitor: Option<Child>,
}

#[derive(Debug)]
enum Folder {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

/// The one broker of this test process, for tests that do not harm it: they create topics of their own and leave others' alone.
///
/// None, after a line `skipped: …` on stderr, where Kafka's jars have not been fetched.
///
/// # Panics
/// Where they have not and `CI=true`, and where the broker does not start.
pub fn shared_kafka() -> Option<&'static KafkaBroker> {
    static SHARED: OnceLock<std::result::Result<KafkaBroker, String>> = OnceLock::new();
    if !kafka_is_there() {
        return None;
    }
    let broker =
        SHARED.get_or_init(|| KafkaBroker::start(&KafkaSettings::default()).map_err(|e| format!("{e:#}")));
    Some(
        broker
            .as_ref()
            .unwrap_or_else(|error| panic!("the shared Kafka does not start: {error}")),
    )
}

/// A broker of one's own, for tests that stop or starve it; None like [`shared_kafka`].
///
/// # Panics
/// Like [`shared_kafka`].
pub fn own_kafka(settings: &KafkaSettings) -> Option<KafkaBroker> {
    if !kafka_is_there() {
        return None;
    }
    match KafkaBroker::start(settings) {
        Ok(broker) => Some(broker),
        Err(error) => panic!("Kafka does not start: {error:#}"),
    }
}

/// Like `TopicWriter::start`, but None where there is no Java, so that a test can end there.
pub fn writer_for(broker: &KafkaBroker) -> Option<crate::java::TopicWriter> {
    or_skip(crate::java::TopicWriter::start(&broker.bootstrap()))
}

impl KafkaBroker {
    /// Starts a broker and waits until it serves clients, at most 60 s. An error quotes the end of the broker's log.
    pub fn start(settings: &KafkaSettings) -> Result<Self> {
        let classpath = kafka_classpath()?;
        let folder = folder(settings)?;
        let mut broker = Self {
            settings: settings.clone(),
            classpath,
            folder,
            port: 0,
            running: None,
        };
        for attempt in 1.. {
            let (client_port, controller_port) = broker.choose_ports()?;
            broker.port = client_port;
            broker.write_properties(controller_port)?;
            broker.format()?;
            match broker.launch() {
                Ok(()) => break,
                Err(Start::PortTaken) if broker.may_choose_other_ports() && attempt < PORT_ATTEMPTS => {
                    broker.forget_data()?;
                }
                Err(Start::PortTaken) => {
                    bail!(
                        "port {client_port} or {controller_port} is taken:\n{}",
                        broker.log_tail()
                    )
                }
                Err(Start::Failed(error)) => return Err(error),
            }
        }
        Ok(broker)
    }

    /// A place as node `node_id`, from 2 on, in the cluster that this broker controls.
    pub fn place(&self, node_id: u32) -> Result<Membership> {
        let meta = fs::read_to_string(self.data_path().join("meta.properties"))
            .context("cannot read the broker's meta.properties")?;
        let cluster_id = meta.lines().find_map(|line| line.strip_prefix("cluster.id="));
        let controller = self
            .earlier_controller_port()
            .context("the broker has no controller")?;
        Ok(Membership {
            node_id,
            cluster_id: cluster_id.context("no cluster.id in meta.properties")?.to_owned(),
            controller: format!("127.0.0.1:{controller}"),
        })
    }

    /// The address that clients begin with, `host:port`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port that clients use.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that holds server.properties, the log and the data.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// What the broker has logged so far.
    pub fn log(&self) -> String {
        // The log is text but for what a crash tears.
        fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Whether the broker's process has not ended.
    pub fn is_running(&mut self) -> bool {
        self.running
            .as_mut()
            .is_some_and(|running| matches!(running.kafka.try_wait(), Ok(None)))
    }

    /// Shuts the broker down in order: SIGTERM, and SIGKILL if it has not ended within 30 s. Its data stay for [`Self::restart`].
    pub fn stop(&mut self) {
        self.end(STOP_GRACE);
    }

    /// Kills the broker at once, as a crash would. Its data stay for [`Self::restart`].
    pub fn kill(&mut self) {
        self.end(Duration::ZERO);
    }

    /// Starts the broker again on the same port with the same data, after stopping it where it runs.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        match self.launch() {
            Ok(()) => Ok(()),
            Err(Start::Failed(error)) => Err(error),
            Err(Start::PortTaken) => bail!("port {} was taken meanwhile:\n{}", self.port, self.log_tail()),
        }
    }

    fn end(&mut self, grace: Duration) {
        if let Some(mut running) = self.running.take() {
            child::end(&mut running.kafka, grace);
            if let Some(mut janitor) = running.janitor {
                // Killed before its pipe closes, so that it does not clean up what a restart needs.
                child::end(&mut janitor, Duration::ZERO);
            }
        }
    }

    /// Starts the process and waits until it is ready.
    fn launch(&mut self) -> std::result::Result<(), Start> {
        let log = File::create(self.log_path())
            .context("cannot create the broker's log")
            .map_err(Start::Failed)?;
        let errors = log
            .try_clone()
            .context("cannot share the broker's log")
            .map_err(Start::Failed)?;
        let mut kafka = self.java(&["-Xmx512m"]);
        if !self.settings.is_measured {
            kafka.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        }
        kafka.arg("kafka.Kafka").arg(self.properties_path());
        kafka.stdin(Stdio::null()).stdout(log).stderr(errors);
        own_process_group(&mut kafka);
        let kafka = spawn_for_the_process(kafka).map_err(Start::Failed)?;
        let temporary = matches!(self.folder, Folder::Temporary(_)) && !self.settings.keep;
        let own = temporary.then(|| self.dir());
        let janitor = janitor(
            kafka.id(),
            own.into_iter().chain(self.settings.removes.as_deref()),
        );
        self.running = Some(Running { kafka, janitor });
        let ready = self.wait_until_ready();
        if ready.is_err() {
            self.kill();
        }
        ready
    }

    fn wait_until_ready(&mut self) -> std::result::Result<(), Start> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            // Asked before the log is read: a broker that says something and ends has said it all by then.
            let ended = !self.is_running();
            let log = self.log();
            if log.contains(READY) && !ended {
                return Ok(());
            }
            if ended && (log.contains("Address already in use") || log.contains("BindException")) {
                return Err(Start::PortTaken);
            }
            if ended || Instant::now() > deadline {
                let what = if ended {
                    "ended while it started".to_owned()
                } else {
                    format!("is not ready after {START_DEADLINE:?}")
                };
                let log = self.log_tail();
                return Err(Start::Failed(anyhow::anyhow!(
                    "Kafka {what}; the end of its log:\n{log}"
                )));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Prepares the data folder, unless an earlier broker has.
    fn format(&self) -> Result<()> {
        if self.data_path().join("meta.properties").exists() {
            return Ok(());
        }
        let mut format = self.java(&["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        format.args(["kafka.tools.StorageTool", "format"]);
        match &self.settings.joins {
            Some(place) => format.args(["--no-initial-controllers", "-t", &place.cluster_id, "-c"]),
            None => format.args(["--standalone", "-t", &random_uuid(), "-c"]),
        };
        format.arg(self.properties_path());
        for user in &self.settings.scram_users {
            format.args(["--add-scram", user]);
        }
        // Or Java takes arguments for ASCII.
        format.env("LC_ALL", "C.UTF-8");
        child::run_ok(format, b"", FORMAT_DEADLINE).context("cannot format Kafka's log folder")?;
        Ok(())
    }

    /// A free port for clients and one for the controller; those of the earlier broker where the folder is one's.
    fn choose_ports(&self) -> Result<(u16, u16)> {
        let [client, controller] = free_ports()?;
        // The data say at which port the controller is found, so a kept folder keeps it.
        Ok((
            self.settings.port.unwrap_or(client),
            self.earlier_controller_port().unwrap_or(controller),
        ))
    }

    fn may_choose_other_ports(&self) -> bool {
        self.settings.port.is_none() && matches!(self.folder, Folder::Temporary(_))
    }

    fn forget_data(&self) -> Result<()> {
        fs::remove_dir_all(self.data_path()).context("cannot remove the data of a broker that did not start")
    }

    fn earlier_controller_port(&self) -> Option<u16> {
        if !self.data_path().join("meta.properties").exists() {
            return None;
        }
        let properties = fs::read_to_string(self.properties_path()).ok()?;
        let voter = properties
            .lines()
            .find_map(|line| line.strip_prefix("controller.quorum.bootstrap.servers="))?;
        voter.rsplit(':').next()?.parse().ok()
    }

    fn write_properties(&self, controller_port: u16) -> Result<()> {
        let client = self.bootstrap();
        let own_controller = format!("127.0.0.1:{controller_port}");
        let (node_id, roles, controller, controller_listener) = match &self.settings.joins {
            Some(place) => (place.node_id, "broker", &place.controller, String::new()),
            None => (
                1,
                "broker,controller",
                &own_controller,
                format!(",CONTROLLER://{own_controller}"),
            ),
        };
        let listed = |line: fn(&Listener) -> String| -> String {
            self.settings.extra_listeners.iter().map(line).collect()
        };
        let extra = listed(|listener| format!(",{}://127.0.0.1:{}", listener.name, listener.port));
        let protocols = listed(|listener| format!(",{}:{}", listener.name, listener.protocol));
        let mut properties = format!(
            "process.roles={roles}\n\
             node.id={node_id}\n\
             controller.quorum.bootstrap.servers={controller}\n\
             listeners=PLAINTEXT://{client}{controller_listener}{extra}\n\
             advertised.listeners=PLAINTEXT://{client}{extra}\n\
             controller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocols}\n\
             log.dirs={data}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=4\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             # The records of tests carry timestamps of 2023, which retention by time would soon delete.\n\
             log.retention.ms=-1\n\
             # Small segments and an eager cleaner, so that tests see segments roll and keys compacted.\n\
             log.segment.bytes=1048576\n\
             log.cleaner.backoff.ms=500\n",
            data = self.data_path().display(),
        );
        for (name, value) in &self.settings.properties {
            properties.extend([name, "=", value, "\n"]);
        }
        let path = self.properties_path();
        fs::write(&path, properties).with_context(|| format!("cannot write {}", path.display()))
    }

    fn java(&self, options: &[&str]) -> Command {
        let mut java = command("java");
        java.args(options).args([
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-cp",
            &self.classpath,
        ]);
        java
    }

    fn log_tail(&self) -> String {
        child::tail(&self.log()).to_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.dir().join("kafka.log")
    }

    fn properties_path(&self) -> PathBuf {
        self.dir().join("server.properties")
    }

    fn data_path(&self) -> PathBuf {
        self.dir().join("data")
    }
}

impl Drop for KafkaBroker {
    fn drop(&mut self) {
        self.kill();
        if self.settings.keep
            && let Folder::Temporary(dir) = &mut self.folder
        {
            dir.disable_cleanup(true);
        }
    }
}

/// Why a broker did not start.
enum Start {
    /// Another process holds one of its ports.
    PortTaken,
    Failed(anyhow::Error),
}

/// Ports of 127.0.0.1 that are free and differ.
pub fn free_ports<const COUNT: usize>() -> Result<[u16; COUNT]> {
    let mut ports = [0; COUNT];
    let mut held = Vec::with_capacity(COUNT);
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
        *port = listener.local_addr()?.port();
        // Until all are known, so that they differ.
        held.push(listener);
    }
    Ok(ports)
}

fn folder(settings: &KafkaSettings) -> Result<Folder> {
    if let Some(dir) = &settings.dir {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        return Ok(Folder::Kept(std::path::absolute(dir)?));
    }
    let dir = tempfile::Builder::new().prefix("kachet-kafka-").tempdir();
    Ok(Folder::Temporary(
        dir.context("cannot create a temporary folder for Kafka")?,
    ))
}

/// Ctrl-C in a terminal goes to the whole process group; the broker is ended by us, after what still uses it.
#[cfg(unix)]
fn own_process_group(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

#[cfg(not(unix))]
fn own_process_group(_command: &mut Command) {}

/// A shell that waits for the end of this process, however it comes, then kills the process `pid` and removes `folders`.
///
/// It notices by its stdin, a pipe that only this process holds open. The parent-death signal kills the broker where there is
/// one, but nothing else would remove the folder of the shared broker, which lives in a static and is never dropped.
fn janitor<'f>(pid: u32, folders: impl Iterator<Item = &'f Path>) -> Option<Child> {
    const SCRIPT: &str = r#"
        while read -r line; do :; done
        pid=$1
        shift
        kill -KILL "$pid" 2>/dev/null
        tries=50
        while kill -0 "$pid" 2>/dev/null && [ "$tries" -gt 0 ]; do sleep 0.1; tries=$((tries - 1)); done
        for folder; do rm -rf -- "$folder"; done
    "#;
    let mut shell = Command::new("sh");
    shell
        .args(["-c", SCRIPT, "kafka-janitor", &pid.to_string()])
        .args(folders.map(Path::as_os_str));
    // Not our output: who reads it to its end would wait for the janitor too.
    shell
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    own_process_group(&mut shell);
    shell.spawn().ok()
}

/// A random id as Kafka writes them: 22 characters of URL-safe base64.
fn random_uuid() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // Each RandomState has fresh keys from the system, so hashing anything by it is random enough to be unique.
    let random = || u128::from(RandomState::new().hash_one(0));
    let bits = (random() << 64) | random();
    // Kafka takes a leading '-' for an option; a leading 'K' leaves 126 random bits, and the last character has but 2.
    let character = |at: u32| {
        let sextet = if at == 21 {
            (bits << 4) & 0x30
        } else {
            (bits >> (122 - 6 * at)) & 0x3f
        };
        // Below 64.
        char::from(ALPHABET[sextet as usize])
    };
    std::iter::once('K').chain((1..22).map(character)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_uuids_look_like_kafkas_and_differ() {
        let (one, other) = (random_uuid(), random_uuid());
        assert_ne!(one, other);
        for uuid in [one, other] {
            assert_eq!(uuid.len(), 22);
            assert!(
                uuid.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'),
                "{uuid}"
            );
            // The 16 bytes end two bits into the last character.
            assert!(uuid.ends_with(['A', 'Q', 'g', 'w']), "{uuid}");
        }
    }
}
