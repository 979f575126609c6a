//! Topic ids by name, for Fetch versions that name topics (H6).
//!
//! A name is lent: when a topic is deleted and created again, its name stands for another id from then on, and an
//! answer under the name does not tell which of the two it is of. Ids are never used again. So such an answer is of an
//! id if the name stood for it before the request was sent, and still does, by the same broker, after the answer came.

use alloc::vec::Vec;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Cache;
use crate::storage::SegmentReader;
use crate::time::{Instant, MaxStaleness};
use crate::wire::{TopicId, TopicRef, WireStr};

/// Topic names that are remembered at most; beyond it the oldest answer is asked again.
const NAMES_LIMIT: usize = 16 * 1024;

/// The ids that names stand for, and when each was learned.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<WireStr, Alias, FixedState>);

#[derive(Clone, Copy, Debug)]
struct Alias {
    topic_id: TopicId,
    learned_at: Instant,
}

impl Names {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn forget_topic(&mut self, topic_id: TopicId) {
        self.0.retain(|_, alias| alias.topic_id != topic_id);
    }

    /// However long ago it was learned.
    pub(super) fn topic_id(&self, name: &WireStr) -> Option<TopicId> {
        self.0.get(name).map(|alias| alias.topic_id)
    }

    /// If what was learned still counts.
    pub(super) fn current(
        &self,
        name: &WireStr,
        now: Instant,
        max_staleness: MaxStaleness,
    ) -> Option<TopicId> {
        let alias = self.0.get(name)?;
        let counts = max_staleness.allows(alias.learned_at, now);
        counts.then_some(alias.topic_id)
    }

    fn make_room(&mut self) {
        if self.0.len() >= NAMES_LIMIT
            && let Some(oldest) = self.0.iter().min_by_key(|(_, alias)| alias.learned_at)
        {
            let oldest = oldest.0.clone();
            self.0.remove(&oldest);
        }
    }
}

impl<R: SegmentReader> Cache<R> {
    /// The names in `topics` whose id is unknown or was learned too long ago.
    pub fn unresolved_names<'r>(
        &self,
        topics: impl Iterator<Item = &'r TopicRef>,
        now: Instant,
    ) -> Vec<WireStr> {
        let max_staleness = self.settings.max_staleness;
        let is_unknown = |name| self.names.current(name, now, max_staleness).is_none();
        let unresolved = |topic: &'r TopicRef| match topic {
            TopicRef::Name(name) if is_unknown(name) => Some(name.clone()),
            _ => None,
        };
        topics.filter_map(unresolved).collect()
    }

    /// Says which id a topic name stands for. Another one than before drops what was cached of the old one (H6).
    pub fn learn_topic(&mut self, name: &WireStr, topic_id: TopicId, asked_at: Instant) {
        let known = self.names.0.get(name);
        if known.is_some_and(|known| known.learned_at > asked_at) {
            // Answers may overtake each other: this one is older than what is known.
            return;
        }
        if topic_id.is_zero() {
            return self.forget_name(name);
        }
        let alias = Alias {
            topic_id,
            learned_at: asked_at,
        };
        if let Some(known) = self.names.0.get_mut(name) {
            let before = core::mem::replace(known, alias);
            if before.topic_id != topic_id {
                self.forget_topic(before.topic_id);
            }
            return;
        }
        self.names.make_room();
        self.names.0.insert(name.detached(), alias);
    }

    /// Says that no topic of this name exists, and drops what was cached of it.
    pub fn forget_name(&mut self, name: &WireStr) {
        if let Some(alias) = self.names.0.remove(name) {
            self.forget_topic(alias.topic_id);
        }
    }
}
