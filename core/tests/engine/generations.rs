//! A mount that outlives its processes: restored, worked with, and left by a crash in the middle of a write, again and
//! again, while the logs are cut by elections and grow anew.

use std::time::Duration;

use bytes::Bytes;
use kachet_core::cache::{CacheSettings, Doubtful, EpochEnd, Evidence};
use kachet_core::storage::faulty::FaultRates;
use kachet_core::time::{Instant, MaxStaleness};

use crate::batches::{Shape, at, data, key, make, request, request_one, response_of};
use crate::driver::{Disk, Driver, block_on};

const SEEDS: u64 = 30;
const GENERATIONS: u64 = 6;
const LIMIT_BYTES: u64 = 24_000;
const SEGMENT_BYTES: u32 = 2_000;
const PARTITIONS: i32 = 3;
/// Its topic is compacted.
const COMPACTED: i32 = 2;

/// The log of a partition, as its leader has it: batch n holds the offsets from 10·n to 10·n + 9.
#[derive(Default)]
struct Log {
    batches: Vec<(i32, Bytes)>,
    epoch: i32,
}

impl Log {
    fn grow(&mut self, partition: i32, payload_bytes: usize) {
        let base = self.end();
        let batch = make(Shape {
            payload_bytes,
            epoch: self.epoch,
            fill: 1 + u64::try_from(self.epoch * PARTITIONS + partition).unwrap(),
            ..Shape::new(base, base + 9)
        });
        self.batches.push((self.epoch, batch));
    }

    /// An unclean election.
    fn cut(&mut self, batches: usize) {
        self.batches.truncate(batches);
        self.epoch += 1;
    }

    fn end(&self) -> i64 {
        10 * i64::try_from(self.batches.len()).unwrap()
    }

    fn epoch_end(&self, epoch: i32) -> EpochEnd {
        let older = self.batches.iter().take_while(|(of, _)| *of <= epoch);
        let last = older.clone().last().map(|(of, _)| *of);
        match last {
            _ if epoch == self.epoch => EpochEnd {
                epoch,
                end_offset: self.end(),
            },
            Some(of) => EpochEnd {
                epoch: of,
                end_offset: 10 * i64::try_from(older.count()).unwrap(),
            },
            None => EpochEnd {
                epoch: -1,
                end_offset: -1,
            },
        }
    }

    fn evidence(&self, doubtful: &Doubtful) -> Evidence {
        let older = doubtful.older_epochs.iter().filter(|epoch| **epoch < self.epoch);
        Evidence {
            leader_epoch: self.epoch,
            log_start_offset: 0,
            high_watermark: self.end(),
            is_compacted: doubtful.key.partition == COMPACTED,
            epoch_end: self.epoch_end(doubtful.newest_cached_epoch),
            older_epoch_ends: older.map(|epoch| (*epoch, self.epoch_end(*epoch))).collect(),
        }
    }

    fn from(&self, offset: i64) -> Vec<u8> {
        let batches = self.batches.iter().skip(usize::try_from(offset / 10).unwrap());
        batches.flat_map(|(_, batch)| batch.to_vec()).collect()
    }
}

#[derive(Default)]
struct Counts {
    restored: u64,
    served: u64,
    torn: u64,
}

struct Life {
    disk: Disk,
    logs: Vec<Log>,
    random: fastrand::Rng,
    now: Instant,
    counts: Counts,
}

fn settings(size_limit_bytes: u64) -> CacheSettings {
    CacheSettings {
        size_limit_bytes,
        segment_size_bytes: Some(SEGMENT_BYTES),
        max_staleness: MaxStaleness::Within(Duration::from_secs(3_600)),
        compacted_max_staleness: MaxStaleness::Within(Duration::from_secs(3_600)),
    }
}

impl Life {
    fn new(seed: u64) -> Self {
        Self {
            disk: Driver::on_disk(settings(LIMIT_BYTES), seed, FaultRates::default()),
            logs: (0..PARTITIONS).map(|_| Log::default()).collect(),
            random: fastrand::Rng::with_seed(seed),
            now: at(1_000),
            counts: Counts::default(),
        }
    }

    fn log(&mut self, partition: i32) -> &mut Log {
        &mut self.logs[usize::try_from(partition).unwrap()]
    }

    fn fetch_upstream(&mut self, partition: i32, number: usize) {
        let (high_watermark, now) = (self.log(partition).end(), self.now);
        let Some((_, batch)) = self.log(partition).batches.get(number).cloned() else {
            return;
        };
        let offset = 10 * i64::try_from(number).unwrap();
        let answer = response_of(vec![data(partition, high_watermark, batch)]);
        self.disk.absorb(&request(partition, offset), &answer, now);
    }

    fn work(&mut self) {
        for _ in 0..60 {
            let partition = self.random.i32(0..PARTITIONS);
            let payload_bytes = self.random.usize(20..400);
            let length = self.log(partition).batches.len();
            match self.random.u32(..40) {
                0 if partition != COMPACTED && length > 4 => {
                    let keep = self.random.usize(length / 2..length);
                    self.log(partition).cut(keep);
                    self.log(partition).grow(partition, payload_bytes);
                    // Before it was asked, a cache may serve what it has for as long as its bound allows.
                    self.validate(partition);
                }
                1..12 => {
                    let number = self.random.usize(..=length);
                    self.fetch_upstream(partition, number);
                }
                12..14 => {
                    self.assert_right(partition);
                }
                14 => {
                    self.disk.cache.write_out(self.random.bool());
                    self.disk.settle();
                }
                _ => {
                    self.log(partition).grow(partition, payload_bytes);
                    self.fetch_upstream(partition, length);
                }
            }
        }
    }

    fn validate(&mut self, partition: i32) {
        for doubtful in self.disk.cache.doubtful(&request(partition, 0), at(u64::MAX)) {
            let evidence = self.log(partition).evidence(&doubtful);
            self.disk.cache.validate(&doubtful, &evidence, self.now);
        }
        self.disk.settle();
        self.disk.check();
    }

    /// Whatever is served is what the log holds now. Gives how many batches are.
    fn assert_right(&mut self, partition: i32) -> u64 {
        let mut served = 0;
        for number in 0..5 + self.log(partition).batches.len() {
            let offset = 10 * i64::try_from(number).unwrap();
            // Runs from some, so that the work does not grow with the square of the length.
            let run = (number % 5 == 0)
                .then(|| self.disk.hit(&request(partition, offset), self.now))
                .flatten();
            let one = self.disk.hit(&request_one(partition, offset + 3), self.now);
            let log = self.log(partition).from(offset);
            let is_right = |got: &Option<Bytes>| got.as_ref().is_none_or(|got| log.starts_with(got));
            assert!(
                is_right(&run) && is_right(&one),
                "batch {number} of partition {partition}"
            );
            served += u64::from(one.is_some());
        }
        served
    }

    /// Leaves the process in the middle of a write, or between two.
    fn crash(&mut self) {
        let lying = self.disk.lying.segments().len();
        self.disk.faults().fail_from(self.random.u64(..4));
        for _ in 0..8 {
            let partition = self.random.i32(0..PARTITIONS);
            let number = self.log(partition).batches.len();
            self.log(partition).grow(partition, 300);
            self.fetch_upstream(partition, number);
        }
        self.disk.faults().cancel();
        self.counts.torn += u64::from(self.disk.lying.segments().len() > lying);
        block_on(self.disk.storage.crash()).unwrap();
        self.now = at(self.now.as_millis() + 1_000);
    }

    fn restore(&mut self, limit_bytes: u64) {
        let restored = self.disk.restart(settings(limit_bytes)).unwrap();
        self.counts.restored += restored.batches;
        self.disk.settle();
        self.disk.check();
        assert!(self.disk.lying.bytes() <= limit_bytes);
        for partition in 0..PARTITIONS {
            for run in self.disk.cache.covered(key(partition)) {
                let hit = self.disk.hit(&request(partition, run.base()), self.now);
                assert_eq!(hit, None, "nothing before it is validated");
            }
            self.validate(partition);
            let served = self.assert_right(partition);
            let covered: i64 = self
                .disk
                .cache
                .covered(key(partition))
                .iter()
                .map(|run| 1 + run.last() - run.base())
                .sum();
            if partition == COMPACTED {
                self.assert_served_once_fetched_anew(served);
            } else {
                assert_eq!(
                    10 * served.cast_signed(),
                    covered,
                    "all that was restored and stands"
                );
            }
            self.counts.served += served;
        }
    }

    /// How old a restored batch is nobody knows, so that it may have been compacted long since (H5).
    fn assert_served_once_fetched_anew(&mut self, served: u64) {
        assert_eq!(served, 0, "of a compacted topic");
        let Some(run) = self.disk.cache.covered(key(COMPACTED)).first().copied() else {
            return;
        };
        let inserts = self.disk.cache.statistics().inserts;
        let number = usize::try_from(run.base() / 10).unwrap();
        self.fetch_upstream(COMPACTED, number);
        assert_eq!(self.disk.cache.statistics().inserts, inserts, "it is there");
        assert_eq!(self.assert_right(COMPACTED), 1, "what was fetched anew, alone");
    }
}

#[test]
fn over_generations_of_crashes_a_mount_gives_back_what_stands_and_nothing_else() {
    let mut sum = Counts::default();
    for seed in 0..SEEDS {
        let mut life = Life::new(seed);
        for generation in 0..GENERATIONS {
            life.restore(if generation % 3 == 2 {
                LIMIT_BYTES / 3
            } else {
                LIMIT_BYTES
            });
            life.work();
            life.crash();
        }
        sum.restored += life.counts.restored;
        sum.served += life.counts.served;
        sum.torn += life.counts.torn;
    }
    let Counts {
        restored,
        served,
        torn,
    } = sum;
    assert!(
        restored > 1_000 && served > 300 && torn > 20,
        "{restored}, {served}, {torn}"
    );
}
