//! One replica's log: batches in segments, epochs, and the index of aborted transactions, with the rules of a broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::batch::Batch;

/// Names a batch in the history of its partition.
pub(crate) type FactId = usize;

/// A batch, and its place in the partition's history.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) fact: FactId,
    pub(crate) batch: Arc<Batch>,
}

/// A transaction that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) producer_id: i64,
    pub(crate) first: i64,
    pub(crate) marker: i64,
    pub(crate) aborted: bool,
}

/// An entry of a broker's transaction index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Indexed {
    pub(crate) producer_id: i64,
    pub(crate) first: i64,
    pub(crate) marker: i64,
    /// The last stable offset right after the marker: behind it the search may end.
    stable: i64,
}

/// How much a read may give.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadLimit {
    pub(crate) bytes: usize,
    pub(crate) first_whole: bool,
    pub(crate) cut_tail: bool,
    /// The first offset that this reader may not see.
    pub(crate) below: i64,
}

/// What a read gave.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadOut {
    pub(crate) slices: Vec<Bytes>,
    pub(crate) bytes: usize,
    /// The first offset behind the last whole batch.
    pub(crate) end: i64,
    /// The first offset behind the segment that was read.
    pub(crate) segment_end: i64,
}

#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) entries: Vec<Entry>,
    /// The first offsets of the segments, ascending; never empty.
    pub(crate) segments: Vec<i64>,
    pub(crate) start: i64,
    pub(crate) high_watermark: i64,
    pub(crate) end: i64,
    /// Epochs with the offsets at which they begin, ascending; never empty.
    pub(crate) epochs: Vec<(i32, i64)>,
    /// Open transactions: producer and first offset.
    pub(crate) open: BTreeMap<i64, i64>,
    pub(crate) ended: Vec<Ended>,
    pub(crate) index: Vec<Indexed>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self {
            entries: Vec::new(),
            segments: vec![0],
            start: 0,
            high_watermark: 0,
            end: 0,
            epochs: vec![(0, 0)],
            open: BTreeMap::new(),
            ended: Vec::new(),
            index: Vec::new(),
        }
    }

    pub(crate) fn leader_epoch(&self) -> i32 {
        self.epochs.last().map_or(0, |(epoch, _)| *epoch)
    }

    /// The last stable offset as a replica sees it that knows of `high_watermark`.
    pub(crate) fn last_stable_offset(&self, high_watermark: i64) -> i64 {
        let open = self.open.values().copied();
        // A transaction whose marker is not replicated yet counts as open.
        let ended = self.ended.iter().filter(|each| each.marker >= high_watermark);
        let unstable = open.chain(ended.map(|each| each.first)).min();
        unstable.map_or(high_watermark, |first| first.min(high_watermark))
    }

    pub(crate) fn append(&mut self, fact: FactId, batch: Arc<Batch>) {
        let content = &batch.content;
        self.end = content.last + 1;
        match content.commits {
            Some(commits) => {
                let (producer_id, marker) = (content.producer_id, content.base);
                if let Some(first) = self.open.remove(&producer_id) {
                    let aborted = !commits;
                    self.ended.push(Ended {
                        producer_id,
                        first,
                        marker,
                        aborted,
                    });
                    let stable = self.open.values().copied().min().unwrap_or(self.end);
                    if aborted {
                        self.index.push(Indexed {
                            producer_id,
                            first,
                            marker,
                            stable,
                        });
                    }
                }
            }
            None if content.transactional => {
                self.open.entry(content.producer_id).or_insert(content.base);
            }
            None => {}
        }
        self.entries.push(Entry { fact, batch });
    }

    /// Begins a new segment at the end.
    pub(crate) fn roll(&mut self) {
        if self.segments.last().is_some_and(|base| *base < self.end) {
            self.segments.push(self.end);
        }
    }

    pub(crate) fn begin_epoch(&mut self, epoch: i32) {
        // An epoch under which nothing was appended leaves no trace.
        let end = self.end;
        self.epochs.retain(|(_, start)| *start < end);
        self.epochs.push((epoch, end));
    }

    /// Loses everything from `offset` on, which is where a batch begins or the log ends.
    pub(crate) fn truncate(&mut self, offset: i64) {
        self.entries.retain(|entry| entry.batch.last() < offset);
        self.end = offset;
        self.start = self.start.min(offset);
        self.high_watermark = self.high_watermark.min(offset);
        self.epochs.retain(|(_, start)| *start < offset);
        let first = self.segments[0];
        self.segments.retain(|base| *base < offset || *base == first);
        self.open.retain(|_, first| *first < offset);
        // A transaction that has lost its marker is open again.
        for lost in self
            .ended
            .iter()
            .filter(|each| each.marker >= offset && each.first < offset)
        {
            let first = self.open.entry(lost.producer_id).or_insert(lost.first);
            *first = lost.first.min(*first);
        }
        self.ended.retain(|each| each.marker < offset);
        self.index.retain(|each| each.marker < offset);
    }

    /// Moves the log start. Segments that end below it go as a whole; what is left of the others below the start is not
    /// served, except for the batch that the start lies in.
    pub(crate) fn move_start(&mut self, start: i64) {
        self.start = self.start.max(start);
        while self.segments.len() > 1 && self.segments[1] <= self.start {
            self.segments.remove(0);
        }
        let first = self.segments[0];
        self.entries.retain(|entry| entry.batch.last() >= first);
        self.index.retain(|each| each.marker >= first);
        let start = self.start;
        self.high_watermark = self.high_watermark.max(start);
    }

    /// The place of the batch that contains `offset`, or else of the next one.
    pub(crate) fn position(&self, offset: i64) -> usize {
        self.entries.partition_point(|entry| entry.batch.last() < offset)
    }

    pub(crate) fn available_bytes(&self, offset: i64, below: i64) -> usize {
        let from = self.entries[self.position(offset)..].iter();
        let visible = from.take_while(|entry| entry.batch.last() < below);
        visible.map(|entry| entry.batch.bytes.len()).sum()
    }

    /// The batches from `offset` on up to the end of the segment that the first of them lies in, as far as allowed.
    pub(crate) fn read(&self, offset: i64, limit: ReadLimit) -> ReadOut {
        let first = self.position(offset);
        let mut out = ReadOut {
            end: offset,
            segment_end: self.end,
            ..ReadOut::default()
        };
        let Some(begin) = self.entries.get(first).map(|entry| entry.batch.base()) else {
            return out;
        };
        if let Some(next) = self.segments.iter().find(|base| **base > begin) {
            out.segment_end = *next;
        }
        let mut left = limit.bytes;
        for entry in &self.entries[first..] {
            let batch = &entry.batch;
            if batch.last() >= limit.below || batch.base() >= out.segment_end {
                break;
            }
            let size = batch.bytes.len();
            if size > left && !(limit.first_whole && out.slices.is_empty()) {
                if limit.cut_tail && left > 0 && !out.slices.is_empty() {
                    out.slices.push(batch.bytes.slice(..left));
                    out.bytes += left;
                }
                break;
            }
            left = left.saturating_sub(size);
            out.slices.push(batch.bytes.clone());
            out.bytes += size;
            out.end = batch.last() + 1;
        }
        out
    }

    /// What the transaction index gives for a read from `offset` to `end`.
    pub(crate) fn aborted_within(&self, offset: i64, end: i64) -> Vec<Indexed> {
        let mut found = Vec::new();
        for entry in &self.index {
            if entry.marker >= offset && entry.first < end {
                found.push(*entry);
            }
            if entry.stable >= end {
                break;
            }
        }
        found
    }

    /// The greatest epoch that is not above `requested`, and the first offset beyond it (KIP-320).
    pub(crate) fn epoch_end(&self, requested: i32) -> Option<(i32, i64)> {
        if requested < 0 || requested > self.leader_epoch() {
            return None;
        }
        let after = self.epochs.partition_point(|(epoch, _)| *epoch <= requested);
        let end = self.epochs.get(after).map_or(self.end, |(_, start)| *start);
        let floor = after.checked_sub(1).and_then(|at| self.epochs.get(at));
        Some((floor.map_or(requested, |(epoch, _)| *epoch), end))
    }
}
