//! One partition with the whole history of its log: what lay where, and from when until when brokers served it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::batch::{Batch, Content};
use crate::dice::Dice;
use crate::log::{Entry, FactId, Log};

/// What a reader of committed data makes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is not given the batch: its transaction is open, or it lies behind one that is.
    Unstable,
    /// Its records are delivered.
    Delivered,
    /// Its transaction was aborted.
    Dropped,
}

/// A batch that lay in the log, or lies there. Times are milliseconds since the start.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) batch: Arc<Batch>,
    /// When it came below the high watermark, and thus before consumers.
    pub(crate) replicated_at: Option<u64>,
    /// When the last of those that took themselves for the leader stopped serving it because it was rewritten.
    pub(crate) rewritten: Option<u64>,
    /// The same for what lay there, for any other reason.
    pub(crate) removed: Option<u64>,
    /// From when until when the leader had it for consumers; the last time is `u64::MAX` while it has.
    pub(crate) spans: Vec<(u64, u64)>,
    /// What readers of committed data make of it, from when until when. While some take a deposed leader for the leader,
    /// both what it says and what the new one says holds.
    pub(crate) fates: Vec<(u64, u64, Fate)>,
    /// What the cleaner made it from.
    earlier: Option<FactId>,
}

/// The leader before the present one, as seen by brokers that have not heard of the change yet.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) leader: i32,
    pub(crate) log: Log,
    /// Until when each broker believes in it, by node id.
    pub(crate) believed_until: Vec<u64>,
}

/// How a broker takes part in a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Role<'a> {
    pub(crate) leads: bool,
    pub(crate) log: &'a Log,
    pub(crate) high_watermark: i64,
}

#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) log: Log,
    pub(crate) facts: Vec<Fact>,
    pub(crate) leader: i32,
    /// Until when nobody leads.
    pub(crate) leaderless_until: u64,
    /// A new leader does not know the high watermark of the old one yet (KIP-207).
    pub(crate) catching_up: bool,
    pub(crate) past: Option<Past>,
    /// The high watermark that each broker knows of, by node id.
    follower_watermarks: Vec<i64>,
    /// What the cleaner has removed on the leader; other replicas may hold it still.
    vanished: Vec<Entry>,
}

impl Partition {
    pub(crate) fn new(leader: i32, brokers: usize) -> Self {
        Self {
            log: Log::new(),
            facts: Vec::new(),
            leader,
            leaderless_until: 0,
            catching_up: false,
            past: None,
            follower_watermarks: vec![0; brokers],
            vanished: Vec::new(),
        }
    }

    pub(crate) fn role(&self, broker: i32, now: u64) -> Role<'_> {
        let place = place(broker);
        if let Some(past) = &self.past
            && past.leader == broker
            && past.believed_until[place] > now
        {
            return Role {
                leads: true,
                log: &past.log,
                high_watermark: past.log.high_watermark,
            };
        }
        let leads = broker == self.leader && now >= self.leaderless_until;
        let known = if leads {
            self.log.high_watermark
        } else {
            self.follower_watermarks[place]
        };
        Role {
            leads,
            log: &self.log,
            high_watermark: known.min(self.log.high_watermark).max(self.log.start),
        }
    }

    /// The leader and its epoch as a broker's Metadata tells them.
    pub(crate) fn leader_as_told_by(&self, broker: i32, now: u64) -> (i32, i32) {
        match &self.past {
            Some(past) if past.believed_until[place(broker)] > now => (past.leader, past.log.leader_epoch()),
            _ if now < self.leaderless_until => (-1, self.log.leader_epoch()),
            _ => (self.leader, self.log.leader_epoch()),
        }
    }

    /// When what changes now has stopped being served: a deposed leader goes on for a while.
    fn gone_at(&self, now: u64) -> u64 {
        let past = self.past.as_ref();
        past.map_or(now, |past| now.max(past.believed_until[place(past.leader)]))
    }

    pub(crate) fn append(&mut self, mut content: Content, now: u64) {
        content.leader_epoch = self.log.leader_epoch();
        let fact = self.remember(Batch::new(content), None);
        let batch = Arc::clone(&self.facts[fact].batch);
        self.log.append(fact, batch);
        self.settle(now);
    }

    fn remember(&mut self, batch: Batch, earlier: Option<FactId>) -> FactId {
        self.facts.push(Fact {
            batch: Arc::new(batch),
            replicated_at: None,
            rewritten: None,
            removed: None,
            spans: Vec::new(),
            fates: Vec::new(),
            earlier,
        });
        self.facts.len() - 1
    }

    /// Moves the high watermark to the end of the log or to a batch before it, and some followers' knowledge of it.
    pub(crate) fn replicate(&mut self, dice: &mut Dice, now: u64) {
        let behind = dice.below(3).saturating_sub(1);
        let mut ends = self.log.entries.iter().rev().map(|entry| entry.batch.last() + 1);
        let reached = ends.nth(behind).unwrap_or(self.log.high_watermark);
        let reached = if behind == 0 { self.log.end } else { reached };
        self.log.high_watermark = self.log.high_watermark.max(reached);
        self.catching_up = false;
        for known in &mut self.follower_watermarks {
            if dice.chance(600) {
                *known = self.log.high_watermark;
            }
        }
        self.settle(now);
    }

    /// Another broker leads from now on; each broker believes in the old leader until its time.
    pub(crate) fn move_leader(&mut self, to: i32, believed_until: Vec<u64>, dice: &mut Dice, now: u64) {
        self.past = Some(Past {
            leader: self.leader,
            log: self.log.clone(),
            believed_until,
        });
        let epoch = self.log.leader_epoch() + 1;
        if to != self.leader {
            let known = self.follower_watermarks[place(to)].max(self.log.start);
            self.catching_up = known < self.log.high_watermark;
            self.log.high_watermark = known.min(self.log.high_watermark);
        }
        self.leader = to;
        self.log.begin_epoch(epoch);
        self.uncover(dice, now);
        self.settle(now);
    }

    /// A leader takes over that lacks everything from `offset` on.
    pub(crate) fn truncate(&mut self, offset: i64, to: i32, believed_until: Vec<u64>, now: u64) {
        self.past = Some(Past {
            leader: self.leader,
            log: self.log.clone(),
            believed_until,
        });
        let epoch = self.log.leader_epoch() + 1;
        let gone_at = self.gone_at(now);
        self.remove(gone_at, |batch| batch.last() >= offset);
        self.leader = to;
        self.catching_up = false;
        self.log.truncate(offset);
        for known in &mut self.follower_watermarks {
            *known = (*known).min(offset);
        }
        self.log.begin_epoch(epoch);
        self.settle(now);
    }

    pub(crate) fn move_start(&mut self, start: i64, now: u64) {
        self.log.move_start(start);
        let start = self.log.start;
        let gone_at = self.gone_at(now);
        self.remove(gone_at, |batch| batch.last() < start);
        self.settle(now);
    }

    /// The topic is gone; the last broker hears of it at `gone_at`.
    pub(crate) fn delete(&mut self, gone_at: u64) {
        self.remove(gone_at, |_| true);
    }

    fn remove(&mut self, gone_at: u64, concerned: impl Fn(&Batch) -> bool) {
        for fact in &mut self.facts {
            if fact.removed.is_none() && concerned(&fact.batch) {
                fact.removed = Some(gone_at);
            }
        }
        let facts = &self.facts;
        self.vanished.retain(|entry| facts[entry.fact].removed.is_none());
    }

    /// Runs the cleaner over what is committed and lies in closed segments.
    pub(crate) fn clean(&mut self, dice: &mut Dice, now: u64) {
        let stable = self.log.last_stable_offset(self.log.high_watermark);
        let below = stable.min(*self.log.segments.last().unwrap_or(&0));
        let gone_at = self.gone_at(now);
        let before = self.log.entries.clone();
        let mut kept = Vec::with_capacity(before.len());
        for entry in &before {
            if entry.batch.last() >= below || entry.batch.base() < self.log.start {
                kept.push(entry.clone());
                continue;
            }
            match self.cleaned(&entry.batch, &before, dice) {
                Cleaned::Kept => kept.push(entry.clone()),
                Cleaned::Rewritten(content) => {
                    let fact = self.rewritten(content, entry.fact);
                    self.facts[entry.fact].rewritten = Some(gone_at);
                    let batch = Arc::clone(&self.facts[fact].batch);
                    kept.push(Entry { fact, batch });
                }
                Cleaned::Vanished => {
                    self.facts[entry.fact].rewritten = Some(gone_at);
                    let marker = entry.batch.is_control().then_some(entry.batch.base());
                    self.log.index.retain(|each| Some(each.marker) != marker);
                    if !entry.batch.content.transactional {
                        self.vanished.push(entry.clone());
                    }
                }
            }
        }
        self.log.entries = kept;
        self.settle(now);
    }

    /// The batch that the cleaner made. One that it had made before, byte for byte, is back.
    fn rewritten(&mut self, content: Content, earlier: FactId) -> FactId {
        let batch = Batch::new(content);
        let is_same = |fact: &Fact| fact.batch.bytes == batch.bytes && fact.removed.is_none();
        let fact = match self.facts.iter().position(is_same) {
            Some(known) => known,
            None => self.remember(batch, Some(earlier)),
        };
        self.facts[fact].rewritten = None;
        let fates = self.facts[earlier].fates.clone();
        self.facts[fact].fates = fates;
        fact
    }

    fn cleaned(&self, batch: &Batch, before: &[Entry], dice: &mut Dice) -> Cleaned {
        let content = &batch.content;
        let of_producer = |entry: &&Entry| {
            let other = &entry.batch.content;
            other.producer_id == content.producer_id && other.commits.is_none()
        };
        if batch.is_control() {
            let ended = self.log.ended.iter().find(|each| each.marker == content.base);
            let begins = ended.map_or(0, |each| each.first);
            let mut data = before.iter().filter(of_producer);
            // A marker goes once a cleaning has found no data of its transaction.
            let has_data = data.any(|entry| (begins..content.base).contains(&entry.batch.base()));
            return if has_data || dice.chance(500) {
                Cleaned::Kept
            } else {
                Cleaned::Vanished
            };
        }
        let aborted = content.transactional
            && self.log.ended.iter().any(|each| {
                each.aborted
                    && each.producer_id == content.producer_id
                    && (each.first..each.marker).contains(&content.base)
            });
        let mut records = content.records.clone();
        if aborted {
            records.clear();
        } else if dice.chance(600) {
            records.retain(|_| dice.chance(500));
        }
        match (records.is_empty(), content.records.is_empty()) {
            (true, _) if dice.chance(600) => Cleaned::Vanished,
            (false, _) if records.len() == content.records.len() => Cleaned::Kept,
            (true, true) => Cleaned::Kept,
            _ => Cleaned::Rewritten(Content {
                records,
                ..content.clone()
            }),
        }
    }

    /// The new leader's cleaner may have come less far than the old one's: some of what was rewritten is there again.
    fn uncover(&mut self, dice: &mut Dice, now: u64) {
        let gone_at = self.gone_at(now);
        for at in 0..self.log.entries.len() {
            let fact = self.log.entries[at].fact;
            let Some(earlier) = self.facts[fact].earlier else {
                continue;
            };
            if self.facts[fact].batch.content.transactional || !dice.chance(300) {
                continue;
            }
            self.facts[fact].rewritten = Some(gone_at);
            self.facts[earlier].rewritten = None;
            let batch = Arc::clone(&self.facts[earlier].batch);
            self.log.entries[at] = Entry { fact: earlier, batch };
        }
        for entry in std::mem::take(&mut self.vanished) {
            if !dice.chance(300) || entry.batch.base() < self.log.segments[0] {
                self.vanished.push(entry);
                continue;
            }
            self.facts[entry.fact].rewritten = None;
            let at = self.log.position(entry.batch.base());
            self.log.entries.insert(at, entry);
        }
    }

    /// Writes down which batches the leader has for consumers from now on.
    fn note_spans(&mut self, now: u64) {
        let log = &self.log;
        let is_visible = |entry: &&Entry| entry.batch.last() >= log.start;
        let visible = log.entries.iter().filter(is_visible).map(|entry| entry.fact);
        let visible: BTreeSet<FactId> = visible.collect();
        for (id, fact) in self.facts.iter_mut().enumerate() {
            let is_open = fact.spans.last().is_some_and(|(_, until)| *until == u64::MAX);
            match (is_open, visible.contains(&id)) {
                (false, true) => fact.spans.push((now, u64::MAX)),
                (true, false) => {
                    if let Some((_, until)) = fact.spans.last_mut() {
                        *until = now;
                    }
                }
                _ => {}
            }
        }
    }

    /// Writes down what the change that has just been made means for consumers.
    fn settle(&mut self, now: u64) {
        let stable = self.log.last_stable_offset(self.log.high_watermark);
        let gone_at = self.gone_at(now);
        self.note_spans(now);
        for entry in &self.log.entries {
            let batch = &entry.batch;
            let fact = &mut self.facts[entry.fact];
            if batch.last() < self.log.high_watermark {
                fact.replicated_at.get_or_insert(now);
            }
            let decided = outcome(&self.log, batch);
            let before = fact.fates.last().map(|(.., fate)| *fate);
            let was_decided = before.is_some_and(|fate| fate != Fate::Unstable);
            let fate = match decided {
                Some(fate) if batch.last() < stable || was_decided => fate,
                _ => Fate::Unstable,
            };
            if before != Some(fate) {
                if let Some((_, until, _)) = fact.fates.last_mut() {
                    *until = if was_decided { gone_at } else { now };
                }
                fact.fates.push((now, u64::MAX, fate));
            }
        }
    }
}

/// What the cleaner makes of a batch.
enum Cleaned {
    Kept,
    Rewritten(Content),
    Vanished,
}

/// What becomes of a batch for readers of committed data; `None` while its transaction is open.
fn outcome(log: &Log, batch: &Batch) -> Option<Fate> {
    let content = &batch.content;
    if !content.transactional || batch.is_control() {
        return Some(Fate::Delivered);
    }
    let ended = log.ended.iter().find(|each| {
        each.producer_id == content.producer_id && (each.first..each.marker).contains(&content.base)
    });
    ended.map(|each| {
        if each.aborted {
            Fate::Dropped
        } else {
            Fate::Delivered
        }
    })
}

/// Where a broker stands in lists by node id; ids count from 1.
pub(crate) fn place(broker: i32) -> usize {
    usize::try_from(broker - 1).unwrap_or(0)
}
