//! Topics whose batches have sizes.

use fastrand::Rng;

use super::{Access, BatchKey};

/// The median of what a batch takes: a producer with `batch.size` at its default of 16 KiB that fills it.
const SIZE_MEDIAN_BYTES: f64 = 16.0 * 1024.0;

/// The spread of the sizes, as the standard deviation of their logarithm: one in six batches is beyond 40 KiB,
/// one in thirty beyond 100 KiB.
const SIZE_SIGMA: f64 = 0.9;

/// A batch with one tiny record.
const SIZE_MIN_BYTES: f64 = 150.0;

/// `max.request.size` at its default.
const SIZE_MAX_BYTES: f64 = 1024.0 * 1024.0;

/// Partitions, and what each of their batches takes.
#[derive(Clone, Debug)]
pub struct Topic {
    first_partition: u32,
    /// By partition, then by batch.
    sizes: Vec<Vec<u32>>,
}

impl Topic {
    /// A topic of `batches` batches, spread evenly over partitions that are numbered from `first_partition`.
    pub fn new(first_partition: u32, partitions: u32, batches: u32, rng: &mut Rng) -> Self {
        let each = (batches / partitions).max(1);
        let sizes = (0..partitions)
            .map(|_| (0..each).map(|_| batch_size_bytes(rng)).collect())
            .collect();
        Self {
            first_partition,
            sizes,
        }
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.sizes.len()).unwrap_or(u32::MAX)
    }

    /// How many batches each partition has.
    pub fn batches_each(&self) -> u32 {
        u32::try_from(self.sizes[0].len()).unwrap_or(u32::MAX)
    }

    /// A read of a batch of the topic's `partition`-th partition.
    ///
    /// # Panics
    /// If there is no such batch.
    pub fn read(&self, partition: u32, batch: u32) -> Access {
        Access {
            key: BatchKey {
                partition: self.first_partition + partition,
                batch,
            },
            size_bytes: self.sizes[partition as usize][batch as usize],
        }
    }

    /// A read of the `index`-th batch, counted through one partition after the other.
    ///
    /// # Panics
    /// If there is no such batch.
    pub fn read_nth(&self, index: u32) -> Access {
        self.read(index / self.batches_each(), index % self.batches_each())
    }

    /// How many batches there are in all.
    pub fn batches(&self) -> u32 {
        self.partitions() * self.batches_each()
    }
}

/// A size drawn from a lognormal distribution.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to a range within u32"
)]
fn batch_size_bytes(rng: &mut Rng) -> u32 {
    let size = SIZE_MEDIAN_BYTES * (SIZE_SIGMA * normal(rng)).exp();
    size.clamp(SIZE_MIN_BYTES, SIZE_MAX_BYTES) as u32
}

/// A number from the standard normal distribution (Box and Muller, 1958).
fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_lie_around_16_kib_with_small_and_large_ones() {
        let topic = Topic::new(0, 1, 10_000, &mut Rng::with_seed(1));
        let mut sizes = topic.sizes[0].clone();
        sizes.sort_unstable();
        assert!((15_000..18_000).contains(&sizes[5_000]), "{}", sizes[5_000]);
        assert!(sizes[200] < 4_000 && sizes[9_800] > 90_000);
    }
}
