//! `kachet mount stat`: what a mount point is and how much it holds.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytesize::ByteSize;
use clap::Args;
use kachet::cache::Remembered;
use kachet::core::offset::OffsetSpan;
use kachet::core::wire::WireStr;
use kachet::mount::{FORMAT_VERSION, MountPoint};
use serde_json::json;

use super::Folder;
use super::survey::{Contents, Survey, survey};
use crate::cli::failure::Failure;

#[derive(Debug, Args)]
pub(super) struct StatArguments {
    #[command(flatten)]
    folder: Folder,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &StatArguments) -> Result<(), Failure> {
    let mut mount = arguments.folder.open().await?;
    let survey = survey(&mut mount).await?;
    let remembered = Remembered::read(Arc::new(mount.notes())).await;
    let figures = Figures::of(&survey);
    let print = if arguments.json { print_json } else { print_text };
    print(&mount, &remembered, &figures).map_err(Failure::Output)
}

/// What there is to say.
#[derive(Default)]
struct Figures {
    segments: u64,
    size_bytes: u64,
    scanned: u64,
    unreadable: u64,
    batches: u64,
    batch_bytes: u64,
    topics: u64,
    partitions: u64,
    offsets: Option<(i64, i64)>,
    /// When segments were written last: the first and the last of them.
    written: Option<(SystemTime, SystemTime)>,
}

impl Figures {
    fn of(survey: &Survey) -> Self {
        let segments = survey.segments.as_slice();
        let contents = || survey.partitions.values();
        let mut topics: Vec<_> = survey.partitions.keys().map(|key| key.topic_id).collect();
        topics.dedup();
        let ranges = || contents().flat_map(Contents::ranges);
        let first = ranges().map(OffsetSpan::base).min();
        let last = ranges().map(OffsetSpan::last).max();
        let written = || segments.iter().filter_map(|segment| segment.modified);
        Self {
            segments: segments.len() as u64,
            size_bytes: segments.iter().map(|segment| segment.stored.size_bytes).sum(),
            scanned: count(segments.iter().filter(|segment| segment.is_scanned())),
            unreadable: count(segments.iter().filter(|segment| segment.recovery.is_err())),
            batches: contents().map(Contents::batches).sum(),
            batch_bytes: contents().map(Contents::batch_bytes).sum(),
            topics: topics.len() as u64,
            partitions: survey.partitions.len() as u64,
            offsets: first.zip(last),
            written: written().min().zip(written().max()),
        }
    }
}

fn count<T>(of: impl Iterator<Item = T>) -> u64 {
    of.fold(0, |count, _| count + 1)
}

fn print_json(mount: &MountPoint, remembered: &Remembered, figures: &Figures) -> io::Result<()> {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).ok();
    let stray = mount.opened().stray.iter();
    let stray: Vec<_> = stray.map(|path| path.display().to_string()).collect();
    let object = json!({
        "path": mount.path().display().to_string(),
        "format_version": FORMAT_VERSION,
        "cluster_id": remembered.cluster_id.as_ref().map(WireStr::as_str),
        "segments": figures.segments,
        "size_bytes": figures.size_bytes,
        "scanned_segments": figures.scanned,
        "unreadable_segments": figures.unreadable,
        "topics": figures.topics,
        "partitions": figures.partitions,
        "batches": figures.batches,
        "batch_bytes": figures.batch_bytes,
        "first_offset": figures.offsets.map(|(first, _)| first),
        "last_offset": figures.offsets.map(|(_, last)| last),
        "oldest_segment_s": figures.written.and_then(|(oldest, _)| seconds(oldest)),
        "newest_segment_s": figures.written.and_then(|(_, newest)| seconds(newest)),
        "stray": stray,
        "stray_count": mount.opened().stray_count,
    });
    writeln!(io::stdout().lock(), "{object}")
}

fn print_text(mount: &MountPoint, remembered: &Remembered, figures: &Figures) -> io::Result<()> {
    let size = |bytes| ByteSize(bytes).display().iec().to_string();
    let time = |time| humantime::format_rfc3339_seconds(time).to_string();
    let cluster = remembered.cluster_id.as_ref();
    let or_none = |found: Option<String>| found.unwrap_or_else(|| "-".to_owned());
    let rows: [(&str, String); 10] = [
        ("mount point", mount.path().display().to_string()),
        ("format", FORMAT_VERSION.to_string()),
        ("cluster", or_none(cluster.map(|id| id.as_str().to_owned()))),
        (
            "segments",
            format!("{} in {}", size(figures.size_bytes), figures.segments),
        ),
        (
            "batches",
            format!("{} in {}", size(figures.batch_bytes), figures.batches),
        ),
        (
            "partitions",
            format!("{} of {} topics", figures.partitions, figures.topics),
        ),
        (
            "offsets",
            or_none(figures.offsets.map(|(first, last)| format!("{first}..{last}"))),
        ),
        (
            "written",
            or_none(
                figures
                    .written
                    .map(|(oldest, newest)| format!("{} to {}", time(oldest), time(newest))),
            ),
        ),
        (
            "not sealed",
            format!("{} segments, {} unreadable", figures.scanned, figures.unreadable),
        ),
        ("not its own", format!("{} files", mount.opened().stray_count)),
    ];
    let mut out = io::stdout().lock();
    for (name, value) in &rows {
        writeln!(out, "{name:<12} {value}")?;
    }
    for path in &mount.opened().stray {
        writeln!(out, "{:<12} {}", "", path.display())?;
    }
    Ok(())
}
