//! What is known of a partition, and since when: watermarks, log start, leader epoch.

use alloc::vec::Vec;

use crate::time::{Instant, MaxStaleness};
use crate::wire::PartitionData;

/// Epochs of batches that may come between two validations at most; a partition counts for as much as they take.
pub(crate) const UNCONFIRMED_EPOCHS_LIMIT: usize = 16;

/// An epoch of batches of which no leader has said yet that they are of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnconfirmedEpoch {
    epoch: i32,
    /// When the oldest of the answers that brought them was asked for.
    asked_at: Instant,
}

/// What brokers have said of a partition. Watermarks are never invented (H10): −1 stands for unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionState {
    /// When a broker was last asked whether what is cached still stands. `None` after a sign that it may not.
    pub(crate) validated_at: Option<Instant>,
    /// No leader of an older epoch has told what is known of transactions; −1 if that is not sure. Below the epoch of the
    /// leader that told it where a request did not name that.
    pub(crate) leader_epoch: i32,
    /// The newest epoch that a leader is known to have had: a fetch that named it was answered, or Metadata told it; −1 if
    /// none is. What the batches say does not count, for the leader may be of a newer one (H9).
    pub(crate) told_epoch: i32,
    /// What was asked for from then on was answered in that epoch.
    epoch_since: Instant,
    /// Where all batches of an epoch and of older ones end, by the leader of a newer epoch (H7).
    epoch_ends: Option<EpochEnd>,
    /// In which leader's log all batches lie whose epochs are not unconfirmed; −1 as long as there has been none.
    confirmed_by: i32,
    /// Those of batches that have come since, from whichever leader.
    unconfirmed: Vec<UnconfirmedEpoch>,
    /// When the answer was asked for that reported the watermarks.
    watermarks_asked_at: Instant,
    /// The last high watermark reported.
    pub(crate) high_watermark: i64,
    /// The last stable offset reported last.
    pub(crate) last_stable_offset: i64,
    /// The highest last stable offset reported: below it nothing becomes unstable again (H1).
    pub(crate) stable_below: i64,
    /// The highest log start offset reported (H4).
    pub(crate) log_start_offset: i64,
    /// Whether the cleaner may rewrite the log (H5); assumed until a broker has said otherwise.
    pub(crate) is_compacted: bool,
}

impl PartitionState {
    /// As an answer tells it that was asked for at this moment, and given in this leader epoch, −1 if that is not known.
    pub(crate) fn new(validated_at: Instant, leader_epoch: i32) -> Self {
        Self {
            validated_at: Some(validated_at),
            leader_epoch,
            told_epoch: -1,
            epoch_since: validated_at,
            epoch_ends: None,
            confirmed_by: -1,
            unconfirmed: Vec::new(),
            watermarks_asked_at: Instant::default(),
            high_watermark: -1,
            last_stable_offset: -1,
            stable_below: -1,
            log_start_offset: -1,
            is_compacted: true,
        }
    }

    /// Of a partition of which nothing is known but that batches of it are cached. Those have to be validated, unless that
    /// is never asked for.
    pub(crate) fn restored(max_staleness: MaxStaleness) -> Self {
        Self {
            validated_at: (max_staleness == MaxStaleness::Forever).then(Instant::default),
            ..Self::new(Instant::default(), -1)
        }
    }

    /// Takes over what an answer without an error says to a request that named this epoch, −1 for none. Gives the offset from which on the log was truncated,
    /// if the high watermark went back (H7).
    ///
    /// An answer never makes the partition more validated than it was: of its batches it says nothing but those
    /// that it holds. One that was asked for before the last validation makes it less so. One that was asked for before
    /// the watermarks that are known may be older than they are, so that lower ones of it say nothing (H10); if the log
    /// was truncated in between, the next answer or validation tells.
    pub(crate) fn learn(&mut self, data: &PartitionData, named_epoch: i32, known_at: Instant) -> Option<i64> {
        self.learn_all_but_watermarks(data, named_epoch, known_at);
        if known_at < self.watermarks_asked_at {
            self.learn_of_higher_watermarks(data);
            return None;
        }
        self.watermarks_asked_at = known_at;
        let went_back = self.learn_high_watermark(data.high_watermark);
        if data.last_stable_offset >= 0 {
            self.last_stable_offset = data.last_stable_offset;
        }
        self.stable_below = self.stable_below.max(data.last_stable_offset);
        went_back
    }

    /// The same of an answer by a follower, whose log and watermarks trail the leader's: what is lower than what is known
    /// says nothing (H7, H10).
    pub(crate) fn learn_of_follower(&mut self, data: &PartitionData, named_epoch: i32, known_at: Instant) {
        self.learn_all_but_watermarks(data, named_epoch, known_at);
        self.learn_of_higher_watermarks(data);
    }

    fn learn_of_higher_watermarks(&mut self, data: &PartitionData) {
        self.high_watermark = self.high_watermark.max(data.high_watermark);
        self.last_stable_offset = self.last_stable_offset.max(data.last_stable_offset);
        // What is known to be stable may be less than that, after an election.
        self.stable_below = self.stable_below.max(data.last_stable_offset);
    }

    fn learn_all_but_watermarks(&mut self, data: &PartitionData, named_epoch: i32, known_at: Instant) {
        self.told_epoch = self.told_epoch.max(named_epoch);
        self.validated_at = self.validated_at.min(Some(known_at));
        if known_at < self.epoch_since {
            // It may have been given before the leader was elected.
            self.leader_epoch = -1;
        }
        self.log_start_offset = self.log_start_offset.max(data.log_start_offset);
    }

    fn learn_high_watermark(&mut self, high_watermark: i64) -> Option<i64> {
        if high_watermark < 0 {
            return None;
        }
        let went_back = high_watermark < self.high_watermark;
        self.high_watermark = high_watermark;
        if went_back {
            self.last_stable_offset = self.last_stable_offset.min(high_watermark);
            self.stable_below = self.stable_below.min(high_watermark);
        }
        went_back.then_some(high_watermark)
    }

    /// Whether a batch is of a branch of the log that an election has cut off. A leader that was deposed may go on
    /// giving such, and an answer of one may be late.
    pub(crate) fn is_cut_off(&self, leader_epoch: i32, last_offset: i64) -> bool {
        self.epoch_ends
            .is_some_and(|end| leader_epoch <= end.epoch && last_offset >= end.end_offset)
    }

    /// Takes over where an epoch that is over has ended: `asked_epoch`, or an older one if the log holds none of it.
    pub(crate) fn learn_epoch_end(&mut self, asked_epoch: i32, end: EpochEnd) {
        if asked_epoch < self.leader_epoch && self.epoch_ends.is_none_or(|known| known.epoch <= asked_epoch) {
            self.epoch_ends = Some(EpochEnd {
                epoch: asked_epoch,
                end_offset: end.end_offset.max(0),
            });
        }
    }

    /// Whether a leader was elected since all was learned whose log ends before what was readable then, so that markers
    /// of transactions may be gone (H2). Otherwise it holds all of them.
    pub(crate) fn lost_markers(&self, evidence: &Evidence, newest_cached_epoch: i32) -> bool {
        if (0..=self.leader_epoch).contains(&evidence.leader_epoch) {
            return false;
        }
        let agreed = if self.leader_epoch == newest_cached_epoch {
            evidence.epoch_end
        } else {
            evidence
                .end_of_older(self.leader_epoch)
                .unwrap_or(evidence.epoch_end)
        };
        self.leader_epoch < 0 || self.high_watermark < 0 || agreed.end_offset < self.high_watermark
    }

    /// Takes note of the epoch of a batch that came with an answer that was asked for at that moment. No more than `limit`
    /// may wait for the next validation: false if it is one too many.
    pub(crate) fn note_epoch(&mut self, epoch: i32, asked_at: Instant, limit: usize) -> bool {
        if let Some(known) = self.unconfirmed.iter_mut().find(|known| known.epoch == epoch) {
            known.asked_at = known.asked_at.min(asked_at);
            return true;
        }
        let has_room = self.unconfirmed.len() < limit;
        if has_room {
            self.unconfirmed.push(UnconfirmedEpoch { epoch, asked_at });
        }
        has_room
    }

    /// The epochs to ask for, so that the end of each tells whether all batches are of one leader's log: those of batches
    /// that no leader has confirmed, and that of the leader that has confirmed the others.
    pub(crate) fn epochs_in_doubt(&self) -> Vec<i32> {
        let mut epochs: Vec<i32> = self.unconfirmed.iter().map(|each| each.epoch).collect();
        if self.confirmed_by >= 0 && !epochs.contains(&self.confirmed_by) {
            epochs.push(self.confirmed_by);
        }
        epochs
    }

    /// A leader has told the ends of these epochs. Gives the moment for which that, and the answers that have come since,
    /// vouch.
    fn confirm(&mut self, leader_epoch: i32, is_told: impl Fn(i32) -> bool, asked_at: Instant) -> Instant {
        self.confirmed_by = leader_epoch;
        self.unconfirmed.retain(|each| !is_told(each.epoch));
        let others = self.unconfirmed.iter().map(|each| each.asked_at);
        others.fold(asked_at, Instant::min)
    }

    /// Takes over what a revalidation found. Gives the offset from which on the log was truncated, if it was.
    pub(crate) fn validate(
        &mut self,
        evidence: &Evidence,
        newest_cached_epoch: i32,
        asked_at: Instant,
    ) -> Option<i64> {
        let is_told = |epoch| epoch == newest_cached_epoch || evidence.end_of_older(epoch).is_some();
        let vouched_at = self.confirm(evidence.leader_epoch, is_told, asked_at);
        self.validated_at = self.validated_at.max(Some(vouched_at));
        self.told_epoch = self.told_epoch.max(evidence.leader_epoch);
        if evidence.leader_epoch != self.leader_epoch {
            self.leader_epoch = evidence.leader_epoch;
            self.epoch_since = asked_at;
        }
        self.is_compacted = evidence.is_compacted;
        self.log_start_offset = self.log_start_offset.max(evidence.log_start_offset);
        self.learn_high_watermark(evidence.high_watermark)
    }
}

/// What a broker answers when it is asked whether the cached part of a partition still stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The leader epoch, from Metadata.
    pub leader_epoch: i32,
    /// The log start offset, from ListOffsets (earliest).
    pub log_start_offset: i64,
    /// The high watermark, from ListOffsets (latest).
    pub high_watermark: i64,
    /// Whether the topic's `cleanup.policy` says compact, from DescribeConfigs; true if that is not known.
    pub is_compacted: bool,
    /// The answer to OffsetForLeaderEpoch, asked for the newest epoch that is cached.
    pub epoch_end: EpochEnd,
    /// The same for each of [`Doubtful::older_epochs`](crate::cache::Doubtful::older_epochs) that is below the leader
    /// epoch: the epoch that was asked for, and the answer.
    pub older_epoch_ends: Vec<(i32, EpochEnd)>,
}

impl Evidence {
    /// The answer for one of the older epochs.
    pub(crate) fn end_of_older(&self, epoch: i32) -> Option<EpochEnd> {
        let answers = self.older_epoch_ends.iter();
        answers
            .filter(|(asked, _)| *asked == epoch)
            .map(|(_, end)| *end)
            .next()
    }
}

/// The last epoch at or below the one asked for that the leader's log holds, and the offset at which it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch, −1 if the log holds none.
    pub epoch: i32,
    /// The first offset beyond it, −1 if the log holds none.
    pub end_offset: i64,
}
