//! What a broker no longer serves stops being served: revalidation, and every way in which batches are dropped.

use alloc::vec::Vec;

use super::{Cache, Doubtful};
use crate::engine::Partition;
use crate::freshness::{EpochEnd, Evidence};
use crate::identity::PartitionKey;
use crate::offset::OffsetSpan;
use crate::storage::SegmentReader;
use crate::time::Instant;
use crate::wire::{FetchRequest, TopicId, TopicRef};

impl Partition {
    /// The epochs whose ends are to be asked for beside that of the newest cached one: of what no leader has confirmed, of
    /// the leader that has confirmed the rest, and of the one that told of transactions.
    pub(super) fn older_epochs(&self) -> Vec<i32> {
        let mut epochs = self.state.epochs_in_doubt();
        epochs.push(self.state.leader_epoch);
        let newest = self.index.newest_epoch();
        epochs.retain(|epoch| *epoch >= 0 && *epoch != newest);
        epochs.sort_unstable();
        epochs.dedup();
        epochs
    }

    /// Where cached batches begin that lie outside of the log of the leader that says where an epoch ends there: beyond
    /// its end, or of an epoch of which that log holds nothing.
    fn diverges_at(&self, asked_epoch: i32, end: EpochEnd) -> Option<i64> {
        let end_offset = end.end_offset.max(0);
        let beyond = OffsetSpan::new(end_offset, i64::MAX)
            .and_then(|span| self.index.first_overlap(span))
            .filter(|(batch, _)| batch.leader_epoch <= asked_epoch)
            .map(|_| end_offset);
        let of_none = self
            .index
            .first_of_newer_epoch(end.epoch)
            .filter(|(_, epoch)| *epoch <= asked_epoch)
            .map(|(offset, _)| offset);
        beyond.into_iter().chain(of_none).min()
    }
}

impl<R: SegmentReader> Cache<R> {
    /// The partitions of `request` that hold batches and are due to be validated. The host asks upstream and
    /// passes the answer to [`Cache::validate`]; as long as it has not, one that blocks hits is a miss.
    pub fn doubtful(&self, request: &FetchRequest, now: Instant) -> Vec<Doubtful> {
        let max_staleness = self.settings.max_staleness;
        let mut doubtful = Vec::new();
        for (topic, asked) in request.partitions() {
            let Some(key) = self.key(topic, asked.partition, now) else {
                continue;
            };
            let Some(partition) = self.engine.partitions.get(&key) else {
                continue;
            };
            let validated_at = partition.state.validated_at;
            if validated_at.is_some_and(|at| !max_staleness.is_ageing(at, now)) {
                continue;
            }
            doubtful.push(Doubtful {
                key,
                topic_name: match topic {
                    TopicRef::Name(name) => Some(name.clone()),
                    TopicRef::Id(_) => None,
                },
                newest_cached_epoch: partition.index.newest_epoch(),
                older_epochs: partition.older_epochs(),
                blocks_hits: validated_at.is_none_or(|at| !max_staleness.allows(at, now)),
            });
        }
        doubtful
    }

    /// Takes over what upstream answered about a doubtful partition, and drops what it no longer serves (H4, H7).
    /// `asked_at` is the moment before the first of the questions was sent.
    pub fn validate(&mut self, doubtful: &Doubtful, evidence: &Evidence, asked_at: Instant) {
        let key = doubtful.key;
        let Some(partition) = self.engine.partitions.get_mut(&key) else {
            return;
        };
        if partition.index.newest_epoch() > doubtful.newest_cached_epoch {
            // The answer says nothing of batches of a newer epoch that have come since; the next one will.
            return;
        }
        let is_below = |epoch: i32| evidence.leader_epoch < 0 || epoch < evidence.leader_epoch;
        let unanswered = |epoch: &&i32| is_below(**epoch) && evidence.end_of_older(**epoch).is_none();
        if doubtful.older_epochs.iter().any(|epoch| unanswered(&epoch)) {
            return;
        }
        // An answer that was given meanwhile may be of another leader than the one that was known when this was asked.
        let known_epoch = partition.state.leader_epoch;
        let was_asked = known_epoch == doubtful.newest_cached_epoch
            || known_epoch == evidence.leader_epoch
            || doubtful.older_epochs.contains(&known_epoch);
        let lost_markers = !was_asked
            || partition
                .state
                .lost_markers(evidence, doubtful.newest_cached_epoch);
        let truncated_at = partition
            .state
            .validate(evidence, doubtful.newest_cached_epoch, asked_at);
        let newest = (doubtful.newest_cached_epoch, evidence.epoch_end);
        let mut cut_off_at = truncated_at;
        for (epoch, end) in evidence.older_epoch_ends.iter().copied().chain([newest]) {
            partition.state.learn_epoch_end(epoch, end);
            let diverges_at = partition.diverges_at(epoch, end);
            cut_off_at = cut_off_at.into_iter().chain(diverges_at).min();
        }
        let log_start_offset = partition.state.log_start_offset;
        if lost_markers || truncated_at.is_some() {
            self.engine.forget_aborted(key);
        }
        if let Some(offset) = cut_off_at {
            self.drop_from(key, offset);
        }
        self.drop_below(key, log_start_offset);
    }

    /// Marks a partition so that nothing of it is served before it has been validated again.
    pub(super) fn doubt(&mut self, key: PartitionKey) {
        if let Some(partition) = self.engine.partitions.get_mut(&key) {
            partition.state.validated_at = None;
        }
    }

    /// Marks every partition of a topic, as [`Self::doubt`] does.
    pub(super) fn doubt_topic(&mut self, topic_id: TopicId) {
        for (key, partition) in &mut self.engine.partitions {
            if key.topic_id == topic_id {
                partition.state.validated_at = None;
            }
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        for key in self.partitions() {
            self.forget_partition(key);
        }
        self.names.clear();
        self.engine.forget_evicted();
    }

    /// Drops what is cached of a topic, for instance because it was deleted (H6).
    pub fn forget_topic(&mut self, topic_id: TopicId) {
        for key in self.partitions() {
            if key.topic_id == topic_id {
                self.forget_partition(key);
            }
        }
        self.names.forget_topic(topic_id);
    }

    /// Drops what is cached of a partition.
    pub fn forget_partition(&mut self, key: PartitionKey) {
        self.drop_from(key, i64::MIN);
    }

    /// Drops every batch of a partition that holds an offset from `offset` on.
    pub fn drop_from(&mut self, key: PartitionKey, offset: i64) {
        self.engine.remove_where(key, |index, removed| {
            index.remove_from(offset, |batch| removed.push(*batch));
        });
    }

    /// Drops every batch of a partition that ends before `offset`.
    pub fn drop_below(&mut self, key: PartitionKey, offset: i64) {
        self.engine.remove_where(key, |index, removed| {
            index.remove_below(offset, |batch| removed.push(*batch));
        });
    }
}
