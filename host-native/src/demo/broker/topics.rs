//! The topics of the broker, by name and by id.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use kachet_core::offset::OffsetSpan;
use kachet_core::wire::{TopicId, TopicRef};

use super::LogError;
use super::log::PartitionLog;

/// The longest name that Kafka allows, in bytes.
const NAME_LIMIT_BYTES: usize = 249;

/// A topic and its logs; the index of a log is the partition's.
pub(super) struct Topic {
    pub(super) id: TopicId,
    pub(super) partitions: Vec<PartitionLog>,
}

impl Topic {
    pub(super) fn partition(&self, partition: i32) -> Option<&PartitionLog> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }
}

/// Every topic of the cluster.
pub(super) struct Topics {
    by_name: BTreeMap<String, Topic>,
    names: HashMap<TopicId, String>,
    log_limit_bytes: u64,
}

impl Topics {
    pub(super) fn new(log_limit_bytes: u64) -> Self {
        Self {
            by_name: BTreeMap::new(),
            names: HashMap::new(),
            log_limit_bytes,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Topic)> {
        self.by_name.iter().map(|(name, topic)| (name.as_str(), topic))
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&Topic> {
        self.by_name.get(name)
    }

    /// The topic with this id, and its name.
    pub(super) fn by_id(&self, id: TopicId) -> Option<(&str, &Topic)> {
        let name = self.names.get(&id)?;
        Some((name, self.by_name.get(name)?))
    }

    pub(super) fn find(&self, topic: &TopicRef) -> Option<&Topic> {
        match topic {
            TopicRef::Name(name) => self.by_name(name.as_str()),
            TopicRef::Id(id) => self.by_id(*id).map(|(_, topic)| topic),
        }
    }

    pub(super) fn create(&mut self, name: &str, partitions: u16) -> Result<TopicId, LogError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let good = (1..=NAME_LIMIT_BYTES).contains(&name.len()) && name.bytes().all(legal);
        if !good || matches!(name, "." | "..") || partitions == 0 {
            return Err(LogError::InvalidTopic {
                name: name.into(),
                partitions,
            });
        }
        if self.by_name.contains_key(name) {
            return Err(LogError::TopicExists { name: name.into() });
        }
        let id = self.fresh_id();
        let partitions = (0..partitions).map(|_| PartitionLog::new()).collect();
        self.by_name.insert(name.into(), Topic { id, partitions });
        self.names.insert(id, name.into());
        Ok(id)
    }

    /// A random (version 4) UUID, as Kafka's ids are, so that a topic created again gets another one.
    fn fresh_id(&self) -> TopicId {
        loop {
            let random = fastrand::u128(..).to_be_bytes();
            let id = TopicId(uuid::Builder::from_random_bytes(random).into_uuid().into_bytes());
            if !self.names.contains_key(&id) {
                return id;
            }
        }
    }

    pub(super) fn delete(&mut self, name: &str) -> Result<(), LogError> {
        let topic = self
            .by_name
            .remove(name)
            .ok_or_else(|| LogError::UnknownTopic { name: name.into() })?;
        self.names.remove(&topic.id);
        Ok(())
    }

    pub(super) fn log(&mut self, name: &str, partition: i32) -> Result<&mut PartitionLog, LogError> {
        let topic = self
            .by_name
            .get_mut(name)
            .ok_or_else(|| LogError::UnknownTopic { name: name.into() })?;
        let index = usize::try_from(partition).ok();
        let log = index.and_then(|index| topic.partitions.get_mut(index));
        log.ok_or_else(|| LogError::UnknownPartition {
            name: name.into(),
            partition,
        })
    }

    pub(super) fn append(
        &mut self,
        name: &str,
        partition: i32,
        batch: Bytes,
    ) -> Result<OffsetSpan, LogError> {
        let logs = self.by_name.values().flat_map(|topic| &topic.partitions);
        let held: u64 = logs.map(PartitionLog::size_bytes).sum();
        let limit_bytes = self.log_limit_bytes;
        if held.saturating_add(batch.len() as u64) > limit_bytes {
            return Err(LogError::Full { limit_bytes });
        }
        self.log(name, partition)?.append(batch)
    }
}
