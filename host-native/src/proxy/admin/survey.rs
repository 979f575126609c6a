//! Walks through the index of the cache, a little at a time, so that fetches do not wait for whoever looks.

use core::time::Duration;
use std::sync::Arc;

use kachet_core::identity::PartitionKey;
use kachet_core::offset::OffsetSpan;
use kachet_core::storage::Storage;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::transport::Transport;

/// The cache is held for so many batches at a time: some tens of microseconds.
const PART_BATCHES: usize = 4_096;
/// After so many partitions others get their turn.
const PARTITIONS_AT_ONCE: usize = 64;
/// A survey is used for so long at least.
const FRESH_FOR: Duration = Duration::from_secs(2);
/// And for so many times as long as it took, so that no more than a twentieth of one processor goes into it.
const FRESH_TIMES: u32 = 20;

/// What is cached of one partition, in figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: PartitionKey,
    /// The topic's name; where it is not known, its id.
    pub(super) topic: Arc<str>,
    pub(super) extent: Extent,
    /// Of the extent.
    pub(super) covered_offsets: u64,
    /// Runs of cached offsets.
    pub(super) ranges: u64,
    pub(super) batches: u64,
}

impl Row {
    /// In hundredths of a percent: 10 000 only if everything is cached, 0 only if nothing is.
    pub(super) fn share(&self) -> u64 {
        share(self.covered_offsets, self.extent.count(), 10_000)
    }
}

/// How much of `whole` is there, in parts: all of them only for all of it, none only for nothing.
pub(super) fn share(there: u64, whole: u64, parts: u64) -> u64 {
    match there {
        0 => 0,
        there if there >= whole => parts,
        there => {
            let share = u128::from(there) * u128::from(parts) / u128::from(whole);
            u64::try_from(share).unwrap_or(parts).clamp(1, parts - 1)
        }
    }
}

/// The offsets that a partition has: from its log start to its high watermark as they were told last. Where they were not,
/// from the first that is cached, and to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) base: i64,
    /// The first offset beyond it; not below `base`.
    pub(super) end: i64,
}

impl Extent {
    pub(super) fn count(self) -> u64 {
        self.end.abs_diff(self.base)
    }

    /// What of a run lies within, counted from `base`: the first, and the one beyond the last.
    pub(super) fn clip(self, run: OffsetSpan) -> Option<(u64, u64)> {
        let first = run.base().max(self.base);
        let end = run.last().saturating_add(1).min(self.end);
        (first < end).then(|| (first.abs_diff(self.base), end.abs_diff(self.base)))
    }
}

/// All partitions of which something was cached at a moment, by topic and index.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) rows: Vec<Row>,
    pub(super) taken_at: Instant,
    took: Duration,
}

/// Takes surveys, and keeps the last.
#[derive(Debug, Default)]
pub(super) struct Surveyor {
    last: Option<Arc<Survey>>,
}

impl Surveyor {
    /// The last survey, or a new one if that is old.
    pub(super) async fn survey<T: Transport, S: Storage + 'static>(
        &mut self,
        cache: &Cache<T, S>,
    ) -> Arc<Survey> {
        if let Some(last) = &self.last
            && last.taken_at.elapsed() < FRESH_FOR.max(last.took * FRESH_TIMES)
        {
            return Arc::clone(last);
        }
        let survey = Arc::new(take(cache).await);
        self.last = Some(Arc::clone(&survey));
        survey
    }
}

async fn take<T: Transport, S: Storage + 'static>(cache: &Cache<T, S>) -> Survey {
    let began_at = Instant::now();
    // Also a partition that fetches have brought since the last survey may have a name by now.
    let names = cache.topic_names();
    let mut rows: Vec<Row> = Vec::new();
    for (number, key) in cache.partitions().into_iter().enumerate() {
        if number % PARTITIONS_AT_ONCE == PARTITIONS_AT_ONCE - 1 {
            yield_now().await;
        }
        let before = rows.last().filter(|row| row.key.topic_id == key.topic_id);
        let topic = before.map(|row| Arc::clone(&row.topic));
        let topic = topic.unwrap_or_else(|| match names.get(&key.topic_id) {
            Some(name) => name.as_str().into(),
            None => key.topic_id.to_string().into(),
        });
        rows.extend(row(cache, key, topic).await);
    }
    rows.sort_by(|a, b| (&a.topic, a.key).cmp(&(&b.topic, b.key)));
    Survey {
        rows,
        taken_at: Instant::now(),
        took: began_at.elapsed(),
    }
}

/// `None` if nothing of it is cached any more.
async fn row<T: Transport, S: Storage + 'static>(
    cache: &Cache<T, S>,
    key: PartitionKey,
    topic: Arc<str>,
) -> Option<Row> {
    let known = cache.known_offsets(key)?;
    let (mut first, mut last, mut ranges, mut covered, mut batches) = (None, None, 0, 0_u64, 0);
    let log_start_offset = known.log_start_offset;
    each_run(cache, key, &mut batches, |run| {
        // A batch in which the log start lies begins before it.
        let base = run.base().max(log_start_offset);
        first.get_or_insert(base);
        last = Some(run.last());
        ranges += 1;
        if base <= run.last() {
            covered = covered.saturating_add(run.last().abs_diff(base).saturating_add(1));
        }
    })
    .await;
    let base = if log_start_offset < 0 {
        first?
    } else {
        log_start_offset
    };
    let end = last?.saturating_add(1).max(known.high_watermark).max(base);
    Some(Row {
        key,
        topic,
        extent: Extent { base, end },
        covered_offsets: covered,
        ranges,
        batches,
    })
}

/// Tells every run of cached offsets, in ascending order; counts the batches. Lets others have their turn.
pub(super) async fn each_run<T: Transport, S: Storage + 'static>(
    cache: &Cache<T, S>,
    key: PartitionKey,
    batches: &mut u64,
    mut tell: impl FnMut(OffsetSpan),
) {
    let mut pending: Option<OffsetSpan> = None;
    let mut from = i64::MIN;
    loop {
        let part = cache.covered_from(key, from, PART_BATCHES);
        *batches += part.batches as u64;
        for run in part.runs {
            // The parts are looked at one after the other, and the cache changes in between.
            let joined = pending.filter(|before| before.last().saturating_add(1) >= run.base());
            match joined {
                Some(before) => pending = OffsetSpan::new(before.base(), run.last().max(before.last())),
                None => {
                    pending.into_iter().for_each(&mut tell);
                    pending = Some(run);
                }
            }
        }
        match part.next {
            // Forwards in any case.
            Some(next) if next > from => from = next,
            _ => break,
        }
        yield_now().await;
    }
    pending.into_iter().for_each(&mut tell);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_and_nothing_are_told_only_where_they_are_true() {
        assert_eq!(share(0, 0, 100), 0);
        assert_eq!(share(0, 5, 100), 0);
        assert_eq!(share(5, 5, 100), 100);
        assert_eq!(share(1, 1_000_000, 100), 1);
        assert_eq!(share(999_999, 1_000_000, 100), 99);
        assert_eq!(share(u64::MAX - 1, u64::MAX, 10_000), 9_999);
    }

    #[test]
    fn what_lies_outside_of_the_log_is_cut_off() {
        let extent = Extent { base: 10, end: 20 };
        let clip = |base, last| extent.clip(OffsetSpan::new(base, last).unwrap());
        assert_eq!(clip(0, 9), None);
        assert_eq!(clip(0, 10), Some((0, 1)));
        assert_eq!(clip(15, i64::MAX), Some((5, 10)));
        assert_eq!(clip(20, 30), None);
        let all = Extent {
            base: i64::MIN,
            end: i64::MAX,
        };
        assert_eq!(all.count(), u64::MAX);
        assert_eq!(all.clip(OffsetSpan::single(i64::MIN)), Some((0, 1)));
    }
}
