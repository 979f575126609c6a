//! A Fetch whose turn has come.

use bytes::{BufMut, Bytes, BytesMut};
use kachet_core::wire::{Chunks, DecodeError, FetchRequest, FetchResponse, WireStr};
use tokio::sync::OwnedSemaphorePermit;

use super::apis::{self, key};
use super::conversation::Conversation;
use super::fetch_session::Answering;
use super::limits::End;
use super::lock;
use super::request::Head;
use super::splice::{Advertise, RewriteError};
use crate::transport::{Request, Response, Transport};

/// Who answers a Fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The cache, or whom it asks.
    Cache,
    /// The broker on the client's own connection, which shows whether the client may read (H19).
    Upstream,
}

/// A Fetch that stands for itself, and how it is answered.
pub(super) struct FetchTurn {
    pub(super) head: Head,
    pub(super) request: FetchRequest,
    pub(super) answering: Answering,
    pub(super) way: Way,
    /// The room that the request takes.
    #[allow(dead_code, reason = "held until the request is answered")]
    pub(super) memory: Option<OwnedSemaphorePermit>,
}

impl FetchTurn {
    pub(super) fn is_upstream(&self) -> bool {
        self.way == Way::Upstream
    }

    /// Asks the cache.
    pub(super) async fn ask<T: Transport>(
        &self,
        conversation: &Conversation<'_, T>,
    ) -> Result<FetchResponse, End> {
        if self.request.topics.is_empty() {
            // The end of a session for instance. A broker does not wait for nothing either.
            return Ok(FetchResponse::default());
        }
        let broker = conversation.fetches_from().ok_or(End::NoBroker)?;
        let request = Request::Fetch {
            version: self.head.version,
            request: self.request.clone(),
        };
        match conversation.shared.cache.round_trip(&broker, request).await {
            Ok(Response::Fetch(response)) => Ok(response),
            Ok(Response::Other(_)) => Err(End::Disorder),
            Err(error) => Err(End::Fetch(error)),
        }
    }

    /// Reads the broker's own answer, and learns from it what the client may read.
    pub(super) fn read<T: Transport>(
        &self,
        conversation: &Conversation<'_, T>,
        frame: &Bytes,
    ) -> Result<FetchResponse, End> {
        let flexible = apis::is_flexible(key::FETCH, self.head.version);
        // The correlation id, and no tagged fields, which is all that brokers send.
        let header_bytes = if flexible { 5 } else { 4 };
        if frame.len() < header_bytes || (flexible && frame.get(4) != Some(&0)) {
            return Err(End::Disorder);
        }
        let response = FetchResponse::decode(frame.slice(header_bytes..), self.head.version)
            .map_err(End::FetchResponse)?;
        lock(&conversation.trust).learn(&conversation.shared.settings, &response);
        Ok(response)
    }

    /// The answer with its header, as the session and the addresses here want it.
    pub(super) fn finish<T: Transport>(
        &self,
        conversation: &Conversation<'_, T>,
        mut response: FetchResponse,
    ) -> Result<Vec<Bytes>, End> {
        lock(&conversation.sessions).settle(self.answering, &mut response);
        let to_client = conversation.to_client();
        for node in &mut response.node_endpoints {
            if node.node_id < 0 || node.host.as_str().is_empty() {
                continue;
            }
            let told = to_client.advertise(node.node_id, node.host.as_str(), node.port)?;
            node.host = WireStr::copy_from(&told.host).ok_or(RewriteError::Malformed)?;
            node.port = told.port.into();
        }
        encoded(self.head, &response)
    }
}

/// A response with its header, as slices.
pub(crate) fn encoded(head: Head, response: &FetchResponse) -> Result<Vec<Bytes>, End> {
    let mut body = Chunks::new();
    let encode = |body: &mut Chunks| -> Result<(), DecodeError> { response.encode(head.version, body) };
    encode(&mut body).map_err(End::FetchResponse)?;
    let mut header = BytesMut::with_capacity(5);
    header.put_i32(head.correlation_id);
    if apis::is_flexible(key::FETCH, head.version) {
        header.put_u8(0);
    }
    let mut slices = vec![header.freeze()];
    slices.extend(body.into_slices());
    Ok(slices)
}
