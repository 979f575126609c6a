//! Reads of record batches, as a broker or a cache in front of it sees them.
//!
//! Each generator stands for one way in which topics are read. It is a plain struct of its parameters, whose default
//! is what the table shows, and makes the same trace of the same seed.

mod fan_out;
mod looping;
mod mix;
pub mod public;
mod replays;
mod scans;
mod topic;
mod zipf;

use hashbrown::HashMap;

pub use fan_out::FanOut;
pub use looping::Looping;
pub use mix::Mix;
pub use replays::Replays;
pub use scans::Scans;
pub use topic::Topic;
pub use zipf::Zipf;

/// Which batch: the unit in which topics are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchKey {
    /// A number for the partition.
    pub partition: u32,
    /// How many batches of the partition lie before this one, so a sequential reader counts up by one.
    pub batch: u32,
}

/// One read of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// What is read.
    pub key: BatchKey,
    /// What it takes; the same at each read of the batch.
    pub size_bytes: u32,
}

/// Reads in the order in which they arrive.
#[derive(Clone, Debug)]
pub struct Trace {
    /// What the trace stands for.
    pub name: &'static str,
    /// The reads.
    pub accesses: Vec<Access>,
}

impl Trace {
    /// The sizes of all batches that are read, each counted once.
    pub fn distinct_bytes(&self) -> u64 {
        self.distinct().values().map(|&size| u64::from(size)).sum()
    }

    /// How many batches are read.
    pub fn distinct_batches(&self) -> usize {
        self.distinct().len()
    }

    /// The sizes of all reads.
    pub fn read_bytes(&self) -> u64 {
        self.accesses
            .iter()
            .map(|access| u64::from(access.size_bytes))
            .sum()
    }

    fn distinct(&self) -> HashMap<BatchKey, u32> {
        self.accesses
            .iter()
            .map(|access| (access.key, access.size_bytes))
            .collect()
    }
}

/// Makes traces of one kind.
pub trait Generator {
    /// The trace of `seed`.
    fn generate(&self, seed: u64) -> Trace;
}

/// How far the generators are scaled down: 1 is what the table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// By what the numbers of batches are divided.
    pub divisor: u32,
}

/// The six traces of the table.
pub fn all(seed: u64, scale: Scale) -> Vec<Trace> {
    let divisor = scale.divisor.max(1);
    let generators: [Box<dyn Generator>; 6] = [
        Box::new(FanOut::default().divided(divisor)),
        Box::new(Replays::default().divided(divisor)),
        Box::new(Looping::default().divided(divisor)),
        Box::new(Zipf::default().divided(divisor)),
        Box::new(Scans::default().divided(divisor)),
        Box::new(Mix::default().divided(divisor)),
    ];
    generators
        .iter()
        .map(|generator| generator.generate(seed))
        .collect()
}

/// The traces again with other numbers of readers, lags, skews and lengths: what a policy must not be tuned to.
pub fn variations(seed: u64) -> Vec<Trace> {
    let generators: [(&'static str, Box<dyn Generator>); 10] = [
        (
            "fan-out, 3 readers, long stalls",
            Box::new(FanOut {
                consumers: 3,
                stall_batches_max: 1600,
                ..FanOut::default()
            }),
        ),
        (
            "fan-out, 16 readers, 1 partition",
            Box::new(FanOut {
                partitions: 1,
                batches: 16_000,
                consumers: 16,
                ..FanOut::default()
            }),
        ),
        (
            "replays x2, far apart",
            Box::new(Replays {
                readers: 2,
                lag_percent: 25..=45,
                ..Replays::default()
            }),
        ),
        (
            "replays x8 of 4 topics",
            Box::new(Replays {
                topics: 4,
                batches: 8_000,
                readers: 8,
                lag_percent: 5..=20,
                ..Replays::default()
            }),
        ),
        (
            "loop of 3 partitions",
            Box::new(Looping {
                partitions: 3,
                rounds: 6,
                ..Looping::default()
            }),
        ),
        (
            "zipf 0.7",
            Box::new(Zipf {
                exponent: 0.7,
                ..Zipf::default()
            }),
        ),
        (
            "zipf 1.1, drifting",
            Box::new(Zipf {
                exponent: 1.1,
                drifts: 8,
                ..Zipf::default()
            }),
        ),
        (
            "random + many scans",
            Box::new(Scans {
                scans: 10,
                ..Scans::default()
            }),
        ),
        (
            "one loop, then another",
            Box::new(Looping {
                batches: 10_000,
                topics: 2,
                ..Looping::default()
            }),
        ),
        (
            "one zipf, then another",
            Box::new(Zipf {
                reads: 160_000,
                topics: 2,
                ..Zipf::default()
            }),
        ),
    ];
    generators
        .iter()
        .map(|(name, generator)| Trace {
            name,
            ..generator.generate(seed)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_trace_again_and_another_seed_another() {
        let scale = Scale { divisor: 20 };
        for ((first, again), other) in all(1, scale).iter().zip(all(1, scale)).zip(all(2, scale)) {
            assert_eq!(first.accesses, again.accesses, "{}", first.name);
            assert_ne!(first.accesses, other.accesses, "{}", first.name);
        }
    }

    #[test]
    fn a_batch_has_one_size_throughout_a_trace() {
        for trace in all(3, Scale { divisor: 20 }) {
            let sizes = trace.distinct();
            for access in &trace.accesses {
                assert_eq!(sizes[&access.key], access.size_bytes, "{}", trace.name);
            }
        }
    }
}
