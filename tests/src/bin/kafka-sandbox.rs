//! A Kafka to play with: what `cargo xtask kafka` runs once it has fetched the jars.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use kachet_tests::kafka::{KafkaBroker, KafkaSettings};

/// Start one Kafka broker and keep it running until Ctrl-C.
#[derive(Debug, Parser)]
struct Options {
    /// The port for clients.
    #[arg(long, default_value_t = 9092)]
    port: u16,
    /// Keep topics in this folder, and find those of an earlier run there again.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Leave the temporary folder in place at the end.
    #[arg(long)]
    keep: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Listening for signals begins before Kafka starts, so that none is lost: then the broker would be killed, not stopped.
    let mut signals = runtime.block_on(async { Signals::new() })?;
    eprintln!("Starting Kafka…");
    let settings = KafkaSettings {
        port: Some(options.port),
        dir: options.dir,
        keep: options.keep,
        is_measured: true,
        ..KafkaSettings::default()
    };
    let mut broker = KafkaBroker::start(&settings)?;
    print_welcome(&broker);
    runtime.block_on(signals.next());
    eprintln!("\nStopping Kafka…");
    broker.stop();
    if options.keep || settings.dir.is_some() {
        eprintln!("Its folder stays: {}", broker.dir().display());
    }
    Ok(())
}

fn print_welcome(broker: &KafkaBroker) {
    let bootstrap = broker.bootstrap();
    println!(
        "Kafka runs at {bootstrap}, its log is {log}

Try, in another terminal:
  seq 1 1000 | kcat -P -b {bootstrap} -t numbers -p 0 -X compression.codec=zstd
  kcat -C -b {bootstrap} -t numbers -p 0 -o 500 -c 3
  cargo run --release -- fetch --bootstrap {bootstrap} numbers/0@500

Ctrl-C stops it.",
        log = broker.dir().join("kafka.log").display(),
    );
}

#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 3]);

#[cfg(unix)]
impl Signals {
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let [interrupt, terminate, hangup] = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ]
        .map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => (), _ = hangup.recv() => () }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
