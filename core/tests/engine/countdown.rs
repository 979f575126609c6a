//! A fixed script, run once for each operation of its storage, with that operation failing, and with all from it on: no
//! fetch fails, nothing wrong is served, the limit holds, and once the storage works again so does the cache (H23).

use bytes::Bytes;
use kachet_core::cache::Cache;
use kachet_core::storage::faulty::{FaultKind, FaultRates};
use kachet_core::wire::{FetchRequest, FetchResponse};

use crate::batches::{
    CRC, Shape, at, data, key, make, request, request_one, response_of, unbounded, unchanged,
};
use crate::driver::{Disk, Driver};

const LIMIT_BYTES: u64 = 14_000;
const SMALLER_BYTES: u64 = 9_000;
const SEGMENT_BYTES: u32 = 1_500;
const HIGH_WATERMARK: i64 = 100_000;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A client fetches the batch of this number.
    Fetch(i32, i64),
    /// A client fetches all that is cached from this batch on.
    Run(i32, i64),
    DropFrom(i32, i64),
    DropBelow(i32, i64),
    Validate(i32),
    Limit(u64),
    /// From now on hits have to wait for the storage, or not.
    Cold(bool),
    Restart,
}

/// Some sixty steps, through every state of a segment.
fn script() -> Vec<Step> {
    let fetches = |partition, numbers: core::ops::Range<i64>| numbers.map(move |n| Step::Fetch(partition, n));
    let mut steps = Vec::new();
    steps.extend(fetches(0, 0..10));
    // Hits, so that these move on when their segments go.
    steps.extend(fetches(0, 0..3));
    steps.push(Step::Cold(true));
    steps.extend(fetches(0, 0..4));
    steps.push(Step::Run(0, 0));
    steps.extend(fetches(1, 0..12));
    steps.extend([Step::Run(1, 0), Step::Cold(false), Step::Run(0, 0)]);
    steps.extend([Step::DropFrom(1, 8), Step::DropBelow(0, 2), Step::Validate(1)]);
    steps.extend(fetches(1, 6..10));
    steps.extend([Step::Limit(SMALLER_BYTES), Step::Fetch(2, 0), Step::Restart]);
    steps.extend([Step::Run(1, 0), Step::Validate(0), Step::Validate(1)]);
    steps.extend([Step::Cold(true), Step::Run(1, 0), Step::Run(1, 6)]);
    steps.extend(fetches(2, 1..6));
    steps.extend([Step::Limit(LIMIT_BYTES), Step::Fetch(0, 3), Step::Restart]);
    steps.extend([Step::Validate(2), Step::Run(2, 0)]);
    steps.extend(fetches(2, 3..8));
    steps
}

fn batch(partition: i32, number: i64) -> Bytes {
    make(Shape {
        payload_bytes: 300 + usize::try_from(number * 17 % 90).unwrap(),
        fill: 1 + u64::try_from(partition).unwrap(),
        ..Shape::new(10 * number, 10 * number + 9)
    })
}

struct Play {
    disk: Disk,
    /// A cache that could not be restored passes everything through.
    is_off: bool,
    is_failing: bool,
    hits: u64,
    restored: u64,
    evictions: u64,
}

impl Play {
    fn new() -> Self {
        Self {
            disk: Driver::on_disk(
                unbounded(LIMIT_BYTES, Some(SEGMENT_BYTES)),
                5,
                FaultRates::default(),
            ),
            is_off: false,
            is_failing: false,
            hits: 0,
            restored: 0,
            evictions: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Fetch(partition, number) => self.fetch(partition, number),
            Step::Run(partition, number) => self.run(partition, number),
            Step::DropFrom(partition, number) => self.disk.cache.drop_from(key(partition), 10 * number),
            Step::DropBelow(partition, number) => self.disk.cache.drop_below(key(partition), 10 * number),
            Step::Validate(partition) => self.validate(partition),
            Step::Limit(limit_bytes) if !self.is_off => {
                let may_linger = self.is_failing;
                self.disk.set_limit(limit_bytes, may_linger);
            }
            Step::Limit(_) => {}
            Step::Cold(is_cold) => {
                let rate = if is_cold { 1_000 } else { 0 };
                self.disk.faults().set_per_mille(FaultKind::NotNow, rate);
            }
            Step::Restart => self.restart(),
        }
        if !self.is_off {
            self.disk.settle();
            self.disk.check();
        }
    }

    /// What a client gets, which asks through the cache a broker that has everything.
    fn fetched(&mut self, request: FetchRequest, brokers: FetchResponse) -> Bytes {
        let now = at(1_000);
        let warmed = self.disk.warm(&request, now);
        let plan = self.disk.cache.plan_with(request, now, &warmed);
        let answer = if let Some(asked) = plan.upstream_request().cloned() {
            if plan.is_cacheable() {
                self.disk.absorb(&asked, &brokers, now);
            }
            plan.merge(brokers)
        } else {
            self.hits += 1;
            plan.merge(FetchResponse::default())
        };
        let (_, data) = answer.partitions().next().unwrap();
        assert_eq!(data.error_code, 0);
        data.records.as_ref().unwrap().to_bytes()
    }

    fn fetch(&mut self, partition: i32, number: i64) {
        let expected = batch(partition, number);
        let brokers = response_of(vec![data(partition, HIGH_WATERMARK, expected.clone())]);
        let got = self.fetched(request_one(partition, 10 * number), brokers);
        assert_eq!(got, expected, "batch {number} of partition {partition}");
    }

    fn run(&mut self, partition: i32, number: i64) {
        let expected: Vec<u8> = (number..number + 20)
            .flat_map(|n| batch(partition, n).to_vec())
            .collect();
        let one = batch(partition, number);
        let brokers = response_of(vec![data(partition, HIGH_WATERMARK, one)]);
        let got = self.fetched(request(partition, 10 * number), brokers);
        assert!(!got.is_empty());
        assert!(
            expected.starts_with(&got),
            "from batch {number} of partition {partition} on"
        );
    }

    fn validate(&mut self, partition: i32) {
        let evidence = unchanged(HIGH_WATERMARK, false);
        let doubtful = self.disk.cache.doubtful(&request(partition, 0), at(1_000));
        for doubtful in doubtful {
            self.disk.cache.validate(&doubtful, &evidence, at(1_000));
        }
    }

    fn restart(&mut self) {
        let settings = if self.is_off {
            unbounded(LIMIT_BYTES, Some(SEGMENT_BYTES))
        } else {
            self.disk.cache.settings()
        };
        self.evictions += self.disk.cache.statistics().evictions;
        let restored = self.disk.restart(settings);
        self.is_off = restored.is_err();
        assert!(self.is_failing || !self.is_off, "{restored:?}");
        self.restored += restored.map_or(0, |restored| restored.batches);
        if self.is_off {
            self.disk.cache = Cache::new(unbounded(0, None), CRC);
        }
    }

    /// With the storage well again, what is fetched is kept and served.
    fn assert_recovered(&mut self) {
        self.disk.faults().cancel();
        if self.is_off {
            self.restart();
        }
        self.is_failing = false;
        // Otherwise it would be found out little by little that the storage is well.
        self.disk
            .set_limit(self.disk.cache.settings().size_limit_bytes, false);
        for number in 50..58 {
            self.fetch(3, number);
            let hits = self.hits;
            self.fetch(3, number);
            assert_eq!(self.hits, hits + 1, "batch {number} is kept");
        }
        self.disk.set_limit(0, false);
        assert_eq!(self.disk.cache.statistics().size_bytes, 0, "everything goes");
        assert_eq!(self.disk.lying.segments(), []);
    }
}

/// Plays the script. Gives how many operations there were and how many faults were made.
fn play(kind: FaultKind, fail: impl FnOnce(&Disk)) -> (u64, u64) {
    let mut play = Play::new();
    play.disk.faults().fail_with(kind);
    let before = play.disk.faults().injected(kind);
    fail(&play.disk);
    play.is_failing = true;
    for step in script() {
        play.step(step);
    }
    let faults = play.disk.faults();
    let counts = (faults.operations(), faults.injected(kind) - before);
    play.assert_recovered();
    counts
}

#[test]
fn the_script_without_faults_goes_through_everything() {
    let mut play = Play::new();
    for step in script() {
        play.step(step);
    }
    let statistics = play.disk.cache.statistics();
    assert!(script().len() >= 60, "{}", script().len());
    assert!(play.hits >= 10, "{} hits", play.hits);
    assert!(play.evictions >= 10, "{} evictions", play.evictions);
    assert!(play.restored >= 10, "{} restored", play.restored);
    assert_eq!(statistics.storage_errors, 0);
    play.assert_recovered();
}

fn count_down(kind: FaultKind) {
    let (mut number, mut faults) = (0, 0);
    loop {
        let (operations, once) = play(kind, |disk| disk.faults().fail_once(number));
        let (_, from) = play(kind, |disk| disk.faults().fail_from(number));
        faults += once + from;
        if number >= operations {
            break;
        }
        number += 1;
    }
    assert!(number > 100, "{number} operations");
    assert!(faults > 500, "{kind:?}: {faults} faults");
}

#[test]
fn whichever_operation_fails_it_costs_misses_and_nothing_else() {
    count_down(FaultKind::Error);
}

#[test]
fn whatever_is_not_written_or_only_in_part_costs_misses_and_nothing_else() {
    count_down(FaultKind::Full);
    count_down(FaultKind::TornAppend);
}

#[test]
fn whatever_is_read_short_or_damaged_costs_misses_and_nothing_else() {
    count_down(FaultKind::ShortRead);
    count_down(FaultKind::BitFlip);
}
