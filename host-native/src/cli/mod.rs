//! Arguments, logging and exit codes of the `kachet` command.

mod cache;
mod configuration;
mod demo;
mod failure;
mod fetch;
mod gateway;
mod mount;
mod open_files;
mod output;
mod proxy;
mod security;
mod signals;
mod target;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use self::configuration::Unread;
use self::failure::Failure;

/// A read-through cache for Kafka's Fetch responses.
#[derive(Debug, Parser)]
#[command(name = "kachet", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// What to log to stderr, by level (error, warn, info, debug, trace) or as module=level,…
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "KACHET_LOG",
        default_value = "warn"
    )]
    log: String,
}

const EXIT_CODES: &str = "Exit codes: 0 done · 1 failed · 2 wrong usage · \
3 no such topic, partition, offset or record · 4 the broker cannot be reached, is not trusted, refuses the login or does not answer as a Kafka broker · 130 interrupted";

#[derive(Debug, Subcommand)]
enum Command {
    /// Read records at any offset of any partition, through the cache
    Fetch(Box<fetch::FetchArguments>),
    /// Look at a folder in which a cache keeps its batches, verify or empty it; needs no broker
    Mount(mount::MountArguments),
    /// Serve any Kafka client through the cache
    Proxy(Box<proxy::ProxyArguments>),
    /// Serve records over HTTP, through the cache, to what has no socket: browsers, Workers, curl
    Gateway(Box<gateway::GatewayArguments>),
    /// Show what the cache does for random reads; needs no broker
    Demo(demo::DemoArguments),
}

pub(crate) fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(Unread::Arguments { error, note }) => return refuse(&error, note),
        Err(Unread::File(error)) => {
            eprintln!("kachet: {error}");
            return ExitCode::from(2);
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("kachet: {failure}");
            failure.exit_code()
        }
    }
}

fn arguments() -> Result<Arguments, Unread> {
    let (matches, origins) = configuration::read(Arguments::command(), std::env::args_os().collect())?;
    let arguments = Arguments::from_arg_matches(&matches);
    let mut arguments = arguments.map_err(|error| Unread::Arguments { error, note: None })?;
    if let Command::Proxy(proxy) = &mut arguments.command {
        proxy.origins = origins;
    }
    Ok(arguments)
}

/// Prints what clap says, help included, and what it does not know.
fn refuse(error: &clap::Error, note: Option<String>) -> ExitCode {
    // Nobody may be reading.
    let _unread = error.print();
    if let Some(note) = note {
        eprintln!("\nkachet: {note}");
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    log_to_stderr(&arguments.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let outcome = runtime.block_on(async {
        match arguments.command {
            Command::Fetch(arguments) => fetch::run(*arguments).await,
            Command::Mount(arguments) => mount::run(arguments).await,
            Command::Proxy(arguments) => proxy::run(*arguments).await,
            Command::Gateway(arguments) => gateway::run(*arguments).await,
            Command::Demo(arguments) => demo::run(arguments).await,
        }
    });
    // A name look-up that still hangs must not hold the process back.
    runtime.shutdown_background();
    outcome
}

fn log_to_stderr(filter: &str) -> Result<(), Failure> {
    let wrong = |error| Failure::LogFilter {
        given: filter.to_owned(),
        error,
    };
    let filter = EnvFilter::try_new(filter).map_err(wrong)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // Colours are for people, not for a journal or a file.
        .with_ansi(io::stderr().is_terminal())
        .init();
    Ok(())
}
