//! A transport that counts what each broker gives.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kachet::transport::{
    ApiVersions, BrokerAddress, Request, Response, TcpSettings, TcpTransport, Transport, TransportError,
};

/// Counts fetches, and bytes of records.
#[derive(Clone)]
pub(crate) struct Counting {
    tcp: TcpTransport,
    given: Arc<Mutex<BTreeMap<u16, Given>>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) fetches: usize,
    pub(crate) records_bytes: usize,
}

impl Counting {
    pub(crate) fn new() -> Self {
        let settings = TcpSettings {
            request_timeout: Duration::from_secs(5),
            ..TcpSettings::default()
        };
        Self {
            tcp: TcpTransport::new(settings),
            given: Arc::default(),
        }
    }

    /// By the broker's port.
    pub(crate) fn by(&self, port: u16) -> Given {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.get(&port).copied().unwrap_or_default()
    }
}

impl Transport for Counting {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        let response = self.tcp.round_trip(broker, request).await?;
        if let Response::Fetch(response) = &response {
            let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
            let given = given.entry(broker.port).or_default();
            given.fetches += 1;
            given.records_bytes += response
                .partitions()
                .map(|(_, data)| data.records_size_bytes())
                .sum::<usize>();
        }
        Ok(response)
    }

    async fn api_versions(&self, broker: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        self.tcp.api_versions(broker).await
    }
}
