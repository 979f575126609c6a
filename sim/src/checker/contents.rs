//! The batches of an answer: each lay in the log to the byte, lately enough, and nothing between them is left out.

use kachet::core::wire::{BatchEntry, Batches, FetchPartition, PartitionData, RecordBytes, TopicRef};

use super::{Case, Finding};
use crate::partition::{Fact, Partition};

/// The records of one partition of an answer.
pub(super) struct Contents<'a> {
    pub(super) bytes: usize,
    /// The whole batches, as far as they are known.
    pub(super) batches: Vec<&'a Fact>,
    /// Bytes of the cut batch at the end.
    pub(super) tail: usize,
    /// The first offset behind the last whole batch.
    pub(super) end: Option<i64>,
    pub(super) findings: Vec<Finding>,
}

/// Looks every batch of a partition up in the history.
pub(super) fn read<'a>(case: &'a Case<'_>, topic: &TopicRef, data: &PartitionData) -> Contents<'a> {
    let records = data
        .records
        .as_ref()
        .map(RecordBytes::to_bytes)
        .unwrap_or_default();
    let mut contents = Contents {
        bytes: records.len(),
        batches: Vec::new(),
        tail: 0,
        end: None,
        findings: Vec::new(),
    };
    let index = data.partition_index;
    let histories: Vec<&Partition> = case
        .topics(topic)
        .filter_map(|topic| topic.partition(index))
        .collect();
    let mut told = Vec::new();
    let mut walk = Batches::new(&records);
    for entry in walk.by_ref() {
        let Ok(BatchEntry::Batch(batch)) = entry else {
            contents
                .findings
                .push(("bytes", format!("{topic:?}/{index}: not a record batch")));
            return contents;
        };
        contents.end = Some(batch.last_offset() + 1);
        told.push((batch.base_offset(), batch.as_bytes()));
    }
    let rest = walk.rest();
    contents.tail = rest.len();
    let is_cut = |fact: &Fact| fact.batch.bytes.starts_with(rest);
    if !rest.is_empty() && !histories.iter().any(|history| history.facts.iter().any(is_cut)) {
        let what = format!("{topic:?}/{index}: the tail is the beginning of no batch");
        contents.findings.push(("bytes", what));
    }
    let asked = case.asked.request.partitions();
    let asked = asked
        .filter(|(of, each)| *of == topic && each.partition == index)
        .last();
    // A marker, and a batch of which the cleaner has left nothing, may be the same in two topics. Whichever topic all
    // can be of, and rightly, is taken for theirs.
    let homes = histories.iter().filter_map(|history| {
        let facts = all_of(history, &told)?;
        let mut findings: Vec<Finding> = facts
            .iter()
            .filter_map(|fact| in_time(case, topic, index, fact))
            .collect();
        if let Some((_, asked)) = asked {
            findings.extend(order(case, asked, history, &facts));
        }
        Some((findings, facts))
    });
    match homes.min_by_key(|(findings, _)| findings.len()) {
        Some((findings, facts)) => {
            contents.findings.extend(findings);
            contents.batches = facts;
        }
        None if told.is_empty() => {}
        None => contents.findings.push(homeless(topic, index, &histories, &told)),
    }
    contents
}

fn fact<'a>(history: &'a Partition, (base, bytes): (i64, &[u8])) -> Option<&'a Fact> {
    let mut facts = history.facts.iter();
    facts.find(|fact| fact.batch.base() == base && fact.batch.bytes == bytes)
}

/// What is known of every batch, if all of them lay in this log.
fn all_of<'a>(history: &'a Partition, told: &[(i64, &[u8])]) -> Option<Vec<&'a Fact>> {
    told.iter().map(|batch| fact(history, *batch)).collect()
}

/// What is wrong with batches that no log ever had together.
fn homeless(topic: &TopicRef, index: i32, histories: &[&Partition], told: &[(i64, &[u8])]) -> Finding {
    let is_unknown = |batch: &&(i64, &[u8])| histories.iter().all(|history| fact(history, **batch).is_none());
    match told.iter().find(is_unknown) {
        Some((base, _)) => (
            "bytes",
            format!("{topic:?}/{index}: no broker ever had this batch at {base}"),
        ),
        None => (
            "identity",
            format!("{topic:?}/{index}: batches of two topics of one name in one answer"),
        ),
    }
}

/// A batch may be served as long as a broker does, and by the staleness bounds longer (H4 to H7).
fn in_time(case: &Case<'_>, topic: &TopicRef, index: i32, fact: &Fact) -> Option<Finding> {
    let base = fact.batch.base();
    let finding = |rule, what: String| Some((rule, format!("{topic:?}/{index} at {base}: {what}")));
    if fact.replicated_at.is_none() {
        return finding("shape", "not replicated yet".to_owned());
    }
    let (removed_at, rewritten_at) = (
        fact.removed.unwrap_or(u64::MAX),
        fact.rewritten.unwrap_or(u64::MAX),
    );
    if removed_at < case.since {
        return finding(
            "stale",
            format!(
                "of epoch {}, removed at {removed_at} ms, due until {} ms",
                fact.batch.content.leader_epoch, case.since
            ),
        );
    }
    if rewritten_at < case.clean_since {
        let what = format!(
            "rewritten at {rewritten_at} ms, due until {} ms",
            case.clean_since
        );
        return finding("stale", what);
    }
    None
}

/// The first batch contains the offset asked for or follows the gap that it lies in; each other follows the one before it.
fn order(case: &Case<'_>, asked: &FetchPartition, history: &Partition, batches: &[&Fact]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut next = asked.fetch_offset;
    for (place, fact) in batches.iter().enumerate() {
        let (base, last) = (fact.batch.base(), fact.batch.last());
        if last < next || (place > 0 && base < next) {
            findings.push((
                "shape",
                format!("the batch {base} to {last} does not belong at {next}"),
            ));
        }
        if base > next && !was_gap(case, history, next, fact) {
            let there: Vec<_> = between(history, next, base)
                .map(|fact| fact.batch.base())
                .collect();
            let what = format!("nothing between {next} and {base}, where the log has batches at {there:?}");
            findings.push(("shape", what));
        }
        next = last + 1;
    }
    findings
}

/// Every batch that ever lay between `from` and `to`, as far as consumers could see it.
fn between(history: &Partition, from: i64, to: i64) -> impl Iterator<Item = &Fact> {
    let lies_there = move |fact: &&Fact| fact.batch.last() >= from && fact.batch.base() < to;
    let facts = history.facts.iter().filter(lies_there);
    facts.filter(|fact| fact.replicated_at.is_some())
}

/// Whether at some moment, lately enough, a leader had `following` and nothing between `from` and it.
fn was_gap(case: &Case<'_>, history: &Partition, from: i64, following: &Fact) -> bool {
    let between: Vec<&Fact> = between(history, from, following.batch.base()).collect();
    let is_there = |fact: &Fact, at: u64| {
        fact.spans
            .iter()
            .any(|(since, until)| (*since..*until).contains(&at))
    };
    // Something changed at these moments only. A deposed leader shows for a while what was before.
    let since = case.clean_since.saturating_sub(case.rumour_ms);
    let facts = between.iter().copied().chain([following]);
    let changes = facts.flat_map(|fact| fact.spans.iter().flat_map(|(from, until)| [*from, *until]));
    let mut moments = changes
        .filter(|at| (since..=case.now).contains(at))
        .chain([since]);
    moments.any(|at| is_there(following, at) && !between.iter().any(|fact| is_there(fact, at)))
}
