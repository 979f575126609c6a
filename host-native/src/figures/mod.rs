//! The figures of a cache for those who watch over services: as text for Prometheus, without a server, and, with the feature
//! `metrics`, for whichever recorder of the `metrics` crate a service has installed. Both have the same names, which stay
//! what they are: `kachet_cache_` and the figure's name in [`Statistics`], with `_total` behind a counter.

#[cfg(feature = "metrics")]
mod facade;
mod prometheus;

use kachet_core::statistics::Statistics;

#[cfg(feature = "metrics")]
pub use self::facade::{Publishing, Recording, publish};
pub use self::prometheus::prometheus_text;
pub(crate) use self::prometheus::{cache_figures, labelled, plain};

/// Whether a figure goes up and down, or only up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// What kind of figure has this name in [`Statistics::named`], and what it tells.
fn described(name: &str) -> (Kind, &'static str) {
    use Kind::{Counter, Gauge};
    match name {
        "size_bytes" => (Gauge, "Bytes that count against the size limit"),
        "limit_bytes" => (Gauge, "Size limit in bytes; 0 passes everything through"),
        "effective_limit_bytes" => (
            Gauge,
            "Bytes that may be held for now, less than the limit on a full medium",
        ),
        "unwritten_bytes" => (Gauge, "Bytes that a crash would lose"),
        "batches" => (Gauge, "Batches that are held"),
        "partitions" => (Gauge, "Partitions that hold a batch"),
        "segments" => (Gauge, "Segments that batches lie in"),
        "storage_paused" => (Gauge, "1 while the storage fails whatever it is to write"),
        "lookups" => (Counter, "Partitions that fetches asked the cache for"),
        "hits" => (Counter, "Lookups that were answered from the cache"),
        "misses" => (Counter, "Lookups that were not answered from the cache"),
        "inserts" => (Counter, "Batches that were put in"),
        "evictions" => (Counter, "Batches that were taken out for room"),
        "rejected" => (Counter, "Batches that were not put in"),
        "errors" => (
            Counter,
            "Corrupt batches, and responses that contradict their request",
        ),
        "storage_errors" => (Counter, "Operations of the storage that failed"),
        "upstream_fetches" => (Counter, "Fetches that brokers were sent"),
        "upstream_bytes" => (Counter, "Bytes of records that brokers sent"),
        "replica_bytes" => (Counter, "Of these, those of replicas in the cache's own rack"),
        "bytes_saved" => (Counter, "Bytes of records that came from the cache"),
        _ => (Counter, ""),
    }
}

/// The name of a figure for those who watch.
fn full_name(name: &str, kind: Kind) -> String {
    match kind {
        Kind::Gauge => format!("kachet_cache_{name}"),
        Kind::Counter => format!("kachet_cache_{name}_total"),
    }
}

/// Every figure: its full name, kind, value and what it tells.
fn figures(statistics: &Statistics) -> impl Iterator<Item = (String, Kind, u64, &'static str)> {
    statistics.named().into_iter().map(|(name, value)| {
        let (kind, tells) = described(name);
        (full_name(name, kind), kind, value, tells)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_described() {
        for (name, _) in Statistics::default().named() {
            assert_ne!(described(name).1, "", "{name}");
        }
    }

    #[test]
    fn the_manual_names_every_figure_by_its_kind() {
        let manual = include_str!("../../../docs/statistics.md");
        let (gauges, counters) = manual.split_once("## Counters").unwrap();
        for (name, _) in Statistics::default().named() {
            let among = match described(name).0 {
                Kind::Gauge => gauges,
                Kind::Counter => counters,
            };
            assert!(among.contains(&format!("| `{name}` |")), "{name}");
        }
    }
}
