//! What a cache in memory really holds, by the allocator: its limit is one of the process and not of its own account.

#[path = "../support/allocations.rs"]
mod allocations;
#[path = "../engine/batches.rs"]
#[allow(dead_code, reason = "shared with the tests of the engine")]
mod batches;

use allocations::{Counting, held_bytes, peak_bytes};
use bytes::{Bytes, BytesMut};
use kachet_core::cache::{Harvest, MemoryCache};
use kachet_core::wire::Chunks;

use batches::{CRC, at, data, numbered, request, request_one, response_of, unbounded};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIMIT_BYTES: usize = 16 << 20;
const HIGH_WATERMARK: i64 = 100_000_000;

/// A cache, and the most that was held in it and beside it, in bytes.
struct Watched {
    cache: MemoryCache,
    /// The thread may free what its parent allocated; with this its count stays above zero.
    _ballast: Vec<u8>,
    before_bytes: usize,
    /// Between answers.
    resting_bytes: usize,
    /// At any moment while an answer was taken in, the answer itself not counted.
    peak_bytes: usize,
}

impl Watched {
    fn new() -> Self {
        let ballast = Vec::with_capacity(1 << 16);
        let before_bytes = held_bytes();
        Self {
            _ballast: ballast,
            cache: MemoryCache::new(unbounded(LIMIT_BYTES as u64, None), CRC),
            before_bytes,
            resting_bytes: 0,
            peak_bytes: 0,
        }
    }

    fn absorb(&mut self, first_number: i64, records: Bytes) {
        let resting_bytes = held_bytes() - self.before_bytes - records.len();
        let request = request(0, 10 * first_number);
        let response = response_of(vec![data(0, HIGH_WATERMARK, records)]);
        let harvests = Harvest::gather(&request, &response, CRC);
        let (more_bytes, ()) = peak_bytes(|| {
            for harvest in harvests {
                self.cache.absorb(harvest, at(0));
            }
        });
        drop((request, response));
        self.peak_bytes = self.peak_bytes.max(resting_bytes + more_bytes);
        self.resting_bytes = self.resting_bytes.max(held_bytes() - self.before_bytes);
        let statistics = self.cache.statistics();
        assert!(statistics.size_bytes <= statistics.limit_bytes, "{statistics:?}");
    }

    fn assert_within(&self, resting_percent: usize, peak_percent: usize) {
        let percent = |bytes: usize| bytes * 100 / LIMIT_BYTES;
        let (resting, peak) = (percent(self.resting_bytes), percent(self.peak_bytes));
        assert!(
            resting <= resting_percent && peak <= peak_percent,
            "{resting} % and {peak} %"
        );
        assert!(resting > 80, "{resting} %: the cache was full");
        assert!(self.cache.statistics().evictions > 0);
    }
}

#[test]
fn large_batches_take_no_more_than_the_limit() {
    const BATCH_BYTES: usize = 16 << 10;
    let mut watched = Watched::new();
    let batches = i64::try_from(3 * LIMIT_BYTES / BATCH_BYTES).unwrap();
    for number in 0..batches {
        watched.absorb(number, numbered(number, BATCH_BYTES));
    }
    watched.assert_within(100, 110);
}

#[test]
fn small_batches_do_not_hold_the_large_answers_they_came_in() {
    const BATCH_BYTES: usize = 200;
    // What a broker sends at most by its own settings, and three times what the cache may hold.
    const ANSWER_BYTES: usize = 50 << 20;
    let mut watched = Watched::new();
    let mut next = 0;
    for _ in 0..2 {
        let mut records = BytesMut::with_capacity(ANSWER_BYTES);
        let first = next;
        while records.len() + BATCH_BYTES <= ANSWER_BYTES {
            records.extend_from_slice(&numbered(next, BATCH_BYTES));
            next += 1;
        }
        watched.absorb(first, records.freeze());
    }
    assert!(
        watched
            .cache
            .plan(request_one(0, 10 * (next - 1)), at(0))
            .upstream_request()
            .is_none()
    );
    watched.assert_within(100, 125);
}

#[test]
fn a_whole_hit_on_one_partition_holds_nothing_new() {
    const VERSION: i16 = 17;
    let mut watched = Watched::new();
    for number in 0..100 {
        watched.absorb(number, numbered(number, 500));
    }
    let mut answer = Chunks::new();
    for (isolation_level, offset) in [(0, 0), (1, 0), (0, 505), (1, 505)] {
        let mut request = request_one(0, offset);
        request.isolation_level = isolation_level;
        // The first answer makes the room that the others find.
        for round in 0..3 {
            answer.clear();
            let request = request.clone();
            let (held_bytes, encoded) = peak_bytes(|| {
                let plan = watched.cache.plan(request, at(0));
                plan.encode_response(VERSION, &mut answer)
            });
            assert_eq!(encoded, Ok(true), "offset {offset}");
            assert!(answer.size_bytes() > 500);
            assert!(round == 0 || held_bytes == 0, "{held_bytes} bytes");
        }
    }
}
