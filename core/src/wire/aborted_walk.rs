//! Which batches a reader of committed data leaves out (H2).

use alloc::vec::Vec;

use super::batch::RecordBatch;
use super::fetch_response::AbortedTransaction;
use super::record::ControlRecord;

/// Follows aborted transactions along a walk over the batches of one answer, as Kafka's own consumers do: one counts from
/// its first offset to its marker.
#[derive(Debug)]
pub struct AbortedWalk {
    /// By producer and first offset.
    transactions: Vec<Transaction>,
    /// The last offset that was walked by.
    reached: i64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Transaction {
    producer_id: i64,
    first_offset: i64,
    /// Its marker was passed. All of its producer's before it are ended as well.
    is_ended: bool,
}

impl AbortedWalk {
    /// A walk that begins in front of the first batch; `listed` is what the answer names.
    pub fn new(listed: Option<&[AbortedTransaction]>) -> Self {
        let transactions = listed.unwrap_or_default().iter().map(|listed| Transaction {
            producer_id: listed.producer_id,
            first_offset: listed.first_offset,
            is_ended: false,
        });
        let mut transactions: Vec<_> = transactions.collect();
        transactions.sort_unstable();
        Self {
            transactions,
            reached: i64::MIN,
        }
    }

    /// Those of the batch's producer that have begun by its end and are not ended.
    fn open_at(&mut self, batch: &RecordBatch<'_>) -> impl Iterator<Item = &mut Transaction> {
        self.reached = self.reached.max(batch.last_offset());
        let (producer_id, reached) = (batch.producer_id(), self.reached);
        let begun = self
            .transactions
            .partition_point(|each| (each.producer_id, each.first_offset) <= (producer_id, reached));
        let begun = self.transactions.get_mut(..begun).unwrap_or_default();
        let latest_first = begun.iter_mut().rev();
        latest_first.take_while(move |each| each.producer_id == producer_id && !each.is_ended)
    }

    /// Whether the next batch is part of an aborted transaction.
    pub fn holds(&mut self, batch: &RecordBatch<'_>) -> bool {
        self.open_at(batch).next().is_some() && batch.is_transactional()
    }

    /// Passes the next batch, a control batch whose decompressed records are `payload`.
    pub fn pass_marker(&mut self, batch: &RecordBatch<'_>, payload: &[u8]) {
        let key = batch.records(payload).find_map(|record| record.ok()?.key);
        if key.and_then(ControlRecord::from_key) == Some(ControlRecord::Abort) {
            self.open_at(batch).for_each(|each| each.is_ended = true);
        }
    }
}
