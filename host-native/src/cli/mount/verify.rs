//! `kachet mount verify`: reads everything, and says what is damaged.

use core::ops::Range;
use std::io::{self, IsTerminal, Write};

use bytes::Bytes;
use bytesize::ByteSize;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kachet::core::segment::{
    DirectoryEntry, Expected, Place, RecordView, Recovery, SEGMENT_HEADER_BYTES, SegmentError,
    SegmentErrorKind, read_directory, verified_batch,
};
use kachet::core::storage::{SegmentId, SegmentReader, Storage, StorageError, StoredSegment};
use kachet::mount::{MountPoint, MountReader};
use serde_json::{Value, json};

use super::survey::{is_newer, segments};
use super::{CRC32C, Folder};
use crate::cli::failure::Failure;

/// How many damaged places are told of one by one; all are counted.
const TOLD_MAX: usize = 1_000;

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    #[command(flatten)]
    folder: Folder,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A place that is not what was written.
struct Damage {
    segment: SegmentId,
    at_byte: u64,
    /// Whose offsets lay there, if that can be told.
    of: Option<Expected>,
    error: String,
}

/// What was found.
#[derive(Default)]
struct Verified {
    segments: u64,
    records: u64,
    bytes: u64,
    damaged: u64,
    told: Vec<Damage>,
}

impl Verified {
    fn tell(&mut self, damage: Damage) {
        self.damaged += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(damage);
        }
    }

    fn tell_error(&mut self, error: &SegmentError, of: Option<Expected>) {
        self.tell(Damage {
            segment: error.segment,
            at_byte: error.at_byte,
            of,
            error: error.to_string(),
        });
    }
}

pub(super) async fn run(arguments: &VerifyArguments) -> Result<(), Failure> {
    let mut mount = arguments.folder.open().await?;
    let stored = segments(&mut mount).await?;
    let progress = progress_bar(stored.iter().map(|segment| segment.size_bytes).sum());
    let mut verified = Verified::default();
    for segment in stored {
        verify_segment(&mut mount, segment, &progress, &mut verified).await?;
    }
    progress.finish_and_clear();
    let print = if arguments.json { print_json } else { print_text };
    print(&mount, &verified).map_err(Failure::Output)?;
    match verified.damaged {
        0 => Ok(()),
        count => Err(Failure::Damaged { count }),
    }
}

fn progress_bar(bytes: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {binary_bytes_per_sec}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

async fn verify_segment(
    mount: &mut MountPoint,
    stored: StoredSegment,
    progress: &ProgressBar,
    verified: &mut Verified,
) -> Result<(), Failure> {
    verified.segments += 1;
    let of_storage = |error| SegmentError {
        segment: stored.id,
        at_byte: 0,
        kind: SegmentErrorKind::Storage(error),
    };
    let opened = mount.open(stored.id).await.map_err(of_storage);
    let recovered = match &opened {
        Ok(reader) => read_directory(reader, stored.id, CRC32C).await,
        Err(error) => Err(error.clone()),
    };
    match (opened, recovered) {
        (_, Err(error)) if is_newer(&error) => return Err(Failure::Segment(error)),
        (Ok(reader), Ok(recovered)) => {
            let mut at = SEGMENT_HEADER_BYTES as u64;
            for entry in &recovered.directory.entries {
                let range = entry.record_range();
                if let Recovery::Scanned { .. } = recovered.recovery {
                    verify_between(&reader, stored.id, at..range.start, verified).await;
                }
                at = range.end;
                verify_record(&reader, stored.id, entry, verified).await;
                progress.inc(range.end - range.start);
            }
            if let Recovery::Scanned { torn_at, .. } = recovered.recovery {
                let end = torn_at.unwrap_or(stored.size_bytes);
                verify_between(&reader, stored.id, at..end, verified).await;
                if let Some(at_byte) = torn_at {
                    verified.tell(torn(stored.id, at_byte));
                }
            }
        }
        (_, Err(error)) | (Err(error), _) => verified.tell_error(&error, None),
    }
    Ok(())
}

/// A record of which a directory tells.
async fn verify_record(
    reader: &MountReader,
    segment: SegmentId,
    entry: &DirectoryEntry,
    verified: &mut Verified,
) {
    let range = entry.record_range();
    verified.records += 1;
    verified.bytes += range.end - range.start;
    let expected = Expected {
        key: entry.key,
        span: entry.span,
    };
    let place = Place {
        segment,
        position: entry.position,
    };
    let outcome = match read(reader, range.clone()).await {
        Ok(record) => verified_batch(&record, place, &expected, CRC32C).map(|_| ()),
        Err(error) => Err(SegmentError {
            segment,
            at_byte: range.start,
            kind: SegmentErrorKind::Storage(error),
        }),
    };
    if let Err(error) = outcome {
        verified.tell_error(&error, Some(expected));
    }
}

/// What the walk through a segment without a footer has left out: records with intact headers and damaged batches.
async fn verify_between(
    reader: &MountReader,
    segment: SegmentId,
    between: Range<u64>,
    verified: &mut Verified,
) {
    // At once, because it is no more than a segment, and as a rule nothing.
    let Ok(bytes) = read(reader, between.clone()).await else {
        return;
    };
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let Ok(position) = u32::try_from(between.end - rest.len() as u64) else {
            return;
        };
        let place = Place { segment, position };
        let Ok(view) = RecordView::parse(rest, place) else {
            return;
        };
        verified.records += 1;
        verified.bytes += view.size_bytes() as u64;
        if let Err(error) = view.verify(CRC32C) {
            let (key, span) = (view.key(), view.span());
            verified.tell_error(&error, Some(Expected { key, span }));
        }
        rest = rest.get(view.size_bytes()..).unwrap_or_default();
    }
}

fn torn(segment: SegmentId, at_byte: u64) -> Damage {
    let words = "from here on there is no intact record: the last write was cut off, or this is damaged";
    Damage {
        segment,
        at_byte,
        of: None,
        error: words.to_owned(),
    }
}

async fn read(reader: &MountReader, range: Range<u64>) -> Result<Bytes, StorageError> {
    match reader.read_now(range.clone()) {
        Some(read) => read,
        None => reader.read(range).await,
    }
}

fn print_json(mount: &MountPoint, verified: &Verified) -> io::Result<()> {
    let damage = |damage: &Damage| {
        json!({
            "segment": damage.segment.to_string(),
            "at_byte": damage.at_byte,
            "topic_id": damage.of.map(|of| of.key.topic_id.to_string()),
            "partition": damage.of.map(|of| of.key.partition),
            "first_offset": damage.of.map(|of| of.span.base()),
            "last_offset": damage.of.map(|of| of.span.last()),
            "error": damage.error,
        })
    };
    let object = json!({
        "path": mount.path().display().to_string(),
        "segments": verified.segments,
        "records": verified.records,
        "bytes": verified.bytes,
        "damaged_count": verified.damaged,
        "damaged": verified.told.iter().map(damage).collect::<Vec<Value>>(),
    });
    writeln!(io::stdout().lock(), "{object}")
}

fn print_text(_: &MountPoint, verified: &Verified) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for damage in &verified.told {
        let of = damage.of.map(|of| format!(", offsets {} of {}", of.span, of.key));
        writeln!(
            out,
            "segment {}, byte {}{}: {}",
            damage.segment,
            damage.at_byte,
            of.unwrap_or_default(),
            damage.error
        )?;
    }
    let untold = verified.damaged - verified.told.len() as u64;
    if untold > 0 {
        writeln!(out, "and {untold} more")?;
    }
    writeln!(
        out,
        "{} segments, {} records, {}: {} damaged",
        verified.segments,
        verified.records,
        ByteSize(verified.bytes).display().iec(),
        verified.damaged
    )
}
