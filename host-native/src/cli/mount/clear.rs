//! `kachet mount clear`: removes what is cached; the mount point stays.

use std::io::{self, BufRead, IsTerminal, Write};

use bytesize::ByteSize;
use clap::Args;
use kachet::core::storage::Storage;
use kachet::mount::MountPoint;

use super::Folder;
use super::survey::segments;
use crate::cli::failure::Failure;

#[derive(Debug, Args)]
pub(super) struct ClearArguments {
    #[command(flatten)]
    folder: Folder,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(arguments: &ClearArguments) -> Result<(), Failure> {
    if !arguments.yes && !io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "'kachet mount clear' asks before it removes anything, and there is no terminal to ask at; give --yes",
        ));
    }
    let mut mount = arguments.folder.open().await?;
    let segments = segments(&mut mount).await?;
    let bytes: u64 = segments.iter().map(|segment| segment.size_bytes).sum();
    let what = format!(
        "{} segments ({})",
        segments.len(),
        ByteSize(bytes).display().iec()
    );
    if !arguments.yes && !is_wanted(&mount, &what)? {
        return say("nothing was removed");
    }
    for segment in &segments {
        mount.remove(segment.id).await.map_err(Failure::Storage)?;
    }
    let notes = mount.notes();
    for name in notes.list().await.map_err(Failure::Mount)? {
        notes.remove(&name).await.map_err(Failure::Mount)?;
    }
    say(&format!("removed {what}"))
}

fn is_wanted(mount: &MountPoint, what: &str) -> Result<bool, Failure> {
    let mut out = io::stderr().lock();
    let folder = mount.path().display();
    write!(
        out,
        "Remove {what} and what is remembered of the cluster from {folder}? [y/N] "
    )
    .and_then(|()| out.flush())
    .map_err(Failure::Output)?;
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(Failure::Input)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes"))
}

fn say(what: &str) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{what}").map_err(Failure::Output)
}
