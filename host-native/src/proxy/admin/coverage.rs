//! `/api/coverage`: which offsets of which partitions are cached, as much of it as a page shows at a time.

use core::cmp::Reverse;

use kachet_core::offset::OffsetSpan;
use kachet_core::storage::Storage;
use serde_json::{Value, json};

use super::Watching;
use super::http::Asked;
use super::survey::{Extent, Row, each_run, share};
use crate::transport::Transport;

/// Partitions in one answer.
const LIMIT: (usize, usize) = (1, 200);
const LIMIT_BY_DEFAULT: usize = 50;
/// Parts of a partition.
const BUCKETS: (usize, usize) = (1, 512);
const BUCKETS_BY_DEFAULT: usize = 120;
/// Ranges that are told one by one; all are counted.
const RANGES_TOLD: usize = 8;
const PARAMETERS: [&str; 6] = ["topic", "from", "limit", "buckets", "sort", "order"];

impl<T: Transport, S: Storage + 'static> Watching<T, S> {
    /// `topic` is part of what a partition is called, as in `orders/12`; `from` and `limit` count partitions after they
    /// were `sort`ed by `topic`, `cached` or `size` in the `order` `up` or `down`; `buckets` says into how many parts each
    /// is divided.
    pub(super) async fn coverage(&self, asked: &Asked) -> Result<Value, String> {
        asked.expect_only(&PARAMETERS)?;
        let from = asked.number("from", (0, usize::MAX), 0)?;
        let limit = asked.number("limit", LIMIT, LIMIT_BY_DEFAULT)?;
        let buckets = asked.number("buckets", BUCKETS, BUCKETS_BY_DEFAULT)?;
        let sort = asked.choice("sort", &["topic", "cached", "size"])?;
        let is_down = asked.choice("order", &["up", "down"])? == "down";
        // Held to the end, so that one walks through the cache at a time, however many look.
        let mut surveyor = self.surveyor.lock().await;
        let survey = surveyor.survey(self.cache()).await;
        let mut rows: Vec<&Row> = survey.rows.iter().collect();
        if let Some(wanted) = asked.parameter("topic").filter(|wanted| !wanted.is_empty()) {
            let wanted = wanted.to_lowercase();
            rows.retain(|row| called(row).to_lowercase().contains(&wanted));
        }
        order(&mut rows, sort, is_down);
        let mut partitions = Vec::with_capacity(limit.min(rows.len()));
        for row in rows.iter().skip(from).take(limit) {
            partitions.push(self.drawn(row, buckets).await);
        }
        Ok(json!({
            "total": survey.rows.len(),
            "matching": rows.len(),
            "from": from,
            "age_seconds": survey.taken_at.elapsed().as_secs_f64(),
            "partitions": partitions,
        }))
    }

    async fn drawn(&self, row: &Row, buckets: usize) -> Value {
        let mut parts = Parts::new(row.extent, buckets);
        let (mut told, mut batches) = (Vec::new(), 0);
        each_run(self.cache(), row.key, &mut batches, |run| {
            parts.add(run);
            if told.len() < RANGES_TOLD {
                told.push(json!([run.base(), run.last()]));
            }
        })
        .await;
        json!({
            "topic": &*row.topic,
            "topic_id": row.key.topic_id.to_string(),
            "partition": row.key.partition,
            "log_start_offset": row.extent.base,
            "high_watermark": row.extent.end,
            "covered_offsets": row.covered_offsets,
            "cached_percent": percent(row.share()),
            "batches": row.batches,
            "ranges_count": row.ranges,
            "ranges": told,
            "buckets": parts.percents(),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is 10 000 at most")]
fn percent(share: u64) -> f64 {
    share as f64 / 100.0
}

/// What a filter looks at.
fn called(row: &Row) -> String {
    format!("{}/{}", row.topic, row.key.partition)
}

/// Those that are alike stay in the order of topics.
fn order(rows: &mut [&Row], by: &str, is_down: bool) {
    match (by, is_down) {
        ("cached", false) => rows.sort_by_key(|row| row.share()),
        ("cached", true) => rows.sort_by_key(|row| Reverse(row.share())),
        ("size", false) => rows.sort_by_key(|row| row.extent.count()),
        ("size", true) => rows.sort_by_key(|row| Reverse(row.extent.count())),
        (_, false) => {}
        (_, true) => rows.reverse(),
    }
}

/// An extent in parts of nearly equal size, and how much of each is there.
struct Parts {
    extent: Extent,
    held: Vec<u64>,
}

impl Parts {
    /// No more of them than there are offsets.
    fn new(extent: Extent, parts: usize) -> Self {
        let parts = usize::try_from(extent.count()).map_or(parts, |count| parts.min(count));
        Self {
            extent,
            held: vec![0; parts],
        }
    }

    /// Where a part begins, counted from the extent's base.
    fn begin(&self, part: usize) -> u64 {
        let begin = part as u128 * u128::from(self.extent.count()) / self.held.len().max(1) as u128;
        u64::try_from(begin).unwrap_or(u64::MAX)
    }

    /// The part in which an offset lies, counted from the extent's base: the last that begins at it or before.
    fn part_of(&self, offset: u64) -> usize {
        let part = ((u128::from(offset) + 1) * self.held.len() as u128 - 1) / u128::from(self.extent.count());
        usize::try_from(part).unwrap_or(usize::MAX)
    }

    fn add(&mut self, run: OffsetSpan) {
        let Some((first, end)) = self.extent.clip(run).filter(|_| !self.held.is_empty()) else {
            return;
        };
        for part in self.part_of(first)..=self.part_of(end - 1) {
            let (begin, beyond) = (self.begin(part), self.begin(part + 1));
            if let Some(held) = self.held.get_mut(part) {
                *held += end.min(beyond) - first.max(begin);
            }
        }
    }

    /// 100 only for a part of which everything is there, 0 only for one of which nothing is.
    fn percents(&self) -> Vec<u64> {
        let part = |(part, held): (usize, &u64)| share(*held, self.begin(part + 1) - self.begin(part), 100);
        self.held.iter().enumerate().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percents((base, end): (i64, i64), parts: usize, runs: &[(i64, i64)]) -> Vec<u64> {
        let mut all = Parts::new(Extent { base, end }, parts);
        for (first, last) in runs {
            all.add(OffsetSpan::new(*first, *last).unwrap());
        }
        all.percents()
    }

    #[test]
    fn parts_show_how_much_of_their_offsets_is_there() {
        assert_eq!(percents((0, 100), 4, &[]), [0; 4]);
        assert_eq!(percents((0, 100), 4, &[(0, 99)]), [100; 4]);
        assert_eq!(
            percents((0, 100), 4, &[(0, 4), (24, 25), (50, 200)]),
            [24, 4, 100, 100]
        );
        // A single offset is seen, and so is a single one that is missing.
        assert_eq!(percents((1_000, 1_000_000), 2, &[(1_000, 1_000)]), [1, 0]);
        assert_eq!(percents((0, 1_000_000), 2, &[(1, 999_999)]), [99, 100]);
    }

    #[test]
    fn there_are_no_more_parts_than_offsets_and_extremes_do_no_harm() {
        assert_eq!(percents((5, 8), 120, &[(6, 6)]), [0, 100, 0]);
        assert!(percents((5, 5), 120, &[(5, 5)]).is_empty());
        assert_eq!(percents((i64::MIN, i64::MAX), 2, &[(i64::MIN, -2)]), [100, 0]);
        assert_eq!(percents((0, i64::MAX), 512, &[(0, i64::MAX)]), [100; 512]);
    }

    /// Every offset by itself, beside what is computed.
    #[test]
    fn uneven_parts_add_up() {
        for (count, parts) in [(7, 3), (100, 7), (13, 12), (64, 64)] {
            let all = Parts::new(Extent { base: 0, end: count }, parts);
            for offset in 0..count.unsigned_abs() {
                let part = all.part_of(offset);
                assert!(
                    all.begin(part) <= offset && offset < all.begin(part + 1),
                    "{offset} of {count}"
                );
            }
        }
    }
}
