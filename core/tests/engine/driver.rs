//! Has the jobs of a cache done and asks it, as a host does; and checks at every step what holds at every instant.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use kachet_core::cache::{Absorbed, Cache, CacheSettings, Harvest, RestoreError, Restored, Warmed};
use kachet_core::storage::faulty::{FaultRates, Faults, FaultyStorage};
use kachet_core::storage::{SegmentReader, Storage};
use kachet_core::time::Instant;
use kachet_core::wire::{FetchRequest, FetchResponse, PartitionData};

use crate::batches::CRC;
use crate::medium::{Lying, Medium};

/// Polls that no operation here needs.
const POLLS_MAX: usize = 1_000;
/// A batch that cannot be read is a miss, and the lookup is done again without it, at most so often.
const READ_ROUNDS: usize = 3;

/// What a future gives, which asks to be polled again whenever it is pending.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..POLLS_MAX {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
    panic!("pending for ever");
}

/// A cache, its storage and whoever runs the jobs.
pub(crate) struct Driver<S: Storage> {
    pub(crate) cache: Cache<S::Reader>,
    pub(crate) storage: S,
    pub(crate) lying: Lying,
    /// The limit was lowered, and readers that hold on or removals that fail keep it from holding as yet.
    is_exempt: Cell<bool>,
}

/// A disk that can be made to fail.
pub(crate) type Disk = Driver<FaultyStorage<Medium>>;

impl Driver<Medium> {
    pub(crate) fn in_memory(settings: CacheSettings) -> Self {
        Self::over(settings, Medium::default(), Lying::default())
    }
}

impl Disk {
    pub(crate) fn on_disk(settings: CacheSettings, seed: u64, rates: FaultRates) -> Self {
        Self::on_medium(settings, Medium::default(), seed, rates)
    }

    /// Over what a medium holds, of which nothing is restored yet.
    pub(crate) fn on_medium(settings: CacheSettings, medium: Medium, seed: u64, rates: FaultRates) -> Self {
        let lying = medium.lying.clone();
        Self::over(
            settings,
            FaultyStorage::new(medium, Faults::new(seed, rates)),
            lying,
        )
    }

    pub(crate) fn faults(&self) -> &Faults {
        self.storage.faults()
    }
}

impl<S: Storage> Driver<S> {
    pub(crate) fn over(settings: CacheSettings, storage: S, lying: Lying) -> Self {
        Self {
            cache: Cache::new(settings, CRC),
            storage,
            lying,
            is_exempt: Cell::new(false),
        }
    }

    /// A new cache over what the storage holds. What is over the limit has not gone yet.
    pub(crate) fn restart(&mut self, settings: CacheSettings) -> Result<Restored, RestoreError> {
        self.cache = Cache::new(settings, CRC);
        block_on(self.cache.restore(&mut self.storage, CRC))
    }

    /// What holds at every instant: one account, and no more than the limit.
    pub(crate) fn check(&self) {
        self.check_account();
        let statistics = self.cache.statistics();
        if statistics.size_bytes <= statistics.limit_bytes {
            self.is_exempt.set(false);
        }
        assert!(
            self.is_exempt.get() || statistics.size_bytes <= statistics.limit_bytes,
            "{statistics:?}"
        );
    }

    /// Has all jobs done, and says how many there were.
    pub(crate) fn settle(&mut self) -> u64 {
        let bound = 64 + 32 * self.cache.statistics().segments;
        let mut done = 0;
        while let Some(job) = self.cache.next_job() {
            let outcome = block_on(job.perform(&mut self.storage, CRC));
            self.cache.complete(outcome);
            self.check_account();
            done += 1;
            assert!(done <= bound, "jobs without end: {:?}", self.cache.statistics());
        }
        done
    }

    /// While a lowered limit is being enforced the limit does not hold yet.
    fn check_account(&self) {
        let (counted, summed) = self.cache.audit();
        assert_eq!(counted, summed, "the account and the sum");
        assert!(self.lying.bytes() <= counted, "{} lie there", self.lying.bytes());
    }

    pub(crate) fn absorb(&mut self, request: &FetchRequest, response: &FetchResponse, asked_at: Instant) {
        for mut harvest in Harvest::gather(request, response, CRC) {
            while self.cache.absorb(&mut harvest, asked_at) == Absorbed::NeedsRoom {
                self.check();
                if self.settle() == 0 {
                    self.cache.reject(&mut harvest);
                }
                self.check();
            }
            self.check();
        }
        self.settle();
        self.check();
    }

    /// Takes effect at once, but for what `may_linger`.
    pub(crate) fn set_limit(&mut self, size_limit_bytes: u64, may_linger: bool) {
        self.cache.set_size_limit_bytes(size_limit_bytes);
        self.is_exempt.set(may_linger);
        self.settle();
        self.check();
    }

    /// The partitions that the cache answers of a request.
    pub(crate) fn hits(&self, request: &FetchRequest, now: Instant) -> Vec<PartitionData> {
        let warmed = self.warm(request, now);
        let plan = self.cache.plan_with(request.clone(), now, &warmed);
        let merged = plan.merge(FetchResponse::default());
        merged.partitions().map(|(_, data)| data.clone()).collect()
    }

    pub(crate) fn warm(&self, request: &FetchRequest, now: Instant) -> Warmed {
        let mut warmed = Warmed::default();
        if !S::Reader::MAY_CORRUPT {
            return warmed;
        }
        for _ in 0..READ_ROUNDS {
            let cold = self.cache.cold_reads(request, now, &mut warmed);
            if cold.is_empty() {
                break;
            }
            for read in cold {
                match block_on(read.perform(CRC)) {
                    Ok(batch) => warmed.insert(batch),
                    Err(fault) => self.cache.note_fault(&fault),
                }
            }
        }
        warmed
    }

    /// The records that the cache gives for a request of one partition.
    pub(crate) fn hit(&self, request: &FetchRequest, now: Instant) -> Option<Bytes> {
        let records = self.hits(request, now).pop()?.records?;
        Some(records.to_bytes())
    }
}
