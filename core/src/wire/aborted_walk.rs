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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::TaggedFields;

    const TRANSACTIONAL: i16 = 0x10;
    const MARKER: i16 = 0x30;
    /// One record whose key says abort.
    const ABORT: [u8; 11] = [20, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0];

    /// The header of a batch of one offset.
    fn header(offset: i64, attributes: i16, producer_id: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(offset.to_be_bytes());
        bytes.extend(49_i32.to_be_bytes());
        bytes.extend([0, 0, 0, 0, 2, 0, 0, 0, 0]);
        bytes.extend(attributes.to_be_bytes());
        bytes.extend([0; 20]);
        bytes.extend(producer_id.to_be_bytes());
        bytes.extend([0; 6]);
        bytes.extend(1_i32.to_be_bytes());
        bytes
    }

    #[test]
    fn a_transaction_counts_from_its_first_offset_to_its_marker() {
        let listed = [(8, 20), (7, 30), (7, 10)].map(|(producer_id, first_offset)| AbortedTransaction {
            producer_id,
            first_offset,
            unknown_tags: TaggedFields::default(),
        });
        let mut walk = AbortedWalk::new(Some(&listed));
        let mut holds = |offset, attributes, producer_id| {
            let bytes = header(offset, attributes, producer_id);
            let batch = RecordBatch::parse(&bytes).unwrap();
            if attributes == MARKER {
                walk.pass_marker(&batch, &ABORT);
                return false;
            }
            walk.holds(&batch)
        };
        assert!(!holds(9, TRANSACTIONAL, 7), "it has not begun");
        assert!(holds(10, TRANSACTIONAL, 7));
        assert!(!holds(11, 0, 7), "it is of no transaction");
        assert!(!holds(12, TRANSACTIONAL, 8), "another producer's begins later");
        assert!(holds(20, TRANSACTIONAL, 8));
        assert!(!holds(21, MARKER, 7));
        assert!(!holds(22, TRANSACTIONAL, 7), "it has ended");
        assert!(holds(23, TRANSACTIONAL, 8), "another producer's goes on");
        assert!(holds(30, TRANSACTIONAL, 7), "the next one has begun");
        assert!(!holds(31, MARKER, 7));
        assert!(!holds(32, TRANSACTIONAL, 7));
    }
}
