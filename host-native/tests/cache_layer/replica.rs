//! A leader that names a replica to whoever is in its rack, and the replica, which does as it is told.

use core::future::pending;
use core::time::Duration;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use kachet::core::wire::{FetchRequest, FetchResponse, PartitionData, RecordBytes};
use kachet::transport::{
    ApiVersions, BrokerAddress, Request, Response, TcpTransport, Transport, TransportError,
};
use kafka_protocol::messages::metadata_response::{MetadataResponse, MetadataResponseBroker};
use kafka_protocol::messages::{ApiKey, BrokerId};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

pub(crate) const RACK: &str = "here";
pub(crate) const REPLICA_ID: i32 = 2;

/// What the replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    Give,
    /// It has heard of nothing from this offset on.
    LagFrom(i64),
    Refuse(i16),
    Break,
    NeverAnswer,
}

/// What was asked of whom, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The rack, the wait, and the partitions.
    Leader(String, i32, Vec<i32>),
    Replica(Vec<i32>),
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) does: Does,
    pub(crate) is_leader_dead: bool,
    /// Partitions of which the leader names the replica.
    pub(crate) redirects: Vec<i32>,
    pub(crate) asked: Vec<Asked>,
}

/// A leader that names a replica to whoever is in its rack.
#[derive(Clone)]
pub(crate) struct Racks {
    pub(crate) below: TcpTransport,
    pub(crate) leader: BrokerAddress,
    pub(crate) state: Arc<Mutex<State>>,
}

pub(crate) fn replica() -> BrokerAddress {
    BrokerAddress {
        host: "replica.internal".to_owned(),
        port: 9092,
    }
}

impl Racks {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn does(&self, does: Does) {
        self.state().does = does;
    }

    pub(crate) fn take_asked(&self) -> Vec<Asked> {
        core::mem::take(&mut self.state().asked)
    }

    fn dead(broker: &BrokerAddress) -> TransportError {
        TransportError::Timeout {
            broker: broker.clone(),
            api: "Fetch",
            timeout: Duration::ZERO,
        }
    }

    async fn of_leader(&self, version: i16, request: FetchRequest) -> Result<Response, TransportError> {
        let rack = request.rack_id.as_str().to_owned();
        let redirects = {
            let mut state = self.state();
            let asked = Asked::Leader(rack.clone(), request.max_wait_ms, partitions(&request));
            state.asked.push(asked);
            if state.is_leader_dead {
                return Err(Self::dead(&self.leader));
            }
            if rack == RACK {
                state.redirects.clone()
            } else {
                Vec::new()
            }
        };
        // A redirect comes at once, whatever the request would wait for.
        let is_redirected = partitions(&request).iter().any(|index| redirects.contains(index));
        let max_wait_ms = if is_redirected { 0 } else { request.max_wait_ms };
        let request = FetchRequest {
            max_wait_ms,
            ..request
        };
        let mut response = self
            .below
            .round_trip(&self.leader, Request::Fetch { version, request })
            .await?;
        if let Response::Fetch(response) = &mut response {
            for data in partitions_mut(response).filter(|data| redirects.contains(&data.partition_index)) {
                data.records = Some(RecordBytes::empty());
                data.preferred_read_replica = REPLICA_ID;
            }
        }
        Ok(response)
    }

    async fn of_replica(&self, version: i16, request: FetchRequest) -> Result<Response, TransportError> {
        assert_eq!(request.rack_id.as_str(), RACK);
        let does = {
            let mut state = self.state();
            state.asked.push(Asked::Replica(partitions(&request)));
            state.does
        };
        match does {
            Does::Break => return Err(Self::dead(&replica())),
            Does::NeverAnswer => return pending().await,
            Does::Give | Does::LagFrom(_) | Does::Refuse(_) => {}
        }
        let from: Vec<i64> = request
            .partitions()
            .map(|(_, asked)| asked.fetch_offset)
            .collect();
        let mut response = self
            .below
            .round_trip(&self.leader, Request::Fetch { version, request })
            .await?;
        if let Response::Fetch(response) = &mut response {
            for (data, from) in partitions_mut(response).zip(from) {
                match does {
                    Does::LagFrom(offset) => {
                        (data.high_watermark, data.last_stable_offset) = (offset, offset);
                        if from >= offset {
                            data.records = Some(RecordBytes::empty());
                        }
                    }
                    Does::Refuse(error_code) => {
                        *data = PartitionData::error(data.partition_index, error_code);
                    }
                    _ => {}
                }
            }
        }
        Ok(response)
    }
}

impl Transport for Racks {
    async fn round_trip(&self, broker: &BrokerAddress, request: Request) -> Result<Response, TransportError> {
        let (api_key, version) = (request.api_key(), request.version());
        match request {
            Request::Fetch { version, request } if *broker == replica() => {
                self.of_replica(version, request).await
            }
            Request::Fetch { version, request } => self.of_leader(version, request).await,
            other @ Request::Other { .. } => {
                let response = self.below.round_trip(&self.leader, other).await?;
                Ok(match response {
                    Response::Other(body) if api_key == ApiKey::Metadata as i16 => {
                        let mut told = MetadataResponse::decode(&mut body.clone(), version).unwrap();
                        told.brokers.push(
                            MetadataResponseBroker::default()
                                .with_node_id(BrokerId(REPLICA_ID))
                                .with_host(StrBytes::from(replica().host))
                                .with_port(i32::from(replica().port)),
                        );
                        let mut body = BytesMut::new();
                        told.encode(&mut body, version).unwrap();
                        Response::Other(body.freeze())
                    }
                    other => other,
                })
            }
        }
    }

    async fn api_versions(&self, _: &BrokerAddress) -> Result<Arc<ApiVersions>, TransportError> {
        self.below.api_versions(&self.leader).await
    }
}

fn partitions(request: &FetchRequest) -> Vec<i32> {
    request.partitions().map(|(_, asked)| asked.partition).collect()
}

fn partitions_mut(response: &mut FetchResponse) -> impl Iterator<Item = &mut PartitionData> {
    response.topics.iter_mut().flat_map(|topic| &mut topic.partitions)
}
