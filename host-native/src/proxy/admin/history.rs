//! The figures of the last minutes and of the last day, so that what has changed can be seen without anything beside the
//! proxy. Takes a tenth of a mebibyte, whatever happens.

use core::time::Duration;
use std::collections::VecDeque;

use serde_json::{Value, json};

/// Between two samples of the last minutes.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);
/// Ten minutes of them.
const RECENT_SAMPLES: usize = 301;
/// Of these every so many is kept for the day: one in five minutes.
const DAY_EVERY: u64 = 150;
/// A day of those.
const DAY_SAMPLES: usize = 289;

/// The figures of a moment; those that grow are counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// Since the start.
    pub(super) at: Duration,
    pub(super) lookups: u64,
    pub(super) hits: u64,
    pub(super) bytes_saved: u64,
    pub(super) upstream_bytes: u64,
    pub(super) upstream_fetches: u64,
    pub(super) sent_bytes: u64,
    pub(super) requests: u64,
    pub(super) size_bytes: u64,
    pub(super) connections: u64,
}

/// Samples of two grains, both of bounded number.
#[derive(Debug, Default)]
pub(super) struct History {
    recent: VecDeque<Sample>,
    day: VecDeque<Sample>,
    pushed: u64,
}

impl History {
    pub(super) fn push(&mut self, sample: Sample) {
        if self.pushed.is_multiple_of(DAY_EVERY) {
            push_within(&mut self.day, sample, DAY_SAMPLES);
        }
        push_within(&mut self.recent, sample, RECENT_SAMPLES);
        self.pushed += 1;
    }

    /// The last minutes in columns, an element for the time between two samples.
    pub(super) fn recent(&self) -> Value {
        columns(SAMPLE_INTERVAL, &self.recent, None)
    }

    /// The last day. Its last element goes on to the last sample, so that it is not five minutes old.
    pub(super) fn day(&self) -> Value {
        let every = u32::try_from(DAY_EVERY).unwrap_or(u32::MAX);
        columns(SAMPLE_INTERVAL * every, &self.day, self.recent.back())
    }
}

fn push_within(samples: &mut VecDeque<Sample>, sample: Sample, limit: usize) {
    if samples.len() >= limit {
        samples.pop_front();
    }
    samples.push_back(sample);
}

/// Two samples next to each other.
struct Step<'s>(&'s Sample, &'s Sample);

impl Step<'_> {
    fn grown(&self, figure: fn(&Sample) -> u64) -> u64 {
        figure(self.1).saturating_sub(figure(self.0))
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
    fn per_second(&self, figure: fn(&Sample) -> u64) -> Value {
        let seconds = self.1.at.saturating_sub(self.0.at).as_secs_f64();
        let rate = self.grown(figure) as f64 / seconds.max(0.001);
        // A tenth is fine enough, and short.
        json!((rate * 10.0).round() / 10.0)
    }

    /// Null where nothing was looked up.
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
    fn hit_ratio(&self) -> Value {
        let (hits, lookups) = (self.grown(|each| each.hits), self.grown(|each| each.lookups));
        if lookups == 0 {
            return Value::Null;
        }
        let ratio = hits as f64 / lookups as f64;
        json!((ratio.min(1.0) * 10_000.0).round() / 10_000.0)
    }
}

fn columns(interval: Duration, samples: &VecDeque<Sample>, last: Option<&Sample>) -> Value {
    let last = last.filter(|last| samples.back().is_some_and(|back| back.at < last.at));
    let all: Vec<&Sample> = samples.iter().chain(last).collect();
    let steps = || {
        all.windows(2)
            .filter_map(|two| Some(Step(two.first()?, two.last()?)))
    };
    let per_second =
        |figure: fn(&Sample) -> u64| -> Vec<Value> { steps().map(|step| step.per_second(figure)).collect() };
    let gauge = |figure: fn(&Sample) -> u64| -> Vec<u64> { steps().map(|step| figure(step.1)).collect() };
    json!({
        "interval_seconds": interval.as_secs(),
        "hit_ratio": steps().map(|step| step.hit_ratio()).collect::<Vec<_>>(),
        "bytes_saved_per_second": per_second(|each| each.bytes_saved),
        "upstream_bytes_per_second": per_second(|each| each.upstream_bytes),
        "upstream_fetches_per_second": per_second(|each| each.upstream_fetches),
        "sent_bytes_per_second": per_second(|each| each.sent_bytes),
        "requests_per_second": per_second(|each| each.requests),
        "size_bytes": gauge(|each| each.size_bytes),
        "connections": gauge(|each| each.connections),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u64, lookups: u64, hits: u64) -> Sample {
        Sample {
            at: Duration::from_secs(seconds),
            lookups,
            hits,
            bytes_saved: hits * 100,
            size_bytes: lookups,
            ..Sample::default()
        }
    }

    #[test]
    fn rates_are_of_the_time_between_two_samples() {
        let mut history = History::default();
        assert_eq!(history.recent()["hit_ratio"], json!([]));
        for sample in [
            sample(0, 0, 0),
            sample(2, 10, 5),
            sample(6, 10, 5),
            sample(8, 13, 6),
        ] {
            history.push(sample);
        }
        let recent = history.recent();
        assert_eq!(recent["hit_ratio"], json!([0.5, null, 0.3333]));
        assert_eq!(recent["bytes_saved_per_second"], json!([250.0, 0.0, 50.0]));
        assert_eq!(recent["size_bytes"], json!([10, 10, 13]));
        // The day has one sample, and goes on to the last one.
        assert_eq!(history.day()["hit_ratio"], json!([0.4615]));
    }

    #[test]
    fn there_are_no_more_samples_than_stated_however_long_it_runs() {
        let mut history = History::default();
        for second in 0..200_000 {
            history.push(sample(2 * second, second, 0));
        }
        assert_eq!(
            (history.recent.len(), history.day.len()),
            (RECENT_SAMPLES, DAY_SAMPLES)
        );
        let seconds = |value: &Value| value.as_array().unwrap().len() as u64;
        assert_eq!(seconds(&history.recent()["connections"]) * 2, 600);
        assert!(seconds(&history.day()["connections"]) * 300 >= 86_400);
        let bytes = (RECENT_SAMPLES + DAY_SAMPLES) * size_of::<Sample>();
        assert!(bytes < 100 << 10, "{bytes}");
    }
}
