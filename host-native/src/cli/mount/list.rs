//! `kachet mount list`: which offsets of which partitions a mount point holds.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;
use kachet::cache::Remembered;
use kachet::core::offset::OffsetSpan;
use kachet::core::wire::TopicId;
use kachet::mount::MountPoint;
use serde_json::{Value, json};

use super::bar::bar;
use super::survey::{Contents, survey};
use super::{Folder, is_plain};
use crate::cli::failure::Failure;

/// How many ranges of a partition are printed for people.
const RANGES_SHOWN: usize = 6;

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    folder: Folder,
    /// Only this topic, by its name or its id; may be given several times
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
    /// Draw with plain letters, as where `NO_COLOR` is set or the output is no terminal
    #[arg(long)]
    ascii: bool,
    /// Print one JSON object
    #[arg(long, conflicts_with = "ascii")]
    json: bool,
}

/// A topic by its name, or by its id where the name is not known, with its partitions.
struct Listed {
    name: Option<String>,
    topic_id: TopicId,
    partitions: BTreeMap<i32, Contents>,
}

impl Listed {
    fn title(&self) -> String {
        let id = || format!("topic of id {}", self.topic_id);
        self.name.clone().unwrap_or_else(id)
    }

    fn is_one_of(&self, wanted: &[String]) -> bool {
        let is = |wanted: &String| Some(wanted) == self.name.as_ref() || *wanted == self.topic_id.to_string();
        wanted.is_empty() || wanted.iter().any(is)
    }
}

pub(super) async fn run(arguments: &ListArguments) -> Result<(), Failure> {
    let mut mount = arguments.folder.open().await?;
    let survey = survey(&mut mount).await?;
    let remembered = Remembered::read(Arc::new(mount.notes())).await;
    let mut topics: BTreeMap<TopicId, Listed> = BTreeMap::new();
    for (key, contents) in survey.partitions {
        let name = remembered.topics.get(&key.topic_id);
        let listed = topics.entry(key.topic_id).or_insert_with(|| Listed {
            name: name.map(|name| name.as_str().to_owned()),
            topic_id: key.topic_id,
            partitions: BTreeMap::new(),
        });
        listed.partitions.insert(key.partition, contents);
    }
    let wanted = topics
        .into_values()
        .filter(|listed| listed.is_one_of(&arguments.topic));
    let mut wanted: Vec<Listed> = wanted.collect();
    // Those without a name last.
    wanted.sort_by_key(|listed| (listed.name.is_none(), listed.name.clone()));
    let printed = if arguments.json {
        print_json(&mount, &wanted)
    } else {
        print_text(&wanted, is_plain(arguments.ascii))
    };
    printed.map_err(Failure::Output)
}

/// From the first offset that is held to the last.
fn whole(ranges: &[OffsetSpan]) -> Option<OffsetSpan> {
    OffsetSpan::new(ranges.first()?.base(), ranges.last()?.last())
}

fn print_json(mount: &MountPoint, topics: &[Listed]) -> io::Result<()> {
    let partition = |(index, contents): (&i32, &Contents)| {
        let ranges = contents.ranges();
        let whole = whole(&ranges);
        let ranges = ranges.iter().map(|range| json!([range.base(), range.last()]));
        json!({
            "partition": index,
            "first_offset": whole.map(OffsetSpan::base),
            "last_offset": whole.map(OffsetSpan::last),
            "batches": contents.batches(),
            "batch_bytes": contents.batch_bytes(),
            "ranges": ranges.collect::<Vec<_>>(),
        })
    };
    let topic = |listed: &Listed| {
        json!({
            "name": listed.name,
            "id": listed.topic_id.to_string(),
            "partitions": listed.partitions.iter().map(partition).collect::<Vec<Value>>(),
        })
    };
    let object = json!({
        "path": mount.path().display().to_string(),
        "topics": topics.iter().map(topic).collect::<Vec<Value>>(),
    });
    writeln!(io::stdout().lock(), "{object}")
}

fn print_text(topics: &[Listed], is_plain: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if topics.is_empty() {
        writeln!(out, "nothing is cached here")?;
    }
    for listed in topics {
        writeln!(out, "{}", listed.title())?;
        for (index, contents) in &listed.partitions {
            let ranges = contents.ranges();
            let Some(whole) = whole(&ranges) else { continue };
            writeln!(
                out,
                "{index:>6} [{}] {}..{}  {} batches, {}",
                bar(whole, &ranges, is_plain),
                whole.base(),
                whole.last(),
                contents.batches(),
                ByteSize(contents.batch_bytes()).display().iec(),
            )?;
            if ranges.len() > 1 {
                writeln!(out, "{:>6} {}", "", words(&ranges))?;
            }
        }
    }
    Ok(())
}

fn words(ranges: &[OffsetSpan]) -> String {
    let shown = ranges.iter().take(RANGES_SHOWN);
    let shown = shown.map(|range| format!("{}..{}", range.base(), range.last()));
    let words = shown.collect::<Vec<_>>().join(", ");
    match ranges.len().saturating_sub(RANGES_SHOWN) {
        0 => words,
        more => format!("{words} and {more} more"),
    }
}
