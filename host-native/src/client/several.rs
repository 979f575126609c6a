//! Fetches of several partitions in one request to each leader.

use futures_util::future::join_all;
use kachet_core::wire::{FetchPartition, FetchRequest, FetchTopic, PartitionData, TaggedFields, TopicRef};
use tracing::debug;

use super::routing::Route;
use super::{Client, ClientError, Fetched, Read};
use crate::transport::{BrokerAddress, Transport, TransportError, fetch};

/// What each partition may bring at most where its batches are not known, in bytes: a few of the size that producers
/// make by default. A batch that is larger is fetched by itself.
const SHARE_MAX_BYTES: usize = 64 << 10;

/// A partition of a request, and where it is found in the answer (H22).
struct Asked<'t> {
    read: Read<'t>,
    route: Route,
}

impl Asked<'_> {
    fn topic(&self, by_id: bool) -> TopicRef {
        if by_id {
            TopicRef::Id(self.route.topic_id)
        } else {
            TopicRef::Name(self.route.topic_name.clone())
        }
    }
}

impl<T: Transport> Client<T> {
    /// Reads different partitions where the log holds something: those of a leader in one request, and by itself what
    /// that did not bring, be it because leaders have moved or because a batch did not fit.
    pub(super) async fn read_several<'t>(
        &self,
        reads: Vec<Read<'t>>,
    ) -> Vec<(Read<'t>, Result<Fetched, ClientError>)> {
        let mut leaders: Vec<(BrokerAddress, Vec<Asked<'t>>)> = Vec::new();
        let mut alone = Vec::new();
        for read in reads {
            let Ok(Some(route)) = self.route(read.topic, read.partition, false).await else {
                alone.push(read);
                continue;
            };
            let leader = route.leader.clone();
            let asked = Asked { read, route };
            match leaders.iter_mut().find(|(each, _)| *each == leader) {
                Some((_, of_leader)) => of_leader.push(asked),
                None => leaders.push((leader, vec![asked])),
            }
        }
        let requests = leaders
            .iter()
            .map(|(leader, asked)| self.read_of_leader(leader, asked));
        let mut answers = Vec::new();
        for ((leader, asked), outcome) in leaders.iter().zip(join_all(requests).await) {
            let mut found = outcome.unwrap_or_else(|error| {
                debug!(%leader, %error, "each partition is asked for by itself");
                Vec::new()
            });
            for Asked { read, route } in asked {
                let at = found
                    .iter()
                    .position(|(of, _)| (of.topic, of.partition) == (read.topic, read.partition));
                match at.map(|at| found.swap_remove(at)) {
                    Some((_, data)) => {
                        let fetched =
                            Fetched::new(read.topic, route.topic_id, read.offset, data, &self.settings);
                        answers.push((*read, Ok(fetched)));
                    }
                    None => alone.push(*read),
                }
            }
        }
        let alone = alone
            .into_iter()
            .map(async |read| (read, self.read_present(read).await));
        answers.extend(join_all(alone).await);
        answers
    }

    /// What one request brings of each partition; without those that it brings nothing of.
    async fn read_of_leader<'t>(
        &self,
        leader: &BrokerAddress,
        asked: &[Asked<'t>],
    ) -> Result<Vec<(Read<'t>, PartitionData)>, TransportError> {
        if asked.len() < 2 {
            return Ok(Vec::new());
        }
        let have_ids = asked.iter().all(|each| !each.route.topic_id.is_zero());
        let version = self.fetch_version(leader, have_ids).await?;
        let by_id = version >= kachet_core::wire::FETCH_VERSION_TOPIC_IDS;
        let request = self.request_of_several(asked, by_id);
        let response = fetch(&self.transport, leader, version, request).await?;
        let mut found = Vec::new();
        for topic in response.topics {
            for data in topic.partitions {
                let is_it = |each: &&Asked<'_>| {
                    each.topic(by_id) == topic.topic && each.read.partition == data.partition_index
                };
                let is_answer = response.error_code == 0 && data.error_code == 0;
                if let Some(each) = asked.iter().find(is_it).filter(|_| is_answer) {
                    found.push((each.read, data));
                }
            }
        }
        found.retain(|(_, data)| data.records_size_bytes() > 0);
        Ok(found)
    }

    fn request_of_several(&self, asked: &[Asked<'_>], by_id: bool) -> FetchRequest {
        let limit = self.settings.fetch_max_bytes;
        let share = (limit / asked.len().max(1)).clamp(1, SHARE_MAX_BYTES);
        let mut topics: Vec<FetchTopic> = Vec::new();
        let mut sum: usize = 0;
        for each in asked {
            let bytes = each.read.max_bytes.max(share);
            sum = sum.saturating_add(bytes);
            let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
            let partition = FetchPartition::new(each.read.partition, each.read.offset, bytes);
            let topic = each.topic(by_id);
            match topics.iter_mut().find(|known| known.topic == topic) {
                Some(known) => known.partitions.push(partition),
                None => topics.push(FetchTopic {
                    topic,
                    partitions: vec![partition],
                    unknown_tags: TaggedFields::default(),
                }),
            }
        }
        FetchRequest {
            max_wait_ms: 0,
            min_bytes: 1,
            max_bytes: i32::try_from(sum.min(limit)).unwrap_or(i32::MAX),
            isolation_level: self.settings.isolation.level(),
            topics,
            ..FetchRequest::default()
        }
    }
}
