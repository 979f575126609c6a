//! What is in the logs, as the broker itself tells it, and since when and until when.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use kachet_core::wire::{BatchEntry, Batches, ControlRecord, RecordBatch, RecordBytes, TopicId, TopicRef};

use crate::broker::Broker;

/// One content that a batch has had.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) bytes: Bytes,
    pub(crate) last_offset: i64,
    /// From when on the broker is known to have it no more.
    pub(crate) gone_at: Option<Instant>,
}

/// What the broker has told of a partition at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// When that was known.
    pub(crate) at: Instant,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable_offset: i64,
    pub(crate) log_start_offset: i64,
}

/// A partition of one incarnation of a topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// By base offset; the newest content comes last.
    pub(crate) batches: BTreeMap<i64, Vec<Version>>,
    /// In the order of time.
    pub(crate) marks: Vec<Mark>,
    /// How far it has been read.
    pub(crate) end: i64,
}

/// Something that was done to a topic, from before it began until the broker showed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) from: Instant,
    /// `None` while it is under way.
    pub(crate) until: Option<Instant>,
}

/// One incarnation of a topic.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: TopicId,
    pub(crate) partitions: i32,
    pub(crate) leader_epoch: i32,
    /// Whether nobody writes to it, cuts it or deletes it any more.
    pub(crate) is_settled: bool,
    pub(crate) is_compacted: bool,
    /// From when on the broker is known not to have it any more.
    pub(crate) deleted_at: Option<Instant>,
    pub(crate) events: Vec<Event>,
}

/// What became of the records of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Consumers of committed data are shown them.
    Shown,
    Dropped,
    /// The marker has not been read, or was removed by the cleaner.
    Unknown,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    pub(crate) topics: Vec<Topic>,
    pub(crate) logs: HashMap<(TopicId, i32), Log>,
}

impl Truth {
    /// The incarnations that a topic of a request may be: the one of the id, or all of the name.
    pub(crate) fn topics_of<'t>(&'t self, topic: &'t TopicRef) -> impl Iterator<Item = &'t Topic> {
        self.topics.iter().filter(move |each| match topic {
            TopicRef::Id(id) => each.id == *id,
            TopicRef::Name(name) => each.name == name.as_str(),
        })
    }

    pub(crate) fn topic_mut(&mut self, id: TopicId) -> Option<&mut Topic> {
        self.topics.iter_mut().find(|topic| topic.id == id)
    }

    pub(crate) fn log(&self, topic: &Topic, partition: i32) -> Option<&Log> {
        self.logs.get(&(topic.id, partition))
    }

    /// Whether something was under way with a topic between two moments, so that the broker may have answered either way.
    pub(crate) fn is_in_motion(&self, topic: &TopicRef, since: Instant, until: Instant) -> bool {
        self.topics_of(topic)
            .flat_map(|topic| &topic.events)
            .any(|event| event.from <= until && event.until.is_none_or(|until| until >= since))
    }

    /// Reads what the broker has of a partition beyond what is known; all of it anew where the cleaner may have been.
    pub(crate) async fn read_on(
        &mut self,
        broker: &mut Broker,
        id: TopicId,
        partition: i32,
        anew: bool,
    ) -> Result<()> {
        let mut found = BTreeMap::new();
        let known = self.logs.get(&(id, partition));
        let known_end = known.map_or(0, |log| log.end);
        let mut next = if anew { 0 } else { known_end };
        let (mark, from) = loop {
            let answered = broker.read(id, partition, next).await?;
            let data = answered.response.topics.first();
            let data = data
                .and_then(|topic| topic.partitions.first())
                .context("no partition")?;
            if data.error_code == 1 {
                let Some(start) = broker.log_start(id, partition).await? else {
                    return Ok(());
                };
                next = start;
                continue;
            }
            if data.error_code != 0 {
                return Ok(());
            }
            let mark = Mark {
                at: answered.came_at,
                high_watermark: data.high_watermark,
                last_stable_offset: data.last_stable_offset,
                log_start_offset: data.log_start_offset,
            };
            let records = data
                .records
                .as_ref()
                .map(RecordBytes::to_bytes)
                .unwrap_or_default();
            let mut walk = Batches::new(&records);
            let mut at = walk.at_byte();
            let mut last = None;
            while let Some(entry) = walk.next() {
                let BatchEntry::Batch(batch) = entry? else {
                    anyhow::bail!("not a record batch");
                };
                let version = Version {
                    bytes: Bytes::copy_from_slice(&records[at..walk.at_byte()]),
                    last_offset: batch.last_offset(),
                    gone_at: None,
                };
                last = Some(batch.last_offset());
                found.insert(batch.base_offset(), version);
                at = walk.at_byte();
            }
            match last {
                Some(last) => next = last + 1,
                None => break (mark, if anew { 0 } else { known_end }),
            }
        };
        self.take_in((id, partition), found, mark, from, next);
        Ok(())
    }

    fn take_in(
        &mut self,
        key: (TopicId, i32),
        found: BTreeMap<i64, Version>,
        mark: Mark,
        from: i64,
        end: i64,
    ) {
        let log = self.logs.entry(key).or_default();
        for (base, versions) in log.batches.range_mut(from..end.max(from)) {
            let newest = found.get(base).map(|version| &version.bytes);
            for version in versions.iter_mut().filter(|version| version.gone_at.is_none()) {
                if Some(&version.bytes) != newest {
                    version.gone_at = Some(mark.at);
                }
            }
        }
        for (base, version) in found {
            let versions = log.batches.entry(base).or_default();
            let is_known = versions
                .iter()
                .any(|known| known.gone_at.is_none() && known.bytes == version.bytes);
            if !is_known {
                versions.push(version);
            }
        }
        log.end = log.end.max(end);
        let place = log.marks.partition_point(|known| known.at <= mark.at);
        log.marks.insert(place, mark);
    }
}

impl Log {
    /// How many records there are now.
    pub(crate) fn records_count(&self) -> i64 {
        let living = self
            .batches
            .values()
            .flatten()
            .filter(|version| version.gone_at.is_none());
        let batches = living.filter_map(|version| RecordBatch::parse(&version.bytes).ok());
        batches.map(|batch| i64::from(batch.records_count())).sum()
    }

    /// What was known at a moment for sure.
    pub(crate) fn mark_at(&self, at: Instant) -> Option<&Mark> {
        self.marks.iter().rev().find(|mark| mark.at <= at)
    }

    pub(crate) fn newest_mark(&self) -> Option<&Mark> {
        self.marks.last()
    }

    /// The batch of the log as it is now that holds an offset, or that follows the gap in which it lies.
    pub(crate) fn first_from(&self, offset: i64) -> Option<(i64, &Version)> {
        let newest = |(base, versions): (&i64, &'_ Vec<Version>)| -> Option<(i64, usize)> {
            versions
                .iter()
                .rposition(|version| version.gone_at.is_none())
                .map(|place| (*base, place))
        };
        let before = self.batches.range(..=offset).rev().find_map(newest);
        let holds = before.filter(|(base, place)| self.batches[base][*place].last_offset >= offset);
        let after = || self.batches.range(offset..).find_map(newest);
        let (base, place) = holds.or_else(after)?;
        Some((base, &self.batches[&base][place]))
    }

    /// What became of the records of a batch, by the marker that follows it.
    pub(crate) fn fate(&self, batch: &RecordBatch<'_>) -> Fate {
        if !batch.is_transactional() {
            return Fate::Shown;
        }
        for versions in self
            .batches
            .range(batch.base_offset() + 1..)
            .map(|(_, each)| each)
        {
            let Some(version) = versions.last() else { continue };
            let Ok(later) = RecordBatch::parse(&version.bytes) else {
                continue;
            };
            if later.is_control() && later.producer_id() == batch.producer_id() {
                return match control_of(&later) {
                    Some(ControlRecord::Abort) => Fate::Dropped,
                    Some(ControlRecord::Commit) => Fate::Shown,
                    _ => Fate::Unknown,
                };
            }
        }
        Fate::Unknown
    }
}

/// What the marker in a control batch says.
pub(crate) fn control_of(batch: &RecordBatch<'_>) -> Option<ControlRecord> {
    let record = batch.records(batch.payload()).next()?.ok()?;
    record.key.and_then(ControlRecord::from_key)
}
