//! The cluster: topics that come and go, and what befalls their logs.

use kachet::core::wire::{TopicId, TopicRef, WireStr};
use kachet::transport::BrokerAddress;

use crate::batch::Content;
use crate::dice::{Dice, mix};
use crate::partition::{Partition, place};
use crate::profile::Profile;

/// A topic; also one that was deleted, because its history is still to be judged.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) id: TopicId,
    pub(crate) name: WireStr,
    pub(crate) compacted: bool,
    transactional: bool,
    /// Since when and until when each broker knows it, by node id.
    known_from: Vec<u64>,
    known_until: Vec<u64>,
    pub(crate) partitions: Vec<Partition>,
}

#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) id: WireStr,
    pub(crate) brokers: usize,
    pub(crate) down_until: Vec<u64>,
    pub(crate) topics: Vec<Topic>,
    dice: Dice,
    profile: Profile,
}

/// What befalls the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    Append,
    Transaction,
    Replicate,
    Clean,
    DeleteRecords,
    Retention,
    MoveLeader,
    UncleanElection,
    RecreateTopic,
    BrokerDown,
}

impl Topic {
    fn new(name: usize, generation: u64, now: u64, cluster: &mut Cluster) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&mix(cluster.dice.bits()).to_be_bytes());
        id[8..].copy_from_slice(&(generation + 1).to_be_bytes());
        let (brokers, profile) = (cluster.brokers, &cluster.profile);
        let dice = &mut cluster.dice;
        let partitions = (0..profile.partitions).map(|_| {
            let leader = node(dice.below(brokers));
            Partition::new(leader, brokers)
        });
        let partitions = partitions.collect();
        Self {
            id: TopicId(id),
            name: WireStr::copy_from(&format!("topic-{name}")).unwrap_or_default(),
            compacted: dice.chance(profile.compacted),
            transactional: dice.chance(profile.transactional + u32::from(profile.transactional > 0) * 300),
            known_from: vec![now; brokers],
            known_until: vec![u64::MAX; brokers],
            partitions,
        }
    }

    pub(crate) fn is_known_to(&self, broker: i32, now: u64) -> bool {
        (self.known_from[place(broker)]..self.known_until[place(broker)]).contains(&now)
    }

    pub(crate) fn partition(&self, index: i32) -> Option<&Partition> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.partitions.get(index))
    }

    fn is_live(&self) -> bool {
        self.known_until.contains(&u64::MAX)
    }
}

impl Cluster {
    pub(crate) fn new(seed: u64, profile: &Profile) -> Self {
        let brokers = profile.brokers as usize;
        let mut cluster = Self {
            id: WireStr::from_static("simulated-cluster"),
            brokers,
            down_until: vec![0; brokers],
            topics: Vec::new(),
            dice: Dice::new(seed, 2),
            profile: profile.clone(),
        };
        for name in 0..profile.topics as usize {
            let topic = Topic::new(name, 0, 0, &mut cluster);
            cluster.topics.push(topic);
        }
        for _ in 0..cluster.dice.between(5, 60) {
            cluster.append(0);
            cluster.end_or_begin_transaction(0);
        }
        for topic in &mut cluster.topics {
            for partition in &mut topic.partitions {
                partition.replicate(&mut cluster.dice, 0);
            }
        }
        cluster
    }

    /// The topic that `broker` means by a name or an id.
    pub(crate) fn find(&self, topic: &TopicRef, broker: i32, now: u64) -> Option<&Topic> {
        self.topics.iter().find(|each| {
            let meant = match topic {
                TopicRef::Id(id) => each.id == *id,
                TopicRef::Name(name) => each.name == *name,
            };
            meant && each.is_known_to(broker, now)
        })
    }

    /// Every topic that was ever meant by a name or an id.
    pub(crate) fn ever(&self, topic: &TopicRef) -> impl Iterator<Item = &Topic> {
        self.topics.iter().filter(move |each| match topic {
            TopicRef::Id(id) => each.id == *id,
            TopicRef::Name(name) => each.name == *name,
        })
    }

    pub(crate) fn live_topics(&self) -> Vec<&Topic> {
        self.topics.iter().filter(|topic| topic.is_live()).collect()
    }

    pub(crate) fn address(broker: i32) -> BrokerAddress {
        BrokerAddress {
            host: format!("broker-{broker}"),
            port: 9092,
        }
    }

    /// One change, drawn by the profile's weights. Gives what it was and where, for the trace.
    pub(crate) fn step(&mut self, now: u64) -> (Change, String) {
        let rates = &self.profile.cluster;
        let weights = [
            (Change::Append, rates.append),
            (Change::Transaction, rates.transaction),
            (Change::Replicate, rates.replicate),
            (Change::Clean, rates.clean),
            (Change::DeleteRecords, rates.delete_records),
            (Change::Retention, rates.retention),
            (Change::MoveLeader, rates.move_leader),
            (Change::UncleanElection, rates.unclean_election),
            (Change::RecreateTopic, rates.recreate_topic),
            (Change::BrokerDown, rates.broker_down),
        ];
        let total: u32 = weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.dice.between(1, total.into());
        let mut change = Change::Append;
        for (each, weight) in weights {
            if drawn <= weight.into() {
                change = each;
                break;
            }
            drawn -= u64::from(weight);
        }
        let told = match change {
            Change::Append => self.append(now),
            Change::Transaction => self.end_or_begin_transaction(now),
            Change::RecreateTopic => self.recreate(now),
            Change::BrokerDown => self.take_down(now),
            other => self.change_partition(other, now),
        };
        (change, told)
    }

    /// Some partition of a live topic; `None` if there is none.
    fn any_partition(&mut self, wanted: impl Fn(&Topic) -> bool) -> Option<(usize, usize)> {
        let live =
            (0..self.topics.len()).filter(|at| self.topics[*at].is_live() && wanted(&self.topics[*at]));
        let live: Vec<usize> = live.collect();
        let topic = *live.get(self.dice.below(live.len()))?;
        Some((topic, self.dice.below(self.topics[topic].partitions.len())))
    }

    fn append(&mut self, now: u64) -> String {
        let Some((topic, index)) = self.any_partition(|_| true) else {
            return String::new();
        };
        let producer_id = if self.dice.chance(300) {
            -1
        } else {
            self.dice.offset(100, 102)
        };
        self.append_records(topic, index, producer_id, false, now)
    }

    fn append_records(
        &mut self,
        topic: usize,
        index: usize,
        producer_id: i64,
        transactional: bool,
        now: u64,
    ) -> String {
        let dice = &mut self.dice;
        let partition = &mut self.topics[topic].partitions[index];
        let base = partition.log.end;
        let count = dice.offset(1, 8);
        let value_bytes = if dice.chance(self.profile.large_batches) {
            dice.between(1 << 10, 12 << 10)
        } else {
            dice.between(0, 200)
        };
        let content = Content {
            base,
            last: base + count - 1,
            leader_epoch: 0,
            producer_id,
            transactional,
            commits: None,
            records: (base..base + count).collect(),
            value_bytes: usize::try_from(value_bytes).unwrap_or(0),
            salt: dice.bits(),
        };
        partition.append(content, now);
        if dice.chance(100) {
            partition.log.roll();
        }
        if dice.chance(700) {
            partition.replicate(dice, now);
        }
        format!("{topic}/{index} at {base}, {count} records of {producer_id}, {value_bytes} bytes each")
    }

    fn end_or_begin_transaction(&mut self, now: u64) -> String {
        let Some((topic, index)) = self.any_partition(|topic| topic.transactional) else {
            return String::new();
        };
        // Ids of their own: a producer either has transactions or none.
        let producer_id = self.dice.offset(200, 203);
        let partition = &mut self.topics[topic].partitions[index];
        let is_open = partition.log.open.contains_key(&producer_id);
        if !is_open || self.dice.chance(400) {
            return self.append_records(topic, index, producer_id, true, now);
        }
        let base = partition.log.end;
        let commits = self.dice.chance(500);
        let content = Content {
            base,
            last: base,
            leader_epoch: 0,
            producer_id,
            transactional: true,
            commits: Some(commits),
            records: vec![base],
            value_bytes: 0,
            salt: 0,
        };
        partition.append(content, now);
        if self.dice.chance(700) {
            partition.replicate(&mut self.dice, now);
        }
        let verb = if commits { "commits" } else { "aborts" };
        format!("{topic}/{index} at {base}, {producer_id} {verb}")
    }

    fn change_partition(&mut self, change: Change, now: u64) -> String {
        let cleaner = change == Change::Clean;
        let Some((topic, index)) = self.any_partition(|topic| topic.compacted || !cleaner) else {
            return String::new();
        };
        let to = node(self.dice.below(self.brokers));
        let believed_until = self.rumours(now);
        let leaderless = if self.dice.chance(300) {
            self.dice.between(1, 100)
        } else {
            0
        };
        let dice = &mut self.dice;
        let partition = &mut self.topics[topic].partitions[index];
        let mut at = partition.log.start;
        match change {
            Change::Replicate => partition.replicate(dice, now),
            Change::Clean => partition.clean(dice, now),
            Change::DeleteRecords => {
                let high_watermark = partition.log.high_watermark;
                let far = if dice.chance(200) { high_watermark } else { at + 12 };
                at = dice.offset(at, far.min(high_watermark));
                partition.move_start(at, now);
            }
            Change::Retention => {
                let closed = partition.log.segments.get(1).copied();
                at = closed.unwrap_or(at).min(partition.log.high_watermark);
                partition.move_start(at, now);
            }
            Change::MoveLeader => {
                partition.leaderless_until = now + leaderless;
                partition.move_leader(to, believed_until, dice, now);
            }
            Change::UncleanElection => {
                let entries = &partition.log.entries;
                let lost = dice.below(entries.len().min(12) + 1);
                let first_lost = entries.len().checked_sub(lost).and_then(|at| entries.get(at));
                at = first_lost.map_or(partition.log.end, |entry| entry.batch.base());
                at = at.max(partition.log.start);
                partition.truncate(at, to, believed_until, now);
            }
            Change::Append | Change::Transaction | Change::RecreateTopic | Change::BrokerDown => {}
        }
        format!("{topic}/{index} at {at}, leader {}", partition.leader)
    }

    /// Until when each broker believes in what has changed.
    fn rumours(&mut self, now: u64) -> Vec<u64> {
        let most = self.profile.rumour_ms;
        let dice = &mut self.dice;
        (0..self.brokers).map(|_| now + dice.between(0, most)).collect()
    }

    fn recreate(&mut self, now: u64) -> String {
        let Some((topic, _)) = self.any_partition(|_| true) else {
            return String::new();
        };
        let until = self.rumours(now);
        let since: Vec<u64> = until
            .iter()
            .map(|until| until + self.dice.between(0, 40))
            .collect();
        let old = &mut self.topics[topic];
        let gone_at = until.iter().copied().max().unwrap_or(now);
        for partition in &mut old.partitions {
            partition.delete(gone_at);
        }
        old.known_until = until;
        let (name, generation) = (old.name.clone(), now);
        let mut new = Topic::new(topic, generation, now, self);
        new.known_from = since;
        new.name = name;
        self.topics.push(new);
        let added = self.topics.len() - 1;
        for _ in 0..self.dice.between(0, 12) {
            let index = self.dice.below(self.topics[added].partitions.len());
            self.append_records(added, index, 100, false, now);
        }
        format!("{topic} is {added} from now on")
    }

    fn take_down(&mut self, now: u64) -> String {
        let broker = self.dice.below(self.brokers);
        self.down_until[broker] = now + self.dice.between(1, 1500);
        format!("{} until {}", node(broker), self.down_until[broker])
    }
}

/// The node id of a broker by its place.
pub(crate) fn node(place: usize) -> i32 {
    i32::try_from(place).unwrap_or(0) + 1
}
