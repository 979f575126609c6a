//! Readers that replay the same topic, one started after the other.

use std::ops::RangeInclusive;

use fastrand::Rng;

use super::{Access, Generator, Topic, Trace};

/// Each topic is read from its beginning to its end several times, by readers that follow each other at lags which are
/// longer than a small cache, each at a pace of its own: instances of a service that build their state after a rollout.
#[derive(Clone, Debug)]
pub struct Replays {
    /// Topics of one partition each, replayed at the same time.
    pub topics: u32,
    /// Batches of each topic.
    pub batches: u32,
    /// Readers of each topic.
    pub readers: u32,
    /// How far a reader has come when the next one starts, in percent of the topic.
    pub lag_percent: RangeInclusive<u32>,
    /// By how much the paces differ, in percent each way.
    pub pace_spread_percent: u32,
    /// The number of the first partition.
    pub first_partition: u32,
}

impl Default for Replays {
    fn default() -> Self {
        Self {
            topics: 2,
            batches: 16_000,
            readers: 4,
            lag_percent: 12..=20,
            pace_spread_percent: 10,
            first_partition: 0,
        }
    }
}

impl Replays {
    /// The same with shorter topics.
    #[must_use]
    pub fn divided(self, divisor: u32) -> Self {
        Self {
            batches: self.batches / divisor,
            ..self
        }
    }
}

/// One reader of one topic.
struct Reader {
    topic: u32,
    next: u32,
    /// It starts when the reader before it has come so far.
    starts_at: u32,
    /// How often its turn comes, relative to the others.
    pace: u32,
}

impl Generator for Replays {
    fn generate(&self, seed: u64) -> Trace {
        let mut rng = Rng::with_seed(seed);
        let topic = Topic::new(
            self.first_partition,
            self.topics,
            self.topics * self.batches,
            &mut rng,
        );
        let mut readers = self.readers(&mut rng);
        let mut accesses = Vec::new();
        loop {
            let running: Vec<usize> = (0..readers.len())
                .filter(|&index| self.runs(&readers, index))
                .collect();
            if running.is_empty() {
                break;
            }
            // Some rounds are played before it is seen again who runs.
            for _ in 0..64 {
                let reader = &mut readers[running[rng.usize(0..running.len())]];
                if rng.u32(0..200) < reader.pace {
                    poll(&topic, reader, &mut rng, &mut accesses);
                }
            }
        }
        Trace {
            name: "replays",
            accesses,
        }
    }
}

impl Replays {
    fn readers(&self, rng: &mut Rng) -> Vec<Reader> {
        let spread = self.pace_spread_percent;
        (0..self.topics)
            .flat_map(|topic| (0..self.readers).map(move |number| (topic, number)))
            .map(|(topic, number)| Reader {
                topic,
                next: 0,
                starts_at: if number == 0 {
                    0
                } else {
                    self.batches * rng.u32(self.lag_percent.clone()) / 100
                },
                pace: rng.u32(100 - spread..=100 + spread),
            })
            .collect()
    }

    /// Whether a reader has started and not finished.
    fn runs(&self, readers: &[Reader], index: usize) -> bool {
        let reader = &readers[index];
        let started = reader.starts_at == 0 || readers[index - 1].next >= reader.starts_at;
        started && reader.next < self.batches
    }
}

/// Reads a few batches on.
fn poll(topic: &Topic, reader: &mut Reader, rng: &mut Rng, accesses: &mut Vec<Access>) {
    let end = (reader.next + rng.u32(1..=16)).min(topic.batches_each());
    accesses.extend((reader.next..end).map(|batch| topic.read(reader.topic, batch)));
    reader.next = end;
}
