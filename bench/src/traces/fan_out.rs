//! Consumers that follow the tail.

use fastrand::Rng;

use super::{Access, Generator, Topic, Trace};

/// A producer appends; consumers of several groups read each batch soon after, each at a lag of its own: they poll for
/// different amounts, and now and then one stalls (a rebalance, a long collection, a slow sink) and catches up.
#[derive(Clone, Copy, Debug)]
pub struct FanOut {
    /// Partitions that are produced to.
    pub partitions: u32,
    /// Batches that are produced, to all partitions together.
    pub batches: u32,
    /// Consumers of each partition.
    pub consumers: u32,
    /// The most batches by which a consumer stays behind in one stall.
    pub stall_batches_max: u32,
    /// A consumer stalls once in about so many polls.
    pub polls_between_stalls: u32,
}

impl Default for FanOut {
    fn default() -> Self {
        Self {
            partitions: 4,
            batches: 40_000,
            consumers: 8,
            stall_batches_max: 500,
            polls_between_stalls: 60,
        }
    }
}

impl FanOut {
    /// The same with fewer batches and stalls that are as much shorter.
    #[must_use]
    pub fn divided(self, divisor: u32) -> Self {
        Self {
            batches: self.batches / divisor,
            stall_batches_max: self.stall_batches_max / divisor,
            ..self
        }
    }
}

/// One consumer of one partition.
struct Consumer {
    partition: u32,
    /// The batch it reads next.
    next: u32,
    /// How many batches it waits for before it polls.
    poll_batches: u32,
}

impl Generator for FanOut {
    fn generate(&self, seed: u64) -> Trace {
        let mut rng = Rng::with_seed(seed);
        let topic = Topic::new(0, self.partitions, self.batches, &mut rng);
        let mut consumers: Vec<Consumer> = (0..self.partitions)
            .flat_map(|partition| (0..self.consumers).map(move |_| partition))
            .map(|partition| Consumer {
                partition,
                next: 0,
                poll_batches: 1,
            })
            .collect();
        let mut ends = vec![0; self.partitions as usize];
        let mut accesses = Vec::new();
        for _ in 0..topic.batches() {
            let partition = rng.u32(0..self.partitions);
            let end = &mut ends[partition as usize];
            *end = (*end + 1).min(topic.batches_each());
            self.poll_all(&topic, *end, partition, &mut consumers, &mut rng, &mut accesses);
        }
        Trace {
            name: "fan-out",
            accesses,
        }
    }
}

impl FanOut {
    /// Lets every consumer of a partition read that waits for no more than there is, in random order.
    fn poll_all(
        &self,
        topic: &Topic,
        end: u32,
        partition: u32,
        consumers: &mut [Consumer],
        rng: &mut Rng,
        accesses: &mut Vec<Access>,
    ) {
        let first = (partition * self.consumers) as usize;
        let ours = &mut consumers[first..first + self.consumers as usize];
        let turn = rng.usize(0..ours.len());
        ours.rotate_left(turn);
        for consumer in ours {
            if end - consumer.next < consumer.poll_batches {
                continue;
            }
            accesses.extend((consumer.next..end).map(|batch| topic.read(consumer.partition, batch)));
            consumer.next = end;
            consumer.poll_batches = if rng.u32(0..self.polls_between_stalls) == 0 {
                rng.u32(1..=self.stall_batches_max.max(1))
            } else {
                rng.u32(1..=16)
            };
        }
    }
}
