//! Random reads that scans disturb.

use fastrand::Rng;

use super::zipf::Popularity;
use super::{Generator, Topic, Trace};

/// Skewed random reads of a topic, while now and then something reads the same topic from its beginning to its end: a
/// backup, an export, an analyst.
#[derive(Clone, Copy, Debug)]
pub struct Scans {
    /// Partitions over which the batches are spread.
    pub partitions: u32,
    /// Batches of all partitions together.
    pub batches: u32,
    /// How many random reads there are.
    pub reads: u32,
    /// How steep the popularity falls, see [`Zipf`](super::Zipf).
    pub exponent: f64,
    /// How many full scans there are; each takes half of the time until the next one starts.
    pub scans: u32,
    /// The number of the first partition.
    pub first_partition: u32,
}

impl Default for Scans {
    fn default() -> Self {
        Self {
            partitions: 4,
            batches: 30_000,
            reads: 200_000,
            exponent: 0.8,
            scans: 4,
            first_partition: 0,
        }
    }
}

impl Scans {
    /// The same with fewer batches and reads.
    #[must_use]
    pub fn divided(self, divisor: u32) -> Self {
        Self {
            batches: self.batches / divisor,
            reads: self.reads / divisor,
            ..self
        }
    }
}

impl Generator for Scans {
    fn generate(&self, seed: u64) -> Trace {
        let mut rng = Rng::with_seed(seed);
        let topic = Topic::new(self.first_partition, self.partitions, self.batches, &mut rng);
        let popularity = Popularity::new(topic.batches(), self.exponent, &mut rng);
        let half_period = self.reads / self.scans / 2;
        let mut accesses = Vec::new();
        for _ in 0..self.scans {
            accesses.extend((0..half_period).map(|_| topic.read_nth(popularity.draw(&mut rng))));
            let mut scanned = 0;
            for read in 1..=half_period {
                accesses.push(topic.read_nth(popularity.draw(&mut rng)));
                let due = u64::from(topic.batches()) * u64::from(read) / u64::from(half_period);
                while u64::from(scanned) < due {
                    accesses.push(topic.read_nth(scanned));
                    scanned += 1;
                }
            }
        }
        Trace {
            name: "random + scans",
            accesses,
        }
    }
}
