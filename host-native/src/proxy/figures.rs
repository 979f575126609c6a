//! What the proxy counts, and the text in which Prometheus reads it.

use core::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kachet_core::statistics::Statistics;

use super::fetch::Way;
use super::{Proxy, Shared};
use crate::figures::{cache_figures, labelled, plain};
use crate::transport::{Transport, api_name};

/// Kafka has fewer APIs.
const APIS: usize = 128;

/// Counts of all connections together.
#[derive(Debug)]
pub(super) struct Figures {
    requests: [AtomicU64; APIS],
    fetches_by_cache: AtomicU64,
    fetches_upstream: AtomicU64,
    sent_bytes: AtomicU64,
    accepted: AtomicU64,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            requests: [const { AtomicU64::new(0) }; APIS],
            fetches_by_cache: AtomicU64::default(),
            fetches_upstream: AtomicU64::default(),
            sent_bytes: AtomicU64::default(),
            accepted: AtomicU64::default(),
        }
    }
}

impl Figures {
    pub(super) fn one_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn one_request(&self, api_key: i16) {
        let api = usize::try_from(api_key).ok();
        if let Some(count) = api.and_then(|api| self.requests.get(api)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn one_fetch(&self, way: Way) {
        match way {
            Way::Cache => &self.fetches_by_cache,
            Way::Upstream => &self.fetches_upstream,
        }
        .fetch_add(1, Ordering::Relaxed);
    }

    /// Of all APIs together.
    pub(super) fn requests(&self) -> u64 {
        self.requests
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(super) fn sent(&self, size_bytes: usize) {
        self.sent_bytes
            .fetch_add(super::count(size_bytes), Ordering::Relaxed);
    }
}

/// Looks at a proxy, also from elsewhere and after its end.
pub struct Monitor<T> {
    pub(super) shared: Arc<Shared<T>>,
}

impl<T> Clone for Monitor<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T: Transport> Proxy<T> {
    /// For figures and questions after its health.
    pub fn monitor(&self) -> Monitor<T> {
        Monitor {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T: Transport> Monitor<T> {
    /// Whether clients are accepted.
    pub fn is_ready(&self) -> bool {
        !*self.shared.stop.borrow()
    }

    /// The figures of the proxy and those of its cache, in the text format of Prometheus, version 0.0.4.
    pub fn metrics(&self, statistics: &Statistics) -> String {
        let mut text = String::with_capacity(4 << 10);
        // Fails for no string.
        let _written = self.write(&mut text, statistics).is_ok();
        text
    }

    fn write(&self, text: &mut String, statistics: &Statistics) -> fmt::Result {
        let (shared, figures) = (&self.shared, &self.shared.figures);
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let gauge = |text: &mut String, name: &str, value| plain(text, name, "gauge", value);
        let counter = |text: &mut String, name: &str, value| plain(text, name, "counter", value);
        let connections = super::count(shared.connections());
        gauge(text, "proxy_connections", connections)?;
        gauge(text, "proxy_brokers", super::count(shared.brokers.ports().len()))?;
        counter(text, "proxy_connections_accepted_total", get(&figures.accepted))?;
        counter(text, "proxy_sent_bytes_total", get(&figures.sent_bytes))?;
        labelled(
            text,
            "proxy_connections_closed_total",
            "reason",
            shared.ends.counts(),
        )?;
        let ways = [
            ("cache", get(&figures.fetches_by_cache)),
            ("own_connection", get(&figures.fetches_upstream)),
        ];
        labelled(text, "proxy_fetches_total", "by", ways)?;
        let requests = (0..).zip(&figures.requests).filter(|(_, count)| get(count) > 0);
        let requests = requests.map(|(api_key, count)| (api_name(api_key), get(count)));
        labelled(text, "proxy_requests_total", "api", requests)?;
        if let Some(tls) = &shared.settings.tls {
            let (done, failed) = tls.reloads();
            let outcomes = [("done", done), ("failed", failed)];
            labelled(text, "proxy_certificate_reloads_total", "outcome", outcomes)?;
        }
        cache_figures(text, statistics)
    }
}
