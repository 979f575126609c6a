//! A proxy that goes wrong in one way each, by which the judge is shown to see it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kachet_core::wire::{
    AbortedTransaction, BatchEntry, Batches, EpochEndOffset, FetchResponse, FetchableTopic, PartitionData,
    RecordBytes, TaggedFields, TopicRef,
};

use crate::connection::Answered;
use crate::requests::Case;

/// One way to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// One bit of a batch's records.
    FlipBit,
    /// The leader epoch in a batch's header, which no checksum covers.
    OtherEpoch,
    /// The first batch is missing.
    DropFirstBatch,
    /// One in the middle is missing.
    DropMiddleBatch,
    RepeatBatch,
    /// The batches of one partition under the name of another.
    SwapPartitions,
    /// Other batches of the same partition than those that were asked for.
    ServeEarlier,
    InventHighWatermark,
    OldHighWatermark,
    OldLogStart,
    OldStableOffset,
    /// A transaction that was aborted is not told.
    OmitAborted,
    /// One is told that was not aborted.
    InventAborted,
    NullAborted,
    AbortedForUncommitted,
    IgnoreMaxBytes,
    /// The only batch is cut.
    CutOnlyBatch,
    Empty,
    HideError,
    InventError,
    ErrorWithWatermarks,
    NullRecords,
    HideDivergence,
    InventDivergence,
    LeavePartitionOut,
    RepeatPartition,
    WrongOrder,
    TopLevelError,
    OtherSession,
    ForgetSession,
    /// A session's answer leaves out what has data.
    LeaveOutNews,
    /// A session's answer leaves out what has an error.
    LeaveOutErrors,
    /// A session's answer tells of partitions that were forgotten.
    RememberForgotten,
    AnswerEmptyAtOnce,
    Redirect,
}

impl Fault {
    /// Each with the rule by which it is to be found.
    pub(crate) const ALL: [(Self, &'static str); 34] = [
        (Self::FlipBit, "bytes (H27)"),
        (Self::OtherEpoch, "bytes (H27)"),
        (Self::DropFirstBatch, "contiguity (H11)"),
        (Self::DropMiddleBatch, "contiguity (H11)"),
        (Self::RepeatBatch, "contiguity (H11)"),
        (Self::SwapPartitions, "bytes (H27)"),
        (Self::ServeEarlier, "contiguity (H11)"),
        (Self::InventHighWatermark, "watermarks (H10)"),
        (Self::OldHighWatermark, "watermarks (H10)"),
        (Self::OldLogStart, "watermarks (H10)"),
        (Self::OldStableOffset, "watermarks (H10)"),
        (Self::OmitAborted, "committed (H2)"),
        (Self::InventAborted, "committed (H2)"),
        (Self::NullAborted, "shape"),
        (Self::AbortedForUncommitted, "shape"),
        (Self::IgnoreMaxBytes, "limits (H12)"),
        (Self::CutOnlyBatch, "limits (H12)"),
        (Self::Empty, "limits (H12)"),
        (Self::HideError, "errors (H23)"),
        (Self::InventError, "errors (H23)"),
        (Self::ErrorWithWatermarks, "shape"),
        (Self::NullRecords, "shape"),
        (Self::HideDivergence, "errors (H23)"),
        (Self::InventDivergence, "errors (H23)"),
        (Self::LeavePartitionOut, "partitions (H22)"),
        (Self::RepeatPartition, "partitions (H22)"),
        (Self::WrongOrder, "order (H12)"),
        (Self::TopLevelError, "errors (H15, H23)"),
        (Self::OtherSession, "sessions (H15)"),
        (Self::ForgetSession, "sessions (H15)"),
        (Self::LeaveOutNews, "sessions (H15)"),
        (Self::LeaveOutErrors, "sessions (H15)"),
        (Self::AnswerEmptyAtOnce, "waiting (H14)"),
        (Self::Redirect, "shape"),
    ];
}

/// Spoils answers wherever it can.
#[derive(Clone, Debug)]
pub(crate) struct Injector {
    pub(crate) fault: Fault,
    /// Earlier records of partitions.
    earlier: Arc<Mutex<HashMap<(TopicRef, i32), RecordBytes>>>,
}

impl Injector {
    pub(crate) fn of(fault: Fault) -> Self {
        Self {
            fault,
            earlier: Arc::default(),
        }
    }

    pub(crate) fn spoil(&mut self, case: &Case, answered: &mut Answered) {
        let response = &mut answered.response;
        match self.fault {
            Fault::TopLevelError => response.error_code = if response.error_code == 0 { 71 } else { 0 },
            Fault::OtherSession if response.session_id != 0 && case.request.session_epoch > 0 => {
                response.session_id ^= 2;
            }
            Fault::ForgetSession => response.session_id = 0,
            Fault::AnswerEmptyAtOnce => answered.came_at = answered.sent_at + Duration::from_micros(10),
            Fault::LeavePartitionOut if case.request.session_epoch <= 0 => {
                response.topics.pop();
            }
            Fault::RepeatPartition => response.topics.extend(response.topics.first().cloned()),
            Fault::WrongOrder => response.topics.reverse(),
            Fault::LeaveOutNews if case.request.session_epoch > 0 => {
                response
                    .topics
                    .retain(|topic| topic.partitions.iter().all(|data| data.records_size_bytes() == 0));
            }
            Fault::LeaveOutErrors if case.request.session_epoch > 0 => {
                leave_out(response, |data| data.error_code != 0);
            }
            Fault::RememberForgotten => remember(case, response),
            Fault::SwapPartitions => swap(response),
            Fault::ServeEarlier => self.serve_earlier(response),
            _ => {
                for data in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                    spoil_partition(self.fault, case, data);
                }
            }
        }
    }

    fn serve_earlier(&self, response: &mut FetchResponse) {
        let mut earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in &mut response.topics {
            for data in topic
                .partitions
                .iter_mut()
                .filter(|data| data.records_size_bytes() > 0)
            {
                let key = (topic.topic.clone(), data.partition_index);
                let Some(records) = data.records.clone() else {
                    continue;
                };
                if let Some(before) = earlier.insert(key, records) {
                    data.records = Some(before);
                }
            }
        }
    }
}

fn leave_out(response: &mut FetchResponse, what: impl Fn(&PartitionData) -> bool) {
    for topic in &mut response.topics {
        topic.partitions.retain(|data| !what(data));
    }
    response.topics.retain(|topic| !topic.partitions.is_empty());
}

fn remember(case: &Case, response: &mut FetchResponse) {
    let forgotten = case.request.forgotten_topics.iter();
    response.topics.extend(forgotten.map(|forgotten| {
        FetchableTopic {
            topic: forgotten.topic.clone(),
            partitions: forgotten
                .partitions
                .iter()
                .map(|index| PartitionData::error(*index, 3))
                .collect(),
            unknown_tags: TaggedFields::default(),
        }
    }));
}

fn swap(response: &mut FetchResponse) {
    let filled = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    let mut filled: Vec<_> = filled.filter(|data| data.records_size_bytes() > 0).collect();
    if let [first, second, ..] = filled.as_mut_slice() {
        core::mem::swap(&mut first.records, &mut second.records);
    }
}

fn spoil_partition(fault: Fault, case: &Case, data: &mut PartitionData) {
    let is_plain = data.error_code == 0 && data.diverging_epoch.is_none();
    match fault {
        Fault::HideError if data.error_code != 0 => data.error_code = 0,
        Fault::ErrorWithWatermarks if data.error_code != 0 => data.high_watermark = 5,
        Fault::HideDivergence => data.diverging_epoch = None,
        Fault::NullRecords => data.records = None,
        Fault::Redirect => data.preferred_read_replica = 2,
        _ if !is_plain => {}
        Fault::InventError => *data = PartitionData::error(data.partition_index, 1),
        Fault::InventDivergence if case.version >= 12 => {
            data.records = Some(RecordBytes::empty());
            data.diverging_epoch = Some(EpochEndOffset {
                epoch: 0,
                end_offset: 3,
                unknown_tags: TaggedFields::default(),
            });
        }
        Fault::Empty => data.records = Some(RecordBytes::empty()),
        Fault::InventHighWatermark => data.high_watermark += 1,
        Fault::OldHighWatermark => data.high_watermark -= 1,
        Fault::OldLogStart if case.version >= 5 => data.log_start_offset -= 1,
        Fault::OldStableOffset => data.last_stable_offset -= 1,
        Fault::NullAborted => data.aborted_transactions = None,
        Fault::OmitAborted => {
            if let Some(aborted) = &mut data.aborted_transactions {
                aborted.pop();
            }
        }
        Fault::AbortedForUncommitted => data.aborted_transactions = Some(Vec::new()),
        Fault::InventAborted => invent_aborted(data),
        _ => spoil_records(fault, data),
    }
}

/// Says of whoever produced the first transactional batch that it was aborted, from there on.
fn invent_aborted(data: &mut PartitionData) {
    let records = data
        .records
        .as_ref()
        .map(RecordBytes::to_bytes)
        .unwrap_or_default();
    let batches = Batches::new(&records).filter_map(|entry| match entry {
        Ok(BatchEntry::Batch(batch)) => Some(batch),
        _ => None,
    });
    let first = batches
        .into_iter()
        .find(|batch| batch.is_transactional() && !batch.is_control());
    if let (Some(aborted), Some(batch)) = (&mut data.aborted_transactions, first) {
        aborted.push(AbortedTransaction {
            producer_id: batch.producer_id(),
            first_offset: batch.base_offset(),
            unknown_tags: TaggedFields::default(),
        });
    }
}

fn spoil_records(fault: Fault, data: &mut PartitionData) {
    let records = data
        .records
        .as_ref()
        .map(RecordBytes::to_bytes)
        .unwrap_or_default();
    let mut walk = Batches::new(&records);
    let mut batches: Vec<Bytes> = Vec::new();
    let mut at = 0;
    while let Some(Ok(_)) = walk.next() {
        batches.push(records.slice(at..walk.at_byte()));
        at = walk.at_byte();
    }
    let tail = records.slice(at..);
    let count = batches.len();
    let [first, ..] = batches.as_mut_slice() else {
        return;
    };
    let again = first.clone();
    match fault {
        Fault::FlipBit => change_byte(first, |bytes| bytes.len() - 1),
        Fault::OtherEpoch => change_byte(first, |_| 15),
        Fault::DropFirstBatch if count > 1 => drop(batches.remove(0)),
        Fault::DropMiddleBatch if count > 2 => drop(batches.remove(1)),
        Fault::RepeatBatch => {
            batches.insert(0, again);
        }
        Fault::CutOnlyBatch if count == 1 => first.truncate(first.len() - 1),
        // As if the whole partition had been allowed.
        Fault::IgnoreMaxBytes if count > 1 => {
            batches = core::iter::repeat_n(again, 400).collect();
        }
        _ => return,
    }
    let mut spoiled = RecordBytes::empty();
    for batch in batches.into_iter().chain([tail]) {
        spoiled.push(batch);
    }
    data.records = Some(spoiled);
}

fn change_byte(bytes: &mut Bytes, place: impl Fn(&[u8]) -> usize) {
    let mut changed = BytesMut::from(&bytes[..]);
    let place = place(&changed);
    changed[place] ^= 1;
    *bytes = changed.freeze();
}
