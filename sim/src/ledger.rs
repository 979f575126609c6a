//! What brokers have told so far: against it every answer of the cache is held.

use std::collections::{BTreeMap, BTreeSet};

use kachet::core::wire::{TopicId, TopicRef};

/// What one fetch brought of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Records,
    Empty,
    Error(i16),
    Redirect,
    Diverging,
    /// The answer did not mention it.
    Omitted,
    /// The whole answer was an error.
    Refused(i16),
    /// There was no answer.
    Failed,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) sent_at: u64,
    /// When it reached whoever had asked.
    pub(crate) arrived_at: u64,
    pub(crate) what: What,
}

/// Every value that brokers have named for one partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watermarks {
    pub(crate) high: BTreeSet<i64>,
    pub(crate) stable: BTreeSet<i64>,
    pub(crate) start: BTreeSet<i64>,
}

/// A fetch that is on its way.
#[derive(Clone, Debug)]
struct Flight {
    sent_at: u64,
    /// One for each partition, over everything on which its answer depends. None if nobody can join the flight.
    keys: Vec<u64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    brought: BTreeMap<(TopicRef, i32), Vec<Entry>>,
    watermarks: BTreeMap<(TopicId, i32), Watermarks>,
    flights: BTreeMap<u64, Flight>,
    next_flight: u64,
}

impl Ledger {
    pub(crate) fn note(&mut self, topic: &TopicRef, partition: i32, entry: Entry) {
        self.brought
            .entry((topic.clone(), partition))
            .or_default()
            .push(entry);
    }

    /// What was brought of a partition by fetches that were sent at `since` or later.
    pub(crate) fn brought(
        &self,
        topic: &TopicRef,
        partition: i32,
        since: u64,
    ) -> impl Iterator<Item = &Entry> {
        let entries = self.brought.get(&(topic.clone(), partition));
        entries
            .into_iter()
            .flatten()
            .filter(move |entry| entry.sent_at >= since)
    }

    pub(crate) fn watermarks_mut(&mut self, id: TopicId, partition: i32) -> &mut Watermarks {
        self.watermarks.entry((id, partition)).or_default()
    }

    pub(crate) fn watermarks(&self, id: TopicId, partition: i32) -> Option<&Watermarks> {
        self.watermarks.get(&(id, partition))
    }

    /// Notes that a fetch is on its way, and gives its number.
    pub(crate) fn depart(&mut self, sent_at: u64, keys: Vec<u64>) -> u64 {
        let number = self.next_flight;
        self.next_flight += 1;
        self.flights.insert(number, Flight { sent_at, keys });
        number
    }

    pub(crate) fn land(&mut self, flight: u64) {
        self.flights.remove(&flight);
    }

    /// Whether the same is on its way already, sent at `since` or later.
    pub(crate) fn is_on_its_way(&self, key: u64, since: u64) -> bool {
        let mut flights = self.flights.values();
        flights.any(|flight| flight.sent_at >= since && flight.keys.contains(&key))
    }
}
