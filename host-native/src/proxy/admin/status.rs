//! `/api/status`: the figures of now and of before.

use kachet_core::storage::Storage;
use kachet_core::wire::WireStr;
use serde_json::{Map, Value, json};

use super::Watching;
use super::history::Sample;
use super::http::Asked;
use crate::proxy::{count, lock};
use crate::transport::Transport;

impl<T: Transport, S: Storage + 'static> Watching<T, S> {
    pub(super) fn sample(&self) -> Sample {
        let statistics = self.cache().statistics();
        let shared = &self.monitor.shared;
        Sample {
            at: self.started.elapsed(),
            lookups: statistics.lookups,
            hits: statistics.hits,
            bytes_saved: statistics.bytes_saved,
            upstream_bytes: statistics.upstream_bytes,
            upstream_fetches: statistics.upstream_fetches,
            sent_bytes: shared.figures.sent_bytes(),
            requests: shared.figures.requests(),
            size_bytes: statistics.size_bytes,
            connections: count(shared.connections()),
        }
    }

    /// `history` says of when: `recent` or `day`.
    pub(super) fn status(&self, asked: &Asked) -> Result<Value, String> {
        asked.expect_only(&["history"])?;
        let history = match asked.choice("history", &["recent", "day"])? {
            "day" => lock(&self.history).day(),
            _ => lock(&self.history).recent(),
        };
        let shared = &self.monitor.shared;
        let brokers = shared.brokers.ports();
        let brokers = brokers
            .iter()
            .map(|(node_id, port)| json!({ "node_id": node_id, "port": port }));
        let named = self.cache().statistics().named();
        let cache: Map<String, Value> = named
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        let ends = shared
            .ends
            .counts()
            .map(|(reason, count)| (reason.to_owned(), count.into()));
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "is_ready": self.monitor.is_ready(),
            "cluster_id": self.cache().cluster_id().as_ref().map(WireStr::as_str),
            "proxy": {
                "brokers": brokers.collect::<Vec<_>>(),
                "connections": shared.connections(),
                "connections_limit": shared.settings.limits.connections,
                "connections_accepted": shared.figures.accepted(),
                "connections_closed": ends.collect::<Map<String, Value>>(),
                "requests": shared.figures.requests(),
                "sent_bytes": shared.figures.sent_bytes(),
            },
            "cache": cache,
            "history": history,
        }))
    }
}
