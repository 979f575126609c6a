//! Random steps against the naive model: whatever the cache answers is what the model allows, and where nothing is ever
//! evicted, what was told and still stands is a hit.

use bytes::Bytes;
use kachet_core::cache::{CacheSettings, EpochEnd, Evidence};
use kachet_core::storage::Storage;
use kachet_core::storage::faulty::FaultRates;
use kachet_core::time::{Instant, MaxStaleness};
use kachet_core::wire::{FetchRequest, PartitionData, RecordBytes};
use proptest::prelude::*;

use crate::answers::Answers;
use crate::batches::{at, cases_or, committed, data, key, request, request_of, response_of};
use crate::chain::{LINKS, PARTITIONS, Terrain, VERSIONS, chain, terrain};
use crate::driver::Driver;
use crate::model::{Partition, Telling};

pub(crate) const BOUND_MS: u64 = 1_000;
pub(crate) const COMPACTED_BOUND_MS: u64 = 2_500;
/// Times are multiples of it, so that the index, which counts in sixteenths of a second, rounds none.
const TICK_MS: u64 = 125;

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Damage {
    None,
    /// A bit in the batch of this number.
    Bit(usize),
    /// The last batch is cut off, as brokers do.
    Tail,
    /// The high watermark lies so many offsets below the end of what is sent.
    Watermark(i64),
}

/// An answer that comes from upstream.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    partition: i32,
    version: usize,
    /// Where it goes on with another log, and with which.
    switch: Option<(usize, usize)>,
    from: usize,
    /// How far in front of the end of the first batch the fetch offset lies.
    before_last: i64,
    count: usize,
    is_committed: bool,
    damage: Damage,
    log_start: Option<usize>,
    unstable: i64,
    lag_ticks: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Tell(Answered),
    Ask {
        asks: Vec<Ask>,
        max_bytes: i32,
        is_committed: bool,
        is_held: bool,
    },
    Validate {
        partition: i32,
        epoch: i32,
        end_at: usize,
        log_start_at: usize,
        high_watermark_at: usize,
        is_compacted: bool,
    },
    DropFrom(i32, usize),
    DropBelow(i32, usize),
    Forget(i32),
    Error(i32, i16),
    Limit(u64),
    Release,
    Wait(u64),
}

/// A partition of a fetch.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) partition: i32,
    link: usize,
    before: i64,
    pub(crate) limit: i32,
    pub(crate) current_leader_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
}

impl Ask {
    pub(crate) fn offset(&self) -> i64 {
        offset_of(self.partition, self.link)
            .saturating_sub(self.before)
            .max(0)
    }
}

fn offset_of(partition: i32, link: usize) -> i64 {
    let links = &chain(partition, 0).links;
    links[link.min(links.len() - 1)].last
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        12 => Just(Damage::None),
        1 => (0..4_usize).prop_map(Damage::Bit),
        1 => Just(Damage::Tail),
        1 => (0..20_i64).prop_map(Damage::Watermark),
    ]
}

fn telling() -> impl Strategy<Value = Answered> {
    let version = prop_oneof![6 => Just(0), 2 => Just(1), 1 => Just(2)];
    let switch = prop_oneof![8 => Just(None), 1 => (1..4_usize, 0..VERSIONS).prop_map(Some)];
    let what = (0..PARTITIONS, version, switch, 0..LINKS, 0..10_i64, 1..8_usize);
    let log_start = prop_oneof![15 => Just(None), 1 => (0..LINKS / 3).prop_map(Some)];
    let unstable = prop_oneof![4 => Just(0), 1 => 0..60_i64];
    let how = (any::<bool>(), damage(), log_start, unstable, 0..3_u64);
    (what, how).prop_map(|(what, how)| {
        let (partition, version, switch, from, before_last, count) = what;
        let (is_committed, damage, log_start, unstable, lag_ticks) = how;
        Answered {
            partition,
            version,
            switch,
            from,
            before_last,
            count,
            is_committed,
            damage,
            log_start,
            unstable,
            lag_ticks,
        }
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let limit = prop_oneof![3 => Just(i32::MAX), 2 => 0..2_000_i32];
    let epochs = (
        prop_oneof![9 => Just(-1), 1 => 0..6_i32],
        prop_oneof![9 => Just(-1), 1 => 0..6_i32],
    );
    (0..PARTITIONS, 0..LINKS, 0..12_i64, limit, epochs).prop_map(
        |(partition, link, before, limit, epochs)| Ask {
            partition,
            link,
            before,
            limit,
            current_leader_epoch: epochs.0,
            last_fetched_epoch: epochs.1,
        },
    )
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let asks = proptest::collection::vec(ask(), 1..4);
    let max_bytes = prop_oneof![3 => Just(i32::MAX), 1 => 0..4_000_i32];
    let validated = (
        0..8_i32,
        0..2 * LINKS,
        0..LINKS / 4,
        LINKS / 2..2 * LINKS,
        any::<bool>(),
    );
    prop_oneof![
        16 => telling().prop_map(Step::Tell),
        16 => (asks, max_bytes, any::<bool>(), any::<bool>()).prop_map(
            |(asks, max_bytes, is_committed, is_held)| Step::Ask { asks, max_bytes, is_committed, is_held }
        ),
        4 => (0..PARTITIONS, validated).prop_map(|(partition, validated)| Step::Validate {
            partition,
            epoch: validated.0,
            end_at: validated.1,
            log_start_at: validated.2,
            high_watermark_at: validated.3,
            is_compacted: validated.4,
        }),
        1 => (0..PARTITIONS, 0..LINKS).prop_map(|(partition, link)| Step::DropFrom(partition, link)),
        1 => (0..PARTITIONS, 0..LINKS).prop_map(|(partition, link)| Step::DropBelow(partition, link)),
        1 => (0..PARTITIONS).prop_map(Step::Forget),
        1 => (0..PARTITIONS, prop_oneof![Just(1), Just(3), Just(6), Just(29), Just(74)])
            .prop_map(|(partition, code)| Step::Error(partition, code)),
        1 => prop_oneof![Just(16_000), Just(30_000), Just(60_000), Just(150_000)].prop_map(Step::Limit),
        3 => Just(Step::Release),
        4 => (0..5_u64).prop_map(Step::Wait),
    ]
}

/// How a run is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Nothing is evicted and nothing fails, so that what stands must hit.
    pub(crate) is_strict: bool,
    /// The storage fails.
    pub(crate) may_fail: bool,
}

/// A cache, the model of it, and readers.
pub(crate) struct Run<S: Storage> {
    pub(crate) driver: Driver<S>,
    pub(crate) model: Vec<Partition>,
    pub(crate) rules: Rules,
    pub(crate) now: Instant,
    /// What readers hold, and what it was when they got it.
    held: Vec<(Bytes, Vec<u8>)>,
}

pub(crate) fn settings(size_limit_bytes: u64, segment_size_bytes: Option<u32>) -> CacheSettings {
    let within = |millis| MaxStaleness::Within(core::time::Duration::from_millis(millis));
    CacheSettings {
        size_limit_bytes,
        segment_size_bytes,
        max_staleness: within(BOUND_MS),
        compacted_max_staleness: within(COMPACTED_BOUND_MS),
    }
}

impl<S: Storage> Run<S> {
    pub(crate) fn new(driver: Driver<S>, rules: Rules) -> Self {
        Self {
            driver,
            model: (0..PARTITIONS).map(|_| Partition::default()).collect(),
            rules,
            now: at(10_000),
            held: Vec::new(),
        }
    }

    pub(crate) fn partition(&mut self, partition: i32) -> &mut Partition {
        &mut self.model[usize::try_from(partition).unwrap()]
    }

    pub(crate) fn step(&mut self, step: &Step) {
        match step {
            Step::Tell(telling) => self.tell(telling),
            Step::Ask {
                asks,
                max_bytes,
                is_committed,
                is_held,
            } => self.ask(asks, *max_bytes, *is_committed, *is_held),
            Step::Validate { .. } => self.validate(step),
            Step::DropFrom(partition, link) => {
                let offset = offset_of(*partition, *link);
                self.driver.cache.drop_from(key(*partition), offset);
                self.partition(*partition).drop_from(offset);
            }
            Step::DropBelow(partition, link) => {
                let offset = offset_of(*partition, *link);
                self.driver.cache.drop_below(key(*partition), offset);
                self.partition(*partition).drop_below(offset);
            }
            Step::Forget(partition) => {
                self.driver.cache.forget_partition(key(*partition));
                *self.partition(*partition) = Partition::default();
            }
            Step::Error(partition, code) => self.error(*partition, *code),
            Step::Limit(limit) => self.limit(*limit),
            Step::Release => self.release(),
            Step::Wait(ticks) => self.now = later(self.now, *ticks),
        }
        self.settle(match step {
            Step::Tell(telling) => Some(telling.partition),
            _ => None,
        });
    }

    /// What holds after every step.
    fn settle(&mut self, told: Option<i32>) {
        self.driver.settle();
        self.driver.check();
        for (held, copy) in &self.held {
            assert_eq!(held, copy, "what a reader holds changes under its hands");
        }
        for (index, model) in (0..).zip(&mut self.model) {
            model.forget_if_empty();
            let covered = self.driver.cache.covered(key(index));
            if self.rules.is_strict && terrain(index) != Terrain::Sparse {
                assert_eq!(covered, model.covered(), "partition {index}");
            }
            let known = model.covered();
            for run in &covered {
                let is_known = known
                    .iter()
                    .any(|known| known.contains(run.base()) && known.contains(run.last()));
                assert!(is_known, "partition {index}: {run:?} of {known:?}");
            }
            model.shrink_to(&covered, told == Some(index) && !self.rules.is_strict);
        }
    }

    fn tell(&mut self, telling: &Answered) {
        let partition = telling.partition;
        let mut told = Vec::new();
        let (mut version, mut next) = (telling.version, None);
        let mut links = chain(partition, version)
            .links
            .get(telling.from..)
            .unwrap_or_default()
            .iter();
        for number in 0..telling.count {
            if let Some((_, other)) = telling.switch.filter(|(at, _)| *at == number) {
                version = other;
                links = chain(partition, other).links.iter();
            }
            let Some(link) = links
                .by_ref()
                .find(|link| next.is_none_or(|next| link.base >= next))
            else {
                break;
            };
            told.push((link, version));
            let Some(behind) = link.last.checked_add(1) else {
                break;
            };
            next = Some(behind);
        }
        let Some((first, _)) = told.first() else { return };
        let before = chain(partition, telling.version)
            .links
            .get(telling.from.wrapping_sub(1));
        let lowest = before.map_or(0, |before| before.last + 1);
        let fetch_offset = first.last.saturating_sub(telling.before_last).max(lowest);
        let (answer, whole) = Self::answer(telling, &told, fetch_offset);
        let mut covers_base = fetch_offset.min(first.base);
        let mut tellings = Vec::new();
        for (link, version) in told.iter().take(whole) {
            tellings.push(Telling {
                link,
                version: telling.switch.is_none().then_some(*version),
                covers_base,
            });
            covers_base = link.last.saturating_add(1);
        }
        let is_strict = self.rules.is_strict;
        // A cache that has forgotten an election takes what was cut off, one that has not refuses it.
        let model = self.partition(partition);
        if !is_strict && tellings.iter().any(|telling| model.is_cut_off(telling.link)) {
            return;
        }
        let asked_at = at(self.now.as_millis() - TICK_MS * telling.lag_ticks);
        self.partition(partition)
            .absorb(&answer, &tellings, asked_at, is_strict);
        self.driver.absorb(
            &request(partition, fetch_offset),
            &response_of(vec![answer]),
            asked_at,
        );
    }

    /// The answer, and how many of its batches are fit to be kept.
    fn answer(
        telling: &Answered,
        told: &[(&'static crate::chain::Link, usize)],
        fetch_offset: i64,
    ) -> (PartitionData, usize) {
        let partition = telling.partition;
        let mut records: Vec<u8> = told.iter().flat_map(|(link, _)| link.bytes.to_vec()).collect();
        let last = told.last().map_or(0, |(link, _)| link.last);
        let end = chain(partition, 2).end().max(chain(partition, 0).end());
        let mut high_watermark = end;
        let mut whole = told.len();
        match telling.damage {
            Damage::None => {}
            Damage::Bit(number) => {
                let number = number.min(told.len() - 1);
                let before: usize = told[..number].iter().map(|(link, _)| link.bytes.len()).sum();
                records[before + 30] ^= 1;
                whole = number;
            }
            Damage::Tail => {
                records.truncate(records.len() - 1);
                whole = told.len() - 1;
            }
            Damage::Watermark(below) => high_watermark = (last - below).max(0),
        }
        let stable = told
            .iter()
            .take(whole)
            .take_while(|(link, _)| link.last < high_watermark);
        let whole = stable.count();
        let aborted = telling
            .is_committed
            .then(|| chain(partition, told[0].1).aborted(fetch_offset, last));
        let answer = PartitionData {
            last_stable_offset: (high_watermark - telling.unstable).max(0),
            log_start_offset: telling
                .log_start
                .map_or(-1, |link| offset_of(partition, link) - 2),
            aborted_transactions: aborted,
            ..data(partition, high_watermark, records.into())
        };
        (answer, whole)
    }

    fn ask(&mut self, asks: &[Ask], max_bytes: i32, is_committed: bool, is_held: bool) {
        let mut asks = asks.to_vec();
        asks.sort_by_key(|ask| ask.partition);
        asks.dedup_by_key(|ask| ask.partition);
        let offsets: Vec<_> = asks.iter().map(|ask| (ask.partition, ask.offset())).collect();
        let mut request = FetchRequest {
            max_bytes,
            ..request_of(&offsets)
        };
        for (asked, ask) in request.topics[0].partitions.iter_mut().zip(&asks) {
            asked.partition_max_bytes = ask.limit;
            asked.current_leader_epoch = ask.current_leader_epoch;
            asked.last_fetched_epoch = ask.last_fetched_epoch;
        }
        if is_committed {
            request = committed(request);
        }
        let hits = self.driver.hits(&request, self.now);
        Answers {
            model: &self.model,
            rules: self.rules,
            now: self.now,
            is_committed,
            max_bytes,
        }
        .judge(&asks, &hits);
        if is_held {
            let slices = hits
                .iter()
                .flat_map(|data| data.records.iter().flat_map(RecordBytes::slices));
            self.held
                .extend(slices.map(|slice| (slice.clone(), slice.to_vec())));
        }
    }

    fn validate(&mut self, step: &Step) {
        let Step::Validate {
            partition,
            epoch,
            end_at,
            log_start_at,
            high_watermark_at,
            is_compacted,
        } = *step
        else {
            return;
        };
        let offset = |link: usize| {
            if link < LINKS {
                offset_of(partition, link)
            } else {
                i64::MAX
            }
        };
        let doubtful = self.driver.cache.doubtful(&request(partition, 0), at(u64::MAX));
        let older_epochs = doubtful.iter().flat_map(|each| &each.older_epochs);
        // The logs of some leaders hold nothing of the epoch.
        let end_of = |asked: i32| EpochEnd {
            epoch: asked - i32::from(end_at % 2 == 1),
            end_offset: offset(end_at),
        };
        let evidence = Evidence {
            leader_epoch: epoch,
            log_start_offset: offset(log_start_at) - 3,
            high_watermark: offset(high_watermark_at),
            is_compacted,
            epoch_end: EpochEnd {
                epoch: epoch - 1,
                end_offset: offset(end_at),
            },
            older_epoch_ends: older_epochs
                .filter(|older| **older < epoch)
                .map(|older| (*older, end_of(*older)))
                .collect(),
        };
        if let [doubtful] = doubtful.as_slice() {
            self.driver.cache.validate(doubtful, &evidence, self.now);
        }
        let now = self.now;
        let is_strict = self.rules.is_strict;
        self.partition(partition).validate(&evidence, now, is_strict);
    }

    fn error(&mut self, partition: i32, code: i16) {
        let answer = response_of(vec![PartitionData::error(partition, code)]);
        self.driver.absorb(&request(partition, 0), &answer, self.now);
        match code {
            3 => *self.partition(partition) = Partition::default(),
            1 | 6 | 74 => self.partition(partition).doubt(),
            _ => {}
        }
    }

    fn limit(&mut self, limit: u64) {
        if self.rules.is_strict {
            return;
        }
        let may_linger = self.rules.may_fail || !self.held.is_empty();
        self.driver.set_limit(limit, may_linger);
    }

    pub(crate) fn release(&mut self) {
        self.held.clear();
        self.driver.settle();
        if !self.rules.may_fail {
            let limit = self.driver.cache.settings().size_limit_bytes;
            assert!(self.driver.cache.statistics().size_bytes <= limit);
        }
        self.driver.check();
    }
}

fn later(now: Instant, ticks: u64) -> Instant {
    at(now.as_millis() + ticks * TICK_MS)
}

pub(crate) fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..count)
}

pub(crate) fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases: cases_or(cases),
        max_shrink_iters: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

const AMPLE: u64 = 16 << 20;

fn run<S: Storage>(driver: Driver<S>, is_strict: bool, steps: &[Step]) {
    let mut run = Run::new(
        driver,
        Rules {
            is_strict,
            may_fail: false,
        },
    );
    for step in steps {
        run.step(step);
    }
    run.release();
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn where_there_is_ample_room_the_cache_answers_exactly_what_the_model_does(
        segment in prop_oneof![Just(None), Just(Some(700)), Just(Some(5_000))],
        steps in steps(80),
    ) {
        run(Driver::in_memory(settings(AMPLE, segment)), true, &steps);
    }

    #[test]
    fn on_a_disk_that_does_not_fail_the_cache_answers_exactly_what_the_model_does(
        segment in prop_oneof![Just(None), Just(Some(700)), Just(Some(5_000))],
        steps in steps(80),
    ) {
        run(Driver::on_disk(settings(AMPLE, segment), 1, FaultRates::default()), true, &steps);
    }

    #[test]
    fn where_room_is_tight_the_cache_answers_nothing_but_what_the_model_allows(
        segment in prop_oneof![Just(None), Just(Some(700)), Just(Some(5_000))],
        limit in prop_oneof![Just(12_000), Just(30_000), Just(90_000)],
        steps in steps(120),
    ) {
        run(Driver::in_memory(settings(limit, segment)), false, &steps);
    }

    #[test]
    fn where_room_on_a_disk_is_tight_the_cache_answers_nothing_but_what_the_model_allows(
        segment in prop_oneof![Just(None), Just(Some(700)), Just(Some(5_000))],
        limit in prop_oneof![Just(12_000), Just(30_000), Just(90_000)],
        steps in steps(120),
    ) {
        run(Driver::on_disk(settings(limit, segment), 1, FaultRates::default()), false, &steps);
    }
}
