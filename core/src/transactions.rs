//! What readers of committed data may see: aborted transactions by range (H2).

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::offset::OffsetSpan;
use crate::wire::{AbortedTransaction, RecordBatch, TaggedFields};

/// An aborted transaction and where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// The producer whose transaction it is.
    pub producer_id: i64,
    /// The offset of its first record.
    pub first_offset: i64,
    /// The offset of its marker; `None` while all that is known is that it lies beyond the batch.
    pub marker_offset: Option<i64>,
}

impl Aborted {
    fn is_same(&self, other: &Self) -> bool {
        (self.producer_id, self.first_offset) == (other.producer_id, other.first_offset)
    }
}

/// The aborted transactions that touch one cached batch or the gap in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AbortedInBatch {
    /// The batch came in an answer for uncommitted data, which says nothing of transactions, or before it was stable.
    Unknown,
    /// The batch is stable and of no transaction, so that its records are for all readers whatever is aborted around it.
    Plain,
    /// There is none.
    None,
    /// These, in the order in which the broker gave them.
    Some(Arc<[Aborted]>),
}

/// An [`AbortedInBatch`] without its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AbortedState {
    /// Nothing is known of them.
    Unknown,
    /// They do not matter to the batch.
    Plain,
    /// There are so many.
    Known { count: u16 },
    /// There were so many, and the record still says so; a new leader may decide otherwise.
    Forgotten { count: u16 },
}

impl AbortedState {
    /// Whether readers of committed data may be given the batch, once it is stable.
    pub(crate) fn is_known(self) -> bool {
        matches!(self, Self::Plain | Self::Known { .. })
    }

    /// Without what a new leader may decide otherwise.
    pub(crate) fn forgotten(self) -> Self {
        match self {
            Self::Known { count } => Self::Forgotten { count },
            other => other,
        }
    }

    /// Memory that their list takes beside the batch, in bytes.
    pub(crate) fn size_bytes(self) -> u64 {
        match self {
            Self::Unknown | Self::Plain | Self::Forgotten { .. } | Self::Known { count: 0 } => 0,
            Self::Known { count } => LIST_BYTES + u64::from(count) * size_of::<Aborted>() as u64,
        }
    }
}

/// Memory of a list beside what is in it: its counters and its place in a map.
const LIST_BYTES: u64 = 64;

/// Aborted transactions that one batch can have; where there are more, none is known.
pub(crate) const ABORTED_MAX: u16 = i16::MAX as u16 - 1;

impl AbortedInBatch {
    pub(crate) fn state(&self) -> AbortedState {
        match self {
            Self::Unknown => AbortedState::Unknown,
            Self::Plain => AbortedState::Plain,
            Self::None => AbortedState::Known { count: 0 },
            Self::Some(list) => u16::try_from(list.len())
                .ok()
                .filter(|count| *count <= ABORTED_MAX)
                .map_or(AbortedState::Unknown, |count| AbortedState::Known { count }),
        }
    }

    /// The transactions, none if nothing is known.
    pub(crate) fn as_slice(&self) -> &[Aborted] {
        match self {
            Self::Unknown | Self::Plain | Self::None => &[],
            Self::Some(list) => list,
        }
    }
}

/// The transactions that an answer for committed data names, with the markers that the same answer holds.
pub(crate) fn with_markers(listed: &[AbortedTransaction], batches: &[RecordBatch<'_>]) -> Vec<Aborted> {
    let marker_of = |transaction: &AbortedTransaction| {
        // A producer has one transaction open at a time, so its first marker from there on ends this one.
        batches.iter().find_map(|batch| {
            let ends = batch.is_control()
                && batch.producer_id() == transaction.producer_id
                && batch.base_offset() > transaction.first_offset;
            ends.then(|| batch.base_offset())
        })
    };
    let aborted = |transaction: &AbortedTransaction| Aborted {
        producer_id: transaction.producer_id,
        first_offset: transaction.first_offset,
        marker_offset: marker_of(transaction),
    };
    listed.iter().map(aborted).collect()
}

/// Those of `aborted` that touch a batch that covers `covers`.
pub(crate) fn touching(aborted: &[Aborted], covers: OffsetSpan) -> AbortedInBatch {
    let touches = |each: &&Aborted| {
        each.first_offset <= covers.last() && each.marker_offset.is_none_or(|end| end >= covers.base())
    };
    let list: Vec<Aborted> = aborted.iter().filter(touches).copied().collect();
    match list.len() {
        0 => AbortedInBatch::None,
        count if count <= usize::from(ABORTED_MAX) => AbortedInBatch::Some(list.into()),
        _ => AbortedInBatch::Unknown,
    }
}

/// The producer whose transaction a batch ends, if it is a marker.
fn ended_by(batch: &[u8]) -> Option<i64> {
    let batch = RecordBatch::parse(batch).ok()?;
    batch.is_control().then(|| batch.producer_id())
}

/// What is aborted in a run of batches that a reader of committed data gets.
#[derive(Debug, Default)]
pub(crate) struct AbortedInRun {
    /// The lists of the batches that have one.
    lists: Vec<Arc<[Aborted]>>,
    /// What has to go on, or to end, in the last batch that tells of transactions: the place of its list, and the
    /// producer whose transaction the batch itself ends, if it is a marker.
    open: Option<(usize, Option<i64>)>,
}

impl AbortedInRun {
    /// Whether the run may go on with a batch. Not if a transaction has ended without its marker in the run, which the
    /// cleaner may have removed: a reader would go on dropping what the producer has written since.
    pub(crate) fn may_go_on_with(&self, next: &AbortedInBatch) -> bool {
        let Some((last, ends)) = self.open else {
            return true;
        };
        let goes_on = |each: &Aborted| next.as_slice().iter().any(|other| other.is_same(each));
        *next == AbortedInBatch::Plain
            || self.lists.get(last).is_none_or(|open| {
                open.iter()
                    .all(|each| ends == Some(each.producer_id) || goes_on(each))
            })
    }

    /// Takes the next batch in. As long as it is not read the run may go on with anything; it is looked at again then.
    pub(crate) fn push(&mut self, aborted: AbortedInBatch, batch: Option<&[u8]>) {
        match aborted {
            AbortedInBatch::Plain => {}
            // Mostly so, and then nothing is to be ended, and nothing to be kept.
            AbortedInBatch::Unknown | AbortedInBatch::None => self.open = None,
            AbortedInBatch::Some(list) => {
                self.open = batch.map(|batch| (self.lists.len(), ended_by(batch)));
                self.lists.push(list);
            }
        }
    }

    /// The list that a reader gets from `fetch_offset` on: every aborted transaction that touches the run, once, in the
    /// order of the markers; no other, because a reader would then drop committed records of the same producer.
    pub(crate) fn list(&self, fetch_offset: i64) -> Vec<AbortedTransaction> {
        let mut run: Vec<Aborted> = Vec::new();
        for each in self.lists.iter().flat_map(|list| list.iter()) {
            match run.iter_mut().find(|known| known.is_same(each)) {
                // A later answer may have shown the marker that an earlier one did not reach.
                Some(known) => known.marker_offset = known.marker_offset.or(each.marker_offset),
                None => run.push(*each),
            }
        }
        run.retain(|each| each.marker_offset.is_none_or(|marker| marker >= fetch_offset));
        run.sort_by_key(|each| each.marker_offset.unwrap_or(i64::MAX));
        run.iter()
            .map(|each| AbortedTransaction {
                producer_id: each.producer_id,
                first_offset: each.first_offset,
                unknown_tags: TaggedFields::default(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn aborted(producer_id: i64, first_offset: i64, marker_offset: Option<i64>) -> Aborted {
        Aborted {
            producer_id,
            first_offset,
            marker_offset,
        }
    }

    fn span(base: i64, last: i64) -> OffsetSpan {
        OffsetSpan::new(base, last).unwrap()
    }

    fn run_of(batches: &[AbortedInBatch]) -> AbortedInRun {
        let mut run = AbortedInRun::default();
        for batch in batches {
            run.push(batch.clone(), None);
        }
        run
    }

    #[test]
    fn a_transaction_that_ended_before_the_fetch_offset_is_not_listed() {
        let all = [aborted(1, 0, Some(10)), aborted(2, 5, Some(30))];
        let batches = [touching(&all, span(8, 12)), touching(&all, span(13, 20))];
        let from = |offset| {
            let list = run_of(&batches).list(offset);
            list.iter().map(|each| each.producer_id).collect::<Vec<_>>()
        };
        assert_eq!(from(8), [1, 2]);
        assert_eq!(from(10), [1, 2]);
        assert_eq!(from(11), [2]);
    }

    #[test]
    fn the_list_stands_in_the_order_of_the_markers_and_names_each_once() {
        let all = [aborted(2, 5, Some(30)), aborted(1, 0, None)];
        let later = [aborted(1, 0, Some(25))];
        let batches = [touching(&all, span(0, 9)), touching(&later, span(10, 26))];
        let list = run_of(&batches).list(0);
        assert_eq!(
            list.iter().map(|each| each.producer_id).collect::<Vec<_>>(),
            vec![1, 2]
        );
    }
}
