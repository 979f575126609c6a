//! The records of one partition of an answer, against the log that they must be of.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use kachet_core::wire::{
    AbortedTransaction, BatchEntry, Batches, ControlRecord, FetchPartition, PartitionData, RecordBatch,
    RecordBytes,
};

use crate::judge::{Finding, Trial, finding};
use crate::truth::{Fate, Log, Topic, Version, control_of};

type KeyAndValue = (Vec<u8>, Vec<u8>);

/// What an answer holds of a partition.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    pub(crate) bytes: usize,
    pub(crate) whole_batches: usize,
    pub(crate) tail_bytes: usize,
}

/// A partition of an answer beside the log of one incarnation of its topic.
pub(crate) struct Contents<'a> {
    pub(crate) trial: &'a Trial<'a>,
    pub(crate) topic: &'a Topic,
    pub(crate) log: &'a Log,
    pub(crate) asked: &'a FetchPartition,
}

pub(crate) fn size_of(data: &PartitionData) -> Size {
    let records = bytes_of(data);
    let mut walk = Batches::new(&records);
    let whole_batches = walk.by_ref().take_while(Result::is_ok).count();
    Size {
        bytes: records.len(),
        whole_batches,
        tail_bytes: walk.rest().len(),
    }
}

/// The first offset behind the last whole batch.
pub(crate) fn end_of(data: &PartitionData) -> Option<i64> {
    let records = bytes_of(data);
    let batches = Batches::new(&records).map_while(Result::ok);
    let ends = batches.filter_map(|entry| match entry {
        BatchEntry::Batch(batch) => Some(batch.last_offset() + 1),
        BatchEntry::Legacy(_) => None,
    });
    ends.last()
}

fn bytes_of(data: &PartitionData) -> Bytes {
    data.records
        .as_ref()
        .map(RecordBytes::to_bytes)
        .unwrap_or_default()
}

impl Contents<'_> {
    pub(crate) fn judge(&self, data: &PartitionData) -> Vec<Finding> {
        let mut findings = Vec::new();
        let records = bytes_of(data);
        let mut batches = Vec::new();
        let mut walk = Batches::new(&records);
        let mut at = 0;
        while let Some(entry) = walk.next() {
            let Ok(BatchEntry::Batch(batch)) = entry else {
                return vec![finding("bytes (H27)", format!("no record batch at byte {at}"))];
            };
            batches.push((batch, &records[at..walk.at_byte()]));
            at = walk.at_byte();
        }
        if !batches.is_empty() && self.topic.deleted_at.is_some_and(|at| at <= self.trial.since) {
            let what = format!("records of {}, which is deleted", self.topic.id);
            findings.push(finding("stale (H6)", what));
        }
        let mut next = self.asked.fetch_offset;
        for (place, (batch, bytes)) in batches.iter().enumerate() {
            findings.extend(self.batch(batch, bytes));
            findings.extend(self.place(batch, next, place == 0));
            next = batch.last_offset() + 1;
        }
        findings.extend(self.tail(walk.rest(), next, batches.is_empty()));
        findings.extend(self.watermarks(data, (!batches.is_empty()).then_some(next)));
        if let Some(aborted) = &data.aborted_transactions {
            let batches: Vec<_> = batches.iter().map(|(batch, _)| *batch).collect();
            findings.extend(self.committed(aborted, &batches));
        }
        findings
    }

    /// To the byte what the broker has had there, lately enough (H4, H5, H27).
    fn batch(&self, batch: &RecordBatch<'_>, bytes: &[u8]) -> Option<Finding> {
        let (base, last) = (batch.base_offset(), batch.last_offset());
        let versions = self.log.batches.get(&base).map(Vec::as_slice).unwrap_or_default();
        let Some(known) = versions.iter().find(|version| version.bytes == bytes) else {
            if self.is_between_versions(batch, versions) {
                return None;
            }
            return Some(finding(
                "bytes (H27)",
                format!("the broker never had this batch {base} to {last}"),
            ));
        };
        // Which version is served when two are the same does not show; the last one counts.
        let newest = versions
            .iter()
            .rev()
            .find(|version| version.bytes == bytes)
            .unwrap_or(known);
        if newest.gone_at.is_some_and(|at| at <= self.trial.clean_since) {
            return Some(finding(
                "stale (H5)",
                format!("the batch {base} to {last} is gone for too long"),
            ));
        }
        let start = self
            .log
            .mark_at(self.trial.since)
            .map_or(-1, |mark| mark.log_start_offset);
        (last < start).then(|| {
            finding(
                "stale (H4)",
                format!("the batch {base} to {last} lies below the log start {start}"),
            )
        })
    }

    /// The cleaner may have run twice between two looks at the log. What it has left in between are records that were
    /// there before, at their offsets (H5).
    fn is_between_versions(&self, batch: &RecordBatch<'_>, versions: &[Version]) -> bool {
        if !self.topic.is_compacted || self.topic.is_settled {
            return false;
        }
        versions.iter().any(|older| {
            let Ok(older) = RecordBatch::parse(&older.bytes) else {
                return false;
            };
            let records = |batch: &RecordBatch<'_>| -> Option<HashMap<i64, KeyAndValue>> {
                let owned = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
                let records = batch.records(batch.payload());
                records
                    .map(|record| {
                        record
                            .ok()
                            .map(|record| (record.offset, (owned(record.key), owned(record.value))))
                    })
                    .collect()
            };
            let (Some(older_records), Some(these)) = (records(&older), records(batch)) else {
                return false;
            };
            older.last_offset() == batch.last_offset()
                && older.partition_leader_epoch() == batch.partition_leader_epoch()
                && these
                    .iter()
                    .all(|(offset, record)| older_records.get(offset) == Some(record))
        })
    }

    /// The first batch contains the offset or follows its gap, each other one follows the one before (H5, H11).
    fn place(&self, batch: &RecordBatch<'_>, next: i64, is_first: bool) -> Option<Finding> {
        let (base, last) = (batch.base_offset(), batch.last_offset());
        if last < next || (!is_first && base < next) {
            return Some(finding(
                "contiguity (H11)",
                format!("the batch {base} to {last} does not belong at {next}"),
            ));
        }
        let newest =
            |versions: &Vec<Version>| versions.last().is_some_and(|version| version.gone_at.is_none());
        let left_out = self.log.batches.range(..base).rev();
        let left_out = left_out
            .take_while(|(_, versions)| versions.iter().any(|version| version.last_offset >= next))
            .find(|(_, versions)| newest(versions));
        left_out.map(|(there, _)| {
            finding(
                "contiguity (H11)",
                format!("{base} to {last} comes at {next}, and {there} is left out"),
            )
        })
    }

    /// What is left of a batch for which there was no room. A batch that would be the only one is not cut (H12).
    fn tail(&self, tail: &[u8], next: i64, is_alone: bool) -> Option<Finding> {
        if tail.is_empty() {
            return None;
        }
        if is_alone {
            return Some(finding(
                "limits (H12)",
                "nothing but a part of a batch".to_owned(),
            ));
        }
        let all = self.log.batches.values().flatten();
        let is_known = all
            .filter(|version| version.last_offset >= next)
            .any(|version| version.bytes.starts_with(tail));
        (!is_known).then(|| finding("bytes (H27)", format!("the tail behind {next} is of no batch")))
    }

    /// Those that the broker has named, and not older than they may be (H10).
    fn watermarks(&self, data: &PartitionData, end: Option<i64>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut expect = |holds: bool, what: String| {
            if !holds {
                findings.push(finding("watermarks (H10)", what));
            }
        };
        let (Some(newest), floor) = (self.log.newest_mark(), self.log.mark_at(self.trial.since)) else {
            return findings;
        };
        let floor = floor.map_or((-1, -1, -1), |mark| {
            (
                mark.high_watermark,
                mark.last_stable_offset,
                mark.log_start_offset,
            )
        });
        let (high, stable, start) = (
            data.high_watermark,
            data.last_stable_offset,
            data.log_start_offset,
        );
        expect(
            (floor.0..=newest.high_watermark).contains(&high),
            format!(
                "high watermark {high}, not from {} to {}",
                floor.0, newest.high_watermark
            ),
        );
        // Fetch v4 tells none, so what it has brought is served with none until it is validated.
        let is_untold = start == -1 && self.trial.is_through_the_cache;
        if self.trial.case.version >= 5 {
            expect(
                is_untold || (floor.2..=newest.log_start_offset).contains(&start),
                format!(
                    "log start {start}, not from {} to {}",
                    floor.2, newest.log_start_offset
                ),
            );
        }
        // A hit tells the last stable offset that was told last, and validation does not ask for it (H10).
        let lowest_stable = if self.topic.is_settled { floor.1 } else { -1 };
        expect(
            (lowest_stable..=newest.last_stable_offset).contains(&stable),
            format!(
                "last stable offset {stable}, not from {lowest_stable} to {}",
                newest.last_stable_offset
            ),
        );
        expect(
            stable <= high,
            format!("last stable offset {stable} above the high watermark {high}"),
        );
        expect(
            self.asked.fetch_offset >= floor.2,
            format!("an answer below the log start {}", floor.2),
        );
        if let Some(end) = end {
            expect(
                high >= end,
                format!("high watermark {high}, and records up to {end}"),
            );
            if self.trial.is_committed() {
                expect(
                    stable >= end,
                    format!("last stable offset {stable}, and records up to {end} (H1)"),
                );
            }
        }
        findings
    }

    /// What the Java consumer makes of the list of aborted transactions, against the markers in the log (H1, H2).
    fn committed(&self, aborted: &[AbortedTransaction], batches: &[RecordBatch<'_>]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut waiting: Vec<_> = aborted.iter().collect();
        waiting.sort_by_key(|each| each.first_offset);
        let mut waiting = waiting.into_iter().peekable();
        let mut dropped_producers = BTreeSet::new();
        for batch in batches {
            while let Some(each) = waiting.next_if(|each| each.first_offset <= batch.last_offset()) {
                dropped_producers.insert(each.producer_id);
            }
            if batch.is_control() {
                if control_of(batch) == Some(ControlRecord::Abort) {
                    dropped_producers.remove(&batch.producer_id());
                }
                continue;
            }
            if batch.records_count() == 0 {
                continue;
            }
            let is_dropped = batch.is_transactional() && dropped_producers.contains(&batch.producer_id());
            let told = if is_dropped { Fate::Dropped } else { Fate::Shown };
            let fate = self.log.fate(batch);
            if fate != Fate::Unknown && fate != told {
                let what = format!(
                    "the records {} to {} are {told:?}, and in truth {fate:?}",
                    batch.base_offset(),
                    batch.last_offset()
                );
                findings.push(finding("committed (H2)", what));
            }
        }
        findings
    }
}
