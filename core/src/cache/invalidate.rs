//! What a broker no longer serves stops being served: revalidation, and every way in which batches are dropped.

use alloc::vec::Vec;

use super::{Cache, Doubtful};
use crate::engine::Partition;
use crate::freshness::Evidence;
use crate::identity::PartitionKey;
use crate::offset::OffsetSpan;
use crate::storage::SegmentReader;
use crate::time::Instant;
use crate::wire::{FetchRequest, TopicId, TopicRef};

impl Partition {
    /// The epoch whose end is to be asked for beside that of the newest cached one: that of the leader that was known, or
    /// the newest but one among the cached batches, which a deposed leader may have given. −1 for none.
    pub(super) fn known_epoch(&self) -> i32 {
        let known = self.state.leader_epoch;
        if known >= 0 && known != self.index.newest_epoch() {
            return known;
        }
        let older = self.index.newest_epoch_but_one();
        if self.state.knows_end_of(older) { -1 } else { older }
    }

    /// Where cached batches begin that an election has cut off: of the known epoch or older, and beyond its end.
    fn cut_off_at(&mut self, doubtful: &Doubtful, evidence: &Evidence) -> Option<i64> {
        let ends = [
            (doubtful.newest_cached_epoch, Some(evidence.epoch_end)),
            (doubtful.known_epoch, evidence.known_epoch_end),
        ];
        for (epoch, end) in ends {
            if let Some(end) = end {
                self.state.learn_epoch_end(epoch, end);
            }
        }
        let end_offset = evidence.known_epoch_end?.end_offset.max(0);
        let (behind, _) = self.index.first_overlap(OffsetSpan::new(end_offset, i64::MAX)?)?;
        (behind.leader_epoch <= doubtful.known_epoch).then_some(end_offset)
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
                known_epoch: partition.known_epoch(),
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
        // An answer that was given meanwhile may be of another leader than the one that was known when this was asked.
        let lost_markers = partition.known_epoch() != doubtful.known_epoch
            || partition
                .state
                .lost_markers(evidence, doubtful.newest_cached_epoch);
        let truncated_at = partition.state.validate(evidence, asked_at);
        let cut_off_at = partition.cut_off_at(doubtful, evidence);
        // An end of −1 says that the log holds no such epoch: nothing cached can stand.
        let end_offset = evidence.epoch_end.end_offset.max(0);
        let newer = partition.index.first_of_newer_epoch(evidence.epoch_end.epoch);
        let diverges_at = Some(newer.unwrap_or(i64::MAX).min(end_offset));
        let log_start_offset = partition.state.log_start_offset;
        if lost_markers || truncated_at.is_some() {
            self.engine.forget_aborted(key);
        }
        for offset in [truncated_at, diverges_at, cut_off_at].into_iter().flatten() {
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
