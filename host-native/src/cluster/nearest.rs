//! Which replicas leaders have named for whoever tells its rack (KIP-392, H16), and which of them have failed.

use core::hash::Hash;
use core::time::Duration;
use std::collections::HashMap;

use tokio::time::Instant;

use crate::transport::BrokerAddress;

/// After this the leader is asked anew which replica is the nearest, as Kafka's own consumers do with their Metadata.
const LIFETIME: Duration = Duration::from_mins(5);
/// How long the leader is read after the nearest replica has failed. A leader goes on naming a dead one for some seconds.
const REST: Duration = Duration::from_secs(5);
/// The same where the replica has not answered at all, so that few wait for it.
const SILENT_REST: Duration = Duration::from_mins(1);

/// So many times in a row the leader has records where the replica has none: then the replica is behind. Once or twice
/// they may have come in between.
const BEHIND_MAX: u32 = 3;

/// Where a partition is read for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Nearest {
    /// The replica that the leader has named.
    Replica(BrokerAddress),
    /// The leader itself, because the replica has failed.
    Leader,
}

/// The nearest of each partition, by whatever stands for one. Of a partition that is not here the leader has to be asked.
#[derive(Debug)]
pub(crate) struct NearestReplicas<K>(HashMap<K, Known>);

#[derive(Debug)]
struct Known {
    nearest: Nearest,
    until: Instant,
    /// Since when the replica has given no records, and the leader was not asked whether there are any.
    nothing_since: Option<Instant>,
    /// How often in a row the leader had some.
    behind: u32,
}

impl<K> Default for NearestReplicas<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> NearestReplicas<K> {
    /// Where a partition is read; `None` if the leader has to be asked.
    pub(crate) fn of(&self, partition: &K) -> Option<Nearest> {
        let known = self.0.get(partition)?;
        (Instant::now() < known.until).then(|| known.nearest.clone())
    }

    /// How many partitions there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets all of them; each is learned again from the leader's next answer.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes note of the replica that the leader has named.
    pub(crate) fn name(&mut self, partition: K, replica: BrokerAddress) {
        self.insert(partition, Nearest::Replica(replica), LIFETIME);
    }

    /// The replica has failed, or answered that it cannot: the leader is read for a while.
    pub(crate) fn rest(&mut self, partition: K) {
        self.insert(partition, Nearest::Leader, REST);
    }

    /// The replica has not answered within the time that was allowed.
    pub(crate) fn rest_from_silence(&mut self, partition: K) {
        self.insert(partition, Nearest::Leader, SILENT_REST);
    }

    /// The leader is another one, or there is none.
    pub(crate) fn forget(&mut self, partition: &K) {
        self.0.remove(partition);
    }

    /// The replica has given records.
    pub(crate) fn gave_records(&mut self, partition: &K) {
        if let Some(known) = self.0.get_mut(partition) {
            (known.nothing_since, known.behind) = (None, 0);
        }
    }

    /// The replica has given none. Tells for how long already.
    pub(crate) fn gave_nothing(&mut self, partition: &K) -> Duration {
        let now = Instant::now();
        let known = self.0.get_mut(partition);
        let since = known.map(|known| *known.nothing_since.get_or_insert(now));
        since.map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    /// What the leader has said of a partition of which the replica has given nothing: whether it has records. A replica
    /// that is behind rests.
    pub(crate) fn leader_has(&mut self, partition: K, has_records: bool) {
        let Some(known) = self.0.get_mut(&partition) else {
            return;
        };
        known.nothing_since = None;
        known.behind = if has_records { known.behind + 1 } else { 0 };
        if known.behind >= BEHIND_MAX {
            self.rest(partition);
        }
    }

    fn insert(&mut self, partition: K, nearest: Nearest, lifetime: Duration) {
        let known = Known {
            nearest,
            until: Instant::now() + lifetime,
            nothing_since: None,
            behind: 0,
        };
        self.0.insert(partition, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica() -> BrokerAddress {
        BrokerAddress {
            host: "replica".to_owned(),
            port: 9092,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_was_named_is_read_until_the_leader_is_to_be_asked_again() {
        let mut replicas = NearestReplicas::default();
        assert_eq!(replicas.of(&0), None);
        replicas.name(0, replica());
        tokio::time::advance(LIFETIME.saturating_sub(Duration::from_secs(1))).await;
        assert_eq!(replicas.of(&0), Some(Nearest::Replica(replica())));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(replicas.of(&0), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_failed_rests_and_longer_where_it_was_silent() {
        let mut replicas = NearestReplicas::default();
        replicas.name(0, replica());
        replicas.rest(0);
        replicas.rest_from_silence(1);
        assert_eq!(replicas.of(&0), Some(Nearest::Leader));
        tokio::time::advance(REST).await;
        assert_eq!((replicas.of(&0), replicas.of(&1)), (None, Some(Nearest::Leader)));
        tokio::time::advance(SILENT_REST).await;
        assert_eq!(replicas.of(&1), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_known_since_when_a_replica_has_given_nothing() {
        let mut replicas = NearestReplicas::default();
        assert_eq!(replicas.gave_nothing(&0), Duration::ZERO, "nobody was named");
        replicas.name(0, replica());
        assert_eq!(replicas.gave_nothing(&0), Duration::ZERO);
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(replicas.gave_nothing(&0), Duration::from_millis(300));
        replicas.gave_records(&0);
        assert_eq!(replicas.gave_nothing(&0), Duration::ZERO);
        tokio::time::advance(Duration::from_millis(300)).await;
        replicas.leader_has(0, false);
        assert_eq!(replicas.gave_nothing(&0), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_is_behind_time_and_again_rests() {
        let mut replicas = NearestReplicas::default();
        replicas.name(0, replica());
        for _ in 1..BEHIND_MAX {
            replicas.leader_has(0, true);
        }
        replicas.gave_records(&0);
        for _ in 1..BEHIND_MAX {
            replicas.leader_has(0, true);
        }
        assert_eq!(replicas.of(&0), Some(Nearest::Replica(replica())));
        replicas.leader_has(0, true);
        assert_eq!(replicas.of(&0), Some(Nearest::Leader));
    }
}
