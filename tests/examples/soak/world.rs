//! What was written where, and when it was deleted: what each read is held against.

use core::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kachet_tests::records;
use serde_json::{Value, json};

use crate::BOUND;

pub(crate) const TOPICS: usize = 4;
pub(crate) const PARTITIONS: usize = 3;
/// Faults that are told in full.
const FAULTS_KEPT: usize = 20;
/// How long brokers may go on with something after they have said that it is done, because they hear of it one after the other.
const BROKER_DELAY: Duration = Duration::from_secs(1);

/// How long a lower limit may take.
const LIMIT_DELAY: Duration = Duration::from_millis(500);

pub(crate) fn topic_name(topic: usize) -> String {
    format!("soak-{topic}")
}

/// Everything that is known, and what came of it.
pub(crate) struct World {
    topics: Vec<Mutex<Topic>>,
    right: AtomicU64,
    /// Of a topic's former life, within the bound.
    former: AtomicU64,
    excused: AtomicU64,
    wrong: AtomicU64,
    failed: AtomicU64,
    over_limit: AtomicU64,
    limit_changed_at: Mutex<Option<Instant>>,
    faults: Mutex<Vec<String>>,
}

/// A topic under one name, which stands for one life after the other.
#[derive(Clone, Default)]
pub(crate) struct Topic {
    /// Counted from 1; 0 before the first.
    pub(crate) life: u64,
    /// Since when nothing is being deleted or created; `None` while something is.
    pub(crate) settled_at: Option<Instant>,
    pub(crate) partitions: [Partition; PARTITIONS],
    /// What was written in the life before, and when that had ended by what the broker said.
    pub(crate) former: Option<([Partition; PARTITIONS], Instant)>,
}

impl Topic {
    /// Whether a cache may still give this to a read that began then: it is of the former life, which ended no longer ago than
    /// the staleness bound.
    fn may_be_former(
        &self,
        partition: usize,
        offset: i64,
        value: Option<&String>,
        began_at: Instant,
    ) -> bool {
        self.former.as_ref().is_some_and(|(partitions, ended_at)| {
            partitions[partition].value(offset).as_ref() == value
                && began_at < *ended_at + BOUND + BROKER_DELAY
        })
    }
}

#[derive(Clone, Default)]
pub(crate) struct Partition {
    pub(crate) log_start: i64,
    /// When the log start moved last.
    pub(crate) moved_at: Option<Instant>,
    /// What was written: the first offset, how many records, and their seed.
    pub(crate) written: Vec<(i64, u32, i64)>,
}

impl Partition {
    pub(crate) fn end(&self) -> i64 {
        self.written
            .last()
            .map_or(0, |(first, count, _)| first + i64::from(*count))
    }

    /// The value of the record at an offset.
    pub(crate) fn value(&self, offset: i64) -> Option<String> {
        let holds =
            |(first, count, _): &&(i64, u32, i64)| (*first..first + i64::from(*count)).contains(&offset);
        let (first, _, seed) = self.written.iter().find(holds)?;
        Some(records::value(*seed, u32::try_from(offset - first).ok()?))
    }
}

/// How a read ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Value(Option<String>),
    OutOfRange,
    Failed(String),
}

/// A read of one record: what was known before, and when.
pub(crate) struct Read {
    pub(crate) topic: usize,
    pub(crate) partition: usize,
    pub(crate) offset: i64,
    pub(crate) before: Topic,
    pub(crate) began_at: Instant,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            topics: (0..TOPICS).map(|_| Mutex::default()).collect(),
            right: AtomicU64::new(0),
            former: AtomicU64::new(0),
            excused: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            over_limit: AtomicU64::new(0),
            limit_changed_at: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    pub(crate) fn topic(&self, topic: usize) -> MutexGuard<'_, Topic> {
        self.topics[topic].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a read against what was known before it and what is known now.
    pub(crate) fn judge(&self, read: &Read, outcome: &Outcome) {
        let now = self.topic(read.topic).clone();
        let (before, after) = (
            &read.before.partitions[read.partition],
            &now.partitions[read.partition],
        );
        let is_steady = now.life == read.before.life
            && now.settled_at == read.before.settled_at
            && now
                .settled_at
                .is_some_and(|at| read.began_at >= at + BOUND + BROKER_DELAY);
        let is_gone = |partition: &Partition| read.offset < partition.log_start;
        let was_gone_long_ago = is_gone(before)
            && before
                .moved_at
                .is_none_or(|at| read.began_at >= at + BOUND + BROKER_DELAY);
        match outcome {
            Outcome::Value(value) => {
                let is_of = |partition: &Partition| partition.value(read.offset) == *value;
                if was_gone_long_ago && is_steady {
                    self.fault(&self.wrong, read, "was deleted, and is served");
                } else if is_of(after) || (is_of(before) && !is_steady) {
                    self.right.fetch_add(1, Ordering::Relaxed);
                } else if now.may_be_former(read.partition, read.offset, value.as_ref(), read.began_at) {
                    self.former.fetch_add(1, Ordering::Relaxed);
                } else {
                    self.fault(&self.wrong, read, &format!("gives {value:?}"));
                }
            }
            Outcome::OutOfRange if is_gone(after) => {
                self.right.fetch_add(1, Ordering::Relaxed);
            }
            _ if !is_steady => {
                self.excused.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::OutOfRange => self.fault(&self.failed, read, "is said to be out of range"),
            Outcome::Failed(error) => self.fault(&self.failed, read, error),
        }
    }

    /// The limit is about to change. A lower one takes a moment: what readers hold has to be let go first.
    pub(crate) fn limit_changes(&self) {
        let mut changed_at = self
            .limit_changed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *changed_at = Some(Instant::now());
    }

    /// Holds what is held against the limit.
    pub(crate) fn judge_size(&self, held: u64, limit: u64) {
        if held <= limit {
            return;
        }
        let changed_at = *self
            .limit_changed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if changed_at.is_some_and(|at| at.elapsed() < LIMIT_DELAY) {
            return;
        }
        self.over_limit.fetch_add(1, Ordering::Relaxed);
        self.tell(format!("{held} bytes are held, the limit is {limit}"));
    }

    fn fault(&self, count: &AtomicU64, read: &Read, what: &str) {
        count.fetch_add(1, Ordering::Relaxed);
        let (topic, life) = (topic_name(read.topic), read.before.life);
        let took = read.began_at.elapsed();
        self.tell(format!(
            "{topic}, life {life}, {}@{} {what} (after {took:?})",
            read.partition, read.offset
        ));
    }

    fn tell(&self, fault: String) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() < FAULTS_KEPT {
            eprintln!("{fault}");
            faults.push(fault);
        }
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn tally(&self) -> Tally {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally {
            right: get(&self.right),
            former: get(&self.former),
            excused: get(&self.excused),
            wrong: get(&self.wrong),
            failed: get(&self.failed),
            over_limit: get(&self.over_limit),
        }
    }
}

/// How many reads ended how.
pub(crate) struct Tally {
    right: u64,
    /// Of a topic's former life, within the staleness bound.
    former: u64,
    /// Failed while the topic was being deleted or created, or shortly after.
    excused: u64,
    wrong: u64,
    failed: u64,
    over_limit: u64,
}

impl Tally {
    pub(crate) fn is_well(&self) -> bool {
        self.right > 0 && self.wrong == 0 && self.failed == 0 && self.over_limit == 0
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "right": self.right,
            "former": self.former,
            "excused": self.excused,
            "wrong": self.wrong,
            "failed": self.failed,
            "over_limit": self.over_limit,
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            right,
            former,
            excused,
            wrong,
            failed,
            over_limit,
        } = self;
        write!(
            f,
            "{right} right, {former} of a former life, {excused} excused, {wrong} wrong, {failed} failed, {over_limit} over the limit; KiB held:"
        )
    }
}
