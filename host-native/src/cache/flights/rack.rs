//! The rack that the cache runs in, and which replicas there leaders have named (KIP-392, H16).

use core::time::Duration;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kachet_core::wire::{FetchRequest, TopicRef, WireStr};

use super::part::{Place, restricted};
use crate::cluster::{Nearest, NearestReplicas};
use crate::transport::BrokerAddress;

/// Partitions whose replicas are remembered at most.
const PARTITIONS_LIMIT: usize = 64 * 1024;

/// See the [module](self).
#[derive(Debug)]
pub(in crate::cache) struct Rack {
    id: WireStr,
    nearest: Mutex<NearestReplicas<Led>>,
}

/// A partition, and the broker that was asked for it: who fetches from a follower, or from a leader that has been deposed,
/// is not sent to the replica that another broker has named.
pub(super) type Led = (BrokerAddress, TopicRef, i32);

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// The leader, which may name a replica.
    LeaderByRack,
    /// The leader, which is to give records.
    Leader,
    Replica(BrokerAddress),
}

impl Rack {
    /// `None` where there is no such rack.
    pub(in crate::cache) fn new(id: &str) -> Option<Self> {
        let id = WireStr::copy_from(id).filter(|id| !id.as_str().is_empty())?;
        Some(Self {
            id,
            nearest: Mutex::default(),
        })
    }

    pub(super) fn id(&self) -> WireStr {
        self.id.clone()
    }

    /// Who is asked for which partitions of a request to a leader.
    pub(super) fn split(&self, leader: &BrokerAddress, request: &FetchRequest) -> Vec<(Whom, FetchRequest)> {
        let whom = |topic: &TopicRef, partition: i32| match self.lock().of(&led(leader, topic, partition)) {
            Some(Nearest::Replica(replica)) => Whom::Replica(replica),
            Some(Nearest::Leader) => Whom::Leader,
            None => Whom::LeaderByRack,
        };
        // As of one moment, so that each partition is asked for once.
        let chosen: Vec<((&TopicRef, i32), Whom)> = request
            .partitions()
            .map(|(topic, asked)| ((topic, asked.partition), whom(topic, asked.partition)))
            .collect();
        let mut all: Vec<Whom> = Vec::new();
        for (_, whom) in &chosen {
            if !all.contains(whom) {
                all.push(whom.clone());
            }
        }
        if let [whom] = all.as_slice() {
            return vec![(whom.clone(), request.clone())];
        }
        let by_place: HashMap<_, _> = chosen.into_iter().collect();
        let part = |whom: Whom| {
            let is_of = |topic: &TopicRef, partition| by_place.get(&(topic, partition)) == Some(&whom);
            let part = restricted(request, |topic, asked| is_of(topic, asked.partition));
            (whom.clone(), part)
        };
        all.into_iter().map(part).collect()
    }

    /// The leader has named a replica.
    pub(super) fn name(&self, leader: &BrokerAddress, place: &Place, replica: BrokerAddress) {
        let mut nearest = self.lock();
        if nearest.len() >= PARTITIONS_LIMIT {
            nearest.clear();
        }
        nearest.name(led_place(leader, place), replica);
    }

    /// The replica has failed.
    pub(super) fn rest(&self, leader: &BrokerAddress, place: &Place, was_silent: bool) {
        let led = led_place(leader, place);
        if was_silent {
            self.lock().rest_from_silence(led);
        } else {
            self.lock().rest(led);
        }
    }

    /// The leader does not lead any more.
    pub(super) fn forget(&self, leader: &BrokerAddress, place: &Place) {
        self.lock().forget(&led_place(leader, place));
    }

    pub(super) fn gave_records(&self, leader: &BrokerAddress, place: &Place) {
        self.lock().gave_records(&led_place(leader, place));
    }

    pub(super) fn gave_nothing(&self, leader: &BrokerAddress, place: &Place) -> Duration {
        self.lock().gave_nothing(&led_place(leader, place))
    }

    pub(super) fn leader_has(&self, leader: &BrokerAddress, place: &Place, has_records: bool) {
        self.lock().leader_has(led_place(leader, place), has_records);
    }

    // Nothing panics while it holds the lock; if something did, what is known would still be whole.
    fn lock(&self) -> MutexGuard<'_, NearestReplicas<Led>> {
        self.nearest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn led_place(leader: &BrokerAddress, (topic, partition): &Place) -> Led {
    led(leader, topic, *partition)
}

/// Keeps no request alive.
fn led(leader: &BrokerAddress, topic: &TopicRef, partition: i32) -> Led {
    let topic = match topic {
        TopicRef::Name(name) => TopicRef::Name(name.detached()),
        TopicRef::Id(id) => TopicRef::Id(*id),
    };
    (leader.clone(), topic, partition)
}
