//! Who may be given what is cached (H19).
//!
//! A broker checks on every fetch whether the principal may read; a cache that is shared by several would not. So where
//! clients log in, or the proxy itself does, a connection gets hits of a topic only for a while after the broker has
//! answered a fetch of it on that connection, with the client's own credentials.

use std::collections::HashMap;

use kachet_core::wire::{FetchRequest, FetchResponse, TopicRef};
use tokio::time::Instant;

use super::ProxySettings;

/// Topics of one connection that are kept in mind; for more of them the broker is asked each time.
const TOPICS_LIMIT: usize = 4_096;

/// Kafka's error for an offset that the log does not hold, which comes only after READ was granted.
const OFFSET_OUT_OF_RANGE: i16 = 1;

/// What a connection has been let through for.
#[derive(Debug)]
pub(super) struct Trust {
    is_authenticated: bool,
    allowed_until: HashMap<TopicRef, Instant>,
}

impl Trust {
    pub(super) fn new(is_authenticated: bool) -> Self {
        Self {
            is_authenticated,
            allowed_until: HashMap::new(),
        }
    }

    /// The client has begun to log in. What it was let through for before counts no more.
    pub(super) fn has_authenticated(&mut self) {
        self.is_authenticated = true;
        self.allowed_until.clear();
    }

    /// Whether the client may have whatever the cache has.
    pub(super) fn trusts(&self, settings: &ProxySettings) -> bool {
        // Where the proxy logs in, the cache reads what the client perhaps may not.
        let is_checked = self.is_authenticated || settings.tcp.security.sasl.is_some();
        settings.trusts_clients || !is_checked
    }

    /// Whether the request may be answered by the cache.
    pub(super) fn allows(&self, settings: &ProxySettings, request: &FetchRequest) -> bool {
        if self.trusts(settings) {
            return true;
        }
        let now = Instant::now();
        let lately = |topic: &TopicRef| self.allowed_until.get(topic).is_some_and(|until| now < *until);
        request.topics.iter().all(|topic| lately(&topic.topic))
    }

    /// Takes in what the broker let through on the client's own connection, and what it denied.
    pub(super) fn learn(&mut self, settings: &ProxySettings, response: &FetchResponse) {
        let now = Instant::now();
        let until = now + settings.authorization_ttl;
        for topic in &response.topics {
            let passed = |error_code| matches!(error_code, 0 | OFFSET_OUT_OF_RANGE);
            if !topic.partitions.iter().all(|data| passed(data.error_code)) {
                self.allowed_until.remove(&topic.topic);
                continue;
            }
            if self.allowed_until.len() >= TOPICS_LIMIT {
                self.allowed_until.retain(|_, until| now < *until);
            }
            if self.allowed_until.len() < TOPICS_LIMIT {
                let topic = match &topic.topic {
                    TopicRef::Name(name) => TopicRef::Name(name.detached()),
                    TopicRef::Id(id) => TopicRef::Id(*id),
                };
                self.allowed_until.insert(topic, until);
            }
        }
    }
}
