//! A reader that goes round.

use fastrand::Rng;

use super::{Generator, Topic, Trace};

/// One reader reads a whole topic again and again, as a job does that builds its state anew each time.
#[derive(Clone, Copy, Debug)]
pub struct Looping {
    /// Partitions, read one after the other.
    pub partitions: u32,
    /// Batches of all partitions together.
    pub batches: u32,
    /// How often the topic is read.
    pub rounds: u32,
    /// How many topics are read in this way, one when the one before it is done with.
    pub topics: u32,
    /// The number of the first partition.
    pub first_partition: u32,
}

impl Default for Looping {
    fn default() -> Self {
        Self {
            partitions: 1,
            batches: 25_000,
            rounds: 10,
            topics: 1,
            first_partition: 0,
        }
    }
}

impl Looping {
    /// The same with a shorter topic.
    #[must_use]
    pub fn divided(self, divisor: u32) -> Self {
        Self {
            batches: self.batches / divisor,
            ..self
        }
    }
}

impl Generator for Looping {
    fn generate(&self, seed: u64) -> Trace {
        let mut rng = Rng::with_seed(seed);
        let mut accesses = Vec::new();
        for number in 0..self.topics {
            let first_partition = self.first_partition + number * self.partitions;
            let topic = Topic::new(first_partition, self.partitions, self.batches, &mut rng);
            for _ in 0..self.rounds {
                accesses.extend((0..topic.batches()).map(|index| topic.read_nth(index)));
            }
        }
        Trace {
            name: "loop",
            accesses,
        }
    }
}
