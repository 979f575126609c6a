//! One answer out of what several flights have brought.

use std::sync::Arc;

use futures_util::future::try_join_all;
use kachet_core::cache::ResponseRoom;
use kachet_core::wire::{
    FetchPartition, FetchResponse, FetchableTopic, PartitionData, TaggedFields, TopicRef,
};
use tokio::time::Instant as Deadline;

use super::{Again, Outcome};
use crate::cache::single_flight::{Flight, Landed};
use crate::transport::TransportError;

/// A partition, and the flight that brings it.
pub(super) struct Awaited {
    pub(super) topic: TopicRef,
    pub(super) asked: FetchPartition,
    pub(super) flight: Flight<Outcome>,
    pub(super) is_own: bool,
}

/// How the wait of one round ended.
pub(super) enum Arrival {
    /// The whole answer, or the failure of a flight that it depends on.
    Answer(Result<FetchResponse, TransportError>),
    Again(Again),
    TooLate,
}

/// The answer as it grows.
struct Answer {
    response: FetchResponse,
    room: ResponseRoom,
}

/// What the answer is made for.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// There is one flight, for exactly this request, so that its response is the answer as it is.
    pub(super) alone: bool,
    pub(super) committed: bool,
    pub(super) max_bytes: i32,
}

/// Waits for every flight and puts the answer together. The first that fails, is lost, or leaves out what it should bring
/// ends the wait.
pub(super) async fn land(awaited: Vec<Awaited>, give_up_at: Deadline, asked: Asked) -> Arrival {
    let flights = if asked.alone { 1 } else { awaited.len() };
    let landings = awaited
        .iter()
        .take(flights)
        .map(|each| each.response(give_up_at, asked));
    let responses = match try_join_all(landings).await {
        Ok(responses) => responses,
        Err(arrival) => return arrival,
    };
    let mut answer = Answer {
        response: FetchResponse::default(),
        room: ResponseRoom::new(usize::try_from(asked.max_bytes).unwrap_or(0)),
    };
    for (each, response) in awaited.into_iter().zip(responses) {
        if asked.alone || response.error_code != 0 {
            return Arrival::Answer(Ok(Arc::unwrap_or_clone(response)));
        }
        answer.take(each, &response);
    }
    Arrival::Answer(Ok(answer.response))
}

impl Awaited {
    async fn response(&self, give_up_at: Deadline, asked: Asked) -> Result<Arc<FetchResponse>, Arrival> {
        match self.flight.landed(give_up_at).await {
            Landed::Outcome(Ok(response)) if !asked.alone && self.is_lacking(&response, asked.committed) => {
                let (topic, partition) = (self.topic.clone(), self.asked.partition);
                Err(Arrival::Again(Again::LeftOut(topic, partition)))
            }
            Landed::Outcome(outcome) => outcome.map_err(|error| Arrival::Answer(Err(error))),
            Landed::Lost => Err(Arrival::Again(Again::Lost)),
            Landed::TooLate => Err(Arrival::TooLate),
        }
    }

    /// Whether a fetch of others has left the partition out: there is something to bring, and to ask again would bring it.
    /// What the own fetch leaves out has no room in the whole answer either.
    fn is_lacking(&self, response: &FetchResponse, committed: bool) -> bool {
        let found = find(response, &self.topic, self.asked.partition);
        let is_there = found.is_some_and(|data| !left_out(data, &self.asked, committed));
        response.error_code == 0 && !is_there && !self.is_own
    }
}

impl Answer {
    /// Takes a partition out of the response that brings it.
    fn take(&mut self, awaited: Awaited, response: &FetchResponse) {
        let Awaited {
            topic, asked, is_own, ..
        } = awaited;
        let found = find(response, &topic, asked.partition);
        if is_own {
            // A quota that held somebody else back is not this client's (H20).
            self.response.throttle_time_ms = response.throttle_time_ms;
        }
        for node in &response.node_endpoints {
            if !self.response.node_endpoints.contains(node) {
                self.response.node_endpoints.push(node.clone());
            }
        }
        if let Some(data) = found {
            self.add(topic, data.clone(), asked.partition_max_bytes);
        }
    }

    /// In its own flight each partition may have been the first, and kept a batch that does not fit here (H12).
    fn add(&mut self, topic: TopicRef, mut data: PartitionData, partition_max_bytes: i32) {
        let limit_bytes = usize::try_from(partition_max_bytes).unwrap_or(0);
        self.room.cut_to_fit(&mut data, limit_bytes);
        match self.response.topics.last_mut() {
            Some(last) if last.topic == topic => last.partitions.push(data),
            _ => self.response.topics.push(FetchableTopic {
                topic,
                partitions: vec![data],
                unknown_tags: TaggedFields::default(),
            }),
        }
    }
}

fn find<'r>(response: &'r FetchResponse, topic: &TopicRef, partition: i32) -> Option<&'r PartitionData> {
    let mut partitions = response.partitions();
    let found = partitions.find(|(of, data)| *of == topic && data.partition_index == partition);
    found.map(|(_, data)| data)
}

/// Whether a partition came back empty although there is data: in the request that brought it others stood before
/// it and took up the limit, or a quota held it back.
fn left_out(data: &PartitionData, asked: &FetchPartition, committed: bool) -> bool {
    let readable_end = if committed {
        data.last_stable_offset
    } else {
        data.high_watermark
    };
    data.error_code == 0
        && data.diverging_epoch.is_none()
        && data.preferred_read_replica < 0
        && data.records_size_bytes() == 0
        && asked.fetch_offset < readable_end
}
