//! Sets a client up.

use kachet_core::time::MaxStaleness;

use super::routing::Routing;
use super::{Client, ClientError, ClientSettings};
use crate::cache::Cache;
use crate::transport::{BrokerAddress, Security, TcpSettings, TcpTransport, Transport};

/// Sets up a client that reads over TCP through a cache in memory.
#[derive(Clone, Debug, Default)]
pub struct ClientBuilder {
    bootstrap: Vec<String>,
    size_limit_bytes: u64,
    max_staleness: MaxStaleness,
    compacted_max_staleness: Option<MaxStaleness>,
    settings: ClientSettings,
    tcp: TcpSettings,
    /// Wins over the one in `tcp`, whichever was given first.
    security: Option<Security>,
}

impl ClientBuilder {
    /// Adds brokers to begin with: `HOST:PORT`, or several with commas between them.
    #[must_use]
    pub fn bootstrap(mut self, brokers: &str) -> Self {
        self.bootstrap
            .extend(brokers.split(',').map(|broker| broker.trim().to_owned()));
        self
    }

    /// The most memory that the cache may take, in bytes; 0, which is the default, caches nothing.
    #[must_use]
    pub fn size_limit_bytes(mut self, size_limit_bytes: u64) -> Self {
        self.size_limit_bytes = size_limit_bytes;
        self
    }

    /// How old what is known of a partition may be when it is read from the cache; one second by default.
    #[must_use]
    pub fn max_staleness(mut self, max_staleness: MaxStaleness) -> Self {
        self.max_staleness = max_staleness;
        self
    }

    /// How long ago a batch of a compacted topic may have been fetched; one minute by default, see
    /// [`CacheBuilder::compacted_max_staleness`](crate::cache::CacheBuilder::compacted_max_staleness).
    #[must_use]
    pub fn compacted_max_staleness(mut self, max_staleness: MaxStaleness) -> Self {
        self.compacted_max_staleness = Some(max_staleness);
        self
    }

    /// How the client reads.
    #[must_use]
    pub fn settings(mut self, settings: ClientSettings) -> Self {
        self.settings = settings;
        self
    }

    /// How it connects.
    #[must_use]
    pub fn tcp(mut self, tcp: TcpSettings) -> Self {
        self.tcp = tcp;
        self
    }

    /// Whether its connections are encrypted, and who logs in on them; in place of
    /// [`TcpSettings::security`], in whichever order the two are given.
    #[must_use]
    pub fn security(mut self, security: Security) -> Self {
        self.security = Some(security);
        self
    }

    /// The client. Connects to nothing yet.
    pub fn build(mut self) -> Result<Client<Cache<TcpTransport>>, ClientError> {
        if let Some(security) = self.security {
            self.tcp.security = security;
        }
        let cache = Cache::builder(TcpTransport::new(self.tcp))
            .size_limit_bytes(self.size_limit_bytes)
            .max_staleness(self.max_staleness);
        let cache = match self.compacted_max_staleness {
            Some(max_staleness) => cache.compacted_max_staleness(max_staleness),
            None => cache,
        };
        let cache = cache.build();
        let bootstrap: Result<Vec<BrokerAddress>, _> =
            self.bootstrap.iter().map(|broker| broker.parse()).collect();
        Client::new(cache, bootstrap?, self.settings)
    }
}

impl<T: Transport> Client<T> {
    /// A client over a transport of one's own.
    pub fn new(
        transport: T,
        bootstrap: Vec<BrokerAddress>,
        settings: ClientSettings,
    ) -> Result<Self, ClientError> {
        if bootstrap.is_empty() {
            return Err(ClientError::NoBootstrap);
        }
        Ok(Self {
            transport,
            routing: Routing::new(bootstrap),
            settings,
        })
    }
}
