//! What the gateway counts, and the text in which Prometheus reads it.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use kachet_core::storage::Storage;
use tokio::sync::Semaphore;

use super::Shared;
use crate::figures::{cache_figures, labelled, plain};
use crate::proxy::Watched;
use crate::transport::Transport;

/// Counts of all connections together.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// By status; of these there are few.
    answers: Mutex<BTreeMap<u16, u64>>,
    connections: AtomicU64,
    turned_away: AtomicU64,
    failed_handshakes: AtomicU64,
}

impl Figures {
    pub(super) fn one_answer(&self, status: StatusCode) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry(status.as_u16()).or_default() += 1;
    }

    /// One more, or one less.
    pub(super) fn connection(&self, difference: i64) {
        self.connections
            .fetch_add(difference.cast_unsigned(), Ordering::Relaxed);
    }

    pub(super) fn one_turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn one_failed_handshake(&self) {
        self.failed_handshakes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Looks at a gateway, also from elsewhere and after its end.
pub struct GatewayMonitor<T, S: Storage> {
    shared: Arc<Shared<T, S>>,
}

impl<T: Transport, S: Storage + 'static> GatewayMonitor<T, S> {
    pub(super) fn new(shared: &Arc<Shared<T, S>>) -> Self {
        Self {
            shared: Arc::clone(shared),
        }
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        let (shared, figures) = (&self.shared, &self.shared.figures);
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let limit = shared
            .settings
            .limits
            .concurrent_requests
            .min(Semaphore::MAX_PERMITS);
        let answering = limit.saturating_sub(shared.places.available_permits());
        let answering = u64::try_from(answering).unwrap_or(u64::MAX);
        plain(text, "gateway_connections", "gauge", get(&figures.connections))?;
        plain(text, "gateway_requests_under_way", "gauge", answering)?;
        let turned_away = get(&figures.turned_away);
        plain(text, "gateway_connections_refused_total", "counter", turned_away)?;
        let answers = figures
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let answers: Vec<(String, u64)> = answers
            .into_iter()
            .map(|(status, count)| (status.to_string(), count))
            .collect();
        let answers = answers.iter().map(|(status, count)| (status.as_str(), *count));
        labelled(text, "gateway_requests_total", "status", answers)?;
        let settings = &shared.settings;
        if let Some(tls) = &settings.tls {
            let failed = get(&figures.failed_handshakes);
            plain(text, "gateway_handshakes_failed_total", "counter", failed)?;
            reloads(text, "gateway_certificate_reloads_total", tls.reloads())?;
        }
        if let Some(tokens) = &settings.bearer_tokens {
            reloads(text, "gateway_token_reloads_total", tokens.reloads())?;
        }
        cache_figures(text, &shared.cache.statistics())
    }
}

fn reloads(text: &mut String, name: &str, (done, failed): (u64, u64)) -> fmt::Result {
    labelled(text, name, "outcome", [("done", done), ("failed", failed)])
}

impl<T: Transport, S: Storage + 'static> Watched for GatewayMonitor<T, S> {
    fn metrics(&self) -> String {
        let mut text = String::with_capacity(4 << 10);
        // Fails for no string.
        let _written = self.write(&mut text).is_ok();
        text
    }

    fn is_ready(&self) -> bool {
        !*self.shared.stop.borrow()
    }
}
