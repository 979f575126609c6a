//! The figures for whichever recorder of the `metrics` crate is installed.

use core::time::Duration;

use kachet_core::statistics::Statistics;
use kachet_core::storage::Storage;
use metrics::{Counter, Gauge, Key, KeyName, Label, Level, Metadata, SharedString, Unit, with_recorder};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::{Kind, figures};
use crate::cache::Cache;
use crate::transport::Transport;

/// Less often than this nobody looks, and more often it would only cost time.
const EVERY_MIN: Duration = Duration::from_millis(100);
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// The figures of one cache at the recorder that is installed when this is made.
pub struct Recording {
    /// In the order of [`Statistics::named`].
    figures: Vec<Figure>,
}

enum Figure {
    Gauge(Gauge),
    Counter(Counter),
}

impl Recording {
    /// Describes and registers every figure, with these labels on each.
    pub fn new(labels: &[(&'static str, String)]) -> Self {
        let labels: Vec<Label> = labels
            .iter()
            .map(|(name, value)| Label::new(*name, value.clone()))
            .collect();
        let none = Statistics::default();
        let registered = figures(&none).map(|(name, kind, _, tells)| {
            let unit = if name.contains("_bytes") {
                Unit::Bytes
            } else {
                Unit::Count
            };
            let key = Key::from_parts(name.clone(), labels.clone());
            let (name, tells) = (KeyName::from(name), SharedString::const_str(tells));
            with_recorder(|recorder| match kind {
                Kind::Gauge => {
                    recorder.describe_gauge(name, Some(unit), tells);
                    Figure::Gauge(recorder.register_gauge(&key, &METADATA))
                }
                Kind::Counter => {
                    recorder.describe_counter(name, Some(unit), tells);
                    Figure::Counter(recorder.register_counter(&key, &METADATA))
                }
            })
        });
        Self {
            figures: registered.collect(),
        }
    }

    /// Hands a moment's figures on.
    pub fn record(&self, statistics: &Statistics) {
        for (figure, (_, value)) in self.figures.iter().zip(statistics.named()) {
            match figure {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "gauges are floats; it takes 8 PiB to lose a byte"
                )]
                Figure::Gauge(gauge) => gauge.set(value as f64),
                Figure::Counter(counter) => counter.absolute(value),
            }
        }
    }
}

/// Hands figures on until it is dropped.
#[derive(Debug)]
pub struct Publishing {
    task: JoinHandle<()>,
}

impl Drop for Publishing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Hands the figures of a cache to the recorder that is installed, now and every so often, at most ten times a second. To be
/// called within a tokio runtime.
///
/// ```no_run
/// # async fn example(cache: &kachet::cache::Cache<kachet::transport::TcpTransport>) {
/// use std::time::Duration;
///
/// // After the exporter, for instance metrics-exporter-prometheus, has been installed.
/// let labels = [("cache", "orders".to_owned())];
/// let publishing = kachet::figures::publish(cache, &labels, Duration::from_secs(5));
/// # drop(publishing);
/// # }
/// ```
#[must_use = "figures are handed on until this is dropped"]
pub fn publish<T: Transport, S: Storage + 'static>(
    cache: &Cache<T, S>,
    labels: &[(&'static str, String)],
    every: Duration,
) -> Publishing {
    let (recording, cache) = (Recording::new(labels), cache.clone());
    let mut ticks = interval(every.max(EVERY_MIN));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let task = tokio::spawn(async move {
        loop {
            ticks.tick().await;
            recording.record(&cache.statistics());
        }
    });
    Publishing { task }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use metrics::{GaugeFn, Histogram, Recorder, with_local_recorder};

    use super::*;

    #[derive(Default)]
    struct Kept {
        values: Mutex<BTreeMap<String, Arc<Value>>>,
        described: Mutex<Vec<String>>,
    }

    #[derive(Default)]
    struct Value(AtomicU64);

    impl GaugeFn for Value {
        fn increment(&self, _: f64) {}

        fn decrement(&self, _: f64) {}

        fn set(&self, value: f64) {
            self.0.store(value.to_bits(), Ordering::Relaxed);
        }
    }

    impl metrics::CounterFn for Value {
        fn increment(&self, _: u64) {}

        fn absolute(&self, value: u64) {
            self.0.store(value, Ordering::Relaxed);
        }
    }

    impl Kept {
        fn of(&self, key: &Key) -> Arc<Value> {
            let value = Arc::<Value>::default();
            self.values
                .lock()
                .unwrap()
                .insert(key.to_string(), Arc::clone(&value));
            value
        }
    }

    impl Recorder for Kept {
        fn describe_counter(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
            self.described.lock().unwrap().push(key.as_str().to_owned());
        }

        fn describe_gauge(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
            self.described.lock().unwrap().push(key.as_str().to_owned());
        }

        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.of(key))
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.of(key))
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn every_figure_reaches_the_recorder_by_its_name_and_kind() {
        let kept = Kept::default();
        let statistics = Statistics {
            hits: 7,
            size_bytes: 9,
            ..Statistics::default()
        };
        with_local_recorder(&kept, || {
            Recording::new(&[("cache", "orders".to_owned())]).record(&statistics);
        });
        let values = kept.values.lock().unwrap();
        assert_eq!(values.len(), statistics.named().len());
        assert_eq!(kept.described.lock().unwrap().len(), values.len());
        let value = |name: &str| {
            let found = values
                .iter()
                .find(|(key, _)| key.contains(name) && key.contains("orders"));
            found.map(|(_, value)| value.0.load(Ordering::Relaxed))
        };
        assert_eq!(value("kachet_cache_hits_total"), Some(7));
        assert_eq!(value("kachet_cache_size_bytes"), Some(9_f64.to_bits()));
    }
}
