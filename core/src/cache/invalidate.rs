//! What a broker no longer serves stops being served: revalidation, and every way in which batches are dropped.

use alloc::vec::Vec;

use super::{Cache, Doubtful};
use crate::freshness::Evidence;
use crate::identity::PartitionKey;
use crate::index::CachedBatch;
use crate::time::Instant;
use crate::wire::{FetchRequest, TopicId, TopicRef, WireStr};

impl Cache {
    /// The partitions of `request` that hold batches and are due to be validated. The host asks upstream and
    /// passes the answer to [`Cache::validate`]; as long as it has not, one that blocks hits is a miss.
    pub fn doubtful(&self, request: &FetchRequest, now: Instant) -> Vec<Doubtful> {
        let max_staleness = self.settings.max_staleness;
        let mut doubtful = Vec::new();
        for (topic, asked) in request.partitions() {
            let Some(key) = self.key(topic, asked.partition, now) else {
                continue;
            };
            let Some(partition) = self.partitions.get(&key) else {
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
                blocks_hits: validated_at.is_none_or(|at| !max_staleness.allows(at, now)),
            });
        }
        doubtful
    }

    /// Takes over what upstream answered about a doubtful partition, and drops what it no longer serves (H4, H7).
    /// `asked_at` is the moment before the first of the questions was sent.
    pub fn validate(&mut self, doubtful: &Doubtful, evidence: &Evidence, asked_at: Instant) {
        let key = doubtful.key;
        let Some(partition) = self.partitions.get_mut(&key) else {
            return;
        };
        if partition.index.newest_epoch() > doubtful.newest_cached_epoch {
            // The answer says nothing of batches of a newer epoch that have come since; the next one will.
            return;
        }
        let truncated_at = partition.state.validate(evidence, asked_at);
        // An end of −1 says that the log holds no such epoch: nothing cached can stand.
        let end_offset = evidence.epoch_end.end_offset.max(0);
        let newer = partition.index.first_of_newer_epoch(evidence.epoch_end.epoch);
        let diverges_at = Some(newer.unwrap_or(i64::MAX).min(end_offset));
        let log_start_offset = partition.state.log_start_offset;
        for offset in [truncated_at, diverges_at].into_iter().flatten() {
            self.drop_from(key, offset);
        }
        self.drop_below(key, log_start_offset);
    }

    /// Marks a partition so that nothing of it is served before it has been validated again.
    pub(super) fn doubt(&mut self, key: PartitionKey) {
        if let Some(partition) = self.partitions.get_mut(&key) {
            partition.state.validated_at = None;
        }
    }

    /// Marks every partition of a topic, as [`Self::doubt`] does.
    pub(super) fn doubt_topic(&mut self, topic_id: TopicId) {
        for (key, partition) in &mut self.partitions {
            if key.topic_id == topic_id {
                partition.state.validated_at = None;
            }
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        let keys: Vec<PartitionKey> = self.partitions.keys().copied().collect();
        for key in keys {
            self.forget_partition(key);
        }
        self.aliases.clear();
    }

    /// Drops what is cached of a topic, for instance because it was deleted (H6).
    pub fn forget_topic(&mut self, topic_id: TopicId) {
        let of_topic = |key: &&PartitionKey| key.topic_id == topic_id;
        let keys: Vec<PartitionKey> = self.partitions.keys().filter(of_topic).copied().collect();
        for key in keys {
            self.forget_partition(key);
        }
        let names = self
            .aliases
            .iter()
            .filter(|(_, alias)| alias.topic_id == topic_id);
        let names: Vec<WireStr> = names.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.aliases.remove(&name);
        }
    }

    /// Drops what is cached of a partition.
    pub fn forget_partition(&mut self, key: PartitionKey) {
        if let Some(partition) = self.partitions.remove(&key) {
            self.batches -= partition.index.len() as u64;
        }
        self.tidy_queue();
    }

    /// Drops every batch of a partition that holds an offset from `offset` on.
    pub fn drop_from(&mut self, key: PartitionKey, offset: i64) {
        let Some(partition) = self.partitions.get_mut(&key) else {
            return;
        };
        let dropped = partition.index.remove_from(offset);
        self.dropped(key, &dropped);
    }

    /// Drops every batch of a partition that ends before `offset`.
    pub fn drop_below(&mut self, key: PartitionKey, offset: i64) {
        let Some(partition) = self.partitions.get_mut(&key) else {
            return;
        };
        let dropped = partition.index.remove_below(offset);
        self.dropped(key, &dropped);
    }

    fn dropped(&mut self, key: PartitionKey, batches: &[CachedBatch]) {
        if batches.is_empty() {
            return;
        }
        self.batches -= batches.len() as u64;
        self.tidy_queue();
        if self
            .partitions
            .get(&key)
            .is_some_and(|partition| partition.index.is_empty())
        {
            self.partitions.remove(&key);
        }
    }

    fn tidy_queue(&mut self) {
        let partitions = &self.partitions;
        let live = usize::try_from(self.batches).unwrap_or(usize::MAX);
        self.queue.tidy(live, |queued| {
            let batch = partitions
                .get(&queued.key)
                .and_then(|p| p.index.by_last_offset(queued.last_offset));
            batch.is_some_and(|batch| batch.sequence == queued.sequence)
        });
    }
}
