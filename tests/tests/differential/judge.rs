//! The rules by which an answer is judged: by what is in the logs, and beside the broker's own answer.
//!
//! The rules of the first kind are held against the broker's own answers as well, so that none of them asks for more
//! than Kafka does. Where an answer may differ from the broker's, the rule says so and names the hazard.

use std::fmt;
use std::time::{Duration, Instant};

use kachet_core::wire::{FetchPartition, FetchResponse, PartitionData, TopicRef};

use crate::connection::Answered;
use crate::contents::{Contents, Size, end_of, size_of};
use crate::requests::Case;
use crate::truth::{Topic, Truth};

const READ_COMMITTED: i8 = 1;
/// By the clock of a broker, a wait may end so much early.
const WAIT_SLACK: Duration = Duration::from_millis(2);

/// Kafka's errors with which partitions come last, and with which the list of aborted transactions is not null.
const UNKNOWN: [i16; 2] = [3, 100];

/// What goes against a rule: which, and how.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) rule: &'static str,
    pub(crate) what: String,
}

pub(crate) fn finding(rule: &'static str, what: String) -> Finding {
    Finding { rule, what }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Partitions in the order in which they are to be answered.
pub(crate) type AskedList = Vec<(TopicRef, FetchPartition)>;

/// A case, and when it was tried.
pub(crate) struct Trial<'a> {
    pub(crate) truth: &'a Truth,
    pub(crate) case: &'a Case,
    /// From when on what is told must have been true.
    pub(crate) since: Instant,
    /// The same for what the cleaner changes.
    pub(crate) clean_since: Instant,
    pub(crate) until: Instant,
    /// Whether the answer is the proxy's, and not the broker's own.
    pub(crate) is_through_the_cache: bool,
}

/// A partition named twice is answered once: in the place of the first mention, with the values of the last.
pub(crate) fn asked_by(case: &Case) -> AskedList {
    let mut asked: AskedList = Vec::new();
    for (topic, partition) in case.request.partitions() {
        let known = asked
            .iter_mut()
            .find(|(of, known)| of == topic && known.partition == partition.partition);
        match known {
            Some((_, known)) => *known = partition.clone(),
            None => asked.push((topic.clone(), partition.clone())),
        }
    }
    asked
}

impl Trial<'_> {
    pub(crate) fn is_committed(&self) -> bool {
        self.case.request.isolation_level == READ_COMMITTED
    }

    pub(crate) fn is_in_motion(&self, topic: &TopicRef) -> bool {
        self.truth.is_in_motion(topic, self.since, self.until)
    }

    /// Judges a whole answer, in which every partition has to be.
    pub(crate) fn whole(&self, asked: &AskedList, response: &FetchResponse) -> Vec<Finding> {
        if response.error_code != 0 {
            return Vec::new();
        }
        let mut findings = self.mentions(asked, response, true);
        findings.extend(order(asked, response));
        // The limits hold in the order of the request, wherever unknown ones stand in the answer.
        let in_order: Vec<_> = asked
            .iter()
            .filter_map(|(topic, asked)| Some((topic, asked, data_of(response, topic, asked.partition)?)))
            .collect();
        findings.extend(self.limits(&in_order));
        findings
    }

    /// Each partition is one that was asked for, once, and well answered (H22).
    pub(crate) fn mentions(&self, asked: &AskedList, response: &FetchResponse, all: bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut seen: Vec<(&TopicRef, i32)> = Vec::new();
        for (topic, data) in response.partitions() {
            let index = data.partition_index;
            if seen.contains(&(topic, index)) {
                findings.push(finding(
                    "partitions (H22)",
                    format!("{topic}/{index} comes twice"),
                ));
            }
            seen.push((topic, index));
            match asked
                .iter()
                .find(|(of, asked)| of == topic && asked.partition == index)
            {
                Some((_, asked)) => findings.extend(self.partition(topic, asked, data)),
                None => findings.push(finding(
                    "partitions (H22)",
                    format!("{topic}/{index} was not asked for"),
                )),
            }
        }
        let missing =
            |(topic, asked): &&(TopicRef, FetchPartition)| !seen.contains(&(topic, asked.partition));
        if all && let Some((topic, asked)) = asked.iter().find(missing) {
            findings.push(finding(
                "partitions (H22)",
                format!("{topic}/{} is missing", asked.partition),
            ));
        }
        findings
    }

    fn partition(&self, topic: &TopicRef, asked: &FetchPartition, data: &PartitionData) -> Vec<Finding> {
        let mut findings = shape(self, data);
        if data.error_code == 0 && data.diverging_epoch.is_none() {
            // Under a name, those of whichever topic fits best: records may be the same in two.
            let homes = self.homes(topic, data.partition_index, asked);
            let judged = homes.map(|contents| contents.judge(data));
            match judged.min_by_key(Vec::len) {
                Some(best) => findings.extend(best),
                None => findings.push(finding(
                    "identity (H6)",
                    "an answer for a topic that never was".to_owned(),
                )),
            }
        }
        for each in &mut findings {
            each.what = format!(
                "{topic}/{} at {}: {}",
                asked.partition, asked.fetch_offset, each.what
            );
        }
        findings
    }

    fn homes<'t>(
        &'t self,
        topic: &'t TopicRef,
        index: i32,
        asked: &'t FetchPartition,
    ) -> impl Iterator<Item = Contents<'t>> {
        self.truth.topics_of(topic).filter_map(move |topic| {
            Some(Contents {
                trial: self,
                topic,
                log: self.truth.log(topic, index)?,
                asked,
            })
        })
    }

    /// The limits of the request, one partition after the other (H12).
    pub(crate) fn limits(&self, parts: &[(&TopicRef, &FetchPartition, &PartitionData)]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let Ok(mut left) = usize::try_from(self.case.request.max_bytes) else {
            return findings;
        };
        let mut is_first = true;
        // Upstream, a broker is asked for what is not cached only. It takes the first of that for the first of all, and
        // gives its first batch whole; and it does not know of hits that stand behind. What then does not fit is left off
        // here, and what it has cost the partitions behind it comes with the next fetch (H12).
        let mut is_room_spent = false;
        for (topic, asked, data) in parts {
            if data.error_code != 0 || data.diverging_epoch.is_some() {
                continue;
            }
            let size = size_of(data);
            let Ok(limit) = usize::try_from(asked.partition_max_bytes) else {
                return findings;
            };
            let limit = limit.min(left);
            let is_excused = self.is_through_the_cache && is_room_spent;
            is_room_spent |= self.has_more(topic, asked, data, limit.saturating_sub(size.bytes));
            if let Some(what) = self
                .against_limit(topic, asked, size, limit, is_first)
                .filter(|_| size.bytes > 0 || !is_excused)
            {
                findings.push(finding(
                    "limits (H12)",
                    format!("{topic}/{}: {what}", asked.partition),
                ));
            }
            is_first &= size.bytes == 0;
            left = left.saturating_sub(size.bytes);
        }
        findings
    }

    /// Whether there is a batch behind what a partition gives that does not fit into what is left for it.
    pub(crate) fn has_more(
        &self,
        topic: &TopicRef,
        asked: &FetchPartition,
        data: &PartitionData,
        left: usize,
    ) -> bool {
        let behind = FetchPartition {
            fetch_offset: end_of(data).unwrap_or(asked.fetch_offset),
            ..asked.clone()
        };
        self.visible(topic, &behind).is_some_and(|next| next > left)
    }

    fn against_limit(
        &self,
        topic: &TopicRef,
        asked: &FetchPartition,
        size: Size,
        limit: usize,
        is_first: bool,
    ) -> Option<String> {
        let one_whole = is_first && size.whole_batches == 1 && size.tail_bytes == 0;
        if size.bytes > limit && !one_whole {
            return Some(format!("{size:?}, the limit is {limit}, first: {is_first}"));
        }
        if size.bytes > 0 {
            return None;
        }
        let first = self.visible(topic, asked)?;
        (is_first || first <= limit)
            .then(|| format!("empty, and {first} bytes fit into {limit}, first: {is_first}"))
    }

    /// How large the first batch is that surely has to be given, at the most.
    pub(crate) fn visible(&self, topic: &TopicRef, asked: &FetchPartition) -> Option<usize> {
        if self.is_in_motion(topic) {
            return None;
        }
        let living = |topic: &&Topic| topic.deleted_at.is_none();
        let topic = self.truth.topics_of(topic).find(living)?;
        let log = self.truth.log(topic, asked.partition)?;
        let mark = log.mark_at(self.since)?;
        let end = if self.is_committed() {
            mark.last_stable_offset
        } else {
            mark.high_watermark
        };
        let (base, version) = log.first_from(asked.fetch_offset)?;
        let largest = log
            .batches
            .get(&base)?
            .iter()
            .map(|version| version.bytes.len())
            .max()?;
        // Within a batch that is not stable as a whole there is nothing to be read.
        (asked.fetch_offset < end && version.last_offset < end).then_some(largest)
    }

    /// Judges an answer that came through the proxy beside the broker's own ones, of before and after it.
    pub(crate) fn beside(&self, through: &Answered, direct: &[&Answered]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let told = through.response.error_code;
        if direct.iter().all(|each| each.response.error_code != told) {
            let codes: Vec<_> = direct.iter().map(|each| each.response.error_code).collect();
            findings.push(finding(
                "errors (H15, H23)",
                format!("error {told} where the broker says {codes:?}"),
            ));
        }
        for (topic, data) in through.response.partitions() {
            let theirs: Vec<_> = direct
                .iter()
                .filter_map(|each| data_of(&each.response, topic, data.partition_index))
                .collect();
            findings.extend(self.data_beside(topic, data, &theirs));
        }
        findings
    }

    /// Errors and divergences are the broker's own, to the last field; and where it has none, there is none.
    fn data_beside(
        &self,
        topic: &TopicRef,
        data: &PartitionData,
        theirs: &[&PartitionData],
    ) -> Option<Finding> {
        if theirs.is_empty() || self.is_in_motion(topic) {
            return None;
        }
        let is_plain = |data: &PartitionData| data.error_code == 0 && data.diverging_epoch.is_none();
        let fits = |their: &&PartitionData| {
            if is_plain(data) {
                is_plain(their)
            } else {
                *their == data
            }
        };
        let is_settled = self.truth.topics.iter().all(|topic| topic.is_settled);
        if !is_settled && is_divergence_between(data, theirs) {
            return None;
        }
        // The limits do not exist, so the broker's answer is the only one (H12).
        let is_odd = self.is_odd() && is_settled;
        if theirs.iter().any(fits) && (!is_odd || theirs.iter().any(|their| their.records == data.records)) {
            return None;
        }
        let told: Vec<_> = theirs.iter().map(|their| brief(their)).collect();
        let what = format!(
            "{topic}/{}: {} where the broker says {told:?}",
            data.partition_index,
            brief(data)
        );
        Some(finding("errors (H23)", what))
    }

    fn is_odd(&self) -> bool {
        let request = &self.case.request;
        let mut partitions = request.partitions();
        request.max_bytes < 0
            || request.min_bytes < 0
            || request.max_wait_ms < 0
            || partitions.any(|(_, asked)| asked.partition_max_bytes < 0)
    }

    /// An answer without anything does not come before its time, unless the broker's does (H14). One with records may:
    /// hits are not held back for bytes that are not cached.
    pub(crate) fn waiting(&self, through: &Answered, direct: &Answered) -> Option<Finding> {
        let says_nothing = |data: &PartitionData| {
            data.error_code == 0 && data.diverging_epoch.is_none() && data.records_size_bytes() == 0
        };
        // A broker waits for no more than it may give.
        if self.case.request.min_bytes.min(self.case.request.max_bytes) <= 0 {
            return None;
        }
        let mut partitions = through.response.partitions();
        if through.response.error_code != 0 || !partitions.all(|(_, data)| says_nothing(data)) {
            return None;
        }
        let wait = Duration::from_millis(u64::try_from(self.case.request.max_wait_ms).unwrap_or(0));
        let shortest = direct.took().min(wait);
        (through.took() + WAIT_SLACK < shortest).then(|| {
            let what = format!("an empty answer after {:?} of {wait:?}", through.took());
            finding("waiting (H14)", what)
        })
    }
}

/// Whether the broker did not know the partition when the request came, rather than lose it while the fetch waited: then
/// the error stands in its place, and without a list of aborted transactions.
fn is_set_apart(data: &PartitionData) -> bool {
    UNKNOWN.contains(&data.error_code) && data.aborted_transactions.is_some()
}

/// In the order of the request, those that are unknown last, and they in any order (H12).
fn order(asked: &AskedList, response: &FetchResponse) -> Option<Finding> {
    let places = response.partitions().map(|(topic, data)| {
        let place = asked
            .iter()
            .position(|(of, asked)| of == topic && asked.partition == data.partition_index);
        place.filter(|_| !is_set_apart(data)).unwrap_or(usize::MAX)
    });
    let places: Vec<_> = places.collect();
    (!places.is_sorted()).then(|| finding("order (H12)", format!("places in the request: {places:?}")))
}

/// The newest epoch ends where the log does, which grows between one answer and the next.
fn is_divergence_between(data: &PartitionData, theirs: &[&PartitionData]) -> bool {
    let ends = theirs.iter().filter_map(|their| their.diverging_epoch.as_ref());
    let Some(told) = &data.diverging_epoch else {
        return false;
    };
    let of_epoch = ends.filter(|end| end.epoch == told.epoch);
    let ends: Vec<i64> = of_epoch.map(|end| end.end_offset).collect();
    let range = ends.iter().min().zip(ends.iter().max());
    range.is_some_and(|(first, last)| (*first..=*last).contains(&told.end_offset))
}

/// What holds for the fields of any partition.
fn shape(trial: &Trial<'_>, data: &PartitionData) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut expect = |holds: bool, what: &str| {
        if !holds {
            findings.push(finding("shape", format!("{what}: {}", brief(data))));
        }
    };
    expect(data.records.is_some(), "null records");
    expect(data.preferred_read_replica == -1, "a redirection (H16)");
    if data.error_code == 0 {
        // Where the first batch does not fit, and with a divergence, a broker gives no list, not even an empty one.
        let is_due = trial.is_committed() && data.records_size_bytes() > 0;
        let is_told = data.aborted_transactions.is_some();
        expect(is_told || !is_due, "no list of aborted transactions (H2)");
        expect(
            !is_told || trial.is_committed(),
            "a list of aborted transactions (H2)",
        );
        return findings;
    }
    expect(data.records_size_bytes() == 0, "an error with records");
    let marks = [
        data.high_watermark,
        data.last_stable_offset,
        data.log_start_offset,
    ];
    expect(marks == [-1; 3], "an error with watermarks");
    // Of a topic that goes while a fetch waits the error comes from where the log was, without a list.
    let may_list = UNKNOWN.contains(&data.error_code);
    let list = data.aborted_transactions.as_deref();
    expect(
        list.is_none_or(|list| may_list && list.is_empty()),
        "an error's aborted transactions",
    );
    findings
}

pub(crate) fn data_of<'r>(
    response: &'r FetchResponse,
    topic: &TopicRef,
    index: i32,
) -> Option<&'r PartitionData> {
    let mut partitions = response.partitions();
    partitions
        .find(|(of, data)| *of == topic && data.partition_index == index)
        .map(|(_, data)| data)
}

/// All but the records.
pub(crate) fn brief(data: &PartitionData) -> String {
    let PartitionData {
        error_code,
        high_watermark,
        last_stable_offset,
        log_start_offset,
        aborted_transactions,
        diverging_epoch,
        current_leader,
        ..
    } = data;
    let aborted = aborted_transactions.as_ref().map(Vec::len);
    format!(
        "error {error_code}, marks {high_watermark} {last_stable_offset} {log_start_offset}, {aborted:?} aborted, diverging \
         {diverging_epoch:?}, leader {current_leader:?}, {} bytes",
        data.records_size_bytes()
    )
}
