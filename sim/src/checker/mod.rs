//! Judges every answer that came through the cache, by the whole history of the logs and by what brokers have told.

mod committed;
mod contents;

use kachet::core::statistics::Statistics;
use kachet::core::time::MaxStaleness;
use kachet::core::wire::{FetchPartition, FetchRequest, FetchResponse, PartitionData, TopicRef};
use kachet::transport::TransportError;

use self::contents::{Contents, read};
use crate::cluster::Topic;
use crate::ledger::What;
use crate::profile::Profile;
use crate::world::{CRASHES, Simulation, World};

const READ_COMMITTED: i8 = 1;

/// A fetch that a client sent.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) arrived_at: u64,
    pub(crate) request: FetchRequest,
    /// Whether it is of a kind that the cache answers; the others only pass through it.
    pub(crate) is_ordinary: bool,
}

/// What went against a rule: which, and how.
type Finding = (&'static str, String);

/// What is needed to judge one answer.
struct Case<'a> {
    asked: &'a Asked,
    world: &'a World,
    now: u64,
    /// From when on what is told must have been true, or asked for.
    since: u64,
    /// The same for what only the cleaner changes.
    clean_since: u64,
    /// How long brokers may go on believing in what has changed.
    rumour_ms: u64,
    /// Whether the cache never asks brokers if what it holds still stands.
    is_never_asked: bool,
}

/// Judges an answer, and notes what is wrong with it.
pub(crate) fn judge(simulation: &Simulation, asked: &Asked, outcome: &Result<FetchResponse, TransportError>) {
    let now = simulation.now();
    let mut world = simulation.world();
    let case = Case {
        asked,
        world: &world,
        now,
        since: simulation.profile.true_since(asked.arrived_at),
        clean_since: simulation.profile.clean_since(asked.arrived_at),
        rumour_ms: simulation.profile.rumour_ms,
        is_never_asked: simulation.profile.max_staleness == MaxStaleness::Forever,
    };
    let findings = match outcome {
        Ok(response) => case.response(&simulation.profile, response),
        Err(error) => case.failure(error),
    };
    for (rule, what) in findings {
        let what = format!(
            "{what}; asked at {} ms: {}",
            asked.arrived_at,
            crate::network::told_short(&asked.request)
        );
        world.violate(now, rule, what);
    }
}

/// Holds the cache's figures against the limit that is in force, and against a sum over all that it holds (H26).
pub(crate) fn judge_size(simulation: &Simulation, statistics: &Statistics, audit: (u64, u64)) {
    let now = simulation.now();
    let mut world = simulation.world();
    let limit = world.limit_in_force(now, simulation.profile.removal_ms());
    if statistics.size_bytes > limit {
        let what = format!("{} bytes, the limit is {limit}", statistics.size_bytes);
        world.violate(now, "size limit", what);
    }
    let (counted, summed) = audit;
    if counted != summed {
        let what = format!("{counted} bytes are counted, {summed} are there");
        world.violate(now, "accounting", what);
    }
}

impl Case<'_> {
    /// Whether a fetch that this request may have waited for brought such a thing of a partition.
    fn was_brought(&self, topic: &TopicRef, partition: i32, wanted: impl Fn(What) -> bool) -> bool {
        let mut brought = self.world.ledger.brought(topic, partition, self.since);
        brought.any(|entry| entry.arrived_at >= self.asked.arrived_at && wanted(entry.what))
    }

    fn any_was_brought(&self, wanted: impl Fn(What) -> bool) -> bool {
        let mut partitions = self.asked.request.partitions();
        partitions.any(|(topic, asked)| self.was_brought(topic, asked.partition, &wanted))
    }

    fn failure(&self, error: &TransportError) -> Vec<Finding> {
        if self.any_was_brought(|what| what == What::Failed) {
            return Vec::new();
        }
        vec![(
            "no failure of its own",
            format!("no fetch upstream failed, yet: {error}"),
        )]
    }

    fn response(&self, profile: &Profile, response: &FetchResponse) -> Vec<Finding> {
        let mut findings = Vec::new();
        if response.error_code != 0 {
            let code = response.error_code;
            let is_told = self.any_was_brought(|what| what == What::Refused(code));
            if !is_told {
                findings.push((
                    "no failure of its own",
                    format!("top-level error {code} that no broker gave"),
                ));
            }
            return findings;
        }
        self.mentions(profile, response, &mut findings);
        let mut sizes = Vec::new();
        for (topic, asked) in self.asked.request.partitions() {
            let mut mentions = response.partitions();
            let found = mentions.find(|(of, data)| *of == topic && data.partition_index == asked.partition);
            if let Some((_, data)) = found {
                let contents = read(self, topic, data);
                self.partition(topic, asked, data, response, &contents, &mut findings);
                sizes.push((asked, contents));
            }
        }
        if self.asked.is_ordinary {
            self.limits(&sizes, &mut findings);
        }
        findings
    }

    /// Every partition that was asked for is there, and no other (H22).
    fn mentions(&self, profile: &Profile, response: &FetchResponse, findings: &mut Vec<Finding>) {
        let asked_for = |topic: &TopicRef, index: i32| {
            let mut asked = self.asked.request.partitions();
            asked.any(|(of, each)| of == topic && each.partition == index)
        };
        let mut seen = Vec::new();
        for (topic, data) in response.partitions() {
            if !asked_for(topic, data.partition_index) {
                findings.push((
                    "partitions",
                    format!("{topic:?}/{} was not asked for", data.partition_index),
                ));
            }
            if seen.contains(&(topic, data.partition_index)) && profile.requests.duplicated == 0 {
                findings.push((
                    "partitions",
                    format!("{topic:?}/{} comes twice", data.partition_index),
                ));
            }
            seen.push((topic, data.partition_index));
        }
        for (topic, asked) in self.asked.request.partitions() {
            let is_left_out = |what| matches!(what, What::Omitted | What::Refused(_));
            if !seen.contains(&(topic, asked.partition))
                && !self.was_brought(topic, asked.partition, is_left_out)
            {
                findings.push(("partitions", format!("{topic:?}/{} is missing", asked.partition)));
            }
        }
    }

    fn partition(
        &self,
        topic: &TopicRef,
        asked: &FetchPartition,
        data: &PartitionData,
        response: &FetchResponse,
        contents: &Contents<'_>,
        findings: &mut Vec<Finding>,
    ) {
        findings.extend(contents.findings.iter().cloned());
        let brought = |wanted: &dyn Fn(What) -> bool| self.was_brought(topic, asked.partition, wanted);
        let mut expect = |holds: bool, rule: &'static str, what: &str| {
            if !holds {
                findings.push((rule, format!("{topic:?}/{}: {what}", asked.partition)));
            }
        };
        if data.error_code != 0 {
            let code = data.error_code;
            let is_told = brought(&|what| what == What::Error(code));
            expect(
                is_told,
                "no failure of its own",
                &format!("error {code} that no broker gave"),
            );
            return expect(contents.bytes == 0, "shape", "an error with records");
        }
        if data.diverging_epoch.is_some() {
            let is_told = brought(&|what| what == What::Diverging);
            expect(
                is_told,
                "no failure of its own",
                "a divergence that no broker gave",
            );
            return expect(contents.bytes == 0, "shape", "a divergence with records");
        }
        if data.preferred_read_replica >= 0 {
            let is_told = brought(&|what| what == What::Redirect);
            expect(is_told, "no failure of its own", "a redirect that no broker gave");
            return expect(contents.bytes == 0, "shape", "a redirect with records");
        }
        if contents.bytes == 0 {
            // Beside others that took up the limit a partition may be empty; alone, only a broker knows that there is
            // nothing.
            let others = response
                .partitions()
                .any(|(_, each)| each.records_size_bytes() > 0);
            let is_told = brought(&|what| matches!(what, What::Empty | What::Redirect | What::Diverging));
            expect(others || is_told, "shape", "empty though no broker said so");
        }
        self.watermarks(topic, asked, data, contents, findings);
        self.isolation(asked, data, contents, findings);
    }

    /// Watermarks are those that brokers have named, or what the answer itself shows (H10).
    fn watermarks(
        &self,
        topic: &TopicRef,
        asked: &FetchPartition,
        data: &PartitionData,
        contents: &Contents<'_>,
        findings: &mut Vec<Finding>,
    ) {
        let behind = contents
            .end
            .unwrap_or(asked.fetch_offset)
            .max(asked.fetch_offset + 1);
        let ids = self.world.cluster.ever(topic).map(|topic| topic.id);
        let named: Vec<_> = ids
            .filter_map(|id| self.world.ledger.watermarks(id, asked.partition))
            .collect();
        let (high, stable, start) = (
            data.high_watermark,
            data.last_stable_offset,
            data.log_start_offset,
        );
        // A cache that serves what it was restored from without asking knows no more than that batches were there: what it
        // tells is below what was named once.
        let is_restored = self.world.tally.contains_key(CRASHES) && self.is_never_asked;
        let is_below_named = |value: i64| {
            let mut highs = named.iter().flat_map(|each| each.high.iter());
            is_restored && highs.any(|high| (behind..=*high).contains(&value))
        };
        let known_high =
            high == behind || is_below_named(high) || named.iter().any(|each| each.high.contains(&high));
        // What a cache was restored from tells it nothing of what is stable, which readers of uncommitted data need not
        // know.
        let untold = stable == -1
            && self.asked.request.isolation_level != READ_COMMITTED
            && self.world.tally.contains_key(CRASHES);
        let known_stable = untold
            || stable == behind
            || is_below_named(stable)
            || named
                .iter()
                .any(|each| each.stable.contains(&stable) || each.high.contains(&stable));
        let known_start = start == -1 || named.iter().any(|each| each.start.contains(&start));
        let mut expect = |holds: bool, what: String| {
            if !holds {
                findings.push(("watermarks", format!("{topic:?}/{}: {what}", asked.partition)));
            }
        };
        expect(known_high, format!("high watermark {high} that no broker named"));
        expect(
            known_stable,
            format!("last stable offset {stable} that no broker named"),
        );
        expect(known_start, format!("log start {start} that no broker named"));
        expect(
            stable <= high,
            format!("last stable offset {stable} above the high watermark {high}"),
        );
        expect(
            asked.fetch_offset >= start,
            format!("served below the log start {start}"),
        );
        if let Some(end) = contents.end {
            expect(
                high >= end,
                format!("high watermark {high} below the end {end} of the records"),
            );
            let committed = self.asked.request.isolation_level == READ_COMMITTED;
            let visible = !committed || stable >= end;
            expect(
                visible,
                format!("last stable offset {stable} below the end {end} of the records"),
            );
        }
    }

    fn isolation(
        &self,
        asked: &FetchPartition,
        data: &PartitionData,
        contents: &Contents<'_>,
        findings: &mut Vec<Finding>,
    ) {
        let committed = self.asked.request.isolation_level == READ_COMMITTED;
        match &data.aborted_transactions {
            None if committed => {
                findings.push(("committed", "null instead of the aborted transactions".to_owned()));
            }
            Some(_) if !committed => {
                findings.push((
                    "committed",
                    "aborted transactions for a reader of uncommitted data".to_owned(),
                ));
            }
            Some(aborted) => findings.extend(committed::check(self, asked, aborted, &contents.batches)),
            None => {}
        }
    }

    /// The limits of the request, in its order (H12).
    fn limits(&self, sizes: &[(&FetchPartition, Contents<'_>)], findings: &mut Vec<Finding>) {
        let mut left = usize::try_from(self.asked.request.max_bytes).unwrap_or(0);
        let mut is_first = true;
        for (asked, contents) in sizes {
            let limit = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(left);
            let one_whole = is_first && contents.batches.len() == 1 && contents.tail == 0;
            if contents.bytes > limit && !one_whole {
                let what = format!(
                    "partition {} gives {} bytes in {} batches, the limit is {limit}",
                    asked.partition,
                    contents.bytes,
                    contents.batches.len()
                );
                findings.push(("limits", what));
            }
            is_first &= contents.bytes == 0;
            left = left.saturating_sub(contents.bytes);
        }
    }

    fn topics(&self, topic: &TopicRef) -> impl Iterator<Item = &Topic> {
        self.world.cluster.ever(topic)
    }
}
