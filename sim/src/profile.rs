//! What kind of world a seed draws: some are calm, some are brutal.

use core::time::Duration;

use kachet::cache::{Cache, CacheBuilder};
use kachet::core::storage::faulty::FaultRates;
use kachet::core::time::MaxStaleness;
use kachet::transport::Transport;

use crate::dice::Dice;

/// How often each kind of change befalls the cluster, as weights against each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterRates {
    pub(crate) append: u32,
    pub(crate) transaction: u32,
    pub(crate) replicate: u32,
    pub(crate) clean: u32,
    pub(crate) delete_records: u32,
    pub(crate) retention: u32,
    pub(crate) move_leader: u32,
    pub(crate) unclean_election: u32,
    pub(crate) recreate_topic: u32,
    pub(crate) broker_down: u32,
}

/// How often, in a thousand, a request meets each fault.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestRates {
    pub(crate) slow: u32,
    pub(crate) reset_before: u32,
    pub(crate) reset_after: u32,
    pub(crate) lost: u32,
    pub(crate) throttled: u32,
    pub(crate) top_level_error: u32,
    pub(crate) partition_error: u32,
    pub(crate) omitted: u32,
    pub(crate) reordered: u32,
    pub(crate) duplicated: u32,
    pub(crate) configs_denied: u32,
}

/// How often, in a thousand, clients do something out of the ordinary.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientRates {
    pub(crate) committed: u32,
    pub(crate) by_name: u32,
    pub(crate) odd_limits: u32,
    pub(crate) epochs: u32,
    pub(crate) wrong_broker: u32,
    pub(crate) unknown_topic: u32,
    pub(crate) gives_up: u32,
    pub(crate) holds: u32,
    pub(crate) burst: u32,
    pub(crate) several: u32,
    pub(crate) resize: u32,
    pub(crate) invalidate: u32,
    /// Requests that the cache leaves to the broker: sessions, replicas, limits below zero, partitions named twice.
    pub(crate) odd_kinds: u32,
}

/// One seed's world.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) brokers: u32,
    pub(crate) topics: u32,
    pub(crate) partitions: u32,
    pub(crate) size_limit_bytes: u64,
    /// How large segments are, if not as large as the cache chooses.
    pub(crate) segment_size_bytes: Option<u32>,
    /// How often a storage other than memory fails; `None` for memory.
    pub(crate) storage: Option<FaultRates>,
    /// How often, in a thousand, a change of the cluster is a crash of the cache instead.
    pub(crate) crash: u32,
    pub(crate) max_staleness: MaxStaleness,
    pub(crate) compacted_max_staleness: MaxStaleness,
    pub(crate) clients: u32,
    pub(crate) requests_per_client: u32,
    pub(crate) think_ms: u64,
    pub(crate) cluster_steps: u32,
    pub(crate) cluster_pause_ms: u64,
    pub(crate) latency_ms: u64,
    /// What a slow answer takes longer.
    pub(crate) slow_ms: u64,
    pub(crate) request_timeout_ms: u64,
    /// How long brokers may go on believing in what has changed.
    pub(crate) rumour_ms: u64,
    pub(crate) large_batches: u32,
    pub(crate) transactional: u32,
    pub(crate) compacted: u32,
    pub(crate) cluster: ClusterRates,
    pub(crate) requests: RequestRates,
    pub(crate) client: ClientRates,
}

impl ClusterRates {
    fn draw(rate: &mut impl FnMut(u64) -> u32) -> Self {
        Self {
            append: 40,
            transaction: 40,
            replicate: 20,
            clean: rate(20),
            delete_records: rate(6),
            retention: rate(6),
            move_leader: rate(6),
            unclean_election: rate(8),
            recreate_topic: rate(4),
            broker_down: rate(3),
        }
    }
}

impl RequestRates {
    fn draw(rate: &mut impl FnMut(u64) -> u32) -> Self {
        Self {
            slow: rate(100),
            reset_before: rate(40),
            reset_after: rate(40),
            lost: rate(20),
            throttled: rate(60),
            top_level_error: rate(30),
            partition_error: rate(30),
            omitted: rate(60),
            reordered: rate(200),
            duplicated: rate(60),
            configs_denied: rate(200),
        }
    }
}

impl ClientRates {
    fn draw(rate: &mut impl FnMut(u64) -> u32) -> Self {
        Self {
            committed: 100 + rate(800),
            by_name: rate(1000),
            odd_limits: rate(200),
            epochs: rate(300),
            wrong_broker: rate(200),
            unknown_topic: rate(40),
            gives_up: rate(100),
            holds: rate(200),
            burst: rate(150),
            several: rate(400),
            resize: rate(15),
            invalidate: rate(15),
            odd_kinds: rate(40),
        }
    }
}

/// How a storage other than memory fails.
fn storage_faults(rate: &mut impl FnMut(u64) -> u32) -> FaultRates {
    FaultRates {
        error_per_mille: rate(60),
        full_per_mille: rate(60),
        torn_append_per_mille: rate(60),
        short_read_per_mille: rate(60),
        bit_flip_per_mille: rate(60),
        bad_sector_per_mille: rate(60),
        delay_per_mille: rate(300),
        not_now_per_mille: rate(700),
    }
}

impl Profile {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 1);
        let calm = dice.chance(100);
        let mut rate = |most: u64| {
            let none = calm || dice.chance(350);
            let drawn = dice.between(1, most);
            if none {
                0
            } else {
                u32::try_from(drawn).unwrap_or(0)
            }
        };
        let cluster = ClusterRates::draw(&mut rate);
        let requests = RequestRates::draw(&mut rate);
        let client = ClientRates::draw(&mut rate);
        let faulty = storage_faults(&mut rate);
        let storage = dice.chance(500).then_some(faulty);
        let within = |millis| MaxStaleness::Within(Duration::from_millis(millis));
        Self {
            brokers: dice.pick(&[1, 1, 2, 3]),
            topics: dice.pick(&[1, 1, 2, 3]),
            partitions: dice.pick(&[1, 1, 2]),
            size_limit_bytes: dice.pick(&[4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20]),
            segment_size_bytes: dice.pick(&[None, None, Some(4 << 10), Some(64 << 10)]),
            crash: if storage.is_some() && dice.chance(500) {
                20
            } else {
                0
            },
            storage,
            max_staleness: match dice.below(8) {
                0 => MaxStaleness::Forever,
                1 => within(0),
                2 => within(20),
                3 | 4 => within(200),
                _ => within(1000),
            },
            compacted_max_staleness: match dice.below(5) {
                0 => MaxStaleness::Forever,
                1 => within(100),
                2 => within(1000),
                _ => within(5000),
            },
            clients: dice.pick(&[2, 4, 6, 8]),
            requests_per_client: dice.pick(&[20, 40, 80]),
            think_ms: dice.pick(&[1, 20, 60, 200]),
            cluster_steps: dice.pick(&[30, 80, 200]),
            cluster_pause_ms: dice.pick(&[5, 25, 80]),
            latency_ms: dice.pick(&[0, 2, 10, 50]),
            slow_ms: dice.pick(&[50, 500, 3000]),
            request_timeout_ms: dice.pick(&[300, 1000, 5000]),
            rumour_ms: dice.pick(&[0, 0, 50, 800]),
            large_batches: dice.pick(&[0, 20, 150]),
            transactional: dice.pick(&[0, 300, 700]),
            compacted: dice.pick(&[0, 300, 1000]),
            cluster,
            requests,
            client,
        }
    }

    /// The cache under test, but for its storage.
    pub(crate) fn cache<T: Transport>(&self, transport: T) -> CacheBuilder<T> {
        let builder = Cache::builder(transport)
            .size_limit_bytes(self.size_limit_bytes)
            .max_staleness(self.max_staleness)
            .compacted_max_staleness(self.compacted_max_staleness);
        match self.segment_size_bytes {
            Some(size_bytes) => builder.segment_size_bytes(size_bytes),
            None => builder,
        }
    }

    /// How long the storage may take to remove what it is told to, in milliseconds. One that fails at it is asked again when
    /// room is needed, which may be never; until then what it holds counts.
    pub(crate) fn removal_ms(&self) -> u64 {
        match self.storage {
            None => 0,
            Some(rates) if rates.error_per_mille == 0 => 2000,
            Some(_) => u64::MAX,
        }
    }

    /// From when on something must have been true to be told to a request that arrived at `arrived_at`.
    pub(crate) fn true_since(&self, arrived_at: u64) -> u64 {
        before(self.max_staleness, arrived_at)
    }

    /// The same for what only the cleaner changes.
    pub(crate) fn clean_since(&self, arrived_at: u64) -> u64 {
        match self.max_staleness {
            MaxStaleness::Forever => 0,
            // Fetched within the one bound, or validated within the other and found not to be compacted.
            MaxStaleness::Within(_) => {
                before(self.compacted_max_staleness, arrived_at).min(self.true_since(arrived_at))
            }
        }
    }
}

fn before(bound: MaxStaleness, arrived_at: u64) -> u64 {
    match bound {
        MaxStaleness::Forever => 0,
        MaxStaleness::Within(bound) => {
            arrived_at.saturating_sub(u64::try_from(bound.as_millis()).unwrap_or(u64::MAX))
        }
    }
}
