//! A layer above the cache that can be made to break a rule, to see that the checker finds it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use kachet::cache::Cache;
use kachet::core::statistics::Statistics;
use kachet::core::storage::Storage;
use kachet::core::wire::{BatchEntry, Batches, FetchRequest, FetchResponse, RecordBytes};
use kachet::transport::{ApiVersions, BrokerAddress, Request, Response, Transport, TransportError};

use crate::network::SimulatedNetwork;

/// Which rule is broken, now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A bit of a batch is flipped.
    FlipBit,
    /// An answer is served again for ever.
    ServeForEver,
    /// Readers of committed data are told of no aborted transaction.
    DropAborted,
    /// A batch in the middle is left out.
    SkipBatch,
    /// The client's limits are not passed on.
    IgnoreLimits,
    /// The cache takes more memory than it may.
    Swell,
    /// A request is never answered.
    Hang,
    /// A request fails that no broker failed.
    Fail,
    /// An error is told that no broker told.
    InventError,
    /// The high watermark is moved.
    InventWatermark,
    /// A partition is left out.
    LeaveOut,
    /// Every request goes upstream by itself.
    AskAlone,
    /// A task goes on for ever.
    LeakTask,
    /// A panic in a task of the cache.
    Panic,
}

/// What clients talk to: the cache, and whoever meddles with it.
pub(crate) struct Saboteur<S: Storage> {
    /// Another one after a crash.
    below: Mutex<Cache<SimulatedNetwork, S>>,
    sabotage: Option<Sabotage>,
    /// Counts the requests, so that only some of them are meddled with.
    requests: Mutex<u64>,
    served: Mutex<BTreeMap<String, FetchResponse>>,
}

impl<S: Storage> Saboteur<S> {
    pub(crate) fn new(below: Cache<SimulatedNetwork, S>, sabotage: Option<Sabotage>) -> Self {
        Self {
            below: Mutex::new(below),
            sabotage,
            requests: Mutex::new(0),
            served: Mutex::default(),
        }
    }

    pub(crate) fn below(&self) -> Cache<SimulatedNetwork, S> {
        self.below.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another cache in the place of the one that there was.
    pub(crate) fn replace(&self, below: Cache<SimulatedNetwork, S>) {
        *self.below.lock().unwrap_or_else(PoisonError::into_inner) = below;
    }

    /// Whether it is this request's turn.
    fn strikes(&self) -> bool {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests += 1;
        requests.is_multiple_of(7)
    }
}

impl<S: Storage + 'static> Saboteur<S> {
    pub(crate) fn statistics(&self) -> Statistics {
        let mut statistics = self.below().statistics();
        if self.sabotage == Some(Sabotage::Swell) {
            statistics.size_bytes *= 2;
        }
        statistics
    }

    async fn sabotaged(
        &self,
        sabotage: Sabotage,
        broker: &BrokerAddress,
        version: i16,
        mut request: FetchRequest,
    ) -> Result<FetchResponse, TransportError> {
        let key = format!("{broker} {version} {request:?}");
        let strikes = self.strikes();
        match sabotage {
            Sabotage::IgnoreLimits => {
                request.max_bytes = i32::MAX;
                for topic in &mut request.topics {
                    topic
                        .partitions
                        .iter_mut()
                        .for_each(|each| each.partition_max_bytes = i32::MAX);
                }
            }
            Sabotage::Hang if strikes => core::future::pending().await,
            Sabotage::Fail if strikes => {
                return Err(TransportError::Closed {
                    broker: broker.clone(),
                });
            }
            Sabotage::AskAlone => {
                let sent = Request::Fetch { version, request };
                return fetched(self.below().transport().round_trip(broker, sent).await?, broker);
            }
            Sabotage::LeakTask if strikes => drop(tokio::spawn(core::future::pending::<()>())),
            Sabotage::Panic if strikes => {
                drop(tokio::spawn(async { panic!("sabotage") }));
            }
            Sabotage::ServeForEver => {
                let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(response) = served.get(&key) {
                    return Ok(response.clone());
                }
            }
            _ => {}
        }
        let mut response = fetched(
            self.below()
                .round_trip(broker, Request::Fetch { version, request })
                .await?,
            broker,
        )?;
        if sabotage == Sabotage::ServeForEver
            && response
                .partitions()
                .all(|(_, data)| data.records_size_bytes() > 0)
        {
            let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
            served.insert(key, response.clone());
        } else if strikes || sabotage == Sabotage::DropAborted {
            spoil(sabotage, &mut response);
        }
        Ok(response)
    }
}

fn fetched(response: Response, broker: &BrokerAddress) -> Result<FetchResponse, TransportError> {
    match response {
        Response::Fetch(response) => Ok(response),
        Response::Other(_) => Err(TransportError::Closed {
            broker: broker.clone(),
        }),
    }
}

fn spoil(sabotage: Sabotage, response: &mut FetchResponse) {
    if sabotage == Sabotage::LeaveOut {
        response.topics.pop();
        return;
    }
    let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    for data in partitions.filter(|data| data.error_code == 0) {
        let records = data
            .records
            .as_ref()
            .map(RecordBytes::to_bytes)
            .unwrap_or_default();
        match sabotage {
            Sabotage::FlipBit if !records.is_empty() => {
                let mut flipped = BytesMut::from(&records[..]);
                let last = flipped.len() / 2;
                flipped[last] ^= 1;
                data.records = Some(RecordBytes::from(flipped.freeze()));
            }
            Sabotage::SkipBatch => {
                let mut walk = Batches::new(&records);
                let mut ends = vec![0];
                while let Some(Ok(BatchEntry::Batch(_))) = walk.next() {
                    ends.push(walk.at_byte());
                }
                if let [_, first, second, ..] = ends[..] {
                    let mut rest = RecordBytes::from(records.slice(..first));
                    rest.push(records.slice(second..));
                    data.records = Some(rest);
                }
            }
            Sabotage::DropAborted => {
                data.aborted_transactions = data.aborted_transactions.as_ref().map(|_| Vec::new());
            }
            Sabotage::InventWatermark => data.high_watermark += 1000,
            Sabotage::InventError => {
                data.error_code = 42;
                data.records = None;
            }
            _ => {}
        }
    }
}

impl<S: Storage + 'static> Transport for Saboteur<S> {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        match (self.sabotage, request) {
            (Some(sabotage), Request::Fetch { version, request }) => self
                .sabotaged(sabotage, broker, version, request)
                .await
                .map(Response::Fetch),
            (_, request) => self.below().round_trip(broker, request).await,
        }
    }

    async fn api_versions(&self, broker: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        self.below().api_versions(broker).await
    }
}
