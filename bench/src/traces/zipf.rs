//! Random reads, some batches far more often than others.

use fastrand::Rng;

use super::{Generator, Topic, Trace};

/// Reads of single batches by popularity: the n-th most popular is read n^-exponent times as often as the first.
/// Popular batches lie anywhere.
#[derive(Clone, Copy, Debug)]
pub struct Zipf {
    /// Partitions over which the batches are spread.
    pub partitions: u32,
    /// Batches of all partitions together.
    pub batches: u32,
    /// How many reads there are.
    pub reads: u32,
    /// How steep the popularity falls.
    pub exponent: f64,
    /// How often, over the whole trace, a quarter of the batches swap their popularity with others.
    pub drifts: u32,
    /// How many topics are read in this way, one when the one before it is done with.
    pub topics: u32,
    /// The number of the first partition.
    pub first_partition: u32,
}

impl Default for Zipf {
    fn default() -> Self {
        Self {
            partitions: 8,
            batches: 40_000,
            reads: 320_000,
            exponent: 0.9,
            drifts: 0,
            topics: 1,
            first_partition: 0,
        }
    }
}

impl Zipf {
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

impl Generator for Zipf {
    fn generate(&self, seed: u64) -> Trace {
        let mut rng = Rng::with_seed(seed);
        let mut accesses = Vec::new();
        for number in 0..self.topics {
            let first_partition = self.first_partition + number * self.partitions;
            let topic = Topic::new(first_partition, self.partitions, self.batches, &mut rng);
            let mut popularity = Popularity::new(topic.batches(), self.exponent, &mut rng);
            for phase in 0..=self.drifts {
                if phase > 0 {
                    popularity.drift(&mut rng);
                }
                let reads = self.reads / (self.drifts + 1);
                accesses.extend((0..reads).map(|_| topic.read_nth(popularity.draw(&mut rng))));
            }
        }
        Trace {
            name: "zipf",
            accesses,
        }
    }
}

/// Draws numbers of batches by their popularity.
pub(super) struct Popularity {
    /// The share of the `n + 1` most popular, not yet divided by the sum of all, which is the last.
    cumulative: Vec<f64>,
    /// Which batch is the n-th most popular.
    by_rank: Vec<u32>,
}

impl Popularity {
    pub(super) fn new(batches: u32, exponent: f64, rng: &mut Rng) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=batches)
            .map(|rank| {
                sum += f64::from(rank).powf(-exponent);
                sum
            })
            .collect();
        let mut by_rank: Vec<u32> = (0..batches).collect();
        rng.shuffle(&mut by_rank);
        Self { cumulative, by_rank }
    }

    pub(super) fn draw(&self, rng: &mut Rng) -> u32 {
        let sum = self.cumulative[self.cumulative.len() - 1];
        let point = rng.f64() * sum;
        let rank = self.cumulative.partition_point(|&share| share <= point);
        self.by_rank[rank.min(self.by_rank.len() - 1)]
    }

    fn drift(&mut self, rng: &mut Rng) {
        for _ in 0..self.by_rank.len() / 8 {
            let (first, second) = (rng.usize(0..self.by_rank.len()), rng.usize(0..self.by_rank.len()));
            self.by_rank.swap(first, second);
        }
    }
}
