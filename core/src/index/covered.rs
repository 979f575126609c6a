//! Which offsets are covered, as runs.

use alloc::vec::Vec;

use super::{PartitionIndex, Place};
use crate::offset::OffsetSpan;

/// Runs of covered offsets, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Covered {
    /// In ascending order; they do not touch each other.
    pub(crate) runs: Vec<OffsetSpan>,
    /// How many batches were looked at.
    pub(crate) batches: usize,
    /// Behind what was looked at; `None` at the end.
    pub(crate) next: Option<i64>,
}

impl Covered {
    fn add(&mut self, covers: OffsetSpan) {
        let joined = self
            .runs
            .last()
            .filter(|run| run.last().checked_add(1) == Some(covers.base()))
            .and_then(|run| OffsetSpan::new(run.base(), covers.last()));
        match (joined, self.runs.last_mut()) {
            (Some(longer), Some(run)) => *run = longer,
            _ => self.runs.push(covers),
        }
    }
}

impl PartitionIndex {
    /// The runs of covered offsets, in order.
    pub(crate) fn covered(&self) -> Vec<OffsetSpan> {
        self.covered_from(i64::MIN, usize::MAX).runs
    }

    /// The runs that `batches_max` batches cover, from the one on that holds `offset` or is next behind it.
    pub(crate) fn covered_from(&self, offset: i64, batches_max: usize) -> Covered {
        let mut covered = Covered::default();
        let Some(Place { chunk: first, at }) = self.first_from(offset) else {
            return covered;
        };
        let mut skipped = at;
        for chunk in self.chunks.get(first..).unwrap_or_default() {
            for at in skipped..chunk.len() {
                let Some(covers) = chunk.covers(at) else { continue };
                if covered.batches == batches_max {
                    covered.next = Some(covers.base());
                    return covered;
                }
                covered.add(covers);
                covered.batches += 1;
            }
            skipped = 0;
        }
        covered
    }
}
