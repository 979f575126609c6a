//! What a consumer delivers that reads committed data, against what became of each transaction (H1, H2).

use std::collections::BTreeSet;

use kachet::core::wire::{AbortedTransaction, FetchPartition};

use super::{Case, Finding};
use crate::partition::{Fact, Fate};

/// Replays what the Java consumer makes of an answer and compares it with the truth.
pub(super) fn check(
    case: &Case<'_>,
    asked: &FetchPartition,
    aborted: &[AbortedTransaction],
    batches: &[&Fact],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut waiting: Vec<&AbortedTransaction> = aborted.iter().collect();
    waiting.sort_by_key(|each| each.first_offset);
    let mut waiting = waiting.into_iter().peekable();
    let mut dropped_producers = BTreeSet::new();
    for fact in batches {
        let content = &fact.batch.content;
        while let Some(each) = waiting.next_if(|each| each.first_offset <= content.last) {
            dropped_producers.insert(each.producer_id);
        }
        if content.commits == Some(false) {
            dropped_producers.remove(&content.producer_id);
            continue;
        }
        if !fact.batch.has_records_from(asked.fetch_offset) {
            continue;
        }
        let is_dropped = content.transactional && dropped_producers.contains(&content.producer_id);
        let told = if is_dropped {
            Fate::Dropped
        } else {
            Fate::Delivered
        };
        if !was(case, fact, told) {
            let what = format!(
                "partition {}: {told:?} the records of {} at {} to {}; in truth {:?}; told aborted {:?}",
                asked.partition,
                content.producer_id,
                content.base,
                content.last,
                fact.fates,
                aborted
                    .iter()
                    .map(|each| (each.producer_id, each.first_offset))
                    .collect::<Vec<_>>()
            );
            findings.push(("committed", what));
        }
    }
    findings
}

/// Whether a batch had this fate at some moment, lately enough.
fn was(case: &Case<'_>, fact: &Fact, fate: Fate) -> bool {
    let mut fates = fact.fates.iter();
    fates.any(|(from, until, each)| *each == fate && *from <= case.now && *until >= case.since)
}
