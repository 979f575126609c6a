//! Which batches a reader of committed data leaves out (H2).

use alloc::vec::Vec;
use core::cmp::Reverse;

use hashbrown::HashSet;

use super::batch::RecordBatch;
use super::fetch_response::AbortedTransaction;
use super::record::ControlRecord;

/// Follows aborted transactions along a walk over the batches of one answer, as Kafka's own consumers do: one counts from
/// its first offset to its marker.
#[derive(Debug)]
pub struct AbortedWalk<'a> {
    /// By first offset, the nearest last.
    ahead: Vec<&'a AbortedTransaction>,
    /// Producers whose transaction at this point is aborted.
    open: HashSet<i64>,
}

impl<'a> AbortedWalk<'a> {
    /// A walk that begins in front of the first batch; `listed` is what the answer names.
    pub fn new(listed: Option<&'a [AbortedTransaction]>) -> Self {
        let mut ahead: Vec<_> = listed.unwrap_or_default().iter().collect();
        ahead.sort_by_key(|transaction| Reverse(transaction.first_offset));
        Self {
            ahead,
            open: HashSet::new(),
        }
    }

    fn advance_to(&mut self, last_offset: i64) {
        while let Some(next) = self.ahead.pop_if(|next| next.first_offset <= last_offset) {
            self.open.insert(next.producer_id);
        }
    }

    /// Whether the next batch is part of an aborted transaction.
    pub fn holds(&mut self, batch: &RecordBatch<'_>) -> bool {
        self.advance_to(batch.last_offset());
        batch.is_transactional() && self.open.contains(&batch.producer_id())
    }

    /// Passes the next batch, a control batch whose decompressed records are `payload`.
    pub fn pass_marker(&mut self, batch: &RecordBatch<'_>, payload: &[u8]) {
        self.advance_to(batch.last_offset());
        let key = batch.records(payload).find_map(|record| record.ok()?.key);
        if key.and_then(ControlRecord::from_key) == Some(ControlRecord::Abort) {
            self.open.remove(&batch.producer_id());
        }
    }
}
