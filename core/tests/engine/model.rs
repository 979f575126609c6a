//! The naive model: for each partition a map of what the broker told last, and the rules in their plainest form.

use std::collections::BTreeMap;

use bytes::Bytes;
use kachet_core::cache::{EpochEnd, Evidence};
use kachet_core::offset::OffsetSpan;
use kachet_core::time::Instant;
use kachet_core::wire::PartitionData;

use crate::chain::Link;

/// A batch that the broker has told.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) covers_base: i64,
    pub(crate) base: i64,
    pub(crate) last: i64,
    pub(crate) epoch: i32,
    pub(crate) bytes: Bytes,
    /// It was stable when it was told, and is of no transaction: it stays committed whatever is forgotten of those.
    is_plain: bool,
    /// The aborted transactions are known, or do not matter to it.
    pub(crate) is_committed: bool,
    pub(crate) known_at: Instant,
    /// From which log it was told; `None` if the answer was of several.
    pub(crate) version: Option<usize>,
    /// It is there since the step that is under way, or was told anew in it.
    is_fresh: bool,
}

/// What is known of a partition.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) validated_at: Option<Instant>,
    pub(crate) leader_epoch: i32,
    /// The newest that an answer to who named it, or Metadata, has told.
    pub(crate) told_epoch: i32,
    epoch_since: Instant,
    /// Where epochs have ended: the last told, or, where the cache may have forgotten some, all.
    epoch_ends: Vec<(i32, i64)>,
    /// Epochs of what was told and of no leader has said since where they end, and when the first was asked for.
    unconfirmed: BTreeMap<i32, Instant>,
    /// When the newest answer was asked for that told watermarks.
    watermarks_asked_at: Instant,
    /// The lowest high watermark and last stable offset told since, by answers that were overtaken: what a cache that has
    /// forgotten the newest may hold.
    pub(crate) overtaken: (i64, i64),
    pub(crate) high_watermark: i64,
    pub(crate) last_stable_offset: i64,
    pub(crate) stable_below: i64,
    pub(crate) log_start_offset: i64,
    pub(crate) is_compacted: bool,
}

impl State {
    fn new(at: Instant, leader_epoch: i32) -> Self {
        Self {
            validated_at: Some(at),
            leader_epoch,
            told_epoch: -1,
            epoch_since: at,
            epoch_ends: Vec::new(),
            unconfirmed: BTreeMap::new(),
            watermarks_asked_at: at,
            overtaken: (-1, -1),
            high_watermark: -1,
            last_stable_offset: -1,
            stable_below: -1,
            log_start_offset: -1,
            is_compacted: true,
        }
    }

    /// Whether an election was told of after which markers may be gone that were known.
    fn lost_markers(&self, evidence: &Evidence) -> bool {
        let is_same_leader = (0..=self.leader_epoch).contains(&evidence.leader_epoch);
        let of_known = evidence
            .older_epoch_ends
            .iter()
            .find(|(asked, _)| *asked == self.leader_epoch);
        let end = of_known.map_or(evidence.epoch_end, |(_, end)| *end);
        let is_longer = (0..=end.end_offset).contains(&self.high_watermark);
        !(is_same_leader || self.leader_epoch >= 0 && is_longer)
    }

    fn note_epoch(&mut self, epoch: i32, at: Instant) {
        let asked_at = self.unconfirmed.entry(epoch).or_insert(at);
        *asked_at = (*asked_at).min(at);
    }

    fn epoch_ended(&mut self, epoch: i32, end_offset: i64, is_strict: bool) {
        let is_older = self.epoch_ends.iter().any(|(known, _)| *known > epoch);
        if epoch >= self.leader_epoch || is_strict && is_older {
            return;
        }
        if is_strict {
            self.epoch_ends.clear();
        }
        self.epoch_ends.push((epoch, end_offset.max(0)));
    }
}

/// Everything of a partition; none of it if nothing is cached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Partition {
    pub(crate) state: Option<State>,
    /// By last offset.
    pub(crate) facts: BTreeMap<i64, Fact>,
    /// When the last answer was asked for, and what it said of the log start.
    told_last: Option<(Instant, i64)>,
}

/// A batch as an answer tells it.
pub(crate) struct Telling<'a> {
    pub(crate) link: &'a Link,
    pub(crate) version: Option<usize>,
    pub(crate) covers_base: i64,
}

impl Partition {
    /// Takes an answer without an error over. `is_strict`: nothing is ever evicted, so that what contradicts an answer
    /// is known to be there and has to go; else it may have gone before.
    pub(crate) fn absorb(
        &mut self,
        data: &PartitionData,
        tellings: &[Telling<'_>],
        at: Instant,
        is_strict: bool,
    ) {
        for fact in self.facts.values_mut() {
            fact.is_fresh = false;
        }
        self.learn(data, at, is_strict);
        for telling in tellings {
            self.keep(telling, data, at, is_strict);
        }
        self.forget_if_empty();
        self.told_last = Some((at, data.log_start_offset));
    }

    /// If all that is there came with the last answer, everything else may have gone in between, and with it what was known
    /// of the partition.
    fn may_be_new(&mut self) {
        if self.facts.values().all(|fact| fact.is_fresh)
            && let (Some(state), Some((at, log_start_offset))) = (&mut self.state, self.told_last)
        {
            state.validated_at = state.validated_at.max(Some(at));
            state.log_start_offset = log_start_offset;
        }
    }

    fn learn(&mut self, data: &PartitionData, at: Instant, is_strict: bool) {
        let Some(state) = &mut self.state else { return };
        if at < state.epoch_since {
            state.leader_epoch = -1;
        }
        state.validated_at = state.validated_at.map(|validated| validated.min(at));
        let is_overtaken = at < state.watermarks_asked_at;
        let (mut high_watermark, mut last_stable_offset) = (data.high_watermark, data.last_stable_offset);
        if is_overtaken {
            let (lowest, lowest_stable) = state.overtaken;
            state.overtaken = (lowest.min(high_watermark), lowest_stable.min(last_stable_offset));
            // It may be older than what is known.
            high_watermark = high_watermark.max(state.high_watermark);
            last_stable_offset = last_stable_offset.max(state.last_stable_offset);
        } else {
            state.watermarks_asked_at = at;
            state.overtaken = (high_watermark, last_stable_offset);
        }
        let went_back = self.watermark(high_watermark);
        let Some(state) = &mut self.state else { return };
        state.last_stable_offset = last_stable_offset;
        state.stable_below = state.stable_below.max(data.last_stable_offset);
        state.log_start_offset = state.log_start_offset.max(data.log_start_offset);
        let log_start_offset = state.log_start_offset;
        if went_back && is_strict {
            self.forget_aborted();
        }
        self.drop_below(log_start_offset);
        self.forget_if_empty();
    }

    /// What was known of transactions may not stand. Where the cache may have heard of them anew since, it is left open.
    fn forget_aborted(&mut self) {
        for fact in self.facts.values_mut() {
            fact.is_committed &= fact.is_plain;
        }
        if let Some(state) = &mut self.state {
            state.stable_below = -1;
        }
    }

    /// Whether an election has cut a batch off of which a deposed leader tells.
    pub(crate) fn is_cut_off(&self, link: &Link) -> bool {
        let ends = self.state.iter().flat_map(|state| &state.epoch_ends);
        ends.clone()
            .any(|(epoch, end)| link.epoch <= *epoch && link.last >= *end)
    }

    /// Whether it went back.
    fn watermark(&mut self, high_watermark: i64) -> bool {
        let Some(state) = &mut self.state else {
            return false;
        };
        let went_back = high_watermark < state.high_watermark;
        state.high_watermark = high_watermark;
        state.overtaken.0 = state.overtaken.0.min(high_watermark);
        if went_back {
            state.overtaken.1 = state.overtaken.1.min(high_watermark);
            state.last_stable_offset = state.last_stable_offset.min(high_watermark);
            state.stable_below = state.stable_below.min(high_watermark);
            self.facts.retain(|last, _| *last < high_watermark);
        }
        went_back
    }

    fn keep(&mut self, telling: &Telling<'_>, data: &PartitionData, at: Instant, is_strict: bool) {
        let Telling {
            link,
            version,
            covers_base,
        } = *telling;
        if self.is_cut_off(link) {
            return;
        }
        if let Some(state) = &mut self.state {
            state.note_epoch(link.epoch, at);
        }
        let is_plain = !link.is_transactional && link.last < data.last_stable_offset;
        let mut fact = Fact {
            covers_base,
            base: link.base,
            last: link.last,
            epoch: link.epoch,
            bytes: link.bytes.clone(),
            is_plain,
            is_committed: data.aborted_transactions.is_some() || is_plain,
            known_at: at,
            version,
            is_fresh: true,
        };
        if is_strict {
            self.drop_contradicted(&fact);
        }
        if let Some(known) = self
            .facts
            .get(&link.last)
            .filter(|known| known.bytes == link.bytes)
        {
            let is_compacted = self.state.as_ref().is_none_or(|state| state.is_compacted);
            fact.covers_base = match (is_strict && is_compacted, ticks(at) >= ticks(known.known_at)) {
                // The cleaner makes gaps, and another replica may not have it: each answer vouches for its own.
                (true, true) => fact.covers_base,
                (true, false) => known.covers_base,
                (false, _) => fact.covers_base.min(known.covers_base),
            };
            if known.is_committed {
                (fact.is_committed, fact.is_plain) = (true, known.is_plain);
                // It may have gone in between, and come back with another list.
                fact.version = if is_strict {
                    known.version
                } else {
                    known.version.and(fact.version)
                };
                fact.known_at = fact.known_at.max(known.known_at);
            } else if !fact.is_committed {
                fact.known_at = fact.known_at.max(known.known_at);
            }
        }
        let looks_alike = |known: &&Fact| {
            known.base == fact.base && known.epoch == fact.epoch && known.bytes.len() == fact.bytes.len()
        };
        if let Some(known) = self
            .facts
            .get(&link.last)
            .filter(looks_alike)
            .filter(|_| !is_strict)
        {
            // A storage that does not give the batch back leaves open whether it is the same; that nothing lies in front
            // of it stands either way.
            fact.covers_base = fact.covers_base.min(known.covers_base);
        }
        self.facts
            .retain(|_, known| known.last < fact.covers_base || known.covers_base > fact.last);
        self.facts.insert(fact.last, fact);
        let state = || {
            let mut state = State::new(at, link.epoch);
            state.high_watermark = data.high_watermark;
            state.overtaken = (data.high_watermark, data.last_stable_offset);
            state.last_stable_offset = data.last_stable_offset;
            state.stable_below = data.last_stable_offset;
            state.log_start_offset = data.log_start_offset;
            state
        };
        self.state.get_or_insert_with(state).note_epoch(link.epoch, at);
    }

    /// Another epoch or other bytes at a known offset drop everything from there on; epochs never fall (H7).
    fn drop_contradicted(&mut self, new: &Fact) {
        let mut from = Vec::new();
        for known in self.facts.values() {
            let overlaps = known.covers_base <= new.last && new.covers_base <= known.last;
            if overlaps && known.bytes != new.bytes {
                from.push(known.base.min(new.base));
            }
            if known.last < new.base && known.epoch > new.epoch
                || known.covers_base > new.last && known.epoch < new.epoch
            {
                from.push(known.covers_base);
            }
        }
        if let Some(from) = from.into_iter().min() {
            self.forget_aborted();
            self.drop_from(from);
        }
        self.forget_if_empty();
    }

    pub(crate) fn validate(&mut self, evidence: &Evidence, at: Instant, is_strict: bool) {
        let Some(state) = &mut self.state else { return };
        let newest = self.facts.values().next_back().map_or(-1, |fact| fact.epoch);
        let lost_markers = state.lost_markers(evidence);
        let is_told = |epoch: i32| {
            let mut told = evidence.older_epoch_ends.iter().map(|(asked, _)| *asked);
            epoch == newest || told.any(|asked| asked == epoch)
        };
        state.unconfirmed.retain(|epoch, _| !is_told(*epoch));
        let vouched_at = state.unconfirmed.values().copied().fold(at, Instant::min);
        state.validated_at = state
            .validated_at
            .max(Some(if is_strict { vouched_at } else { at }));
        state.told_epoch = state.told_epoch.max(evidence.leader_epoch);
        if state.leader_epoch != evidence.leader_epoch {
            state.leader_epoch = evidence.leader_epoch;
            state.epoch_since = at;
        }
        for (epoch, end) in &evidence.older_epoch_ends {
            state.epoch_ended(*epoch, end.end_offset, is_strict);
        }
        state.epoch_ended(newest, evidence.epoch_end.end_offset, is_strict);
        state.is_compacted = evidence.is_compacted;
        state.log_start_offset = state.log_start_offset.max(evidence.log_start_offset);
        let log_start_offset = state.log_start_offset;
        let end = evidence.epoch_end;
        let newer = self.facts.values().filter(|fact| fact.epoch > end.epoch);
        let newer = newer.map(|fact| fact.covers_base).min();
        let went_back = self.watermark(evidence.high_watermark);
        if let Some(state) = &mut self.state {
            state.overtaken.0 = evidence.high_watermark;
        }
        if is_strict && (lost_markers || went_back) {
            self.forget_aborted();
        }
        self.drop_from(end.end_offset.max(0));
        if let Some(newer) = newer {
            self.drop_from(newer);
        }
        for (asked, end) in &evidence.older_epoch_ends {
            self.drop_diverging(*asked, *end, is_strict);
        }
        self.drop_below(log_start_offset);
        self.forget_if_empty();
    }

    /// Drops what lies outside of the leader's log: of an epoch up to the asked one and beyond its end, or of one of which
    /// there is nothing. Everything behind goes as well, if it is known that the cache holds the batch itself.
    fn drop_diverging(&mut self, asked: i32, end: EpochEnd, is_strict: bool) {
        let beyond = |fact: &Fact| fact.last >= end.end_offset;
        let diverges = |fact: &Fact| fact.epoch <= asked && (beyond(fact) || fact.epoch > end.epoch);
        if !is_strict {
            return self.facts.retain(|_, fact| !diverges(fact));
        }
        let diverging = self.facts.values().filter(|fact| diverges(fact));
        let from = |fact: &Fact| {
            if beyond(fact) {
                end.end_offset.max(fact.covers_base).min(fact.last)
            } else {
                fact.covers_base
            }
        };
        if let Some(from) = diverging.map(from).min() {
            self.drop_from(from);
        }
    }

    pub(crate) fn drop_from(&mut self, offset: i64) {
        self.facts.retain(|last, _| *last < offset);
    }

    pub(crate) fn drop_below(&mut self, offset: i64) {
        self.facts.retain(|last, _| *last >= offset);
    }

    pub(crate) fn forget_if_empty(&mut self) {
        if self.facts.is_empty() {
            self.state = None;
        }
    }

    pub(crate) fn doubt(&mut self) {
        if let Some(state) = &mut self.state {
            state.validated_at = None;
        }
    }

    /// Leaves out what the cache says that it does not hold any more. `is_told`: an answer has just been absorbed.
    pub(crate) fn shrink_to(&mut self, covered: &[OffsetSpan], is_told: bool) {
        let holds = |offset: i64| covered.iter().find(|run| run.contains(offset));
        self.facts.retain(|last, fact| match holds(*last) {
            Some(run) => {
                fact.covers_base = fact.covers_base.max(run.base());
                fact.covers_base <= fact.base
            }
            None => false,
        });
        self.forget_if_empty();
        if is_told {
            self.may_be_new();
        }
    }

    /// The runs of what is known, as a cache that has lost none of it would tell them.
    pub(crate) fn covered(&self) -> Vec<OffsetSpan> {
        let mut runs: Vec<(i64, i64)> = Vec::new();
        for fact in self.facts.values() {
            match runs.last_mut() {
                Some(run) if run.1.checked_add(1) == Some(fact.covers_base) => run.1 = fact.last,
                _ => runs.push((fact.covers_base, fact.last)),
            }
        }
        runs.into_iter()
            .map(|(base, last)| OffsetSpan::new(base, last).unwrap())
            .collect()
    }

    /// The fact that answers a fetch at `offset`.
    pub(crate) fn at(&self, offset: i64) -> Option<&Fact> {
        let (_, fact) = self.facts.range(offset..).next()?;
        (fact.covers_base <= offset).then_some(fact)
    }
}

/// The cache keeps moments in sixteenths of a second.
fn ticks(at: Instant) -> u64 {
    at.as_millis() * 16 / 1000
}
