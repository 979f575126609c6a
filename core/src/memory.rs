//! The memory that batches take, counted until the last reader lets go of it (H26).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// Counts the bytes that are held, by the cache or by readers of what it has evicted.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryMeter(Arc<AtomicU64>);

impl MemoryMeter {
    pub(crate) fn held_bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Copies a batch out of the response that it came in, which may be a thousand times its size. The copy
    /// counts, together with `overhead_bytes`, until its last slice is dropped.
    pub(crate) fn hold(&self, batch: &[u8], overhead_bytes: usize) -> Bytes {
        let held_bytes = (batch.len() + overhead_bytes) as u64;
        self.0.fetch_add(held_bytes, Ordering::Relaxed);
        Bytes::from_owner(Held {
            batch: batch.to_vec(),
            size_bytes: held_bytes,
            meter: self.clone(),
        })
    }
}

struct Held {
    batch: Vec<u8>,
    size_bytes: u64,
    meter: MemoryMeter,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.batch
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.meter.0.fetch_sub(self.size_bytes, Ordering::Relaxed);
    }
}
