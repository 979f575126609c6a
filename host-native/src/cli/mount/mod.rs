//! `kachet mount`: what lies in a folder in which a cache keeps its batches.

mod bar;
mod clear;
mod list;
mod stat;
mod survey;
mod verify;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use kachet::core::wire::Crc32c;
use kachet::mount::{MountOptions, MountPoint};

use super::failure::Failure;

/// By the processor's own instructions.
const CRC32C: Crc32c = Crc32c::from_fn(crc32c::crc32c);

#[derive(Debug, Args)]
pub(crate) struct MountArguments {
    #[command(subcommand)]
    command: MountCommand,
}

#[derive(Debug, Subcommand)]
enum MountCommand {
    /// Say what a mount point is and how much it holds
    Stat(stat::StatArguments),
    /// List which offsets of which partitions a mount point holds
    List(list::ListArguments),
    /// Read everything and verify every checksum; changes nothing. Exit code 1 if anything is damaged
    Verify(verify::VerifyArguments),
    /// Remove everything that is cached; the mount point stays
    Clear(clear::ClearArguments),
}

/// Which folder.
#[derive(Debug, Args)]
struct Folder {
    /// The mount point
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Folder {
    /// Opens the mount point; makes none. Nobody else may have it open.
    async fn open(&self) -> Result<MountPoint, Failure> {
        let folder = self.folder.clone();
        let opened = tokio::task::spawn_blocking(move || MountOptions::new().open_existing(folder)).await;
        opened.map_err(Failure::Task)?.map_err(Failure::Mount)
    }
}

pub(crate) async fn run(arguments: MountArguments) -> Result<(), Failure> {
    match arguments.command {
        MountCommand::Stat(arguments) => stat::run(&arguments).await,
        MountCommand::List(arguments) => list::run(&arguments).await,
        MountCommand::Verify(arguments) => verify::run(&arguments).await,
        MountCommand::Clear(arguments) => clear::run(&arguments).await,
    }
}

/// Whether standard output is for a person who may see more than ASCII and wants to.
fn is_plain(ascii: bool) -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    ascii || no_color || !io::stdout().is_terminal()
}
